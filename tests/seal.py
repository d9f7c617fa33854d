"""Files that a test made or changed by hand, given the checksum that readers ask for."""

import shutil
from pathlib import Path

from morebench.files import SIDECAR, SUMS_FILE, atomic_directory, atomic_path


def seal(path: Path) -> Path:
    """Publish a file, or a folder of files, again as it now is."""
    if path.is_dir():
        with atomic_directory(path) as temporary:
            shutil.copytree(path, temporary, dirs_exist_ok=True)
        return path
    with atomic_path(path) as temporary:
        shutil.copyfile(path, temporary)
    return path


def names(folder: Path) -> list[str]:
    """Return the names of a folder's files without those of checksums, sorted."""
    found = (p.name for p in Path(folder).iterdir())
    return sorted(n for n in found if n != SUMS_FILE and not n.endswith(SIDECAR))
