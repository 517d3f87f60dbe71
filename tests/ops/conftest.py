"""Lets the tests of this folder import ``support.py``, as ``ops_support``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "ops_support" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "ops_support", Path(__file__).with_name("support.py")
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["ops_support"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["ops_support"])
