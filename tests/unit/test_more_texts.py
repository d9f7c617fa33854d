"""What features are called."""

import gzip

import pytest

from morebench.errors import DataError
from morebench.models.more.texts import feature_texts, read_descriptions

TABLE = (
    "#tax_id\tGeneID\tSymbol\tdescription\n"
    "9606\t1\tA1BG\talpha-1-B glycoprotein\n"
    '9606\t2\tB"X\t5" end "quoted\n'
    "9606\t3\tA1BG\tanother gene of that symbol\n"
    "9606\t4\tNONE\t-\n"
    "9606\t5\tSAME\tSAME\n"
)
DESCRIPTIONS = {"CD3E": "CD3 epsilon subunit", "ACTB": "actin beta"}


@pytest.mark.parametrize("name", ["info.tsv", "info.tsv.gz"])
def test_descriptions_are_read_by_symbol(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(TABLE.encode()) if name.endswith("gz") else TABLE.encode())
    assert read_descriptions(path) == {
        "A1BG": "alpha-1-B glycoprotein",
        'B"X': '5" end "quoted',
    }


def test_a_table_without_the_columns_is_refused(tmp_path):
    path = tmp_path / "info.tsv"
    path.write_text("symbol\ttext\nA\tb\n")
    with pytest.raises(DataError, match=r"info.tsv: lacks .*Symbol.* it has symbol, text"):
        read_descriptions(path)


def test_a_broken_table_is_refused(tmp_path):
    path = tmp_path / "info.tsv.gz"
    path.write_bytes(gzip.compress(TABLE.encode() * 1000)[:-20])
    with pytest.raises(DataError, match="not a table of gene descriptions"):
        read_descriptions(path)
    with pytest.raises(DataError, match="absent"):
        read_descriptions(tmp_path / "absent.tsv")


def test_genes_have_their_description_where_there_is_one():
    assert feature_texts(["CD3E", "XYZ"]) == ["CD3E", "XYZ"]
    assert feature_texts(["CD3E", "XYZ", "Actb"], DESCRIPTIONS) == [
        "CD3E: CD3 epsilon subunit",
        "XYZ",
        "Actb: actin beta",
    ]


def test_peaks_are_called_by_their_genes_and_proteins_by_theirs():
    names = ["chr1:5-9", "chr2:1-2", "CD3", "ACTB"]
    peaks = {"chr1:5-9": ["CD3E", "ACTB"], "chr2:1-2": []}
    proteins = {"CD3": "CD3E", "ACTB": "ACTB"}
    assert feature_texts(names, DESCRIPTIONS, peak_genes=peaks, protein_genes=proteins) == [
        "peak near CD3E and ACTB: CD3 epsilon subunit",
        "chr2:1-2",
        "protein CD3 of CD3E: CD3 epsilon subunit",
        "protein ACTB: actin beta",
    ]
