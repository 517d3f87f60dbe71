"""The safetensors container: named arrays and text, nothing that is ever executed.

Layout (https://github.com/huggingface/safetensors): eight bytes of little-endian header length, a
JSON header that maps names to dtype, shape and byte range, then the bytes.  ``__metadata__`` maps
strings to strings.  Everything a file claims is checked before anything is allocated from it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import FileFormatError

MAX_HEADER = 100_000_000
MAX_DIMS = 64

_CODES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16,
    "F16": np.float16, "I32": np.int32, "U32": np.uint32, "F32": np.float32, "F64": np.float64,
    "I64": np.int64, "U64": np.uint64,
}  # fmt: skip
_DTYPES = {code: np.dtype(t) for code, t in _CODES.items()}
_NAMES = {dtype: code for code, dtype in _DTYPES.items()}


def write(path: Any, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file in one step: readers see the old one or the whole new one.

    Args:
      path: the file.
      arrays: by name, in the order they are to lie in the file.
      metadata: text by name.
    Raises:
      FileFormatError: an array's dtype has no code. OSError: the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    data = []
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("<"), copy=False)
        code = _NAMES.get(np.dtype(array.dtype.newbyteorder("=")))
        if code is None:
            raise FileFormatError(f"{name}: arrays of {array.dtype} cannot be saved")
        end = offset + native.nbytes
        header[name] = {
            "dtype": code, "shape": list(native.shape), "data_offsets": [offset, end]
        }  # fmt: skip
        data.append(np.array(native, order="C", copy=None))
        offset = end
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(len(text).to_bytes(8, "little"))
            f.write(text)
            for array in data:
                f.write(array.tobytes())
            f.flush()
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays (read-only) and the metadata of a file.

    Raises:
      FileFormatError: (a ValueError) the file is truncated, altered or no safetensors file.
      OSError: it cannot be read.
    """
    raw = Path(path).read_bytes()
    if len(raw) < 8:
        raise FileFormatError(f"{path}: {len(raw)} bytes are too few for a safetensors file")
    length = int.from_bytes(raw[:8], "little")
    if length > MAX_HEADER or length > len(raw) - 8:
        raise FileFormatError(
            f"{path}: the header claims {length} bytes, but {len(raw) - 8} are left: truncated, or "
            "not a safetensors file"
        )
    header = _parse(path, raw[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileFormatError(f"{path}: __metadata__ must map names to strings")
    return _arrays(path, header, memoryview(raw)[8 + length :]), metadata


def _parse(path: Any, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as e:
        raise FileFormatError(f"{path}: the header is not valid JSON: {e}") from None
    if not isinstance(header, dict):
        raise FileFormatError(f"{path}: the header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _arrays(path: Any, header: dict[str, Any], data: memoryview) -> dict[str, np.ndarray]:
    arrays = {}
    at = 0
    entries = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(path, name, entry)
        entries.append((begin, end, name, dtype, shape))
    for begin, end, name, dtype, shape in sorted(entries, key=lambda e: e[:2]):
        if begin != at or end > len(data):
            raise FileFormatError(
                f"{path}: {name} claims bytes {begin} to {end}, expected from {at} within "
                f"{len(data)}"
            )
        at = end
        array = np.frombuffer(data[begin:end], dtype=dtype).reshape(shape)
        if dtype == np.bool_ and (np.frombuffer(data[begin:end], np.uint8) > 1).any():
            raise FileFormatError(f"{path}: {name} holds bytes that are no bools")
        arrays[name] = array
    if at != len(data):
        raise FileFormatError(f"{path}: {len(data) - at} bytes belong to no tensor")
    return {name: arrays[name] for name in header}


def _entry(path: Any, name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    wrong = FileFormatError(f"{path}: the entry of {name!r} is malformed: {str(entry)[:200]}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [shape, offsets]
    if dtype is None or not all(
        isinstance(n, list) and all(type(v) is int and v >= 0 for v in n) for n in numbers
    ):
        raise wrong
    if len(offsets) != 2 or len(shape) > MAX_DIMS:
        raise wrong
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != offsets[1] - offsets[0]:
        raise FileFormatError(
            f"{path}: {name} has {offsets[1] - offsets[0]} bytes, its shape {shape} needs "
            f"{count * dtype.itemsize}"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]
