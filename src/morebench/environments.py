"""The interpreters of the environment groups: the main one, or a virtual environment.

A group whose pins conflict with the main environment gets a virtual environment of its
own under ``.venvs/``, made by pip on first use from the group's environment file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import yaml
from filelock import FileLock, Timeout

from morebench.endings import bound
from morebench.errors import ConfigError, MorebenchError, listed
from morebench.registry import ENVIRONMENTS, EnvironmentSpec

FOLDER = ".venvs"
HASHED = "hashed"  # folder beside an environment file that holds its pins with hashes
READY = "ready.json"
NOT_INSTALLED = "not installed"
_LOG_LINES = 25
_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


class EnvironmentBuildError(MorebenchError):
    """A virtual environment could not be made."""


def interpreter(
    name: str,
    *,
    root: Path,
    files: Path | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Path:
    """Return the Python interpreter of an environment group; make it if need be.

    Processes that ask for the same environment at the same time wait for the first one.
    An environment counts as made once its ``ready.json`` is there, which is written last;
    what an interrupted process left is removed and made again.

    Parameters
    ----------
    name
        Environment group of the registry.
    root
        Folder that holds ``.venvs/``.
    files
        Folder that the groups' environment files are relative to; ``root`` by default.
    on_progress
        Called with a line where a user has to wait.

    Returns
    -------
    Path
        The interpreter: the running one for a group that is not isolated.

    Raises
    ------
    ConfigError
        The group is not registered, or its environment file has no valid pins.
    EnvironmentBuildError
        venv or pip failed; the message holds the end of the log, and nothing is left but it.
    """
    if name not in ENVIRONMENTS:
        raise ConfigError(f"environment: found {name!r}; valid is {listed(ENVIRONMENTS)}")
    spec = ENVIRONMENTS[name]
    if not spec.isolated:
        return Path(sys.executable)
    file = (files or root) / spec.file
    wanted = pins(file)
    home = root.resolve() / FOLDER / f"{name}-{_key(wanted)}"
    if _is_ready(home):
        return _python(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    say = on_progress or (lambda line: None)
    with _locked(home, say):
        if not _is_ready(home):
            say(f"making environment {name} in {home} ({len(wanted)} packages, once)")
            _build(spec, wanted, home, file.parent / HASHED / f"{file.stem}.txt")
            say(f"environment {name} is ready")
    return _python(home)


def pins(file: Path) -> tuple[str, ...]:
    """Return the ``name==version`` lines of an environment file's ``pip:`` section, sorted.

    Parameters
    ----------
    file
        A conda environment file.

    Raises
    ------
    ConfigError
        The file is missing, has no ``pip:`` section, or a line is not ``name==version``.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such environment file")
    content = yaml.safe_load(file.read_text())
    dependencies = content.get("dependencies") if isinstance(content, dict) else None
    sections = [d["pip"] for d in dependencies or [] if isinstance(d, dict) and "pip" in d]
    if len(sections) != 1 or not sections[0]:
        raise ConfigError(f"{file}: dependencies: needs exactly one pip: list that is not empty")
    lines = [str(line) for line in sections[0]]
    wrong = [line for line in lines if len(line.split("==")) != 2 or not all(line.split("=="))]
    if wrong:
        raise ConfigError(f"{file}: pip: found {listed(wrong)}; valid is name==version")
    return tuple(sorted(lines, key=str.lower))


def versions(python: Path, packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages as an interpreter sees them.

    Parameters
    ----------
    python
        An interpreter.
    packages
        Names of distributions.

    Returns
    -------
    dict
        Name -> version, ``NOT_INSTALLED`` where there is none.

    Raises
    ------
    MorebenchError
        The interpreter does not run.
    """
    return _versions(python, list(packages), dict(os.environ))


def _versions(python: Path, names: list[str], env: dict[str, str]) -> dict[str, str]:
    # -P: a folder in the working directory must not pass for an installed package
    command = [str(python), "-P", "-c", _VERSIONS, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise MorebenchError(f"{python}: does not run: {detail.strip()}") from error
    found = json.loads(done.stdout)
    return {name: found[name] or NOT_INSTALLED for name in names}


def _key(wanted: tuple[str, ...]) -> str:
    parts = (*wanted, platform.python_version(), sysconfig.get_platform())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _python(home: Path) -> Path:
    if os.name == "nt":
        return home / "Scripts" / "python.exe"
    return home / "bin" / "python"


def _is_ready(home: Path) -> bool:
    # the interpreter is a link, which dangles once the Python it was made with is gone
    return (home / READY).is_file() and _python(home).exists()


class _locked:
    """Hold the lock of an environment; say so where another process has it."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self._lock = FileLock(home.with_name(home.name + ".lock"))
        self._home, self._say = home, say

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._say(f"waiting for another process that is making {self._home}")
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _pin(name: str, version: str) -> str:
    """Return a pin with its name as package indexes spell it (PEP 503)."""
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


def _requested(hashed: Path, wanted: tuple[str, ...]) -> list[str]:
    """Return pip's words for the pins: with hashes where there is a file of these."""
    if not hashed.is_file():
        return list(wanted)
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", hashed.read_text(), re.M)
    known = {_pin(name, version) for name, version in found}
    told = {_pin(*line.split("==")) for line in wanted}
    if known != told:
        raise EnvironmentBuildError(
            f"{hashed}: found {listed(sorted(known - told))}, the environment file has "
            f"{listed(sorted(told - known))}; 'make hashes' writes it anew"
        )
    return ["--require-hashes", "--requirement", str(hashed)]


def _build(spec: EnvironmentSpec, wanted: tuple[str, ...], home: Path, hashed: Path) -> None:
    """Make a virtual environment in place: its scripts hold its path, so none is moved."""
    log = home.with_name(home.name + ".log")
    shutil.rmtree(home, ignore_errors=True)
    python = _python(home)
    try:
        with log.open("w") as out:
            _call(spec, [sys.executable, "-m", "venv", str(home)], out, log)
            pip = [str(python), "-m", "pip", "install", "--no-input"]
            _call(
                spec, [*pip, "--disable-pip-version-check", *_requested(hashed, wanted)], out, log
            )
        found = _versions(python, [pin.split("==")[0] for pin in wanted], _clean_env())
        wrong = [
            f"{pin} (found {found[pin.split('==')[0]]})"
            for pin in wanted
            if found[pin.split("==")[0]].split("+")[0] != pin.split("==")[1]
        ]
        if wrong:
            raise EnvironmentBuildError(
                f"environment {spec.name}: pip did not install {listed(wrong)}; log: {log}"
            )
        part = home / (READY + ".part")
        part.write_text(json.dumps({"environment": spec.name, "packages": found}, indent=1))
        os.replace(part, home / READY)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise


def _call(spec: EnvironmentSpec, command: list[str], out: TextIO, log: Path) -> None:
    # Alone it would go on where the next run removes what it makes, and makes it anew.
    done = subprocess.run(bound(command), stdout=out, stderr=subprocess.STDOUT, env=_clean_env())
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        step = "pip install" if "pip" in command else "python -m venv"
        raise EnvironmentBuildError(
            f"environment {spec.name} ({spec.file}): {step} failed with exit status "
            f"{done.returncode}; the end of {log}:\n{tail}"
        )


def _clean_env() -> dict[str, str]:
    """Return the environment variables without those that show pip another environment."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if key not in hidden}
