"""The structures that Python and the native runtime share, as ctypes."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

i64 = ctypes.c_int64
ptr = ctypes.c_void_p
Fields = list[tuple[str, type[Any]]]


def _words(names: str) -> Fields:
    return [(name, i64) for name in names.split()]


class PoolStruct(ctypes.Structure):
    """``%Pool`` of pool.ll."""

    _fields_: ClassVar[Fields] = [
        ("ticket", i64),
        ("_ticket_line", i64 * 7),
        ("finished", i64),
        ("_finished_line", i64 * 7),
        *_words("fn arg extent grain chunks busy workers asleep stop spin avoided_cpu threads"),
        ("allowed_cpus", ctypes.c_uint64 * 16),
        *_words("started start"),
    ]


class LockStruct(ctypes.Structure):
    """``%Lock`` of pool.ll."""

    _fields_: ClassVar[Fields] = [
        ("word", ctypes.c_int32),
        ("_unused", ctypes.c_int32),
        ("owner", ctypes.c_uint64),
    ]


class InputStruct(ctypes.Structure):
    """``%Input`` of call.ll."""

    _fields_: ClassVar[Fields] = _words("slot rank itemsize formats dims dtype")


class OutputStruct(ctypes.Structure):
    """``%Output`` of call.ll."""

    _fields_: ClassVar[Fields] = _words("slot rank itemsize first_dim dtype flags")


class ContextStruct(ctypes.Structure):
    """``%Context`` of call.ll."""

    _fields_: ClassVar[Fields] = _words(
        "plan run n_inputs inputs n_outputs outputs n_symbols syms dims buffers arena"
        " arena_capacity arena_dim status pool lock array_new array_scalar ndarray form"
        " release_work cells n_cells polled host"
    )


class DirectStruct(ctypes.Structure):
    """``%Direct`` of direct.ll."""

    _fields_: ClassVar[Fields] = _words("builtin context form given fallback")


def context_offsets() -> dict[str, int]:
    """Byte offsets of the context's fields, for the code that prints ``run``."""
    return {field[0]: getattr(ContextStruct, field[0]).offset for field in ContextStruct._fields_}
