"""Write the requirements with hashes, which ``pip install --require-hashes`` takes.

``make hashes`` runs it, with the uv of ``tools.txt``. It asks the package index for the
SHA-256 of every file of every pinned release; versions come from ``constraints.txt`` and the
environment files alone. The files are true while ``tests/unit/test_supply_chain.py`` passes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
# What builds those of the main environment that come as source only.
BUILD = ("setuptools",)
# Builds of PyTorch for CPUs are not on the public index. This is the SHA-256 of the file of
# that name; the project could not compare it with PyTorch's own index.
CPU_WHEEL = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
CPU_SHA256 = "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
NEWEST_GLIBC = "x86_64-manylinux_2_28"
COMMON = (
    "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url",
    "--no-emit-find-links", "--python-version=3.11", "--quiet",
)  # fmt: skip


def normal(name: str) -> str:
    """Return a distribution's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lines: Iterable[str]) -> dict[str, str]:
    """Return name -> version of the ``name==version`` lines; other lines are left out."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", "\n".join(lines), re.M)
    return {normal(name): version for name, version in found}


def entries(text: str) -> dict[str, str]:
    """Return name -> its entry, with its hashes, of a compiled file."""
    found = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)
    return {next(iter(pinned([e]))): e for e in found if pinned([e])}


def compiled(source: str, *options: str, given: str | None = None) -> str:
    """Return what ``uv pip compile`` makes of a requirements file (``-``: of ``given``)."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", source, *COMMON, *options]
    done = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"uv pip compile {source}: {done.stderr}")
    return done.stdout


def exactly(pins: dict[str, str]) -> dict[str, str]:
    """Return the entries of some pins, and no others."""
    lines = "\n".join(f"{name}=={version}" for name, version in pins.items())
    return entries(compiled("-", "--no-deps", given=lines))


def write(name: str, found: dict[str, str], comment: str) -> None:
    """Write a file of the folder."""
    text = f"# {comment}\n# Made by `make hashes`; do not edit.\n" + "".join(found.values())
    (FOLDER / name).write_text(text)
    print(f"{name}: {len(found)} packages")


def main() -> None:
    """Write every file."""
    constraints = pinned((ROOT / "constraints.txt").read_text().splitlines())
    found = exactly(constraints)
    torch = found.pop("torch")
    write("main.txt", found, "Every package of constraints.txt but torch.")
    build = {name: found[name] for name in BUILD}
    write("build.txt", build, "What builds packages of main.txt that come as source only.")
    options = ("--extra=dev", "--constraint=constraints.txt", f"--python-platform={NEWEST_GLIBC}")
    whole = entries(compiled("pyproject.toml", *options))
    cuda = {name: entry for name, entry in whole.items() if name not in constraints}
    write("torch.txt", {"torch": torch, **cuda}, "torch of the public index, with CUDA (Linux).")
    if not CPU_WHEEL.startswith(f"torch-{constraints['torch']}+cpu-"):
        sys.exit(
            f"CPU_WHEEL: {CPU_WHEEL} is not torch {constraints['torch']}: name its file and hash"
        )
    cpu = f"torch=={constraints['torch']} \\\n    --hash=sha256:{CPU_SHA256}\n"
    write("torch-cpu.txt", {"torch": cpu}, f"torch for CPUs: {CPU_WHEEL}.")
    isolated = (ROOT / "envs").glob("*.yaml")
    for file in sorted(f for f in isolated if f.name != "core.yaml"):
        pins = pinned(re.findall(r"^ +- ([\w.-]+==\S+)$", file.read_text(), re.M))
        write(f"{file.stem}.txt", exactly(pins), f"The packages of {file.name}.")
    tools = entries(compiled("envs/hashed/tools.in"))
    write("tools.txt", tools, "pip-audit and uv (tools.in), with what they need.")


if __name__ == "__main__":
    main()
