"""A CellTypist model file: a pickle, opened only if its SHA-256 is the one that was given."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any

from morebench.errors import ConfigError, DataError, Unavailable

# Of a model's genes that the data must have: the model is linear, so with fewer of them it
# still answers, by its intercepts.
MIN_GENES = 50
MIN_SHARE = 0.05


def read_checked(model: str | None, model_sha256: str | None) -> bytes | None:
    """Return the bytes of a model file, whose SHA-256 is the given one; nothing is unpickled.

    Parameters
    ----------
    model
        Absolute path of the file, or None for no model.
    model_sha256
        64 hexadecimal digits; given with ``model``, and only with it.

    Returns
    -------
    bytes, or None without a model

    Raises
    ------
    ConfigError
        One is given without the other, the path is relative, the hash is no SHA-256, or the
        file has another one.
    Unavailable
        There is no such file.
    """
    if model is None:
        if model_sha256 is not None:
            raise ConfigError("model_sha256: given without 'model:'; valid: both, or neither")
        return None
    if not Path(model).is_absolute():  # the method's process stands in a folder of its own
        raise ConfigError(f"model: found {model!r}; valid: an absolute path")
    if not re.fullmatch("[0-9a-fA-F]{64}", str(model_sha256)):
        raise ConfigError(
            f"model_sha256: found {model_sha256!r}; valid: the SHA-256 of {model}, 64 "
            "hexadecimal digits (a CellTypist model is a pickle, which can run any code)"
        )
    if not Path(model).is_file():
        raise Unavailable(
            f"model: there is no file {model}; download the CellTypist model, or set 'model:' "
            "to its absolute path"
        )
    content = Path(model).read_bytes()
    found, wanted = hashlib.sha256(content).hexdigest(), str(model_sha256).lower()
    if found != wanted:
        raise ConfigError(
            f"model: {model} has the SHA-256 {found}, and model_sha256 says {wanted}; it "
            "was not unpickled. Valid: the file that the hash was taken of"
        )
    return content


def load_model(celltypist: Any, content: bytes, where: str) -> Any:
    """Load a model by CellTypist from bytes that were checked.

    Parameters
    ----------
    celltypist
        The package.
    content
        As ``read_checked`` gives it. The file is not read again: it may be another one by now.
    where
        The file's path, for the error.

    Returns
    -------
    celltypist.models.Model

    Raises
    ------
    DataError
        The bytes are no CellTypist model.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pkl"
        path.write_bytes(content)
        try:
            model = celltypist.models.Model.load(str(path))
        except Exception as error:  # the package raises nothing narrower
            raise DataError(f"{where}: no CellTypist model: {error}") from error
    lacks = [n for n in ("features", "classes_", "coef_") if not hasattr(model.classifier, n)]
    if lacks:
        raise DataError(f"{where}: no CellTypist model: its classifier lacks {', '.join(lacks)}")
    return model


def known_genes(model: Any, genes: Any, where: str) -> int:
    """Return how many genes of a model the data have.

    Raises
    ------
    DataError
        Too few: the data spell genes in another way, or are of another species.
    """
    features = list(map(str, model.classifier.features))
    n_known = len(set(features) & set(map(str, genes)))
    if n_known < MIN_GENES or n_known < MIN_SHARE * len(features):
        raise DataError(
            f"{where}: {n_known} of its {len(features)} genes (such as {features[0]}) are among "
            f"the data's {len(genes)} (such as {genes[0]}); valid: at least {MIN_GENES} genes and "
            f"{MIN_SHARE:.0%}, by the same names"
        )
    return n_known
