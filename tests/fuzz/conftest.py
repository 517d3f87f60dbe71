"""Lets the tests of this folder import ``random_graphs.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "random_graphs" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "random_graphs", Path(__file__).with_name("random_graphs.py")
    )
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["random_graphs"] = _module
    _spec.loader.exec_module(_module)
