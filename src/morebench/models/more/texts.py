"""What a feature is called for a language model: its symbol, with a description where known."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from morebench.errors import DataError, listed
from morebench.models.more.cells import Cells

GENE_INFO_COLUMNS = ("Symbol", "description")


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Read what genes do from a table of NCBI Gene (``gene_info``, whole or slim).

    Parameters
    ----------
    path
        Tab-separated, gzip-compressed where the name ends in ``.gz``, with the columns
        ``Symbol`` and ``description`` among others (https://ftp.ncbi.nlm.nih.gov/gene).

    Returns
    -------
    dict
        Symbol to description. Of several genes with one symbol the first counts; a
        description that is empty, ``-`` or the symbol again is left out.

    Raises
    ------
    DataError
        If a column is missing, or the file cannot be read.
    """
    file = Path(path)
    found: dict[str, str] = {}
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as stream:
            table = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns = [c.lstrip("#") for c in table.fieldnames or ()]
            missing = [c for c in GENE_INFO_COLUMNS if c not in columns]
            if missing:
                raise DataError(f"{file}: lacks the columns {missing}; it has {listed(columns)}")
            table.fieldnames = columns
            for row in table:
                symbol, text = row["Symbol"], (row["description"] or "").strip()
                if text not in ("", "-", symbol):
                    found.setdefault(symbol, text)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a table of gene descriptions ({error})") from error
    return found


def feature_texts(
    names: Sequence[str],
    descriptions: Mapping[str, str] | None = None,
    *,
    peak_genes: Mapping[str, Sequence[str]] | None = None,
    protein_genes: Mapping[str, str] | None = None,
) -> list[str]:
    """Texts of features, in their order.

    Parameters
    ----------
    names : g names
        Gene symbols, names of peaks or of proteins.
    descriptions
        Gene symbol to description. Looked up as written, then in capitals (mouse symbols).
    peak_genes
        Peak to its nearest genes, nearest first: the text is ``peak near GENE``, or
        ``peak near GENE and GENE``, with the nearest gene's description.
    protein_genes
        Protein to the gene that encodes it: ``protein NAME of GENE``, with its description.

    Returns
    -------
    list of g strings
        ``SYMBOL`` or ``SYMBOL: description`` for genes and for what no map names.
    """
    peaks, proteins = peak_genes or {}, protein_genes or {}
    return [_text(name, descriptions or {}, peaks, proteins) for name in names]


def _text(
    name: str,
    descriptions: Mapping[str, str],
    peaks: Mapping[str, Sequence[str]],
    proteins: Mapping[str, str],
) -> str:
    subject, gene = name, name
    if peaks.get(name):
        subject, gene = f"peak near {' and '.join(peaks[name])}", peaks[name][0]
    elif name in proteins:
        gene = proteins[name]
        subject = f"protein {name}" if gene == name else f"protein {name} of {gene}"
    description = descriptions.get(gene) or descriptions.get(gene.upper())
    return f"{subject}: {description}" if description else subject


def texts_by_name(cells: Cells, modality: str, words: Sequence[str]) -> dict[str, str]:
    """Return the text of each feature of a modality; ``words`` are in the features' order."""
    if modality not in cells.modalities:
        raise DataError(f"texts: found {modality!r}; valid: {listed(cells.modalities)}")
    names = cells.modalities[modality].names
    if len(words) != len(names):
        raise DataError(
            f"texts[{modality!r}]: found {len(words)}; valid: one a feature, {len(names)}"
        )
    return dict(zip(names, words, strict=True))
