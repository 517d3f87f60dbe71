"""Lets the tests of this folder import ``pass_support.py`` and the random graphs of the fuzzer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).parent

for _name, _path in (
    ("graph_builder", _HERE.parent / "fuzz" / "graph_builder.py"),
    ("random_graphs", _HERE.parent / "fuzz" / "random_graphs.py"),
    ("pass_support", _HERE / "pass_support.py"),
):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, _path)
        assert _spec is not None
        assert _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)
