"""Write the resolved configuration beside the results."""

from morebench import job  # isort: split

import json
from pathlib import Path

import yaml

from morebench.config import load
from morebench.files import atomic_path


def main(output: Path, config: str) -> None:
    """Check the configuration once more and write it as YAML."""
    content = json.loads(config)
    load(content)
    with atomic_path(output) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


if __name__ == "__main__":
    job.run(main)
