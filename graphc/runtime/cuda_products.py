"""Which products of a program cuBLAS computes: where it is faster than our kernel, by the clock.

The first run of some sizes goes step by step; it measures both on the real operands, with results
that go to scratch memory.  What was found is kept in this process and in the cache on the disk,
under the GPU, the version of cuBLAS, the product, and the text of our kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from graphc.kernels.grid_library import Gemm
from graphc.loop.interpret_values import Evaluator
from graphc.loop.printer import format_unnamed
from graphc.lower import Lowered
from graphc.runtime import cache
from graphc.runtime.cuda_device import Blas, BlasError, CaptureError, Device, Memory, recorded
from graphc.runtime.executable import compiler_version

ROUNDS = 3
ROUND_SECONDS = 1e-3
"""What is taken of each in one of the rounds, in which they take turns."""
MOST_REPEATS = 16
MOST_SIZES = 4096
STATUS_BYTES = 24
OURS, THEIRS = b"ours", b"cublas"

_found: dict[str, bytes] = {}
"""What this process has measured, or found in the cache on the disk."""


class Launcher(Protocol):
    """What launches our kernels."""

    def ours(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        """The kernel itself."""

    def rest(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        """What goes over the result of a library; the place aside is the last address."""


@dataclass
class Choice:
    """A product of some sizes; ``theirs`` is None as long as nothing is chosen.

    ``space`` are the bytes that it needs aside.
    """

    gemm: Gemm | None
    space: int
    theirs: bool | None = None


class Room:
    """What a run has for its products: memory aside, which one after the other uses.

    Attributes:
      may_measure: whether they may be measured: not in a capture, nor by somebody else's clock.
    """

    def __init__(self, device: Device, may_measure: bool, fixed: bool) -> None:
        self.may_measure = may_measure
        self._device, self._fixed = device, fixed
        self._memory: Memory | None = None
        self._nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Have so many bytes, if there are so many left."""
        if nbytes > self._nbytes:
            with contextlib.suppress(MemoryError):
                self._memory = self._device.allocate(nbytes)
                self._nbytes = nbytes

    def place(self, nbytes: int) -> int | None:
        """The address of so many bytes; None if there are not so many."""
        if not self._fixed:
            self.reserve(nbytes)
        if nbytes > self._nbytes:
            return None
        return self._memory.address if self._memory is not None else 0


class Products:
    """Chooses for the products of one program, and launches those of cuBLAS."""

    def __init__(self, device: Device, blas: Blas | None, launcher: Launcher) -> None:
        self.device, self.blas, self.launcher = device, blas, launcher
        self._choices: dict[tuple[str, tuple[int, ...]], Choice] = {}
        self._texts: dict[str, str] = {}

    def launch(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int,
        room: Room,
    ) -> bool:  # fmt: skip
        """Whether cuBLAS was asked for a kernel's product, with all that is fused behind."""
        choice = self._choice(low, sizes)
        if choice is None or choice.gemm is None or choice.theirs is False:
            return False
        aside = room.place(choice.space)
        if aside is None:
            return False
        if low.library is not None and low.library.aside is not None:
            addresses = (*addresses, aside)
        if choice.theirs is None and room.may_measure:
            choice.theirs = self._choose(low, choice.gemm, addresses, sizes)
        if not choice.theirs:
            return False
        try:
            self._theirs(low, choice.gemm, addresses, sizes, status)
        except BlasError as error:
            if not error.refused:
                raise
            # It has done nothing.
            choice.theirs = False
            return False
        return True

    def space(self, low: Lowered, sizes: Sequence[int]) -> int:
        """The bytes aside that a kernel needs for what was chosen."""
        choice = self._choice(low, sizes)
        return choice.space if choice is not None and choice.theirs else 0

    def _choice(self, low: Lowered, sizes: Sequence[int]) -> Choice | None:
        """What is known of a kernel of some sizes; None if it is no product, or has no library."""
        library = low.library
        if self.blas is None or library is None:
            return None
        key = low.kernel.name, tuple(sizes)
        choice = self._choices.get(key)
        if choice is None:
            if len(self._choices) >= MOST_SIZES:
                self._choices.clear()
            theirs = True if library.always else None
            choice = Choice(library.gemm(sizes), library.space(sizes), theirs)
            self._choices[key] = choice
        return choice

    def _theirs(
        self, low: Lowered, gemm: Gemm, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        assert self.blas is not None
        self.blas.multiply(gemm, *(addresses[x.param] for x in (gemm.a, gemm.b, gemm.c)))
        self.launcher.rest(low, addresses, sizes, status)

    def _choose(
        self, low: Lowered, gemm: Gemm, addresses: Sequence[int], sizes: Sequence[int]
    ) -> bool | None:
        """Whether cuBLAS is to be taken; None where there is no memory to find out."""
        assert self.blas is not None
        name = low.kernel.name
        if name not in self._texts:
            self._texts[name] = format_unnamed(low.kernel)
        about = f"{self.device.model} {self.device.arch} cublas-{self.blas.version}"
        key = cache.cache_key(f"{gemm}\n{self._texts[name]}", about, compiler_version())
        known = _found.get(key) or cache.default_cache().get(key)
        if known not in (OURS, THEIRS):
            try:
                with self._aside(low, addresses, sizes) as (places, status):
                    known = self._faster(low, gemm, places, sizes, status)
            except MemoryError:
                return None
            except BlasError as error:
                if not error.refused:
                    raise
                # Another cuBLAS, or another driver, may take it.
                return False
            cache.default_cache().put(key, known)
        assert known is not None
        _found[key] = known
        return known == THEIRS

    @contextlib.contextmanager
    def _aside(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int]
    ) -> Iterator[tuple[list[int], int]]:
        """Addresses with copies of all that the kernel writes, and status words of their own.

        So nothing is done twice to what the program sees, not even where results are in place.
        """
        evaluator = Evaluator()
        evaluator.env.update(zip(low.kernel.scalars, sizes, strict=True))
        places, held = list(addresses), list[Memory]()
        for k, (tensor, param) in enumerate(zip(low.buffers, low.kernel.params, strict=False)):
            if tensor in low.writes:
                nbytes = int(evaluator.eval(param.size)) * param.dtype.size
                held.append(self.device.allocate(nbytes))
                places[k] = held[-1].address
                self.device.copy(places[k], addresses[k], nbytes)
        held.append(self.device.allocate(STATUS_BYTES))
        self.device.clear(held[-1].address, STATUS_BYTES)
        yield places, held[-1].address

    def _faster(
        self, low: Lowered, gemm: Gemm, places: Sequence[int], sizes: Sequence[int], status: int
    ) -> bytes:
        """Time both in turns; which one takes less."""
        ours = places[: len(low.buffers)]
        versions: dict[bytes, Callable[[], None]] = {
            OURS: lambda: self.launcher.ours(low, ours, sizes, status),
            THEIRS: lambda: self._theirs(low, gemm, places, sizes, status),
        }
        repeated = {}
        for name, version in versions.items():
            # The first time, code is loaded and algorithms are chosen.
            version()
            single = self._time(version)
            repeats = max(1, min(MOST_REPEATS, int(ROUND_SECONDS / max(single, 1e-9))))
            repeated[name] = self._repeated(version, repeats), repeats
        best = dict.fromkeys(versions, float("inf"))
        for _ in range(ROUNDS):
            for name, (work, repeats) in repeated.items():
                best[name] = min(best[name], self._time(work) / repeats)
        return THEIRS if best[THEIRS] < best[OURS] else OURS

    def _time(self, work: Callable[[], None]) -> float:
        """The device's seconds for something."""
        start = self.device.event()
        work()
        end = self.device.event()
        end.wait()
        return end.seconds_since(start)

    def _repeated(self, work: Callable[[], None], repeats: int) -> Callable[[], None]:
        """Something several times: recorded, so that the device waits for nobody in between."""

        def all_of_them() -> None:
            for _ in range(repeats):
                work()

        try:
            return recorded(self.device, all_of_them).launch
        except CaptureError:
            return all_of_them
