"""graphc's parts one by one: calls, compile times, products, kernels (make bench-micro).

Products and convolutions are reported as a fraction of the multiply-add rate of this machine,
measured in the same run; elementwise and row kernels as a fraction of its copying rate, for the
bytes that they must at least move. What fits into the caches may go above 100 % of that.

    python benchmarks/micro.py                     everything
    python benchmarks/micro.py products kernels    some sections
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import templates
from report import duration, markdown
from templates import compiled, gelu
from worker import timed
from workloads import normal

import graphc as gc

# Where a shell exports these, NumPy's BLAS is half as fast: no measure of anything.
UNWANTED = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
# Threads of NumPy's BLAS stay awake for so long, at the cost of whoever comes next.
PAUSE = 0.2
Rows = list[dict[str, Any]]


class Settings(argparse.Namespace):
    """The options and what was measured of the machine."""

    rounds: int
    seconds: float
    threads: int
    peak: float
    bandwidth: float


def median_time(calls: dict[str, Callable[[], Any]], settings: Settings) -> dict[str, float]:
    """The median time of each call, taken in turns."""
    for call in calls.values():
        call()
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(settings.rounds):
        for name, call in calls.items():
            rounds[name].append(timed(call, settings.seconds)["median"])
            time.sleep(PAUSE)
    return {name: statistics.median(times) for name, times in rounds.items()}


# --- calls ------------------------------------------------------------------------------------


def calls(settings: Settings) -> Rows:
    """What a run costs besides its work."""
    x = gc.placeholder(gc.float32, [10])
    y, z = x * 2 + 1, x * 3
    sess = gc.Session()
    ten = np.arange(10, dtype=np.float32)
    one = sess.make_callable(y, [x])
    contenders = {
        "run(y, {x: array})": lambda: sess.run(y, {x: ten}),
        "run([y, z], {x: array})": lambda: sess.run([y, z], {x: ten}),
        "run(y, {x: list})": lambda: sess.run(y, {x: [0.0] * 10}),
        "make_callable(y, [x])(array)": lambda: one(ten),
        "NumPy: array * 2 + 1": lambda: ten * 2 + 1,
    }
    return [
        {"x * 2 + 1 on ten floats": name, "time": duration(t), "seconds": t}
        for name, t in median_time(contenders, settings).items()
    ]


# --- compilation ------------------------------------------------------------------------------


def first_call(name: str) -> float:
    """The seconds that the first call of a workload of bench.py takes."""
    import with_graphc
    from workloads import BY_NAME

    with gc.Graph().as_default():
        call = with_graphc.make(name, BY_NAME[name].data())
        started = time.perf_counter()
        call()
        return time.perf_counter() - started


def compilation(settings: Settings) -> Rows:
    """The first call of a program: compiled, and found in the cache."""
    rows = []
    for name in ("x2p1", "two_layer_10", "mlp_train", "lenet_train", "softmax"):
        cold, cached = [], []
        for _ in range(min(3, settings.rounds)):
            with templates.empty_cache():
                cold.append(first_call(name))
                cached.append(first_call(name))
        times = statistics.median(cold), statistics.median(cached)
        rows.append({"first call": name, "cold": duration(times[0]), "cached": duration(times[1]),
                     "seconds": list(times)})  # fmt: skip
    return rows


# --- products and convolutions ----------------------------------------------------------------

PRODUCTS = [
    (1, 1000, 1000), (8, 1024, 4096), (64, 64, 64), (64, 1000, 100), (100, 64, 1000),
    (128, 784, 512), (128, 128, 128), (256, 256, 256), (512, 512, 512), (1000, 1000, 1000),
    (1024, 1024, 1024), (2048, 2048, 2048), (4096, 64, 4096), (64, 4096, 64),
]  # fmt: skip
CONVOLUTIONS = [
    (64, 28, 1, 5, 20), (64, 12, 20, 5, 50), (8, 56, 64, 3, 64), (8, 14, 256, 3, 256),
    (8, 56, 64, 1, 256),
]  # fmt: skip


def rated(what: str, flops: float, times: dict[str, float], settings: Settings) -> dict[str, Any]:
    row: dict[str, Any] = {what.partition(":")[0]: what.partition(":")[2]}
    row["time"] = duration(times["graphc"])
    row["GFLOP/s"] = f"{flops / times['graphc'] / 1e9:.0f}"
    row["of peak"] = f"{flops / times['graphc'] / settings.peak:.0%}"
    if "numpy" in times:
        row["NumPy, of peak"] = f"{flops / times['numpy'] / settings.peak:.0%}"
    return row | {"seconds": times, "flops": flops}


def products(settings: Settings) -> Rows:
    """Matrix products [M, K] x [K, N], beside NumPy's BLAS."""
    rows = []
    for m, k, n in PRODUCTS:
        a, b = normal(0, m, k), normal(0, k, n)
        contenders = {"graphc": compiled(gc.matmul, a, b), "numpy": lambda a=a, b=b: a @ b}
        times = median_time(contenders, settings)
        rows.append(rated(f"M x K x N:{m} x {k} x {n}", 2.0 * m * k * n, times, settings))
    return rows


INTEGER_PRODUCTS = [
    (1, 1024, 1024), (128, 768, 3072), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
]  # fmt: skip


def integers(settings: Settings) -> Rows:
    """Products of 8-bit integers, beside float32 products; with a constant right operand, too."""
    rows = []
    for m, k, n in INTEGER_PRODUCTS:
        rng = np.random.RandomState(0)
        b = rng.randint(-128, 128, (k, n)).astype(np.int8)
        contenders = {"float32": compiled(gc.matmul, normal(0, m, k), normal(0, k, n))}
        for dtype in (np.uint8, np.int8):
            a = rng.randint(0, 128, (m, k)).astype(dtype)
            contenders[dtype.__name__] = compiled(
                lambda a, b: gc.matmul(a, b, output_type=gc.int32), a, b
            )
            contenders[f"{dtype.__name__}, constant"] = compiled(
                lambda a, b=b: gc.matmul(a, gc.constant(b), output_type=gc.int32), a
            )
        times = median_time(contenders, settings)
        row: dict[str, Any] = {"M x K x N": f"{m} x {k} x {n}"}
        for name, seconds in times.items():
            row[name] = duration(seconds)
            if name != "float32":
                row[f"{name}, GOP/s"] = f"{2.0 * m * k * n / seconds / 1e9:.0f}"
                row[f"{name}, of float32"] = f"{times['float32'] / seconds:.2f}x"
        rows.append(row | {"seconds": times})
    return rows


ONES = [1, 1, 1, 1]


def convolutions(settings: Settings) -> Rows:
    """Convolutions with their two gradients (batch, size, channels, filter, filters)."""
    rows = []
    for batch, size, channels, side, filters in CONVOLUTIONS:
        out = size - side + 1
        x, w = normal(0, batch, size, size, channels), normal(0, side, side, channels, filters)
        dy = normal(0, batch, out, out, filters)
        flops = 2.0 * batch * out * out * filters * side * side * channels
        label = f"{batch} x {size} x {size} x {channels}, {side} x {side} x {filters}"
        kinds = {
            "forward": compiled(lambda x, w: gc.nn.conv2d(x, w, ONES, "VALID"), x, w),
            "by input": compiled(
                lambda w, dy, shape=x.shape: gc.nn.conv2d_backprop_input(
                    shape, w, dy, ONES, "VALID"
                ), w, dy,
            ),
            "by filter": compiled(
                lambda x, dy, shape=w.shape: gc.nn.conv2d_backprop_filter(
                    x, shape, dy, ONES, "VALID"
                ), x, dy,
            ),
        }  # fmt: skip
        for kind, call in kinds.items():
            times = median_time({"graphc": call}, settings)
            rows.append(rated(f"convolution:{label}, {kind}", flops, times, settings))
    return rows


# --- kernels ----------------------------------------------------------------------------------


def kernels(settings: Settings) -> Rows:
    """Elementwise and row kernels, for the bytes they must at least move."""
    x, v, ones = normal(0, 4096, 1024), normal(0, 1024), np.ones(1024, np.float32)
    small = normal(0, 64, 1024)
    both, read, one = 2, 1, [x]
    cases: list[tuple[str, Callable[..., gc.Tensor], list[np.ndarray], float]] = [
        ("x + 1", lambda x: x + 1, one, both),
        ("x * y + x", lambda x, y: x * y + x, [x, x[::-1].copy()], 3),
        ("x + row", lambda x, v: x + v, [x, v], both),
        ("exp", gc.exp, one, both),
        ("log(1 + abs(x))", lambda x: gc.log(gc.abs(x) + 1), one, both),
        ("tanh", gc.tanh, one, both),
        ("gelu", gelu, one, both),
        ("sum of everything", gc.reduce_sum, one, read),
        ("sums of rows", lambda x: gc.reduce_sum(x, 1), one, read),
        ("sums of columns", lambda x: gc.reduce_sum(x, 0), one, read),
        ("argmax of rows", lambda x: gc.argmax(x, 1), one, read),
        ("softmax of rows", gc.nn.softmax, one, both),
        ("softmax of 64 rows", gc.nn.softmax, [small], both * small.size / x.size),
        ("layer norm of rows", gc.nn.layer_normalization, [x, v, ones], both),
        ("transpose", gc.transpose, one, both),
        ("random normal", lambda: gc.random_normal(x.shape), [], read),
    ]
    rows = []
    for name, build, arrays, passes in cases:
        moved = passes * x.nbytes
        seconds = median_time({"graphc": compiled(build, *arrays)}, settings)["graphc"]
        rows.append({
            "kernel on 4096 x 1024": name, "time": duration(seconds),
            "GB/s": f"{moved / seconds / 1e9:.1f}",
            "of copying": f"{moved / seconds / settings.bandwidth:.0%}",
            "seconds": seconds, "bytes": moved,
        })  # fmt: skip
    return rows


def worth(settings: Settings) -> Rows:
    """What templates and memory passes are worth, beside generated loops and without them."""
    rows = []
    for name, with_it, fed, kept, without in templates.CASES:
        times = median_time(templates.pair(with_it, fed, kept, without), settings)
        rows.append({
            "what": name, "with": duration(times["with"]), "without": duration(times["without"]),
            "times": f"{times['without'] / times['with']:.2f}x", "seconds": times,
        })  # fmt: skip
    return rows


SECTIONS: dict[str, Callable[[Settings], Rows]] = {
    "calls": calls,
    "compilation": compilation,
    "products": products,
    "integers": integers,
    "convolutions": convolutions,
    "kernels": kernels,
    "worth": worth,
}


def main() -> None:
    if UNWANTED & os.environ.keys():
        wanted = {k: v for k, v in os.environ.items() if k not in UNWANTED}
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one turn")
    parser.add_argument("--threads", type=int, default=gc.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one short round: a trial")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    settings = parser.parse_args(namespace=Settings())
    if unknown := set(settings.sections) - SECTIONS.keys():
        parser.error(f"there is no section {sorted(unknown)}")
    if settings.quick:
        settings.rounds, settings.seconds = 1, 0.01
    gc.set_num_threads(settings.threads)
    settings.peak = machine.peak_flops(settings.threads)
    settings.bandwidth = machine.copy_bandwidth(settings.threads)
    print(
        f"{machine.cpu_name()}, {settings.threads} threads: {settings.peak / 1e9:.0f} GFLOP/s, "
        f"copying {settings.bandwidth / 1e9:.0f} GB/s"
    )
    figures = {"machine": {"gflops": settings.peak / 1e9, "gbytes": settings.bandwidth / 1e9}}
    for name in settings.sections or SECTIONS:
        with gc.Graph().as_default():
            rows = SECTIONS[name](settings)
        figures[name] = rows
        shown = [k for k in rows[0] if k not in ("seconds", "flops", "bytes")]
        print(f"\n{markdown(shown, [[str(row.get(k, '')) for k in shown] for row in rows])}")
        sys.stdout.flush()
    if settings.json:
        settings.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
