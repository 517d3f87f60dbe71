"""On a machine with a GPU: the tests of `tests/cuda` for real, then how fast its kernels are.

    python benchmarks/gpu.py [--out gpu.json] [--no-tests]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import graphc as gc  # noqa: E402
from graphc.runtime.cuda_cupy import cuda_device  # noqa: E402
from graphc.runtime.cuda_device import Device  # noqa: E402

ROUNDS, RUNS = 5, 10
GIB = 1 << 30


def seconds(device: Device, work: Callable[[], Any]) -> float:
    """The median time of one call, of several that follow each other."""
    end = device.allocate(8)
    word = np.zeros(1, np.int64)

    def one() -> float:
        device.read(end.address, word)
        start = time.perf_counter()
        for _ in range(RUNS):
            work()
        device.read(end.address, word)  # waits for everything
        return (time.perf_counter() - start) / RUNS

    one()
    return statistics.median(one() for _ in range(ROUNDS))


def bandwidth(device: Device, nbytes: int) -> float:
    """Bytes per second of a copy, read and written ones."""
    a, b = device.allocate(nbytes), device.allocate(nbytes)
    device.clear(b.address, nbytes)
    return 2 * nbytes / seconds(device, lambda: device.copy(a.address, b.address, nbytes))


def memory_rows() -> dict[str, tuple[Callable[[Any], Any], float]]:
    """What is bound by memory: a function of a [elements / 1024, 1024] tensor, bytes by element."""
    return {
        "elementwise": (lambda v: gc.assign(v, gc.tanh(v) + 0.5), 8),
        "softmax": (lambda v: gc.assign(v, gc.nn.softmax(v)), 8),
        "normalise": (lambda v: gc.assign(v, v - gc.reduce_mean(v, 1, keepdims=True)), 8),
        "sum of columns": (lambda v: gc.reduce_sum(v, 0), 4),
        "sum of everything": (gc.reduce_sum, 4),
        "transpose": (lambda v: gc.assign(v, gc.reshape(gc.transpose(v), v.shape)), 8),
    }


def measure(device: Device, elements: int, sides: list[int]) -> dict[str, Any]:
    """The table: bytes per second and its part of a copy's, operations per second."""
    rate = bandwidth(device, 4 * elements)
    table: dict[str, Any] = {"copy": {"GB/s": rate / 1e9}}
    for name, (build, each) in memory_rows().items():
        with gc.Graph().as_default(), gc.Session(device=device) as session:
            v = gc.Variable(gc.random_uniform([elements // 1024, 1024], seed=1))
            fetch = build(v)
            op = fetch if "sum" in name else fetch.op
            session.run(v.initializer)
            spent = seconds(device, lambda run=session.run, op=op: run(op))
            reached = each * elements / spent
            table[name] = {"ms": spent * 1e3, "GB/s": reached / 1e9, "of copy": reached / rate}
    for side in sides:
        with gc.Graph().as_default(), gc.Session(device=device) as session:
            a, b, c = (gc.Variable(gc.random_uniform([side, side], seed=s)) for s in range(3))
            session.run(gc.global_variables_initializer())
            op = gc.assign(c, gc.matmul(a, b)).op
            spent = seconds(device, lambda run=session.run, op=op: run(op))
            table[f"product {side}"] = {"ms": spent * 1e3, "TFLOP/s": 2 * side**3 / spent / 1e12}
    return table


def run_tests() -> str:
    """The tests on the device; their last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda and not slow", "tests/cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        print("\n".join(lines[-60:]))
    return lines[-1] if lines else f"exit status {done.returncode}"


def show(table: dict[str, Any]) -> None:
    """The table as text."""
    for name, row in table.items():
        print(f"{name:20}", "  ".join(f"{value:10.3f} {unit}" for unit, value in row.items()))


def main() -> None:
    """Test, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--no-tests", action="store_true")
    args = parser.parse_args()
    try:
        device = cuda_device()
    except gc.errors.UnavailableError as error:
        sys.exit(f"{error}")
    found: dict[str, Any] = {"arch": device.arch}
    if not args.no_tests:
        found["tests"] = run_tests()
        print(found["tests"])
    found["table"] = measure(device, GIB // 4, [512, 1024, 2048, 4096, 8192])
    show(found["table"])
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"-> {args.out}")


if __name__ == "__main__":
    main()
