"""Truncated, altered and hostile files: a FileFormatError, never anything else."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import FileFormatError
from graphc.formats import load, safetensors, save


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def refused(path: Path, content: bytes, match: str | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=match) as error:
        load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_every_truncation_is_refused(small):
    for length in reversed(range(small.stat().st_size)):
        os.truncate(small, length)
        with pytest.raises(FileFormatError):
            load(small)


@pytest.mark.parametrize(("flip", "step"), [(0xFF, 1), (0x01, 3), (0x20, 3)])
def test_every_flipped_byte_is_noticed(small, flip, step):
    content = small.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    padding = len(content[:header]) - len(content[:header].rstrip(b" "))
    with small.open("r+b", buffering=0) as file:
        for at in range(0, len(content), step):
            if header - padding <= at < header:
                continue
            os.pwrite(file.fileno(), bytes([content[at] ^ flip]), at)
            with pytest.raises(FileFormatError):
                load(small)
            os.pwrite(file.fileno(), content[at : at + 1], at)
    load(small)


def test_what_follows_the_end_is_noticed(small, tmp_path):
    refused(tmp_path / "longer", small.read_bytes() + b"\0", "1 bytes belong to no tensor")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
META = {"__metadata__": {"format": "graphc"}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "too few"),
        (b"\x10\0\0", "too few"),
        (b"\xff" * 8, "header claims"),
        (raw({}, length=1 << 40), "header claims"),
        (raw({}, length=3), "header claims|belong to no tensor|not valid JSON"),
        (raw(b"\xff\xfe\x00\x00"), "not valid JSON"),
        (raw(b"[]"), "not a JSON object"),
        (raw(b'{"a": NaN}'), "NaN is no number"),
        (raw(b'{"a":{},"a":{}}'), "stands twice"),
        (raw(b'{"a":' * 100_000), "not valid JSON"),
        (raw(b"[" * 100_000 + b"]" * 100_000), "not valid JSON"),
        (raw(b'{"a":' + b"9" * 10_000 + b"}"), "not valid JSON"),
        (raw({"__metadata__": {"a": 1}}), "names to strings"),
        (raw({"__metadata__": []}), "names to strings"),
        (raw({}), "not one with a graphc graph"),
        (raw(META), "not one with a graphc graph"),
        (raw({"x": []}), "malformed"),
        (raw({"x": {"dtype": "F32", "shape": [2]}}), "malformed"),
        (raw({"x": ENTRY | {"more": 1}}), "malformed"),
        (raw({"x": ENTRY | {"dtype": "F3"}}), "malformed"),
        (raw({"x": ENTRY | {"dtype": ["F32"]}}), "malformed"),
        (raw({"x": ENTRY | {"shape": 2}}), "malformed"),
        (raw({"x": ENTRY | {"shape": [True, 2]}}), "malformed"),
        (raw({"x": ENTRY | {"shape": [2.0]}}), "malformed"),
        (raw({"x": ENTRY | {"shape": [-1, -2]}}), "malformed"),
        (raw({"x": ENTRY | {"shape": [1] * 33}}), "malformed"),
        (raw({"x": ENTRY | {"data_offsets": [0]}}), "malformed"),
        (raw({"x": ENTRY | {"data_offsets": [-8, 0]}}), "malformed"),
        (raw({"x": ENTRY | {"data_offsets": [8, 0]}}), "-8 bytes, its shape"),
        (raw({"x": ENTRY | {"data_offsets": [0, 10]}}), "10 bytes, its shape"),
        (raw({"x": ENTRY | {"shape": [1 << 62, 4]}}), "8 bytes, its shape"),
        (raw({"x": ENTRY | {"shape": [1 << 64, 0], "data_offsets": [0, 0]}}), "malformed"),
        (raw({"x": ENTRY | {"shape": [1 << 62, 8, 0], "data_offsets": [0, 0]}}), "x"),
        (raw({"x": ENTRY}), "claims bytes 0 to 8"),
        (raw({"x": ENTRY | {"data_offsets": [8, 16]}}, b"\0" * 16), "expected them from 0"),
        (raw({"x": ENTRY, "y": ENTRY}, b"\0" * 8), "expected them from 8"),
        (raw({"x": ENTRY, "y": ENTRY | {"data_offsets": [4, 12]}}, b"\0" * 12), "from 8 on"),
        (raw({"x": ENTRY}, b"\0" * 9), "belong to no tensor"),
        (raw({"x": ENTRY | {"dtype": "BOOL", "data_offsets": [0, 2]}}, b"\1\2"), "no bools"),
    ],
)
def test_hostile_containers(content, match, tmp_path):
    refused(tmp_path / "hostile", content, match)


def test_huge_claims_allocate_nothing(tmp_path):
    shape = [1 << 40]
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 1 << 42]}
    refused(tmp_path / "huge", raw({"x": entry}, b"\0" * 64), "claims bytes 0 to 4398046511104")


def test_what_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="not a regular file"):
        load(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="not a regular file"):
        load("/dev/zero")


def test_another_library_s_file(tmp_path):
    safetensors.write(tmp_path / "other", {"w": np.ones(3)}, {"format": "pt"})
    with pytest.raises(FileFormatError, match="not one with a graphc graph"):
        load(tmp_path / "other")


def test_a_wrong_checksum(small):
    arrays, metadata = safetensors.read(small)
    arrays["variable:w"] = arrays["variable:w"] + 1
    safetensors.write(small, arrays, metadata)
    with pytest.raises(FileFormatError, match="the checksum is wrong: the file was altered"):
        load(small)
    del metadata["sha256"]
    safetensors.write(small, arrays, metadata)
    with pytest.raises(FileFormatError, match="the checksum is wrong"):
        load(small)


def test_newer_versions_are_named(small, rewrite):
    def format_version(description, _):
        description["format_version"] = 3
        description["something"] = "new"

    with pytest.raises(FileFormatError, match=r"version is 3; this graphc reads up to 2: upgrade"):
        load(rewrite(small, format_version))

    def op_version(description, _):
        next(o for o in description["operations"] if o["op"] == "Mul")["version"] = 7

    with pytest.raises(FileFormatError, match=r"'\w+' is of version 7 of op Mul; this graphc"):
        load(rewrite(small, op_version))


def operation(name: str, /, **changes: Any) -> Any:
    def edit(description, _):
        entry = next(o for o in description["operations"] if o["name"] == name)
        for key, value in changes.items():
            entry[key] = value(entry[key]) if callable(value) else value

    return edit


def field(key: str, value: Any) -> Any:
    return lambda description, _: description.__setitem__(key, value)


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def const(value: Any, types: Any = None) -> dict[str, Any]:
    entry = {"name": "c", "op": "Const", "version": 1, "attrs": {"value": value}}
    return entry | {"types": types or [["float32", [2]]]}


def first(*entries: dict[str, Any]) -> Any:
    def edit(description, arrays):
        arrays["two"] = np.ones(2, np.float32)
        arrays["big"] = np.array([10**9, 10**9], np.int64)
        description["operations"][:0] = entries

    return edit


BIG = const({"tensor": "big"}, [["int64", [2]]])
TWO = const({"tensor": "two"})
EDITS = {
    "no object": lambda d, a: "[]",
    "deep": lambda d, a: '{"format_version":' + "[" * 50_000,
    "no version": field("format_version", None),
    "bool version": field("format_version", True),
    "zero version": field("format_version", 0),
    "more fields": field("code", "import os"),
    "fewer fields": lambda d, a: d.pop("seed") and None,
    "operations": field("operations", {}),
    "no operation": field("operations", [3]),
    "sources": field("sources", [["a"]]),
    "sources of other types": field("sources", [[1, 2]]),
    "inputs": field("inputs", []),
    "an unknown input": field("inputs", {"x": "zzz:0"}),
    "an input that is an operation": field("inputs", {"x": "x"}),
    "an unknown output": field("outputs", {"x": "y:1"}),
    "an output that is nothing": field("outputs", {"x": None}),
    "a huge index": field("outputs", {"x": "y:99999999999999999999"}),
    "an index of odd digits": field("outputs", {"x": "y:\u0660"}),
    "seed": field("seed", "1"),
    "huge seed": field("seed", 1 << 70),
    "variables": field("variables", {}),
    "no variable": field("variables", [{}]),
    "missing variable": field("variables", []),
    "variable twice": lambda d, a: d["variables"].append(d["variables"][0]),
    "handle": lambda d, a: d["variables"][0].update(handle="x:0"),
    "initializer": lambda d, a: d["variables"][0].update(initializer="y"),
    "snapshot": lambda d, a: d["variables"][0].update(snapshot="y:0"),
    "initial": lambda d, a: d["variables"][0].update(initial_value="label:0"),
    "trainable": lambda d, a: d["variables"][0].update(trainable=1),
    "value of another shape": lambda d, a: a.update({"variable:w": np.zeros(4, np.float32)}),
    "value of another dtype": lambda d, a: a.update({"variable:w": np.zeros((2, 2))}),
    "missing constant": lambda d, a: a.pop("constant:w/initial_value") is None or None,
    "collections": field("collections", []),
    "a collection": field("collections", {"a": 1}),
    "an item": field("collections", {"a": ["variable"]}),
    "an item of another kind": field("collections", {"a": [["code", "x"]]}),
    "an item that is no variable": field("collections", {"a": [["variable", "x"]]}),
    "an unknown item": field("collections", {"a": [["tensor", "q:0"]]}),
    "name": operation("x", name="x y"),
    "name with a newline": operation("x", name="x\n"),
    "no name": operation("x", name=None),
    "empty name": operation("x", name=""),
    "name twice": operation("w", name="x"),
    "unknown op": operation("x", op="System"),
    "an op that is no name": operation("x", op=["x"]),
    "unknown key": operation("x", device="", shape=3),
    "version": operation("x", version=0),
    "a version that is no number": operation("x", version="1"),
    "too many inputs": operation("y", inputs=lambda i: i * 2),
    "too few inputs": operation("y", inputs=[]),
    "inputs that are no list": operation("y", inputs="x:0"),
    "inputs that are no names": operation("y", inputs=[1, 2]),
    "a cycle": operation("y", inputs=["y:0", "y:0"]),
    "a forward reference": operation("x", control_inputs=["y"]),
    "control inputs": operation("y", control_inputs=[0]),
    "an input twice as a control input": operation("y", control_inputs=["Sum"]),
    "a dtype that does not fit": operation("y", inputs=["label:0", "label:0"]),
    "a handle that is none": operation("w/Assign", inputs=["w/read:0", "w/initial_value:0"]),
    "device": operation("y", device=3),
    "attrs": operation("x", attrs=[]),
    "unknown attribute": operation("x", attrs={"dtype": "float32", "code": 1}),
    "missing attribute": operation("x", attrs={"shape": [2]}),
    "null attribute": operation("x", attrs={"dtype": None}),
    "dtype": operation("x", attrs={"dtype": "float31"}),
    "object dtype": operation("x", attrs={"dtype": "object"}),
    "reference dtype": operation("x", attrs={"dtype": "float32_ref"}),
    "shape": operation("x", attrs={"dtype": "float32", "shape": "s0"}),
    "negative size": operation("x", attrs={"dtype": "float32", "shape": [-1]}),
    "negative sum": operation("x", attrs={"dtype": "float32", "shape": [[[-1]]]}),
    "huge size": operation("x", attrs={"dtype": "float32", "shape": [1 << 63]}),
    "huge rank": operation("x", attrs={"dtype": "float32", "shape": [1] * 33}),
    "symbol": operation("x", attrs={"dtype": "float32", "shape": ["__class__"]}),
    "deep size": operation("x", attrs={"dtype": "float32", "shape": [deep(400)]}),
    "size function": operation(
        "x", attrs={"dtype": "float32", "shape": [[[1, {"fn": "eval", "a": 1, "b": 2}]]]}
    ),
    "division by zero": operation(
        "x", attrs={"dtype": "float32", "shape": [[[-1, {"fn": "max", "a": 1, "b": 2}]]]}
    ),
    "types": operation("x", types=[]),
    "type": operation("x", types=[["float32"]]),
    "another dtype": operation("y", types=[["float64", None]]),
    "another rank": operation("y", types=[["float32", [1]]]),
    "another size": operation("y", types=[["float32", [1, 3]]]),
    "at": operation("x", at=[0]),
    "at no source": operation("x", at=[99, 1]),
    "at a negative line": operation("x", at=[0, -1]),
    "at a bool": operation("x", at=[False, True]),
    "const of nothing": first(const({"tensor": "none"})),
    "const of another shape": first(const({"tensor": "two"}, [["float32", [3]]])),
    "const of another dtype": first(const({"tensor": "two"}, [["int32", [2]]])),
    "const that is a number": first(const(2)),
    "const that is code": first(const({"code": "1", "tensor": "two"})),
    "strings of a wrong shape": first(const({"strings": ["a"], "shape": [2]})),
    "strings of a negative shape": first(const({"strings": ["a"], "shape": [-1]})),
    "strings that are none": first(const({"strings": [1], "shape": [1]})),
    "a surrogate": first(const({"strings": ["\ud800"], "shape": [1]}, [["string", [1]]])),
    "two variadic lists": first(
        TWO, {"name": "p", "op": "Pack", "version": 1, "inputs": [], "types": [["float32", [0]]]}
    ),
    "an int that is a bool": first(
        TWO, {"name": "p", "op": "Pack", "version": 1, "inputs": ["c:0"], "attrs": {"axis": True}}
    ),
    "a huge int": first(
        TWO, {"name": "p", "op": "Pack", "version": 1, "inputs": ["c:0"], "attrs": {"axis": 2**63}}
    ),
    "handles": first(
        TWO,
        {"name": "r", "op": "ReportUninitialized", "version": 1, "types": [["string", [None]]],
         "attrs": {"variables": {"operations": ["c"]}}},
    ),
    "handles that are plain": first(
        {"name": "r", "op": "ReportUninitialized", "version": 1, "types": [["string", [None]]],
         "attrs": {"variables": [1, 2]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_hostile_graphs(edit, small, rewrite):
    with pytest.raises(FileFormatError):
        load(rewrite(small, edit))


def test_giant_shapes_are_only_numbers(small, rewrite):
    fill = {
        "name": "f", "op": "Fill", "version": 1, "inputs": ["c:0", "v:0"],
        "types": [["float32", [10**9, 10**9]]],
    }  # fmt: skip
    value = const({"tensor": "two"}) | {"name": "v"}

    def edit(description, arrays):
        first(BIG, value, fill)(description, arrays)
        arrays["two"] = np.array(1, np.float32)
        description["operations"][1]["types"] = [["float32", []]]
        description["outputs"] = {"f": "f:0"}

    model = load(rewrite(small, edit))
    assert model.outputs["f"].shape.as_list() == [10**9, 10**9]


# --- saving -----------------------------------------------------------------------------------


def test_what_cannot_be_saved(graph, tmp_path):
    x = gc.placeholder(gc.float32, [2], name="x")
    y = gc.tanh(x, name="y")
    session = gc.Session()
    path = tmp_path / "m"
    with gc.Graph().as_default():
        stranger = gc.constant(1.0, name="stranger")
    cases = [
        ((session, [x], [stranger]), ValueError, "outputs: .*not an element of this graph"),
        ((session, [y.op], [y]), TypeError, "inputs: "),
        ((session, ["nothing:0"], [y]), ValueError, "inputs: .*does not exist"),
        ((session, [3], [y]), TypeError, "inputs: "),
        ((session, {1: x}, [y]), TypeError, "names must be strings"),
        ((session, {"a": x, "b": x}, [y]), ValueError, "one tensor has several"),
        ((session, [x, "x:0"], [y]), ValueError, "two tensors are named 'x'"),
        ((session, [], [y]), ValueError, r"depend on placeholders .*: x \(declared at .*:\d+\)"),
        (([x], [y], session), TypeError, "is not a Session"),
    ]
    for args, kind, match in cases:
        with pytest.raises(kind, match=match):
            save(path, *args)
    assert not os.listdir(tmp_path)


def test_inputs_of_the_model(small):
    model = load(small)
    assert repr(model) == (
        "<graphc.Model (x: float32(?, 2)) -> (y: float32(?, 2), label: string()), 1 variable>"
    )
    for call, match in [
        (model, "no value was given for the input 'x'; the model has x: float32"),
        (lambda: model([[1, 2]], x=[[1, 2]]), "given twice"),
        (lambda: model(z=1), "there is no input 'z'; the model has x: float32"),
        (lambda: model(1, 2), "2 inputs were given"),
        (lambda: model(x=[1, 2]), r"Cannot feed value of shape \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
