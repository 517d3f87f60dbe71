"""LLVM text to machine code, and machine code into this process.

A thin layer over llvmlite: targets, one compile function with the few passes
that printed loops need, and an object loader. llvmlite is imported on the
first use because the import costs 60 to 80 ms.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CpuTarget",
    "JitError",
    "LoadedObject",
    "compile_object",
    "emit_assembly",
    "host_target",
    "load_object",
    "named_target",
]


class JitError(RuntimeError):
    """LLVM refused the text, the object or a symbol."""


@dataclass(frozen=True)
class CpuTarget:
    """What the code generator and the schedules need to know of a CPU.

    ``is_host`` says that code compiled for the target runs in this process.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    has_fma: bool
    has_f16c: bool
    has_avx512: bool
    has_vnni: bool
    has_bf16: bool
    has_madd: bool
    is_host: bool

    @property
    def word(self) -> int:
        """How many 8-bit integers a dot product takes at once; one: there is none."""
        return 4 if self.has_vnni else 2 if self.has_madd else 1

    def lanes(self, itemsize: int) -> int:
        """Elements of ``itemsize`` bytes in one vector register."""
        return max(1, self.vector_bytes // itemsize)

    @property
    def description(self) -> str:
        """Everything that the object code depends on beside the text."""
        llvm = ".".join(map(str, _llvm().llvm_version_info))
        return f"{self.triple} {self.cpu} {self.features} llvm-{llvm}"


@dataclass(frozen=True)
class _Level:
    cpu: str
    features: str
    vector_bytes: int
    needs: frozenset[str]


_V3 = frozenset({"avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_X86_LEVELS = {
    "generic": _Level("x86-64", "", 16, frozenset()),
    "avx2": _Level("x86-64-v3", "", 32, _V3),
    "avx512": _Level("x86-64-v4", "", 64, _V4),
    "avx512vnni": _Level("x86-64-v4", "+avx512vnni", 64, _V4 | {"avx512vnni"}),
    "avx512bf16": _Level(
        "x86-64-v4", "+avx512vnni,+avx512bf16", 64, _V4 | {"avx512vnni", "avx512bf16"}
    ),
}
_CROSS_X86 = "x86_64-unknown-linux-gnu"


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm


@functools.cache
def _all_targets() -> None:
    llvm = _llvm()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _arch(triple: str) -> str:
    return triple.split("-", 1)[0]


@functools.cache
def _host_features() -> frozenset[str]:
    return frozenset(name for name, on in _llvm().get_host_cpu_features().items() if on)


def _from_features(name: str, cpu: str, text: str, have: frozenset[str]) -> CpuTarget:
    triple = _llvm().get_process_triple()
    x86 = _arch(triple) == "x86_64"
    arm = _arch(triple) in ("aarch64", "arm64")
    avx512 = x86 and have >= _V4
    wide = 64 if avx512 else 32 if x86 and have >= {"avx2", "fma"} else 16
    return CpuTarget(
        name=name,
        triple=triple,
        cpu=cpu,
        features=text,
        vector_bytes=wide,
        has_fma=arm or "fma" in have,
        has_f16c=arm or "f16c" in have,
        has_avx512=avx512,
        has_vnni=avx512 and "avx512vnni" in have,
        has_bf16=avx512 and "avx512bf16" in have,
        has_madd=x86,
        is_host=True,
    )


def host_target() -> CpuTarget:
    """The CPU this process runs on, or the target that ``GRAPHC_TARGET`` names.

    Raises:
      ValueError: it names no target, or one whose instructions this CPU does not have.
    """
    target = named_target(os.environ.get("GRAPHC_TARGET") or "host")
    if not target.is_host:
        lacks = ", ".join(sorted(_X86_LEVELS[target.name].needs - _host_features()))
        able = ", ".join(name for name in ("host", *_X86_LEVELS) if named_target(name).is_host)
        raise ValueError(
            f"GRAPHC_TARGET names {target.name}, but this machine's CPU lacks {lacks}; it can run "
            f"{able}"
        )
    return target


@functools.cache
def named_target(name: str) -> CpuTarget:
    """``host``, ``generic``, ``avx2``, ``avx512``, ``avx512vnni`` or ``avx512bf16``.

    The x86 names give x86 code on any host; ``generic`` is the baseline of the
    host's own architecture.
    """
    llvm = _llvm()
    if name == "host":
        features = llvm.get_host_cpu_features()
        return _from_features(name, llvm.get_host_cpu_name(), features.flatten(), _host_features())
    if name not in _X86_LEVELS:
        known = ", ".join(["host", *_X86_LEVELS])
        raise ValueError(f"unknown CPU target {name!r}: expected one of {known}")
    on_x86 = _arch(llvm.get_process_triple()) == "x86_64"
    if name == "generic" and not on_x86:
        return _from_features(name, "generic", "", frozenset())
    level = _X86_LEVELS[name]
    return CpuTarget(
        name=name,
        triple=llvm.get_process_triple() if on_x86 else _CROSS_X86,
        cpu=level.cpu,
        features=level.features,
        vector_bytes=level.vector_bytes,
        has_fma="fma" in level.needs,
        has_f16c="f16c" in level.needs,
        has_avx512="avx512f" in level.needs,
        has_vnni="avx512vnni" in level.needs,
        has_bf16="avx512bf16" in level.needs,
        has_madd=True,
        is_host=on_x86 and level.needs <= _host_features(),
    )


# One lock around LLVM, held across fork so that a child never inherits it
# half-way through another thread's compilation.
_llvm_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_llvm_lock.acquire,
        after_in_parent=_llvm_lock.release,
        after_in_child=_llvm_lock.release,
    )


def _forever(thing: Any) -> Any:
    """``thing`` of llvmlite, not disposed of by itself.

    Where llvmlite is first imported by what runs at exit, it does not learn that the process
    ends, and would dispose of its objects when its own modules are gone.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


@functools.cache
def _machine(target: CpuTarget) -> Any:
    llvm = _llvm()
    if _arch(target.triple) != _arch(llvm.get_process_triple()):
        _all_targets()
    # Position-independent small-model code reaches its constants relative to
    # the program counter, and links into a shared library unchanged.
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
    return _forever(machine)


IN_REGISTERS = "turns_in_registers_"
"""What the names of functions begin with that are small loops."""
_INLINE_ASSEMBLY = re.compile(r'\basm (?:\w+ )*"')


def _optimized(ir: str, target: CpuTarget, context: Any) -> Any:
    llvm = _llvm()
    foreign = _arch(target.triple) != _arch(llvm.get_process_triple())
    if foreign and _INLINE_ASSEMBLY.search(ir):
        # LLVM would abort the process: llvmlite has the host's assembly parser only.
        raise JitError(f"inline assembly cannot be compiled for {target.triple} on this machine")
    module = None
    try:
        module = llvm.parse_assembly(ir, context)
        module.verify()
    except RuntimeError as error:
        # Left to the garbage collector, it might be disposed of after its context.
        if module is not None:
            module.close()
        raise JitError(f"LLVM rejects the text: {error}") from None
    module.triple = target.triple
    machine = _machine(target)
    module.data_layout = str(machine.target_data)
    # Loops arrive vectorized and scheduled; what they need is their local
    # accumulators in registers. Everything else costs time and gains nothing.
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    with llvm.create_pipeline_tuning_options(speed_level=1) as tuning:
        builder = llvm.create_pass_builder(machine, tuning)
        passes.run(module, builder)
    if IN_REGISTERS in ir:
        _run_in_registers(module, machine)
    return module


def _run_in_registers(module: Any, machine: Any) -> None:
    """Inline the kernels of small loops, and optimize the functions that are these loops."""
    llvm = _llvm()
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    with llvm.create_pipeline_tuning_options(speed_level=2) as tuning:
        builder = llvm.create_pass_builder(machine, tuning)
        passes.run(module, builder)
        optimize = builder.getFunctionPassManager()
        for function in module.functions:
            if function.name.startswith(IN_REGISTERS):
                optimize.run(function, builder)


def compile_object(ir: str, target: CpuTarget) -> bytes:
    """Compile LLVM text to a relocatable object for ``target``; thread-safe."""
    # A context of its own gives the memory back with the module.
    with _llvm_lock:
        context = _llvm().create_context()
        module = _optimized(ir, target, context)
        try:
            return bytes(_machine(target).emit_object(module))
        finally:
            module.close()


def emit_assembly(ir: str, target: CpuTarget, *, comments: bool = True) -> str:
    """The assembly of what ``compile_object`` emits; comments show spills."""
    with _llvm_lock:
        module = _optimized(ir, target, _llvm().create_context())
        machine = _machine(target)
        machine.set_asm_verbosity(comments)
        try:
            return str(machine.emit_assembly(module))
        finally:
            module.close()


class LoadedObject:
    """Machine code in this process: valid while the object is alive."""

    def __init__(self, jit: Any, library: str, tracker: Any, undefined: list[str]) -> None:
        self._jit = jit
        self._library = library
        self._trackers = [_forever(tracker)]
        self._undefined = undefined
        self._addresses: dict[str, int] = {}

    def address(self, name: str) -> int:
        """The address of the function or global ``name`` of the object."""
        found = self._addresses.get(name)
        if found is None:
            try:
                with _llvm_lock:
                    tracker = self._jit.lookup(self._library, name)
            except RuntimeError as error:
                raise JitError(f"cannot load {name!r}: {self._reason(str(error))}") from None
            self._trackers.append(_forever(tracker))
            found = self._addresses[name] = int(tracker[name])
        return found

    def __del__(self, at_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # What is left of Python while its modules are torn down may still call the code.
        if not at_end():
            # A handler of signals may have raised before the first line of ``__init__``.
            for tracker in getattr(self, "_trackers", ()):
                ctypes.pythonapi.Py_DecRef(ctypes.py_object(tracker))

    def _reason(self, message: str) -> str:
        if "Symbols not found" in message:
            return "the object does not define it"
        process = _llvm().address_of_symbol
        missing = [name for name in self._undefined if not process(name)]
        if "materialize" in message and missing:
            return f"it needs {', '.join(missing)}, which nothing defines"
        return message


def _undefined_symbols(data: bytes) -> list[str]:
    """The names that an ELF64 object leaves to the linker; empty for other formats.

    Only for error messages: the linker's own does not say which name it missed.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]
    names = []
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != _SHT_SYMTAB:
            continue
        strings = sections[link][4]
        for at in range(offset + 24, offset + size, 24):
            name, _, _, section = struct.unpack_from("<IBBH", data, at)
            if section == 0 and name:
                start = strings + name
                names.append(data[start : data.index(b"\0", start)].decode())
    return names


_SHT_SYMTAB = 2
_libraries = itertools.count()


@functools.cache
def _jit() -> Any:
    return _forever(_llvm().create_lljit_compiler(use_jit_link=True, suppress_errors=True))


def load_object(
    data: bytes, symbols: Mapping[str, int] | None = None, exports: Iterable[str] = ()
) -> LoadedObject:
    """Link an object into this process.

    ``symbols`` gives addresses to undefined names; libc and the Python C API
    resolve by themselves. ``exports`` are resolved at once, so that a symbol
    that nobody defines fails here and not at the first ``address``.
    """
    given = symbols or {}
    library = f"graphc.{next(_libraries)}"
    builder = _llvm().JITLibraryBuilder().add_object_img(data).add_current_process()
    for name, address in given.items():
        builder.import_symbol(name, address)
    try:
        with _llvm_lock:
            tracker = builder.link(_jit(), library)
    except RuntimeError as error:
        raise JitError(f"cannot load the object: {error}") from None
    undefined = [name for name in _undefined_symbols(data) if name not in given]
    loaded = LoadedObject(_jit(), library, tracker, undefined)
    for name in exports:
        loaded.address(name)
    return loaded
