"""What the machine can do at most: multiply-adds per second and bytes copied per second.

Both are measured with small loops in LLVM IR, so that nothing of a framework is in the figure.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

CHAINS = {8: 12}  # by lanes, else 16: multiply-adds in flight, which AVX2's 16 registers must hold
_ENGINES = []


def vector_lanes() -> int:
    """Floats in the widest vector of this CPU."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


def fma_ir(lanes: int) -> str:
    vector, count = f"<{lanes} x float>", CHAINS.get(lanes, 16)
    lines = [
        f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
        "define float @peak(i64 %n, float %a) {",
        "entry:",
        f"  %s = insertelement {vector} poison, float %a, i64 0",
        f"  %m = shufflevector {vector} %s, {vector} poison, <{lanes} x i32> zeroinitializer",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
    ]
    lines += [f"  %c{k} = phi {vector} [ %m, %entry ], [ %d{k}, %loop ]" for k in range(count)]
    for k in range(count):
        args = f"{vector} %c{k}, {vector} %m, {vector} %m"
        lines.append(f"  %d{k} = call {vector} @llvm.fma.v{lanes}f32({args})")
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %done",
        "done:",
        f"  %t0 = fadd {vector} %d0, %d1",
    ]
    for k in range(2, count):
        lines.append(f"  %t{k - 1} = fadd {vector} %t{k - 2}, %d{k}")
    lines += [f"  %r = extractelement {vector} %t{count - 2}, i64 0", "  ret float %r", "}"]
    return "\n".join(lines)


def copy_ir(lanes: int) -> str:
    """A copy that writes past the caches, four vectors at a time."""
    vector, width = f"<{lanes} x float>", lanes * 4
    lines = ["define void @copy(ptr noalias %to, ptr noalias %from, i64 %bytes) {", "entry:",
             "  br label %loop", "loop:",
             "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]"]  # fmt: skip
    for k in range(4):
        lines += [
            f"  %o{k} = add i64 %i, {k * width}",
            f"  %p{k} = getelementptr i8, ptr %from, i64 %o{k}",
            f"  %q{k} = getelementptr i8, ptr %to, i64 %o{k}",
            f"  %v{k} = load {vector}, ptr %p{k}, align {width}",
            f"  store {vector} %v{k}, ptr %q{k}, align {width}, !nontemporal !0",
        ]
    lines += [f"  %next = add i64 %i, {4 * width}", "  %more = icmp slt i64 %next, %bytes",
              "  br i1 %more, label %loop, label %done", "done:", "  fence seq_cst",
              "  ret void", "}", "!0 = !{i32 1}"]  # fmt: skip
    return "\n".join(lines)


def compiled(ir: str, name: str, prototype: object) -> object:
    """A function of a module of LLVM IR."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(ir), target)
    engine.finalize_object()
    _ENGINES.append(engine)
    return prototype(engine.get_function_address(name))


def fastest(call: object, threads: int, repeats: int = 7) -> float:
    """The least time of ``call(k)`` running in all threads at once."""
    best = float("inf")
    for _ in range(repeats):
        barrier = threading.Barrier(threads + 1)

        def work(k: int, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            call(k)
            barrier.wait()

        pool = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
        for thread in pool:
            thread.start()
        barrier.wait()
        started = time.perf_counter()
        barrier.wait()
        best = min(best, time.perf_counter() - started)
        for thread in pool:
            thread.join()
    return best


def peak_flops(threads: int) -> float:
    """Float32 operations per second; a multiply-add is two."""
    lanes, rounds = vector_lanes(), 1_000_000
    prototype = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float)
    loop = compiled(fma_ir(lanes), "peak", prototype)
    seconds = fastest(lambda _: loop(rounds, 0.0), threads, repeats=25)
    return threads * rounds * CHAINS.get(lanes, 16) * lanes * 2 / seconds


def copy_bandwidth(threads: int, megabytes: int = 128) -> float:
    """Bytes read and written per second in copying a large array."""
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    loop = compiled(copy_ir(vector_lanes()), "copy", prototype)
    size = megabytes * 2**20 // threads // 4096 * 4096
    arrays = [np.ones(size * 2 + 64, np.uint8) for _ in range(threads)]
    starts = [a.ctypes.data + -a.ctypes.data % 64 for a in arrays]
    seconds = fastest(lambda k: loop(starts[k], starts[k] + size, size), threads)
    return 2.0 * size * threads / seconds


def cpu_name() -> str:
    """What the CPU calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe(threads: int) -> dict[str, object]:
    """The machine, as far as it matters for a comparison."""
    return {
        "cpu": cpu_name(),
        "llvm_cpu": llvm.get_host_cpu_name(),
        "threads": threads,
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "gflops": peak_flops(threads) / 1e9,
        "gbytes": copy_bandwidth(threads) / 1e9,
    }
