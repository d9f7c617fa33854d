"""Which number stands for which gene: the vocabulary of gene tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morebench.errors import DataError, listed

PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"
SPECIAL = (PAD, CLS, EOC)  # in the order in which the official code adds what is missing


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their numbers, which run from 0 without a gap.

    Attributes
    ----------
    numbers
        The number of each token, those of ``SPECIAL`` among them.
    """

    numbers: dict[str, int]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def pad(self) -> int:
        """Number of the token that fills up short cells."""
        return self.numbers[PAD]

    @property
    def cls(self) -> int:
        """Number of the token whose output is the cell's embedding."""
        return self.numbers[CLS]

    def of_genes(self, genes: Iterable[str]) -> np.ndarray:
        """Return the number of each gene, -1 where it has none; case counts.

        Returns
        -------
        (g,) array of int64
        """
        special = set(SPECIAL)
        found = [-1 if g in special else self.numbers.get(g, -1) for g in map(str, genes)]
        return np.array(found, dtype=np.int64)


def vocabulary_of(genes: Iterable[str]) -> Vocabulary:
    """Make the vocabulary of some genes: the special tokens, then the genes in their order.

    Raises
    ------
    DataError
        A gene is there twice, or is called as a special token.
    """
    tokens = [*SPECIAL, *map(str, genes)]
    numbers = {token: i for i, token in enumerate(tokens)}
    if len(numbers) != len(tokens):
        twice = sorted(token for token, times in Counter(tokens).items() if times > 1)
        raise DataError(f"genes: found more than once: {listed(twice)}; valid: each name once")
    return Vocabulary(numbers)


def read_vocabulary(text: bytes, path: Path) -> Vocabulary:
    """Read ``vocab.json`` of a checkpoint: an object of token and number.

    Special tokens that the file lacks get the next numbers, in the order of ``SPECIAL``, as
    in the official ``embed_data``.

    Parameters
    ----------
    text
        What the file holds.
    path
        Its name, for errors.

    Raises
    ------
    DataError
        It is not JSON, or its numbers are not 0 to one less than there are tokens, each once.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); valid: an object of token: number") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: holds {_what(content)}; valid: an object of token: number")
    wrong = [t for t, i in content.items() if isinstance(i, bool) or not isinstance(i, int)]
    if wrong:
        raise DataError(f"{path}: no whole number stands at {listed(wrong)}")
    if sorted(content.values()) != list(range(len(content))):
        raise DataError(
            f"{path}: {len(content)} tokens have numbers {min(content.values())} to "
            f"{max(content.values())}; valid: 0 to {len(content) - 1}, each once"
        )
    for token in SPECIAL:
        content.setdefault(token, len(content))
    return Vocabulary(content)


def _what(content: object) -> str:
    return "nothing" if content in ({}, None) else f"a {type(content).__name__}"
