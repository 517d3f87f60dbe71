"""On a machine with a GPU: the tests of `tests/cuda` for real, then how fast its kernels are.

    python benchmarks/gpu.py [--out gpu.json] [--no-tests] [--small]

Where PyTorch is installed it is measured beside.  The exit status is 1 if a test has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu_peers import has_torch, torch_rows  # noqa: E402

import graphc as gc  # noqa: E402
from graphc.runtime.cuda_cupy import cuda_device  # noqa: E402
from graphc.runtime.cuda_device import Device  # noqa: E402

ROUNDS, RUNS = 5, 10
GIB = 1 << 30
LAYERS, BATCH = [784, 512, 512, 10], 256


def seconds(device: Device, work: Callable[[], Any]) -> float:
    """The median time of one call, of several that follow each other."""

    def one() -> float:
        device.wait()
        start = time.perf_counter()
        for _ in range(RUNS):
            work()
        device.wait()
        return (time.perf_counter() - start) / RUNS

    with device.active():
        one()
        return statistics.median(one() for _ in range(ROUNDS))


def bandwidth(device: Device, nbytes: int) -> float:
    """Bytes per second of a copy, read and written ones."""
    with device.active():
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


# --- whole runs -----------------------------------------------------------------------------------


def perceptron(layers: Sequence[int]) -> tuple[Any, Any, Any]:
    """A training step of a perceptron: the feeds, and the step."""
    x = gc.placeholder(gc.float32, [None, layers[0]])
    labels = gc.placeholder(gc.int32, [None])
    h = x
    for k, (a, b) in enumerate(itertools.pairwise(layers)):
        w = gc.Variable(gc.random_normal([a, b], stddev=a**-0.5, seed=k))
        h = gc.matmul(h, w) + gc.Variable(gc.zeros([b]))
        h = gc.nn.relu(h) if k < len(layers) - 2 else h
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h)
    )
    return x, labels, gc.train.GradientDescentOptimizer(0.01).minimize(loss)


def run_rows(device: Device, layers: Sequence[int], batch: int) -> dict[str, Any]:
    """Whole runs: a small one, a training step fed from the host and from the device."""
    table: dict[str, Any] = {}
    with gc.Graph().as_default(), gc.Session(device=device) as session:
        x = gc.placeholder(gc.float32, [8])
        v = gc.Variable(np.zeros(8, np.float32))
        y, add = x * 2.0 + 1.0, gc.assign_add(v, x).op
        session.run(v.initializer)
        values = np.ones(8, np.float32)
        fetch, change = session.make_callable(y, [x]), session.make_callable(add, [x])
        table["small run"] = {
            "us": 1e6 * seconds(device, lambda: session.run(y, {x: values})),
            "us, callable": 1e6 * seconds(device, lambda: fetch(values)),
            "us, no fetch": 1e6 * seconds(device, lambda: change(values)),
        }
    with gc.Graph().as_default(), gc.Session(device=device) as session:
        x, labels, step = perceptron(layers)
        session.run(gc.global_variables_initializer())
        random = np.random.default_rng(0)
        images = random.standard_normal((batch, layers[0])).astype(np.float32)
        classes = random.integers(0, layers[-1], batch).astype(np.int32)
        call = session.make_callable(step, [x, labels])
        keep = session.make_callable([x + 0.0, labels + 0], [x, labels], on_device=True)
        near = keep(images, classes)
        table["MLP step"] = {
            "ms": 1e3 * seconds(device, lambda: call(images, classes)),
            "ms, fed on the device": 1e3 * seconds(device, lambda: call(*near)),
        }
    return table


def first_runs(device: Device, layers: Sequence[int], batch: int) -> dict[str, Any]:
    """Seconds of the first run of a training step: nothing in the cache, and all of it."""
    found = {}
    with own_cache():
        for name in ("s, cold", "s, cached"):
            with gc.Graph().as_default(), gc.Session(device=fresh(device)) as session:
                x, labels, step = perceptron(layers)
                session.run(gc.global_variables_initializer())
                images = np.zeros((batch, layers[0]), np.float32)
                start = time.perf_counter()
                session.run(step, {x: images, labels: np.zeros(batch, np.int32)})
                found[name] = time.perf_counter() - start
    return {"MLP, first run": found}


def fresh(device: Device) -> Device:
    """The same device, with no module loaded."""
    again: Device = type(device)(*getattr(device, "made_of", ()))
    return again


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """A context with an empty cache of compiled code."""
    before = os.environ.get("GRAPHC_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHC_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("GRAPHC_CACHE")
            if before is not None:
                os.environ["GRAPHC_CACHE"] = before


def beside(table: dict[str, Any], peers: dict[str, dict[str, float]]) -> None:
    """Put PyTorch's times into the rows, and how many times ours they are."""
    for name, times in peers.items():
        ours = table[name]["ms"]
        for kind, spent in times.items():
            table[name][f"ms, torch {kind}"] = spent * 1e3
            table[name][f"x torch {kind}"] = spent * 1e3 / ours


def run_tests(selection: Sequence[str] = ("-m", "cuda and not slow")) -> tuple[str, bool]:
    """The tests on the device: their last line, and whether they pass."""
    command = [sys.executable, "-m", "pytest", "-q", *selection, "tests/cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        print("\n".join(lines[-60:]))
    return lines[-1] if lines else f"exit status {done.returncode}", done.returncode == 0


def show(table: dict[str, Any]) -> None:
    """The table as text."""
    for name, row in table.items():
        print(f"{name:20}", "  ".join(f"{value:10.3f} {unit}" for unit, value in row.items()))


def main() -> None:
    """Test, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--small", action="store_true", help="sizes that say nothing, quickly")
    args = parser.parse_args()
    try:
        device = cuda_device()
    except gc.errors.UnavailableError as error:
        sys.exit(f"{error}")
    found: dict[str, Any] = {"device": device.name, "arch": device.arch}
    passed = True
    if not args.no_tests:
        found["tests"], passed = run_tests()
        print(found["tests"])
    elements = 4096 if args.small else GIB // 4
    layers, batch = ([20, 16, 4], 8) if args.small else (LAYERS, BATCH)
    table = measure(device, elements, [32] if args.small else [512, 1024, 2048, 4096, 8192])
    table |= run_rows(device, layers, batch) | first_runs(device, layers, batch)
    if has_torch():
        beside(table, torch_rows(elements, layers, batch))
    found["table"] = table
    show(table)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"-> {args.out}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
