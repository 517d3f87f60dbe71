"""A device that finds accesses which no barrier puts in order."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

import cuda_support
from cuda_support import FLAGS, ShimDevice, ShimFault, ShimMemory, folder, shim_source

__all__ = ["RaceDevice"]


def compile_watched(text: str) -> ctypes.CDLL:
    """The kernels as a shared library that tells of every access."""
    source = shim_source(text)
    key = hashlib.sha256(f"races\n{source}".encode()).hexdigest()[:24]
    path, made, library = (folder() / f"{key}.{end}" for end in ("cpp", "o", "so"))
    if not library.exists():
        path.write_text(source)
        plain = [flag for flag in FLAGS if flag != "-shared"]
        # The calls are compiled in, but what they call is the shim's.
        watch = ["-DSHIM_RACES", "-fsanitize=thread"]
        for command in (
            [cuda_support.COMPILER, *plain, *watch, "-c", str(path), "-o", str(made)],
            [cuda_support.COMPILER, "-shared", str(made), "-o", str(library)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
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
