"""The safetensors container: named arrays and text, nothing that is ever executed.

Layout (https://github.com/huggingface/safetensors): eight bytes of little-endian header length, a
JSON header that maps names to dtype, shape and byte range, then the bytes.  ``__metadata__`` maps
strings to strings.  Everything a file claims is checked against its real size before anything is
allocated from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from graphc.errors import FileFormatError

MAX_HEADER = 100_000_000
MAX_DIMS = 32
ALIGN = 64

_CODES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16,
    "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I32": np.int32, "U32": np.uint32,
    "F32": np.float32, "F64": np.float64, "I64": np.int64, "U64": np.uint64,
}  # fmt: skip
_DTYPES = {code: np.dtype(t).newbyteorder("<") for code, t in _CODES.items()}
_NAMES = {np.dtype(t): code for code, t in _CODES.items()}

Arrays = dict[str, np.ndarray]


class Entry(NamedTuple):
    """What the header says of one tensor."""

    name: str
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


def shown(value: Any, limit: int = 100) -> str:
    """A value from a file as text for an error message: short, however deep it is nested."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def checksum(arrays: Mapping[str, np.ndarray], *texts: str) -> str:
    """The SHA-256 of texts and arrays (names, dtypes, shapes, bytes), in the order of the names."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        head = f"{name} {_code(name, array)} {list(array.shape)} "
        digest.update(head.encode("utf-8", "surrogatepass"))
        digest.update(_bytes(array))
    return digest.hexdigest()


def _code(name: str, array: np.ndarray) -> str:
    code = _NAMES.get(array.dtype.newbyteorder("="))
    if code is None:
        raise FileFormatError(f"{name}: arrays of {array.dtype} cannot be saved")
    return code


def _bytes(array: np.ndarray) -> memoryview:
    little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return little.reshape(-1).view(np.uint8).data


# --- writing --------------------------------------------------------------------------------------


def write(path: Any, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file in one step: readers see the old one or the whole new one.

    Args:
      path: the file; an existing one keeps its permissions, a symbolic link is followed.
      arrays: by name.
      metadata: text by name.
    Raises:
      FileFormatError: an array's dtype has no code, or there is too much metadata.
      OSError: the file cannot be written.
    """
    # Large elements first: then every tensor is aligned to its elements in the file.
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        array = arrays[name]
        if name == "__metadata__" or array.ndim > MAX_DIMS:
            raise FileFormatError(f"an array {name!r} of rank {array.ndim} cannot be saved")
        end = at + array.nbytes
        entry = {"dtype": _code(name, array), "shape": list(array.shape), "data_offsets": [at, end]}
        header[name] = entry
        at = end
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise FileFormatError(
            f"{path}: the graph and the names take {len(text):,} bytes; {MAX_HEADER:,} is the most "
            "that a safetensors header can hold"
        )
    target = Path(os.path.realpath(path))
    with _replacing(target) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(_bytes(arrays[name]))


@contextlib.contextmanager
def _replacing(target: Path) -> Any:
    """A new file beside the target that takes its place when everything has been written."""
    mode = None
    with contextlib.suppress(FileNotFoundError):
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{target} is not a regular file; a model is saved to one")
        mode = stat.S_IMODE(status.st_mode)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.part")
    # The kernel applies the umask to 0o666; an existing file's permissions are kept.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the renaming last, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- reading --------------------------------------------------------------------------------------


def read(path: Any) -> tuple[Arrays, dict[str, str]]:
    """The arrays (aligned and read-only) and the metadata of a file.

    Raises:
      FileFormatError: (a ValueError) the file is truncated, altered or no safetensors file.
      OSError: it cannot be read.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        header, left = _header(path, file, size)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise FileFormatError(f"{path}: __metadata__ must map names to strings")
        entries = [_entry(path, name, entry) for name, entry in header.items()]
        ordered = _laid_out(path, entries, left)
        arrays = {entry.name: _array(path, file, entry) for entry in ordered}
    return {name: arrays[name] for name in header}, metadata


def _opened(path: Any) -> BufferedReader:
    # Without O_NONBLOCK the opening of a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder, not a model file")
    raise FileFormatError(f"{path} is not a regular file")


def _header(path: Any, file: BufferedReader, size: int) -> tuple[dict[str, Any], int]:
    """The header and the number of bytes after it."""
    raw = file.read(8)
    if len(raw) < 8:
        raise FileFormatError(f"{path}: {len(raw)} bytes are too few for a safetensors file")
    length = int.from_bytes(raw, "little")
    left = size - 8 - length
    if length > MAX_HEADER or left < 0:
        raise FileFormatError(
            f"{path}: the header claims {length} bytes, but {size - 8} are left: truncated, or "
            "not a safetensors file"
        )
    text = file.read(length)
    if len(text) != length:
        raise FileFormatError(f"{path}: the file ends within its header")
    header = parse_json(path, text, "the header")
    if not isinstance(header, dict):
        raise FileFormatError(f"{path}: the header is not a JSON object")
    return header, left


def parse_json(path: Any, text: bytes | str, what: str) -> Any:
    """A JSON value in which no name stands twice and every number is finite.

    Raises:
      FileFormatError: the text is none.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise FileFormatError(f"{path}: {what} is not valid JSON: {e}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _entry(path: Any, name: str, entry: Any) -> Entry:
    wrong = FileFormatError(f"{path}: the entry of {shown(name)} is malformed: {shown(entry, 200)}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise wrong
    if not all(
        isinstance(n, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in n)
        for n in (shape, offsets)
    ):
        raise wrong
    if len(offsets) != 2 or len(shape) > MAX_DIMS:
        raise wrong
    have, need = offsets[1] - offsets[0], math.prod(shape) * _DTYPES[code].itemsize
    if have != need:
        raise FileFormatError(
            f"{path}: {shown(name)} has {have} bytes, its shape {shape} needs {need}"
        )
    return Entry(name, code, tuple(shape), offsets[0], offsets[1])


def _laid_out(path: Any, entries: list[Entry], size: int) -> list[Entry]:
    """The entries in the order of their bytes, which must fill the file without holes."""
    at = 0
    ordered = sorted(entries, key=lambda e: (e.begin, e.end))
    for entry in ordered:
        if entry.begin != at or entry.end > size:
            raise FileFormatError(
                f"{path}: {shown(entry.name)} claims bytes {entry.begin} to {entry.end}, expected "
                f"them from {at} on, within {size}: truncated, or altered"
            )
        at = entry.end
    if at != size:
        raise FileFormatError(f"{path}: {size - at} bytes belong to no tensor")
    return ordered


def _array(path: Any, file: BufferedReader, entry: Entry) -> np.ndarray:
    """The next tensor of the file, on a boundary that every vector load is happy with."""
    dtype, count = _DTYPES[entry.code], entry.end - entry.begin
    raw = np.empty(count + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    data = raw[start : start + count]
    if file.readinto(data.data) != count:
        raise FileFormatError(f"{path}: the file ends within {shown(entry.name)}")
    if entry.code == "BOOL" and (data > 1).any():
        raise FileFormatError(f"{path}: {shown(entry.name)} holds bytes that are no bools")
    try:
        array = data.view(dtype).reshape(entry.shape)
    except ValueError as e:  # an empty tensor whose other sizes overflow
        raise FileFormatError(f"{path}: {shown(entry.name)}: {e}") from None
    native = np.dtype(_CODES[entry.code])
    # A view has the one dtype object that a run knows arrays of this type by.
    array = np.asarray(array.view(native) if dtype == native else array.astype(native))
    array.flags.writeable = False
    return array
