"""A device that finds accesses which no barrier puts in order."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from cuda_support import (
    ShimDevice,
    ShimFault,
    ShimMemory,
    compile_cpp,
    folder,
    shim_object,
    shim_source,
)

__all__ = ["RaceDevice"]


def compile_watched(text: str) -> ctypes.CDLL:
    """The kernels as a shared library that tells of every access."""
    source = shim_source(text)
    key = hashlib.sha256(f"races\n{source}".encode()).hexdigest()[:24]
    path, made, library = (folder() / f"{key}.{end}" for end in ("cpp", "o", "so"))
    if not library.exists():
        path.write_text(source)
        # The calls are compiled in, but what they call is the shim's.
        compile_cpp(path, made, "-O0", "-c", "-fsanitize=thread")
        compile_cpp(made, library, "-shared", str(shim_object("-DSHIM_RACES")))
    return ctypes.CDLL(str(library))


class RaceDevice(ShimDevice):
    """The shim's device, below the detector of races."""

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        self.texts.append(text)
        library = compile_watched(text)
        library.shim_race.restype = ctypes.c_char_p
        found = []
        for name in functions:
            function = getattr(library, f"shim_{name}")
            function.restype = ctypes.c_char_p
            function.library = library
            found.append(function)
        return found

    def _run(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int],
        backwards: bool, touched: Iterable[ShimMemory],
    ) -> None:  # fmt: skip
        library, memories = function.library, list(touched)
        library.shim_watch(0, None, ctypes.c_longlong(0))
        numbers = {}
        for memory in memories:
            number = numbers[memory.address] = arguments.index(memory.address) + 1
            library.shim_watch(
                number, ctypes.c_void_p(memory.address), ctypes.c_longlong(memory.nbytes)
            )
        super()._run(function, blocks, threads, arguments, backwards, memories)
        message = library.shim_race().decode()
        if message:
            raise ShimFault(message)
