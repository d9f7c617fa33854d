"""Files from the web, into a cache folder: whole, verified, and locked by their hash."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from morebench.data.archives import check_space
from morebench.data.lock import Entry, write_lock
from morebench.data.part import discard, part_of, size_of
from morebench.data.progress import bar
from morebench.data.remote import Remote
from morebench.data.transfer import OtherFile, fetch
from morebench.data.verify import Known, Mismatch, known_of, verify
from morebench.data.web import Patience, Refused, Session
from morebench.errors import DataError, listed

LOG = logging.getLogger(__name__)


def cache_folder(configured: str | None = None) -> Path:
    """Return the cache folder: the configured one, MOREBENCH_CACHE, or the user's cache."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = configured or os.environ.get("MOREBENCH_CACHE") or f"{user}/morebench"
    return Path(folder).expanduser()


def _from(
    session: Session,
    url: str,
    part: Path,
    known: Known,
    patience: Patience,
    progress: bool,
    *,
    again: bool = True,
) -> Entry:
    """Fetch from one URL and verify; what was pieced together wrongly is fetched once more."""
    with bar(known.wanted.name, progress) as report:
        pieced = fetch(session, url, part, known.wanted, patience, report)
    try:
        return verify(part, url, known)
    except DataError as error:
        discard(part)
        if pieced and again:
            LOG.warning("%s; again from its beginning", error)
            return _from(session, url, part, known, patience, progress, again=False)
        if isinstance(error, Mismatch):
            raise
        raise Refused(str(error)) from error


def _fetch(session: Session, remote: Remote, target: Path, lock: Path, patience: Patience,
           progress: bool) -> None:  # fmt: skip
    """Fetch from the first URL that gives the file; lock it; then give it its name."""
    known, part = known_of(remote.name, remote.size, remote.sha256, lock), part_of(target)
    reasons: list[str] = []
    mismatch = False
    for url in remote.urls:
        LOG.info("%s: from %s", remote.name, url)
        try:
            entry = _from(session, url, part, known, patience, progress)
        except (Refused, Mismatch) as error:
            mismatch = mismatch or isinstance(error, Mismatch | OtherFile)
            reasons.append(f"{url}: {error}")
            LOG.warning("%s", reasons[-1])
            continue
        write_lock(lock, {remote.name: entry})
        os.chmod(part, 0o644)
        os.replace(part, target)
        discard(part)
        LOG.info("%s: %s bytes, sha256 %s", remote.name, f"{entry.size:,}", entry.sha256)
        return
    remedy = f"; if the source changed it on purpose, {known.remedy}" if mismatch else ""
    raise DataError(f"{remote.name} could not be downloaded to {target}: "
                    f"{'; '.join(reasons)}{remedy}")  # fmt: skip


def _check_cached(remote: Remote, target: Path, lock: Path) -> None:
    known = known_of(remote.name, remote.size, remote.sha256, lock)
    try:
        entry = verify(target, remote.urls[0], known)
    except DataError as error:
        remedy = f", or, if it is right, {known.remedy}" if isinstance(error, Mismatch) else ""
        raise DataError(f"{error}; delete {target} to have it downloaded again{remedy}") from error
    write_lock(lock, {remote.name: entry})


def _obtain(session: Session, remote: Remote, folder: Path, lock: Path, patience: Patience,
            progress: bool) -> Path:  # fmt: skip
    target = folder / remote.name
    if not target.exists():
        guards = folder / ".guards"
        try:
            guards.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: the cache folder cannot be written ({error.strerror}); name another"
            ) from error
        guard = FileLock(guards / remote.name.replace("/", "__"))
        try:
            guard.acquire(timeout=1)
        except Timeout:
            LOG.info("%s: another process is fetching it; waiting", remote.name)
            guard.acquire()
        try:
            if not target.exists():
                _fetch(session, remote, target, lock, patience, progress)
                return target
        finally:
            guard.release()
    _check_cached(remote, target, lock)
    return target


def _check_names(remotes: Sequence[Remote]) -> None:
    by_name: dict[str, Remote] = {}
    for remote in remotes:
        other = by_name.setdefault(remote.name, remote)
        if other != remote:
            raise DataError(f"{remote.name}: names {listed(other.urls)} and {listed(remote.urls)}")


def check_offline(remotes: Sequence[Remote], folder: Path) -> None:
    """Raise DataError unless every file is in the cache folder, with what to do by hand."""
    wanted = [
        f"{folder / r.name} from {r.urls[0]}" for r in remotes if not (folder / r.name).exists()
    ]
    if wanted:
        raise DataError(
            f"offline, and {len(wanted)} of {len(remotes)} files are not there; get them by "
            f"hand: {listed(wanted, len(wanted))}"
        )


def download(
    remotes: Sequence[Remote],
    folder: Path,
    lock: Path,
    *,
    offline: bool = False,
    progress: bool = True,
    retries: int = 5,
    timeout: float = 60.0,
    backoff: float = 1.0,
) -> list[Path]:
    """Return the path of every file, fetched where the cache does not have it.

    A file that is there is verified again, by its size and hash. What was never seen before
    gets an entry in the lock; what has one must equal it. A transfer that broke off leaves
    ``NAME.part``, from which the next call goes on; ``NAME`` is there whole or not at all.

    Parameters
    ----------
    remotes
        The files.
    folder
        The cache folder; made if need be.
    lock
        ``config/data.lock`` (``lock.read_lock``).
    offline
        Use no network: files that are not there are an error.
    progress
        Show a bar, where standard error is a terminal.
    retries
        Attempts in a row at one URL, after the first, that brought less than 1 MiB.
    timeout
        Seconds without an answer or a byte.
    backoff
        Seconds before the first retry; doubled each time.

    Returns
    -------
    list of Path
        One for each remote, in their order.

    Raises
    ------
    DataError
        If a file is not what it should be, no URL gives it, the disk has no room, or it is
        not there in offline mode.
    """
    folder, lock = Path(folder), Path(lock)
    _check_names(remotes)
    absent = [r for r in remotes if not (folder / r.name).exists()]
    if offline:
        check_offline(remotes, folder)
    sizes = {r.name: known_of(r.name, r.size, r.sha256, lock).wanted.size or 0 for r in absent}
    there = sum(size_of(part_of(folder / name)) for name, size in sizes.items() if size)
    check_space(folder, sum(sizes.values()) - there, f"the download of {len(absent)} files")
    patience = Patience(retries, timeout, backoff)
    with Session() as session:
        return [_obtain(session, r, folder, lock, patience, progress) for r in remotes]
