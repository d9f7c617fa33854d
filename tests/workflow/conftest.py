"""A copy of the project to run, and a small wrapper of Snakemake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "rules", "envs", "config", "profiles", "workflow_scripts", "src")


class Project:
    """A copy of the project in a folder of its own, with a configuration."""

    def __init__(self, root: Path, config: dict):
        self.root = root
        self.config = config
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)

    def snakemake(
        self, *words: str, timeout: int = 600, **variables: str
    ) -> subprocess.CompletedProcess:
        """Run Snakemake with the configuration; both streams in ``stdout``."""
        file = self.root / "test.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        # --configfile takes several files: another option must stand between it and targets.
        command = [sys.executable, "-m", "snakemake", "--configfile", str(file), "--cores", "2"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
        return subprocess.run(
            [*command, *words],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def planned(self) -> list[str]:
        """Return the messages of the jobs that a dry run would start, sorted."""
        done = self.snakemake("-n")
        assert done.returncode == 0, done.stdout
        return sorted(re.findall(r"^(?:Job|localjob|local job) ?\d*: (.+)$", done.stdout, re.M))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file of the copy."""
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1))
