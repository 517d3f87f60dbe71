"""What this machine can do at most: operations per second, and bytes copied per second.

Measured once, with small loops that all threads run: the floor that profiles compare kernels with.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphc.runtime import jit, native

CHAINS = {8: 12}  # by lanes, else 16: multiply-adds in flight, which AVX2's 16 registers must hold
ROUNDS = 5_000
CHUNKS = 16  # of multiply-adds for each thread: another may do those of one that is kept away
COPIED, PIECE = 128 << 20, 1 << 20  # bytes, more than the caches hold, by so many
PATIENCE = 0.25  # seconds of trying: another process may have a CPU for a while


@dataclass(frozen=True)
class Peak:
    """Float32 operations and bytes per second of so many threads together."""

    flops: float
    bandwidth: float
    threads: int

    def floor(self, operations: float, bytes_: float, width: int = 4) -> float:
        """The least seconds for so much work on elements of ``width`` bytes."""
        return max(operations * max(width, 4) / 4 / self.flops, bytes_ / self.bandwidth)


def _multiply_adds(lanes: int) -> str:
    """``flops(arg, begin, end)``: rounds of multiply-adds, the results to the table ``arg``."""
    vector = f"<{lanes} x float>"
    lines = [
        f"declare {vector} @llvm.fmuladd.v{lanes}f32({vector}, {vector}, {vector})",
        "define void @flops(ptr %arg, i64 %begin, i64 %end) {", "entry:",
        f"  %m = load {vector}, ptr %arg, align 64", "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
    ]  # fmt: skip
    count = CHAINS.get(lanes, 16)
    chains = range(count)
    lines += [f"  %c{k} = phi {vector} [ %m, %entry ], [ %d{k}, %loop ]" for k in chains]
    for k in chains:
        args = f"{vector} %c{k}, {vector} %m, {vector} %m"
        lines.append(f"  %d{k} = call {vector} @llvm.fmuladd.v{lanes}f32({args})")
    lines += [
        "  %next = add i64 %i, 1", f"  %more = icmp slt i64 %next, {ROUNDS}",
        "  br i1 %more, label %loop, label %done", "done:", f"  %s0 = fadd {vector} %d0, %d1",
    ]  # fmt: skip
    lines += [f"  %s{k} = fadd {vector} %s{k - 1}, %d{k + 1}" for k in range(1, count - 1)]
    lines += [
        "  %row = add i64 %begin, 1", f"  %at = getelementptr {vector}, ptr %arg, i64 %row",
        f"  store {vector} %s{count - 2}, ptr %at, align 16", "  ret void", "}",
    ]  # fmt: skip
    return "\n".join(lines)


def _copies(lanes: int) -> str:
    """``copy(arg, begin, end)``: pieces, written past the caches; ``arg``: from, to."""
    vector, width = f"<{lanes} x float>", lanes * 4
    lines = [
        "define void @copy(ptr %arg, i64 %begin, i64 %end) {", "entry:",
        "  %table = getelementptr i64, ptr %arg, i64 1", "  %from = load ptr, ptr %arg",
        "  %to = load ptr, ptr %table", f"  %first = mul i64 %begin, {PIECE}",
        f"  %last = mul i64 %end, {PIECE}", "  br label %loop", "loop:",
        "  %i = phi i64 [ %first, %entry ], [ %next, %loop ]",
    ]  # fmt: skip
    for k in range(4):
        lines += [
            f"  %o{k} = add i64 %i, {k * width}",
            f"  %p{k} = getelementptr i8, ptr %from, i64 %o{k}",
            f"  %q{k} = getelementptr i8, ptr %to, i64 %o{k}",
            f"  %v{k} = load {vector}, ptr %p{k}, align {width}",
            f"  store {vector} %v{k}, ptr %q{k}, align {width}, !nontemporal !0",
        ]
    lines += [
        f"  %next = add i64 %i, {4 * width}", "  %more = icmp slt i64 %next, %last",
        "  br i1 %more, label %loop, label %done", "done:", "  fence seq_cst", "  ret void", "}",
        "!0 = !{i32 1}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _aligned(size: int) -> np.ndarray:
    """Bytes at a multiple of 64, their pages in memory."""
    array = np.ones(size + 64, np.uint8)
    start = -array.ctypes.data % 64
    return array[start : start + size]


def _least(call: Callable[[], None]) -> float:
    best = float("inf")
    end = time.perf_counter() + PATIENCE
    while (started := time.perf_counter()) < end:
        call()
        best = min(best, time.perf_counter() - started)
    return best


@functools.cache
def machine_peak(threads: int) -> Peak:
    """The peak of ``threads`` threads, which is how many the pool must have."""
    target = jit.host_target()
    lanes = target.lanes(4)
    text = f"{_multiply_adds(lanes)}\n{_copies(lanes)}"
    loaded = jit.load_object(jit.compile_object(text, target), exports=("flops", "copy"))
    chunks = threads * CHUNKS
    table = _aligned((chunks + 1) * lanes * 4 + 64)
    table[:] = 0

    def multiply() -> None:
        native.parallel(loaded.address("flops"), table.ctypes.data, chunks, 1)

    source, result = _aligned(COPIED), _aligned(COPIED)
    places = np.array([source.ctypes.data, result.ctypes.data], np.uintp)

    def copy() -> None:
        native.parallel(loaded.address("copy"), places.ctypes.data, COPIED // PIECE, 1)

    flops = chunks * ROUNDS * CHAINS.get(lanes, 16) * lanes * 2 / _least(multiply)
    return Peak(flops, 2.0 * COPIED / _least(copy), threads)
