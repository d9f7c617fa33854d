"""Code digests: an edit changes those that rest on it, and nobody else."""

import shutil
from pathlib import Path

import pytest

from morebench import digest
from morebench.registry import DATASETS, METHODS, TASKS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "workflow_scripts").glob("*.py"))


def clear():
    for cached in (digest._parse, digest._content, digest.imports_of):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def _fresh():
    clear()
    yield
    clear()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the library that digests are taken of."""
    shutil.copytree(digest.PACKAGE, tmp_path / "src/morebench")
    shutil.copytree(ROOT / "workflow_scripts", tmp_path / "workflow_scripts")
    monkeypatch.setattr(digest, "PACKAGE", tmp_path / "src/morebench")
    return tmp_path


def module_of(path):
    parts = path.relative_to(digest.PACKAGE).with_suffix("").parts
    return ".".join(("morebench", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def modules():
    return sorted(module_of(p) for p in digest.PACKAGE.rglob("*.py"))


def all_digests(folder):
    clear()
    found = {name: digest.code_digest(name) for name in modules()}
    for path in sorted((folder / "workflow_scripts").glob("*.py")):
        found[path.stem] = digest.code_digest(path)
    return found


def names_reached(*start):
    return {
        module_of(p)
        for p in digest.reached([Path(s) for s in start])
        if digest.PACKAGE in p.parents
    }


def of_module(name):
    return digest.module_file(name)


def edit(name, text):
    path = of_module(name)
    path.write_text(path.read_text() + text)


def changed(folder, name, text):
    before = all_digests(folder)
    edit(name, text)
    after = all_digests(folder)
    return {k for k in before if before[k] != after[k]}


@pytest.mark.parametrize(
    "name", ["morebench.errors", "morebench.data.features", "morebench.plots.style"]
)
def test_an_edit_changes_its_importers_transitively_and_nobody_else(copy, name):
    found = changed(copy, name, "\nADDED = 1\n")
    # an independent transitive closure, from the importers' side
    graph = {m: digest.imports_of(of_module(m)) - digest.LEFT_OUT for m in modules()}
    scripts = {p.stem: p for p in (copy / "workflow_scripts").glob("*.py")}
    graph |= {k: digest.imports_of(p) - digest.LEFT_OUT for k, p in scripts.items()}
    expected = {name}
    while True:
        more = {m for m, targets in graph.items() if targets & expected} | expected
        if more == expected:
            break
        expected = more
    assert found == expected
    assert name in found and len(found) < len(graph)


def test_concrete_importers_of_one_method(copy):
    found = changed(copy, "morebench.methods.pca", "\nADDED = 1\n")
    importers = (
        "pca", "harmony", "logreg", "celltypist", "bbknn", "controls", "doublet_controls",
        "scrublet_harmony", "spaces", "forest", "concord",
    )  # fmt: skip
    assert found == {f"morebench.methods.{name}" for name in importers}


def test_code_of_a_package_counts_for_the_modules_below_it(copy):
    found = changed(copy, "morebench.data", "\nADDED = 1\n")
    assert {"split", "prepare", "make_input", "morebench.config"} <= found
    assert "morebench.io.outputs" not in found


def test_comments_docstrings_and_spacing_change_nothing(copy):
    path = of_module("morebench.data.splits")
    before = all_digests(copy)
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    lines[0] = '"""Another docstring."""\n'
    text = "".join(lines).replace(
        "    kind = split_kind(split)\n", "    # why\n\n    kind = (split_kind(split))\n"
    )
    text = text.replace('    """Choose a share', '    """Take a share')
    assert text != path.read_text() and "# why" in text and "Take a share" in text
    path.write_text(text)
    assert all_digests(copy) == before


def test_a_changed_constant_or_default_changes_the_digest(copy):
    path = of_module("morebench.data.splits")
    before = digest.code_digest("morebench.data.splits")
    path.write_text(path.read_text().replace("KNOWN_HIDDEN = 0.2", "KNOWN_HIDDEN = 0.25"))
    clear()
    assert digest.code_digest("morebench.data.splits") != before


def test_registry_and_version_change_nothing(copy):
    assert changed(copy, "morebench.registry", "\nADDED = 1\n") == {"morebench.registry"}
    assert changed(copy, "morebench", '\n__version__ = "9"\n') == {"morebench"}


def test_imports_inside_functions_count(copy):
    assert "from morebench.io.inputs" in of_module("morebench.child").read_text()
    assert "morebench.io.inputs" in names_reached(of_module("morebench.child"))
    before = all_digests(copy)
    edit("morebench.plan", "\n\ndef late():\n    import morebench.plots.words as w\n    return w\n")
    middle = all_digests(copy)
    edit("morebench.plots.words", "\nADDED = 1\n")
    after = all_digests(copy)
    assert before["morebench.plan"] != middle["morebench.plan"] != after["morebench.plan"]
    assert middle["morebench.paths"] != after["morebench.paths"]  # plan's importer


def test_an_entry_names_its_module_and_an_unknown_one_is_an_error():
    assert digest.code_digest("morebench.methods.pca:run") == digest.code_digest(
        "morebench.methods.pca"
    )
    assert len(digest.code_digest("morebench.methods.pca")) == 12
    with pytest.raises(FileNotFoundError, match="no module morebench.methods.nope:run"):
        digest.code_digest("morebench.methods.nope:run")


def test_the_digest_does_not_depend_on_where_the_checkout_stands(copy, monkeypatch):
    moved = all_digests(copy)
    monkeypatch.undo()
    assert all_digests(ROOT) == moved


# --- what the stages of the workflow rest on -----------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_only_scripts_that_draw_rest_on_plots(script):
    plots = {n for n in names_reached(script) if n.startswith("morebench.plots.")}
    if script.stem.startswith("draw_") or script.stem == "write_report":
        assert plots
    elif script.stem == "compute_umap":
        assert plots <= {"morebench.plots.umap_layout"}  # the layout, none of the drawing
    else:
        assert plots == set()


def test_prepare_does_not_rest_on_methods_or_metrics():
    for stem in ("prepare", "split"):
        found = names_reached(ROOT / f"workflow_scripts/{stem}.py")
        assert "morebench.data.spec" in found
        beyond = ("morebench.methods.", "morebench.metrics", "morebench.tasks", "morebench.plots")
        assert not [n for n in found if n.startswith(beyond)]


def test_a_method_does_not_rest_on_another_one():
    embed = ROOT / "workflow_scripts/embed.py"
    child = of_module("morebench.child")
    scvi = names_reached(embed, child, of_module("morebench.methods.scvi"))
    assert "morebench.methods.scvi" in scvi and "morebench.io.inputs" in scvi
    others = {"morebench.methods.harmony", "morebench.methods.pca", "morebench.methods.scrublet"}
    assert scvi & others == set()
    assert not [n for n in scvi if n.startswith(("morebench.data", "morebench.metrics"))]
    harmony = names_reached(embed, child, of_module("morebench.methods.harmony"))
    assert "morebench.methods.scvi" not in harmony


def test_every_entry_has_a_digest():
    for spec in (*DATASETS.values(), *METHODS.values(), *TASKS.values()):
        assert len(digest.code_digest(spec.entry)) == 12
