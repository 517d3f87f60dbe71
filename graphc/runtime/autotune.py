"""Tiles of contractions chosen by the clock: a few others beside the estimated ones are timed.

A kernel is run alone, on scratch operands of the sizes for which its program is compiled, each
version as a program of one step.  The best tiles are kept in the object cache, under the target,
the compiler's version and the text of the estimated kernel: its form, sizes, prologue and epilogue.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np

from graphc import dims
from graphc.dims import DimLike
from graphc.function import Function
from graphc.graph import Graph
from graphc.kernels.tiling import Tiles
from graphc.loop.ir import Kernel
from graphc.loop.printer import format_unnamed
from graphc.lower import Lowered
from graphc.passes.plan import Plan
from graphc.program import Call, Program, Segment, Slot
from graphc.runtime import cache
from graphc.runtime.executable import Executable, compiled, compiler_version

TUNED = {"kernels": 0, "versions": 0, "known": 0}
"""Kernels and versions of them that were timed, and kernels whose tiles were in the cache."""
MOST_BYTES = 512 << 20
"""A kernel with larger operands is left as it is."""
GAIN = 0.97
"""Tiles must take less than this part of the estimated ones' time."""
ROUNDS = 7
ROUND_SECONDS = 2e-3
"""What is taken of a version in one of the rounds, in which all versions take turns."""


def autotune(program: Program, target: Any, seconds: float) -> None:
    """Give the contractions of a program the tiles that are fastest here."""
    if not target.is_host:
        return
    end = time.perf_counter() + seconds
    store = cache.default_cache()
    for low in program.kernels:
        others = [] if low.twin is not None or low.fallible else low.other_tiles()
        if not others:
            continue
        plain = low.tiled("k", None)
        text = f"tiles\n{format_unnamed(plain)}"
        key = cache.cache_key(text, target.description, compiler_version())
        found = decoded(store.get(key), others)
        if found is not None:
            TUNED["known"] += 1
        else:
            found = _fastest(low, program, target, plain, others, end)
            if found is None:
                continue
            store.put(key, encoded(found))
        low.retile(found.tiles)


@dataclass(frozen=True)
class Found:
    """The tiles of a kernel; None for the estimated ones."""

    tiles: Tiles | None


def encoded(found: Found) -> bytes:
    """The entry of the cache."""
    return json.dumps(None if found.tiles is None else asdict(found.tiles)).encode()


def decoded(data: bytes | None, others: Sequence[Tiles]) -> Found | None:
    """What an entry says, if it is one of ours: the estimate, or one of the other tiles."""
    if data is None:
        return None
    try:
        value = json.loads(data)
        tiles = None if value is None else Tiles(**value)
    except (ValueError, TypeError):
        return None
    return Found(tiles) if tiles is None or tiles in others else None


@dataclass
class _Version:
    """A kernel as a program of one step has it."""

    name: str
    kernel: Kernel
    buffers: list[Any]
    symbols: list[Any] = field(default_factory=list)
    streamed: list[Any] = field(default_factory=list)
    fast: Kernel | None = None
    has_fast: bool = False
    fallible: bool = False
    work: DimLike = 0
    twin: None = None


def _fastest(
    low: Lowered, program: Program, target: Any, plain: Kernel, others: Sequence[Tiles], end: float
) -> Found | None:
    """The best tiles; None if the time does not suffice to find them, or the memory."""
    operands = scratch(low, program)
    if operands is None:
        return None
    choices = (None, *others)
    runs: list[Callable[[], Any]] = []
    for tiles in choices:
        if time.perf_counter() >= end:
            return None
        kernel = plain if tiles is None else low.tiled("k", tiles)
        runs.append(_alone(low, kernel, operands, target))
        TUNED["versions"] += 1
    TUNED["kernels"] += 1
    least = times(runs)
    best = min(range(len(runs)), key=least.__getitem__)
    return Found(choices[best] if least[best] < GAIN * least[0] else None)


def scratch(low: Lowered, program: Program) -> list[np.ndarray] | None:
    """Operands and results of a kernel, of the sizes seen first; None if they are too large."""
    found = []
    random = np.random.RandomState(0)
    for root in low.buffers:
        size = dims.substitute(dims.product(root.sizes or ()), program.hints)
        if not isinstance(size, int):
            return None
        found.append((size, root.dtype.base_dtype))
    if sum(size * dtype.size for size, dtype in found) > MOST_BYTES:
        return None
    return [
        random.standard_normal(size).astype(np.float32).astype(dtype.numpy)
        if dtype.is_floating
        else np.zeros(size, dtype.numpy)
        for size, dtype in found
    ]


def _alone(
    low: Lowered, kernel: Kernel, operands: Sequence[np.ndarray], target: Any
) -> Callable[[], Any]:
    """A call of the kernel over the operands."""
    version = cast(Lowered, _Version("k", kernel, low.buffers, work=low.work))
    slots = [
        Slot(n, "const", t.dtype.base_dtype, a.size, f"b{n}", a)
        for n, (t, a) in enumerate(zip(low.buffers, operands, strict=True))
    ]
    work = dims.substitute(low.work, low.hints)
    alone = Program(
        slots, [Call(version, list(range(len(slots))))], [], [], [Segment(0, [])], [], [], [],
        Plan([], set(), {}), Function(Graph(), [], []), work, [version],
    )  # fmt: skip
    executable = Executable(compiled(alone, target), {}, None)
    return executable.call


def times(runs: Sequence[Callable[[], Any]]) -> list[float]:
    """The least time of every version, of rounds in which they take turns."""
    least = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for k, run in enumerate(runs):
            start = now = time.perf_counter()
            while now - start < ROUND_SECONDS:
                run()
                before, now = now, time.perf_counter()
                least[k] = min(least[k], now - before)
    return least
