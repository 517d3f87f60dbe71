"""What the tests of files share: models to save, files to damage, the rows of the registry."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.formats import safetensors, save

for _name, _path in {
    "ops_support": Path(__file__).parents[1] / "ops" / "support.py",
    "formats_bodies": Path(__file__).with_name("bodies.py"),
}.items():
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, _path)
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])


@pytest.fixture(autouse=True)
def graph():
    """A graph of its own for every test."""
    with gc.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small file with a variable, a constant, a symbol, a control dependency and strings."""
    x = gc.placeholder(gc.float32, [None, 2], name="x")
    w = gc.Variable(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), name="w")
    with gc.control_dependencies([gc.no_op(name="first")]):
        y = gc.multiply(gc.reduce_sum(x[:, :, None] * w, 1), [2.0, 0.5], name="y")
    label = gc.constant("a name", name="label")
    path = tmp_path / "small.graphc"
    with gc.Session() as session:
        session.run(w.initializer)
        save(path, session, [x], [y, label])
    return path


@pytest.fixture
def rewrite() -> Callable[..., Path]:
    """``rewrite(path, edit)``: the file with what ``edit(description, arrays)`` makes of it.

    The checksum is right afterwards: only what the file says is wrong.
    """

    def rewrite(path: Path, edit: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> Path:
        arrays, metadata = safetensors.read(path)
        description = json.loads(metadata["graphc"])
        edited = edit(description, arrays)
        text = edited if isinstance(edited, str) else json.dumps(description)
        metadata |= {"graphc": text, "sha256": safetensors.checksum(arrays, text)}
        target = path.with_name("rewritten.graphc")
        safetensors.write(target, arrays, metadata)
        return target

    return rewrite
