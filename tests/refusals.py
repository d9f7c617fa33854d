"""Assertions on errors that users see."""

import pytest

from morebench.errors import DataError


def refused(call, *words):
    """Assert that a call raises a DataError, in one line that holds the words; return it."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return text
