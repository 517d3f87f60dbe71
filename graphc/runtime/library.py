"""The fixed native code: its text for this system, compiled once and loaded."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
import sysconfig
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np

from graphc.runtime import cache, jit
from graphc.runtime.structs import Fields, i64, ptr

_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
# Intrinsics, not inline assembly: LLVM can print that for the host's architecture only.
_ARM_YIELD = ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)")
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": _ARM_YIELD,
    "arm64": _ARM_YIELD,
}
# Of the memory of large fetches, what is kept for the next ones at most.
RETAINED = 256 << 20
_SOURCES = (
    "pool.ll", "call.ll", "direct.ll", "bind.ll", "execute.ll", "memory.ll", "control.ll"
)  # fmt: skip
_FUNCTIONS = (
    "gc_parallel",
    "gc_worker",
    "gc_pool_stop",
    "gc_try_lock",
    "gc_lock",
    "gc_unlock",
    "gc_context_free",
    "gc_call",
    "gc_direct",
    "gc_ensure",
    "gc_poll",
    "gc_host",
    "gc_handler",
    "gc_use_handler",
    "gc_retained",
)


class _MethodDef(ctypes.Structure):
    _fields_: ClassVar[Fields] = [
        ("name", ctypes.c_char_p),
        ("function", ptr),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


def source() -> str:
    """The text of the runtime for this system."""
    folder = Path(__file__).with_name("native")
    machine = platform.machine()
    system = "linux.ll" if has_futex() else "posix.ll"
    texts = [(folder / name).read_text(encoding="utf-8") for name in (*_SOURCES, system)]
    declaration, hint = _PAUSE.get(machine, ("", ""))
    texts.append(declaration)
    texts.append(f"define internal void @gc_pause() {{\n  {hint}\n  ret void\n}}\n")
    texts.append(f"@gc_futex_number = internal constant i64 {_FUTEX_NUMBERS.get(machine, -1)}\n")
    texts.append(f"@gc_memory_bytes = internal constant i64 {memory_bytes()}\n")
    kept = min(RETAINED, memory_bytes() // 32)
    texts.append(f"@gc_retain_bytes = internal constant i64 {kept}\n")
    return "\n".join(texts)


def memory_bytes() -> int:
    """The memory of this machine, where the system tells it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 62


def has_futex() -> bool:
    """Whether threads can sleep and be woken here: the pool has no workers otherwise."""
    return sys.platform == "linux" and platform.machine() in _FUTEX_NUMBERS


class _Runtime:
    """The loaded native code. There is one, and it is never unloaded."""

    def __init__(self) -> None:
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            raise RuntimeError("graphc needs a Python with the global interpreter lock")
        # The baseline of the architecture: nothing here gains by wide vectors.
        target = jit.named_target("generic")
        text = source()
        data = cache.default_cache().fetch(
            text, target.description, "runtime", lambda: jit.compile_object(text, target)
        )
        self._object = jit.load_object(data, exports=_FUNCTIONS)
        self.address = self._object.address
        # CFUNCTYPE releases the GIL, PYFUNCTYPE keeps it.
        self.worker = ctypes.CFUNCTYPE(None, ptr)(self.address("gc_worker"))
        self.stop = ctypes.CFUNCTYPE(None, ptr)(self.address("gc_pool_stop"))
        self.lock = ctypes.CFUNCTYPE(ctypes.c_int32, ptr)(self.address("gc_lock"))
        self.unlock = ctypes.PYFUNCTYPE(None, ptr)(self.address("gc_unlock"))
        self.context_free = ctypes.PYFUNCTYPE(None, ptr)(self.address("gc_context_free"))
        self.ensure = ctypes.PYFUNCTYPE(ctypes.c_bool, ptr, i64, i64, i64)(
            self.address("gc_ensure")
        )
        self.parallel = ctypes.CFUNCTYPE(None, ptr, ptr, ptr, i64, i64)(
            self.address("gc_parallel")
        )
        self.array_new, self.array_scalar, set_handler = _numpy_functions()
        capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ptr, ctypes.c_char_p, ptr)(
            ("PyCapsule_New", ctypes.pythonapi)
        )
        # NumPy compares the name by its text; the capsule keeps the pointer.
        self._handler_name = b"mem_handler"
        self._handler = capsule(self.address("gc_handler"), self._handler_name, None)
        ctypes.PYFUNCTYPE(None, ptr, ptr)(self.address("gc_use_handler"))(
            set_handler, id(self._handler)
        )
        self.retained = ctypes.PYFUNCTYPE(i64)(self.address("gc_retained"))
        self.new_builtin = ctypes.PYFUNCTYPE(
            ctypes.py_object, ptr, ctypes.py_object, ctypes.py_object
        )(("PyCFunction_NewEx", ctypes.pythonapi))
        # METH_FASTCALL. Python keeps the pointer to this for as long as a builtin lives.
        self.method = _MethodDef(b"graphc_call", self.address("gc_call"), 0x80, None)
        # METH_FASTCALL | METH_KEYWORDS
        self.direct = _MethodDef(b"graphc_callable", self.address("gc_direct"), 0x82, None)


def _numpy_functions() -> tuple[int, int, int]:
    """``PyArray_NewFromDescr``, ``PyArray_Scalar`` and ``PyDataMem_SetHandler``.

    They have fixed places in NumPy's C API.
    """
    pointer = ctypes.PYFUNCTYPE(ptr, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    capsule = np._core.multiarray._ARRAY_API  # type: ignore[attr-defined]
    table = ctypes.cast(pointer(capsule, None), ctypes.POINTER(ptr))
    return table[94] or 0, table[60] or 0, table[304] or 0


_loading = threading.Lock()


def runtime() -> _Runtime:
    """The loaded native code."""
    with _loading:
        return _load()


@functools.cache
def _load() -> _Runtime:
    return _Runtime()


def reset_in_child() -> None:
    """After a fork: no other thread is loading."""
    global _loading
    _loading = threading.Lock()


def symbols() -> dict[str, int]:
    """The addresses that printed programs link against."""
    names = ("gc_parallel", "gc_ensure", "gc_poll", "gc_host")
    return {name: runtime().address(name) for name in names}
