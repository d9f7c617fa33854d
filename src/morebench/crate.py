"""A finished run as an RO-Crate: what was run on what, by which code, and what came of it.

The profile is Workflow Run Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5) on RO-Crate 1.1:
the Snakefile is the workflow; one action, the run, has the configuration as its object, and
tables, figures, statuses and the report as its results. Every file has its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml

from morebench.config import config_hash, load_file
from morebench.environments import NOT_INSTALLED
from morebench.errors import MorebenchError
from morebench.files import SIDECAR, atomic_directory, atomic_path, read_json, verify
from morebench.io.outputs import STATUS_FILE, Status, read_status
from morebench.provenance import ROOT, check_commit, origin

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

# The workflow and all that its jobs import, with their pins. Profiles stay at home: they may
# name accounts. The lock of downloads is there once there were any.
CODE = ("Snakefile", "rules", "workflow_scripts", "src/morebench", "envs", "constraints.txt",
        "pyproject.toml", "README.md", "LICENSE", "CITATION.cff")  # fmt: skip
LOCK = "config/data.lock"
# Of the results all but data and embeddings, which are large and which the code makes again.
RESULTS = ("config.yaml", "tables/*", "figures/**/*.svg", "figures/**/*.png", "report/**/*",
           f"embeddings/**/{STATUS_FILE}", "prepared/*.json", "splits/**/*.json")  # fmt: skip
METADATA = "ro-crate-metadata.json"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
BIOSCHEMAS = "https://bioschemas.org/profiles"
TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".tsv": "text/tab-separated-values",
         ".json": "application/json", ".html": "text/html", ".yaml": "application/yaml",
         ".md": "text/markdown", ".py": "text/x-python", ".toml": "application/toml"}  # fmt: skip
SURROUNDINGS = ("system", "blas", "cuda")  # keys of a status's versions that are no packages


def write_crate(results: Path, output: Path, *, root: Path = ROOT) -> int:
    """Write the crate of a finished run; the same run and code give the same bytes.

    Parameters
    ----------
    results
        The run's folder.
    output
        A path that ends in ``.zip``, or a folder; nothing may be there yet.
    root
        The checkout whose code made the run.

    Returns
    -------
    int
        The number of files in the crate, without its metadata.

    Raises
    ------
    MorebenchError
        The run did not end well, its tables are not those of its configuration, the checkout is
        at another commit than the run was, has changes that the run had not, or lacks a file; or
        something is at ``output``.
    """
    if output.exists():
        raise MorebenchError(f"{output}: is there already; name a path where nothing is")
    facts = _facts(results)
    code = dict(_code(root))
    at = f"{results / 'tables' / 'run.json'}: commit"
    check_commit(facts["commit"], code.keys() - {LOCK}, at, root)  # no code: it tells of data
    files = code | {f"results/{k}": path for k, path in _results(results)}
    content = _metadata(files, facts, results, root)
    if output.suffix == ".zip":
        _write_zip(output, files, content, datetime.fromisoformat(facts["finished"]))
    else:
        with atomic_directory(output, checksums=False) as folder:
            for name, path in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
            (folder / METADATA).write_bytes(content)
    return len(files)


def _facts(results: Path) -> dict[str, Any]:
    """Return ``run.json`` of a run that ended well and whose tables are its configuration's."""
    check = results / "tables" / "check.txt"
    if not check.exists():
        raise MorebenchError(f"{check}: not there: the run is not finished; run snakemake first")
    file = results / "tables" / "run.json"
    facts = read_json(file)
    if "finished" not in facts:
        raise MorebenchError(f"{file}: lacks 'finished', when the tables were made; make them anew")
    verify(results / "config.yaml")
    found = config_hash(load_file(results / "config.yaml"))
    if found != facts["config_hash"]:
        raise MorebenchError(
            f"{file}: config_hash is {facts['config_hash']}, that of {results / 'config.yaml'} is "
            f"{found}: these tables are of another configuration; run snakemake first"
        )
    return facts


def _code(root: Path) -> Iterator[tuple[str, Path]]:
    for name in CODE:
        top = root / name
        if not top.exists():
            raise MorebenchError(f"{top}: not there; a crate needs the checkout that made the run")
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root).as_posix(), path
    if (root / LOCK).exists():
        yield LOCK, root / LOCK


def _results(results: Path) -> Iterator[tuple[str, Path]]:
    for pattern in RESULTS:
        for path in sorted(results.glob(pattern)):
            if path.is_file() and path.suffix != SIDECAR:  # the crate has its own
                verify(path)
                yield path.relative_to(results).as_posix(), path


def _metadata(
    files: Mapping[str, Path], facts: Mapping[str, Any], results: Path, root: Path
) -> bytes:
    """Return the content of ``ro-crate-metadata.json``."""
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    spdx = cited["license"]
    licence = _entity(crate, f"https://spdx.org/licenses/{spdx}", "CreativeWork", name=spdx)
    who = _one([_author(crate, author) for author in cited["authors"]])
    top = crate.root_dataset
    crate.name = f"morebench run {facts['config_hash']}"
    crate.description = (
        f"Results of {cited['title']} ({cited['version']}) on "
        f"{', '.join(load_file(results / 'config.yaml').datasets)}, with "
        f"{origin(facts['commit'])}. Data and embeddings are left out."
    )
    top["license"], top["author"], top["datePublished"] = licence, who, facts["finished"]
    top["conformsTo"] = [
        _entity(crate, url, "CreativeWork", name=name, version=version)
        for url, (name, version) in PROFILES.items()
    ]
    entities = {n: crate.add_file(path, n, properties=_about(path)) for n, path in files.items()}
    entities["README.md"]["about"] = top
    workflow = crate.add_workflow(
        files["Snakefile"], "Snakefile", main=True, lang="snakemake",
        lang_version=facts["packages"]["snakemake"], properties=_about(files["Snakefile"]),
    )  # fmt: skip
    workflow["name"], workflow["version"] = cited["title"], cited["version"]
    workflow["license"], workflow["creator"] = licence, who
    workflow["conformsTo"] = {"@id": f"{BIOSCHEMAS}/ComputationalWorkflow/1.0-RELEASE"}
    workflow["hasPart"] = [e for name, e in entities.items() if name.startswith("rules/")]
    statuses = [read_status(files[n].parent) for n in files if n.endswith(f"/{STATUS_FILE}")]
    workflow["softwareRequirements"] = _software(crate, facts, statuses)
    workflow["input"] = _entity(
        crate, "#configfile", "FormalParameter", name="configfile", additionalType="File",
        conformsTo={"@id": f"{BIOSCHEMAS}/FormalParameter/1.0-RELEASE"}, valueRequired=True,
    )  # fmt: skip
    told = entities["results/config.yaml"]
    told["exampleOfWork"] = workflow["input"]
    made = [e for name, e in entities.items() if name.startswith("results/") and e is not told]
    top["mentions"] = _entity(
        crate, f"#run-{facts['config_hash']}", "CreateAction", name=crate.name,
        description=_surroundings(statuses), instrument=workflow, object=told, result=made,
        endTime=facts["finished"], actionStatus="http://schema.org/CompletedActionStatus",
    )  # fmt: skip
    text = json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()


def _one(values: list[Any]) -> Any:
    """Return a single value as it is, as RO-Crate asks, and several as a list."""
    return values[0] if len(values) == 1 else values


def _entity(crate: ROCrate, identity: str, kind: str, **properties: Any) -> Any:
    """Add something that is not a file."""
    from rocrate.model.contextentity import ContextEntity

    entity = crate.add(ContextEntity(crate, identity, properties={"@type": kind}))
    for key, value in properties.items():
        entity[key] = value
    return entity


def _author(crate: ROCrate, author: Mapping[str, str]) -> Any:
    """Add an author as CITATION.cff tells: a person, or an organisation with a name only."""
    if "name" in author:
        return _entity(crate, f"#{author['name']}".replace(" ", "-"), "Organization", **author)
    name = f"{author['given-names']} {author['family-names']}"
    identity = author.get("orcid", f"#{name}".replace(" ", "-"))
    return _entity(crate, identity, "Person", name=name)


def _about(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    kind = TYPES.get(path.suffix, "text/plain")
    size = str(path.stat().st_size)
    return {"sha256": digest, "contentSize": size, "encodingFormat": kind, "name": path.name}


def _software(crate: ROCrate, facts: Mapping[str, Any], statuses: list[Status]) -> list[Any]:
    """Add every package, in every version that a job or a method's process had."""
    found = {("python", facts["python"]), *facts["packages"].items()}
    found |= {pair for s in statuses for pair in s.versions.items() if pair[0] not in SURROUNDINGS}
    made = []
    for name, version in sorted(found):
        if version == NOT_INSTALLED:
            continue
        kind = "generic" if name == "python" else "pypi"
        identity = f"pkg:{kind}/{name.lower().replace('_', '-')}@{quote(version)}"
        properties = {"name": name, "softwareVersion": version}
        made.append(_entity(crate, identity, "SoftwareApplication", **properties))
    return made


def _surroundings(statuses: list[Status]) -> str:
    """Say on which machines methods ran, and with which system, BLAS and CUDA."""
    words = {"hardware": {s.hardware for s in statuses if s.hardware}}
    words |= {k: {s.versions[k] for s in statuses if k in s.versions} for k in SURROUNDINGS}
    return "; ".join(f"{k}: {' | '.join(sorted(v))}" for k, v in words.items() if v)


def _write_zip(output: Path, files: Mapping[str, Path], metadata: bytes, when: datetime) -> None:
    """Write an archive whose bytes depend on its content alone: one date, one order."""
    with (
        atomic_path(output, checksum=False) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):

        def add(name: str, content: bytes) -> None:
            member = zipfile.ZipInfo(name, when.timetuple()[:6])
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, content)

        add(METADATA, metadata)
        for name, path in files.items():
            add(name, path.read_bytes())
