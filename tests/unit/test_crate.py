"""Parts of a crate, and whose code it holds; that of a whole run is in ``test_provenance.py``."""

import json
import subprocess

import pytest
import yaml
from rocrate.rocrate import ROCrate
from tests.seal import seal

from morebench import crate as crates
from morebench.config import config_hash, load
from morebench.errors import MorebenchError
from morebench.io.outputs import Status
from morebench.provenance import commit


def test_authors_are_people_or_organisations():
    crate = ROCrate(version="1.1")
    person = crates._author(
        crate,
        {
            "given-names": "Ada",
            "family-names": "Byron",
            "orcid": "https://orcid.org/0000-0002-1825-0097",
        },
    )
    assert (person.id, person.type) == ("https://orcid.org/0000-0002-1825-0097", "Person")
    assert person["name"] == "Ada Byron"
    nameless = crates._author(crate, {"given-names": "Ada", "family-names": "Byron"})
    assert nameless.id == "#Ada-Byron"
    several = crates._author(crate, {"name": "The authors"})
    assert (several.id, several.type) == ("#The-authors", "Organization")


def test_software_has_every_version_once():
    crate = ROCrate(version="1.1")
    statuses = [
        Status("d", "all", "m", 0, "ok", versions={"harmonypy": v, "blas": "openblas 0.3"})
        for v in ("2.1.0", "0.0.10", "2.1.0")
    ]
    facts = {"python": "3.11.7", "packages": {"torch": "2.13.0+cpu", "ml_dtypes": "0.6.0"}}
    assert [e.id for e in crates._software(crate, facts, statuses)] == [
        "pkg:pypi/harmonypy@0.0.10",
        "pkg:pypi/harmonypy@2.1.0",
        "pkg:pypi/ml-dtypes@0.6.0",
        "pkg:generic/python@3.11.7",
        "pkg:pypi/torch@2.13.0%2Bcpu",
    ]


def test_a_package_that_was_not_there_is_no_software():
    crate = ROCrate(version="1.1")
    status = Status("d", "all", "m", 0, "failed", versions={"absent": "not installed"})
    facts = {"python": "3.11.7", "packages": {}}
    assert [e["name"] for e in crates._software(crate, facts, [status])] == ["python"]


def test_machines_are_told_once():
    statuses = [
        Status("d", "all", "m", s, "ok", hardware=h, versions={"blas": "mkl 2026", "cuda": "13.0"})
        for s, h in enumerate(["2 cores", "9 cores, 1 x NVIDIA H100", "2 cores"])
    ]
    assert crates._surroundings(statuses) == (
        "hardware: 2 cores | 9 cores, 1 x NVIDIA H100; blas: mkl 2026; cuda: 13.0"
    )


# --- whose code it is ---------------------------------------------------------------------


def git(folder, *words):
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *author, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, repository):
    """A committed checkout of the least that a crate holds."""
    root = tmp_path / "checkout"
    for name in crates.CODE:
        path = root / name
        if (repository / name).is_dir():
            path.mkdir(parents=True)
            (path / "some.txt").write_text("code")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((repository / name).read_bytes())
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "code")
    return root


@pytest.fixture
def finished(checkout, config_of):
    """Return a function that makes what a run of the checkout leaves, the least of it."""

    def make():
        results = checkout / "results"
        content = config_of(path="mine.h5ad")
        facts = {
            "finished": "2024-05-01T10:00:00+00:00",
            "config_hash": config_hash(load(content)),
            "commit": commit(checkout),
            "python": "3.11.7",
            "packages": {"snakemake": "9.1.0"},
        }
        for name, text in (
            ("config.yaml", yaml.safe_dump(content)),
            ("tables/run.json", json.dumps(facts)),
            ("tables/check.txt", "all accounted for"),
        ):
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            (results / name).write_text(text)
            seal(results / name)
        return results

    return make


def described(folder):
    return ROCrate(folder).root_dataset["description"]


def test_a_crate_says_the_commit_of_its_code(checkout, finished, tmp_path):
    results, told = finished(), commit(checkout)
    assert len(told) == 12
    crates.write_crate(results, tmp_path / "crate", root=checkout)
    assert f"with the code that made them (commit {told})." in described(tmp_path / "crate")


@pytest.mark.parametrize("change", ["another commit", "an edit", "no checkout"])
def test_code_of_another_commit_than_that_of_the_run_is_refused(
    change, checkout, finished, tmp_path
):
    results, told = finished(), commit(checkout)
    if change == "no checkout":
        (checkout / ".git").rename(tmp_path / "git")
    else:
        (checkout / "rules" / "some.txt").write_text("other code")
    if change == "another commit":
        git(checkout, "commit", "-qam", "more")
    found = commit(checkout)
    assert (found == f"{told}+changes") == (change == "an edit")
    assert (found == "unknown") == (change == "no checkout") and found != told
    with pytest.raises(MorebenchError) as error:
        crates.write_crate(results, tmp_path / "crate", root=checkout)
    for word in ("run.json: commit is", told, str(checkout), found, "--forcerun aggregate"):
        assert word in str(error.value)
    assert not (tmp_path / "crate").exists()


def test_a_file_that_the_commit_lacks_is_refused(checkout, finished, tmp_path):
    results = finished()
    (checkout / "rules" / "mine.smk").write_text("rule mine: ...")
    assert "+changes" not in commit(checkout)
    with pytest.raises(MorebenchError, match=r"which lacks rules/mine\.smk of the checkout"):
        crates.write_crate(results, tmp_path / "crate", root=checkout)
    (checkout / "rules" / "mine.smk").unlink()
    (checkout / "config").mkdir()
    (checkout / "config" / "data.lock").write_text("{}")  # comes with the first download
    assert crates.write_crate(results, tmp_path / "crate", root=checkout) > len(crates.CODE)
    assert (tmp_path / "crate" / "config" / "data.lock").read_text() == "{}"


def test_a_run_with_changes_has_a_crate_that_does_not_claim_its_commit(
    checkout, finished, tmp_path
):
    (checkout / "rules" / "some.txt").write_text("other code")
    results, told = finished(), commit(checkout)
    crates.write_crate(results, tmp_path / "crate", root=checkout)
    words = f"as it was when this was written (commit {told[:12]} with changes, as of the run)"
    assert words in described(tmp_path / "crate")
    git(checkout, "checkout", "-q", ".")
    with pytest.raises(
        MorebenchError, match=rf"commit is {told[:12]}\+changes, .* is {told[:12]}:"
    ):
        crates.write_crate(results, tmp_path / "other", root=checkout)


def test_a_run_outside_a_checkout_has_a_crate_that_names_no_commit(checkout, finished, tmp_path):
    (checkout / ".git").rename(tmp_path / "git")
    crates.write_crate(finished(), tmp_path / "crate", root=checkout)
    assert "(its commit is not known)" in described(tmp_path / "crate")
