"""A digest of the code behind a rule: what it imports of morebench, transitively.

Snakemake does not see a library's code change. Each rule gets this digest as a parameter,
so that an edit re-runs the stages that import the edited module, and no others.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# The registry's lines that matter to a rule travel as its parameters; if its text counted,
# adding one method would re-run them all.
LEFT_OUT = frozenset({"morebench", "morebench.registry", "morebench.digest"})


def module_file(name: str) -> Path | None:
    """Return the file of a first-party module, None if there is no such module."""
    base = PACKAGE.parent.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the first-party modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names}
    own = {n for n in found if n.split(".")[0] == "morebench" and module_file(n)}
    # Importing a module runs the __init__ of every package above it.
    above = {n.rsplit(".", i)[0] for n in own for i in range(1, n.count(".") + 1)}
    return frozenset(own | above)


@cache
def _content(path: Path) -> bytes:
    """Return a file's code without comments and docstrings, which change no result."""
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    node.body = node.body[1:]
    return ast.dump(tree).encode()


def reached(start: Iterable[Path]) -> list[Path]:
    """Return the files that ``start`` imports, transitively, themselves included."""
    seen: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports_of(path) - LEFT_OUT:
            found = module_file(name)
            if found is not None:
                waiting.append(found)
    return sorted(seen)


def code_digest(*start: str | Path) -> str:
    """Return 12 hex digits that change with the code that scripts or modules rest on.

    Templates count too, where they lie beside a module that is reached.

    Parameters
    ----------
    start
        Files, or names of first-party modules (``morebench.methods.scvi:run`` works too).
    """
    paths = []
    for item in start:
        path = Path(item)
        if path.suffix != ".py":
            found = module_file(str(item).split(":")[0])
            if found is None:
                raise FileNotFoundError(f"no module {item} in {PACKAGE}")
            path = found
        paths.append(path)
    digest = hashlib.sha256()
    files = reached(paths)
    for path in files:
        digest.update(path.name.encode() + b"\0" + _content(path) + b"\0")
    for path in sorted({t for f in files for t in f.parent.glob("*.j2")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
