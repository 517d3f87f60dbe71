"""The examples in the docstrings of graphc.data are run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["batching", "corpus", "images", "progress"])
def test_the_docstrings_are_right(module):
    loaded = importlib.import_module(f"graphc.data.{module}")
    result = doctest.testmod(loaded)
    assert result.attempted > 0
    assert result.failed == 0
