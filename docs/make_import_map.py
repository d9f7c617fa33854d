"""Write the import map of docs/ARCHITECTURE.md from the imports that stand in the code.

``python docs/make_import_map.py`` writes it; ``--check`` exits with 1 where it is stale.
The layers below are the rule that ``tests/unit/test_layers.py`` holds.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "morebench"
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- import map: begin -->", "<!-- import map: end -->"

# What a method is given and returns is known to io already, below all methods.
CONTRACT = "contract"
# Lowest first. A module imports from its own layer and from those before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("endings", "errors", "files", "registry", "provenance", "sample", "threads"),
    (CONTRACT,),
    ("io",),
    ("data",),
    ("models",),
    ("methods", "frozen"),
    ("metrics",),
    ("stats",),
    ("tasks",),
    ("config", "plan", "paths", "preflight"),
    ("environments", "child", "runner", "shards", "digest", "job", "stale_locks", "watchdog"),
    ("evaluate", "aggregate", "robustness", "canary", "canary_world", "selftest", "crate"),
    ("plots", "retry"),
    ("umap", "report"),
    ("cli", "cli_more"),
)
GROUPS = tuple(group for layer in LAYERS for group in layer)


def modules(package: Path) -> dict[str, Path]:
    """Return every module below a package by its name without the package's own."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def nodes(tree: ast.Module, lazy: bool) -> Iterator[ast.stmt]:
    """Yield the import statements of a module.

    Parameters
    ----------
    lazy
        True: all of them. False: those that run when the module is imported, which leaves
        out function bodies and ``if TYPE_CHECKING``.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if function and not lazy:
            continue
        if isinstance(node, ast.If) and not lazy and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)


def imported(path: Path, lazy: bool = True) -> set[str]:
    """Return the full dotted names that a file imports, as far as the statements tell.

    ``from a.b import c`` gives ``a.b.c``, whether c is a module or not.
    """
    found: set[str] = set()
    for node in nodes(ast.parse(path.read_text(), str(path)), lazy):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise SystemExit(f"{path}:{node.lineno}: relative import; write morebench....")
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def module_imports(package: Path) -> dict[str, set[str]]:
    """Return module -> the modules of the same package that it imports, lazily or not."""
    known = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for full in imported(path):
            head, _, rest = full.partition(".")
            if head != package.name or not rest:
                continue
            target = rest if rest in known else rest.rpartition(".")[0]
            if target in known:
                graph[name].add(target)
        graph[name].discard(name)
    return graph


def group_of(module: str) -> str:
    """Return the entry of LAYERS that a module belongs to: the longest that fits."""
    fitting = [g for g in GROUPS if module == g or module.startswith(f"{g}.")]
    if not fitting:
        raise SystemExit(f"{module} has no layer: add it to LAYERS in docs/make_import_map.py")
    return max(fitting, key=len)


def rank(group: str) -> int:
    """Return the number of a group's layer, 0 for the lowest."""
    return next(i for i, layer in enumerate(LAYERS) if group in layer)


def violations(package: Path) -> list[str]:
    """Return every import that does not point to the same group, its layer or a lower one."""
    found = []
    for module, targets in module_imports(package).items():
        for target in sorted(targets):
            own, other = group_of(module), group_of(target)
            if rank(other) > rank(own):
                found.append(f"{module} imports {target}, which is above it")
    return found


def group_imports(package: Path) -> dict[str, set[str]]:
    """Return group -> the other groups that its modules import; groups without code are out."""
    graph: dict[str, set[str]] = {}
    files = modules(package)
    for module, targets in module_imports(package).items():
        if not ast.parse(files[module].read_text()).body:
            continue
        own = graph.setdefault(group_of(module), set())
        own |= {group_of(t) for t in targets} - {group_of(module)}
    return graph


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph[node]
    return seen


def _what(package: Path, group: str) -> str:
    text = ast.get_docstring(ast.parse(modules(package)[group].read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def render(package: Path) -> str:
    """Return the map: a graph without the edges that others imply, and a table of all."""
    graph = group_imports(package)
    ordered = [g for g in GROUPS if g in graph]
    lines = ["```mermaid", "graph TD"]
    for group in reversed(ordered):
        implied = set().union(*(_reached(graph, t) for t in graph[group]))
        for target in (t for t in reversed(ordered) if t in graph[group] - implied):
            lines.append(f"  {group} --> {target}")
    lines += ["```", "", "| layer | module | what it is | imports |", "|---|---|---|---|"]
    for group in reversed(ordered):
        imports = ", ".join(f"`{t}`" for t in ordered if t in graph[group]) or "-"
        lines.append(f"| {rank(group)} | `{group}` | {_what(package, group)} | {imports} |")
    return "\n".join(lines)


def with_map(page: str, text: str) -> str:
    """Return a page with the text between its markers replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(arguments: list[str] | None = None, page: Path = PAGE, package: Path = PACKAGE) -> int:
    """Write the map, or with ``--check`` tell whether the page holds it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    check = parser.parse_args(arguments).check
    found = page.read_text()
    wanted = with_map(found, render(package))
    if found == wanted:
        return 0
    if check:
        print(f"{page.name}: the import map is stale; run: python docs/make_import_map.py")
        return 1
    page.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
