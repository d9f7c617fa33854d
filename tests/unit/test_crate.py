"""Small parts of a crate; a whole one is made in ``tests/workflow/test_provenance.py``."""

from rocrate.rocrate import ROCrate

from morebench import crate as crates
from morebench.io.outputs import Status


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
