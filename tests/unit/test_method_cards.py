"""Method cards say what the registry says, and there is one for every method."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from morebench.registry import ENVIRONMENTS, METHODS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/methods"
CARDS = sorted(p.name for p in FOLDER.glob("*.md") if p.name != "README.md")
MISSING = object()


@cache
def text(card):
    return (FOLDER / card).read_text()


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(page):
    """Yield (heading, names of columns, rows) of every table of a page."""
    heading, table = "", []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            table.append(cells(line))
        elif table:
            yield heading, table[0], table[2:]
            table = []
        if line.startswith("#"):
            heading = line.lstrip("# ")


def head(card):
    """Return what the line below the title says: {method: (track, licence)}."""
    title, line = text(card).split("\n\n")[:2]
    assert title.startswith("# ") and line.startswith("Methods: "), f"{card}: {line!r}"
    # nothing else may stand there, or it would be read by nobody
    assert re.sub(r"`(\w+)` \(([\w-]+), ([\w. -]+)\)(,\s)?", "", line) == "Methods: ", card
    found = re.findall(r"`(\w+)` \(([\w-]+), ([\w. -]+)\)", line)
    return {name: (track, licence) for name, track, licence in found}


def card_of(method):
    return next(card for card in CARDS if method in head(card))


def value(word):
    """Return the value that a cell of a table of settings states; MISSING if it is prose."""
    if word == "none":
        return None
    inside = re.fullmatch(r"`([^`]*)`", word)
    if not inside:
        return MISSING
    read = yaml.safe_load(inside[1])
    return tuple(read) if isinstance(read, list) else read


def stated(card):
    """Return what a card's tables say of settings: {method: {setting: default}}.

    A table under a heading that is a method's name is that method's, and so is a column of
    that name; the others are for all methods of the card.
    """
    found: dict[str, dict] = {name: {} for name in head(card)}
    for heading, columns, rows in tables(text(card)):
        if columns[0] not in ("setting", "parameter"):
            continue
        names = [heading] if heading in found else list(found)
        for row in rows:
            settings = re.findall(r"`(\w+)`", row[0])
            for name in names:
                own = f"`{name}`" if f"`{name}`" in columns else "default"
                words = re.split(r", (?=`|none)", row[columns.index(own)])
                if settings:
                    values = [value(word) for word in words]
                    assert len(values) == len(settings), f"{card}: {row}"
                    found[name] |= dict(zip(settings, values, strict=True))
    return found


def parents(card):
    """Return the cards to whose settings a card refers for its own."""
    return {c for c in re.findall(r"\]\((\w+\.md)#settings[\w-]*\)", text(card)) if c != card}


def pins():
    """Return the pinned versions: {package: versions}, of all environments."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for spec in ENVIRONMENTS.values():
        content = yaml.safe_load((ROOT / spec.file).read_text())
        lines += next(d["pip"] for d in content["dependencies"] if isinstance(d, dict))
    found: dict[str, set[str]] = {}
    for line in lines:
        if "==" in line and not line.startswith("#"):
            name, version = re.split("==", line.split("#")[0].strip())
            found.setdefault(name.lower().replace("_", "-"), set()).add(version)
    return found


def facts(card):
    """Return the rows of the table without a header: {what: text}."""
    return {k: v for _, names, rows in tables(text(card)) if names == ["", ""] for k, v in rows}


def test_every_method_is_in_the_head_of_exactly_one_card():
    named = [name for card in CARDS for name in head(card)]
    assert sorted(named) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_track_and_licence_are_those_of_the_registry(name):
    spec, card = METHODS[name], card_of(name)
    assert head(card)[name] == (spec.track, spec.licence)
    assert {"source", "package", "track", "sees"} <= set(facts(card))
    words = re.findall(r"[\w-]+", facts(card)["track"])
    assert spec.track in words
    assert ("inductive" if spec.inductive else "transductive") in words


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_in_the_card_with_its_default(name):
    card = card_of(name)
    own = stated(card)[name]
    given = [d for parent in parents(card) for d in stated(parent).values()]
    for key, default in METHODS[name].params.items():
        # the steps of MoRE's annotation go by the names of its settings there
        here = own.get(key, own.get(key.removeprefix("annotate_"), MISSING))
        valid = [here] if here is not MISSING else [d[key] for d in given if key in d]
        same = [v for v in valid if (type(v), v) == (type(default), default)]
        assert same, f"{card}, {key}: found {valid}; the registry has {default!r}"


@pytest.mark.parametrize("card", CARDS)
def test_a_table_of_settings_has_no_setting_that_there_is_not(card):
    if card == "more.md":
        pytest.skip("also lists settings of the Python interface; test_cli_more.py compares them")
    for name, settings in stated(card).items():
        others = [set(METHODS[m].params) for m in stated(card)]
        assert set(settings) <= set().union(*others), name
    assert set().union(*(set(s) for s in stated(card).values())), "no table of settings"


@pytest.mark.parametrize("card", CARDS)
def test_versions_are_pinned_ones(card):
    found = re.findall(r"\b([A-Za-z][\w-]*) (\d+(?:\.\d+)+)\b", facts(card).get("package", ""))
    pinned = pins()
    for name, version in found:
        versions = pinned.get(name.lower(), set())
        assert any(f"{v}.".startswith(f"{version}.") for v in versions), f"{name} {version}"


def test_the_packages_of_a_card_are_read():
    # the test above would hold of a pattern that finds nothing
    row = facts("harmony.md")["package"]
    assert re.findall(r"harmonypy ([\d.]+\d)", row) == ["2.1.0", "0.0.10"]
    assert pins()["harmonypy"] == {"2.1.0", "0.0.10"}


def test_the_overview_lists_exactly_the_registered_methods():
    page = (FOLDER / "README.md").read_text()
    rows = next(rows for _, names, rows in tables(page) if names[0] == "method")
    wanted = [
        [
            f"`{s.name}`", s.title, s.track, ", ".join(s.outputs),
            f"[{card_of(s.name)}]({card_of(s.name)})",
        ]
        for s in METHODS.values()
    ]  # fmt: skip
    assert rows == wanted


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", [*CARDS, "README.md"])
def test_links_and_code_paths_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text(page))
    for target, anchor in links:
        if "://" in target:
            continue
        path = FOLDER / target if target else FOLDER / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), f"{target}#{anchor}"
    for path in re.findall(r"`((?:src|tests|envs|benchmarks|docs)/[\w./-]+)`", text(page)):
        assert (ROOT / path).exists(), path
