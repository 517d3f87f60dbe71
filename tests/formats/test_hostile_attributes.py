"""Files whose operations have attributes that no script could have declared.

Run as a script for one op, this file loads and runs each of them: what the test starts, because
native code that reads where it must not ends its process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if "ops_support" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "ops_support", Path(__file__).parents[1] / "ops" / "support.py"
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["ops_support"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["ops_support"])

from ops_support import Declared, cases, op_dtypes, row_id

import graphc as gc
from graphc.errors import FileFormatError
from graphc.formats import load, safetensors, save
from graphc.op import REGISTRY, Op, SpecialOp

INT = 2**31 - 1
HOSTILE: dict[str, list[Any]] = {
    "int": [-1, 0, 1, 2, 3, -7, 100, INT, -(2**63)],
    "bool": [True, False, 1],
    "str": ["", "zzz", "SAME", "VALID", "EXPLICIT", "NCHW", "NHWC"],
    "ints": [
        [], [0], [7], [0, 0], [-1, -1], [3, 3], [100, 100], [INT, INT], [1, 1, 1], [0] * 4, [1] * 4,
        [-1] * 4, [5] * 8, [-5] * 8, [1, 2, 3, 4], [1, -3, 2, 1], [1, 9, 9, 1], [1, 1, 99, 1],
    ],
    "dtype": ["string", "bool", "float32", "int8", "uint64", "float16", "bfloat16",
              "float32_ref"],
    "float": [0.0, -1.0, {"float": "nan"}, {"float": "inf"}, 1e308, "1"],
    "shape": [None, [], [0], [2**62], [2, 2], ["s9"]],
}  # fmt: skip
OPS = sorted(
    (op for op in REGISTRY.values() if op.attrs and not isinstance(op, SpecialOp)), key=row_id
)


def files(op: Op, folder: Path, samples: int) -> Iterator[tuple[str, Path, Declared]]:
    """Each hostile value of each attribute of an op, in the place of what a sample has."""
    path = folder / f"{op.name}.graphc"
    for case, _ in zip(cases(op, op_dtypes(op)[0]), range(samples), strict=False):
        graph = gc.Graph()
        with graph.as_default():
            made = case.declare("shape", graph)
            inputs = {t.op.name: t for t in made.feeds}
            save(path, gc.Session(), inputs, {f"o{t.index}": t for t in made.op.outputs})
        arrays, metadata = safetensors.read(path)
        for key, attr in op.attrs.items():
            for value in HOSTILE[attr.kind]:
                description = json.loads(metadata["graphc"])
                entry = next(o for o in description["operations"] if o["name"] == made.op.name)
                entry["attrs"][key] = value
                entry["types"] = [[t[0], None] for t in entry["types"]]
                text = json.dumps(description)
                sha256 = safetensors.checksum(arrays, text)
                told = {"format": "graphc", "graphc": text, "sha256": sha256}
                safetensors.write(path, arrays, told)
                yield f"{case} with {key} = {value}", path, made


@pytest.mark.parametrize("op", OPS, ids=row_id)
def test_loading_refuses_or_loads(op: Op, tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors.os, "fsync", lambda descriptor: None)
    tried = 0
    for _, path, _ in files(op, tmp_path, 1):
        tried += 1
        with contextlib.suppress(FileFormatError):
            load(path)
    assert tried >= len(op.attrs)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS, ids=row_id)
def test_running_them_does_not_end_the_process(op: Op):
    root = Path(gc.__file__).parents[1]
    command = [sys.executable, __file__, op.name]
    try:
        done = subprocess.run(
            command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        pytest.fail(f"still running: {(e.stdout or b'').decode().splitlines()[-1:]}")
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"died with {done.returncode} of {last}\n{done.stderr[-1000:]}"


def main(name: str) -> None:
    """Load and run every hostile file of one op; errors are right, dying is not."""
    with tempfile.TemporaryDirectory() as folder:
        for what, path, made in files(REGISTRY[name], Path(folder), 3):
            print(what, flush=True)  # noqa: T201
            try:
                load(path).run(**{t.op.name: v for t, v in made.feeds.items()})
            except Exception as e:  # noqa: BLE001
                print(f"  {type(e).__name__}: {str(e)[:200]}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
