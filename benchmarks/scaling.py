"""How the cost of a call grows with batch, width, depth, steps and tokens (make bench-scaling).

Every size is measured twice. A process of its own makes the first call, without a cache, and tells
how much memory it took. Then all sizes of a series take turns in this process; the least and the
median time of one call count, beside the multiply-add rate of this machine, measured in the same
run. Where a size is a symbol (batch, steps, tokens), one compilation must serve the whole series: a
second one ends the run with an error.

    python benchmarks/scaling.py                   every series
    python benchmarks/scaling.py batch tokens      some of them

Results go to benchmarks/results/scaling-<date>.json, with tables on standard output and a picture
beside the file.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc as collector
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench import HERE, TIMEOUT, cpus, machine_facts
from graphs import lstm_cell
from report import duration, markdown
from worker import peak_megabytes, restart_peak, timed
from workloads import HEADS, INNER, WIDTH, dense_flops, labels, normal

import graphc as gc

Arrays = dict[str, np.ndarray]
Results = dict[str, Any]
# What is run, the fetched output first, and the placeholders that are fed.
Model = tuple[list[Any], dict[str, gc.Tensor]]

MLP_BATCH, MLP_WIDTH, MLP_DEPTH, CLASSES = 64, 256, 4, 10
LSTM_BATCH, LSTM_UNITS = 32, 128
RATE = 1e-6  # of learning: so low that the thousandth step does what the first one did


@dataclass(frozen=True)
class Series:
    """One model at several sizes.

    Attributes:
      title: what the tables say.
      sizes: the sizes, ascending.
      symbolic: whether one program has the size as a symbol.
      build: makes the model of a size; of a symbolic one, if it is given None.
      data: what is fed at a size.
      flops: floating-point operations of one call (products only; a multiply-add is two).
    """

    title: str
    sizes: tuple[int, ...]
    symbolic: bool
    build: Callable[[int | None], Model]
    data: Callable[[int], Arrays]
    flops: Callable[[int], float]


def fed(x: Sequence[int | None], **others: Sequence[int | None]) -> dict[str, gc.Tensor]:
    """A placeholder of floats, and others of class numbers."""
    found = {"x": gc.placeholder(gc.float32, x)}
    return found | {k: gc.placeholder(gc.int64, shape) for k, shape in others.items()}


def weights(*shape: int) -> gc.Variable:
    """Weights scaled for ReLU, drawn in the graph: no array of them stays beside the variable."""
    return gc.Variable(gc.random_normal(shape, stddev=math.sqrt(2.0 / shape[0])))


def zeros(*shape: int) -> gc.Variable:
    return gc.Variable(gc.zeros(shape))


def trained(loss: gc.Tensor) -> list[Any]:
    return [loss, gc.train.GradientDescentOptimizer(RATE).minimize(loss)]


# --- multilayer perceptron ----------------------------------------------------------------------


def mlp(batch: int | None, width: int, depth: int) -> Model:
    """``depth`` layers with ReLU and one that tells the classes; a step of training."""
    p = fed([batch, width], y=[batch])
    x = p["x"]
    for _ in range(depth):
        x = gc.nn.relu(gc.matmul(x, weights(width, width)) + zeros(width))
    logits = gc.matmul(x, weights(width, CLASSES))
    entropy = gc.nn.sparse_softmax_cross_entropy_with_logits(labels=p["y"], logits=logits)
    return trained(gc.reduce_mean(entropy)), p


def mlp_data(batch: int, width: int) -> Arrays:
    return {"x": normal(0, batch, width), "y": labels(batch)}


def mlp_flops(batch: int, width: int, depth: int) -> float:
    """Forward and twice that backward, but for the first layer's gradient by its input."""
    forward = dense_flops(batch, *[width] * (depth + 1), CLASSES)
    return 3 * forward - dense_flops(batch, width, width)


# --- LSTM ---------------------------------------------------------------------------------------


def lstm(steps: int | None) -> Model:
    """A step of training on the outputs of all steps."""
    p = fed([steps, LSTM_BATCH, LSTM_UNITS])
    kernel, bias = weights(2 * LSTM_UNITS, 4 * LSTM_UNITS), zeros(4 * LSTM_UNITS)
    cell = lstm_cell(gc, {"w1": kernel, "b1": bias})
    outputs, _ = gc.nn.dynamic_rnn(cell, p["x"], dtype="float32", time_major=True)
    return trained(gc.reduce_mean(gc.square(outputs))), p


def lstm_flops(steps: int) -> float:
    forward = dense_flops(steps * LSTM_BATCH, 2 * LSTM_UNITS, 4 * LSTM_UNITS)
    return 3 * forward - dense_flops(steps * LSTM_BATCH, LSTM_UNITS, 4 * LSTM_UNITS)


# --- transformer --------------------------------------------------------------------------------


def encoder(tokens: int | None) -> Model:
    """One encoder layer for one sequence, normalized after each residual sum; inference."""
    p = fed([tokens, WIDTH])

    def dense(x: gc.Tensor, inputs: int, outputs: int) -> gc.Tensor:
        return gc.matmul(x, weights(inputs, outputs)) + zeros(outputs)

    def normalized(x: gc.Tensor) -> gc.Tensor:
        return gc.nn.layer_normalization(x, gc.Variable(gc.ones([WIDTH])), zeros(WIDTH))

    def heads() -> gc.Tensor:
        parts = gc.reshape(dense(p["x"], WIDTH, WIDTH), [-1, HEADS, WIDTH // HEADS])
        return gc.transpose(parts, [1, 0, 2])

    q, key, value = heads(), heads(), heads()
    scores = gc.matmul(q, key, transpose_b=True) * (WIDTH // HEADS) ** -0.5
    mixed = gc.transpose(gc.matmul(gc.nn.softmax(scores), value), [1, 0, 2])
    x = normalized(p["x"] + dense(gc.reshape(mixed, [-1, WIDTH]), WIDTH, WIDTH))
    hidden = dense(x, WIDTH, INNER)
    hidden = 0.5 * hidden * (1 + gc.erf(hidden * 0.7071067811865476))
    return [normalized(x + dense(hidden, INNER, WIDTH))], p


def encoder_flops(tokens: int) -> float:
    """Of the six dense layers, and of the two products of attention."""
    dense = 4 * dense_flops(tokens, WIDTH, WIDTH) + dense_flops(tokens, WIDTH, INNER, WIDTH)
    return dense + 2 * dense_flops(tokens, WIDTH, tokens)


SERIES = {
    "batch": Series(
        f"MLP of {MLP_DEPTH} layers of {MLP_WIDTH}, SGD step, by batch",
        (1, 4, 16, 64, 256, 1024), True, lambda n: mlp(n, MLP_WIDTH, MLP_DEPTH),
        lambda n: mlp_data(n, MLP_WIDTH), lambda n: mlp_flops(n, MLP_WIDTH, MLP_DEPTH),
    ),
    "width": Series(
        f"MLP of {MLP_DEPTH} layers, batch {MLP_BATCH}, SGD step, by width",
        (64, 128, 256, 512, 1024, 2048), False, lambda n: mlp(MLP_BATCH, n, MLP_DEPTH),
        lambda n: mlp_data(MLP_BATCH, n), lambda n: mlp_flops(MLP_BATCH, n, MLP_DEPTH),
    ),
    "depth": Series(
        f"MLP of width {MLP_WIDTH}, batch {MLP_BATCH}, SGD step, by layers",
        (1, 2, 4, 8, 16, 32), False, lambda n: mlp(MLP_BATCH, MLP_WIDTH, n),
        lambda _: mlp_data(MLP_BATCH, MLP_WIDTH), lambda n: mlp_flops(MLP_BATCH, MLP_WIDTH, n),
    ),
    "steps": Series(
        f"LSTM {LSTM_UNITS} by dynamic_rnn, batch {LSTM_BATCH}, SGD step, by steps",
        (1, 2, 8, 32, 128, 512), True, lstm,
        lambda n: {"x": normal(0, n, LSTM_BATCH, LSTM_UNITS)}, lstm_flops,
    ),
    "tokens": Series(
        f"transformer layer, d {WIDTH}, ff {INNER}, {HEADS} heads, inference, by tokens",
        (16, 32, 64, 128, 256, 512, 1024), True, encoder,
        lambda n: {"x": normal(0, n, WIDTH)}, encoder_flops,
    ),
}  # fmt: skip


# --- measuring ----------------------------------------------------------------------------------


class Prepared:
    """A model in a session, at whatever sizes its program takes."""

    def __init__(self, series: Series, size: int | None) -> None:
        with gc.Graph().as_default() as graph:
            gc.set_random_seed(1)
            self.fetches, self.placeholders = series.build(size)
            self.session = gc.Session(graph=graph)
            self.session.run(gc.global_variables_initializer())
        self.initial = self.session.compilations

    @property
    def compilations(self) -> int:
        """How many programs were compiled for the calls."""
        return self.session.compilations - self.initial

    def at(self, arrays: Arrays) -> Callable[[], Any]:
        """A call that does the work once; what it gives is the first fetch."""
        feeds = {self.placeholders[k]: v for k, v in arrays.items()}
        run, fetches = self.session.run, self.fetches
        return lambda: run(fetches, feeds)[0]


def resident() -> float:
    """The megabytes that are in use now, without what has been freed but not yet given back."""
    collector.collect()
    # Of glibc; where there is none, freed memory may count.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    restart_peak()
    return peak_megabytes()


def first_call(series: Series, size: int) -> dict[str, float]:
    """The first call's seconds and the memory needed: to be asked once, in a new process.

    ``megabytes`` is by how much the process grows at most, with LLVM and what compiling takes.
    ``model_megabytes`` is what goes with the model: weights, data, temporaries, graph and code; it
    is good to some megabytes, because the allocator gives whole pages back.
    """
    before = resident()
    arrays = series.data(size)
    prepared = Prepared(series, None if series.symbolic else size)
    call = prepared.at(arrays)
    started = time.perf_counter()
    call()
    first = time.perf_counter() - started
    most = peak_megabytes()
    resident()
    for _ in range(3):
        call()
    running = peak_megabytes()
    prepared.session.close()
    del arrays, call, prepared
    return {
        "first": first, "megabytes": max(most, running) - before,
        "model_megabytes": running - resident(),
    }  # fmt: skip


def first_call_elsewhere(name: str, size: int, threads: int) -> dict[str, float]:
    """What ``first_call`` finds in a process of its own."""
    command = [sys.executable, str(HERE / "scaling.py"), "--threads", str(threads)]
    done = subprocess.run(
        [*command, "--first-call", name, str(size)],
        check=False, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} {size} stopped:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def measure(name: str, series: Series, sizes: Sequence[int], args: argparse.Namespace) -> Results:
    """Everything about one series."""
    points = {
        n: {"size": n, "flops": series.flops(n)} | first_call_elsewhere(name, n, args.threads)
        for n in sizes
    }
    if series.symbolic:
        prepared = dict.fromkeys(sizes, Prepared(series, None))
    else:
        prepared = {n: Prepared(series, n) for n in sizes}
    calls = {n: prepared[n].at(series.data(n)) for n in sizes}
    for n, call in calls.items():
        if not np.isfinite(call()).all():
            raise SystemExit(f"{name} {n}: the result is not finite")
    rounds: dict[int, list[dict[str, float]]] = {n: [] for n in sizes}
    for k in range(args.rounds):
        turn = k % len(sizes)
        for n in [*sizes[turn:], *sizes[:turn]]:
            rounds[n].append(timed(calls[n], args.seconds))
            time.sleep(args.pause)
    for n, point in points.items():
        point["least"] = min(r["least"] for r in rounds[n])
        point["time"] = statistics.median(r["median"] for r in rounds[n])
    compilations = sum(p.compilations for p in set(prepared.values()))
    check_compilations(name, len(set(prepared.values())), compilations)
    return {
        "title": series.title, "symbolic": series.symbolic, "compilations": compilations,
        "points": list(points.values()),
    }  # fmt: skip


def check_compilations(name: str, programs: int, compilations: int) -> None:
    """Refuse a program that was compiled again for a size that should be a symbol."""
    if compilations != programs:
        raise SystemExit(f"{name}: {compilations} compilations, where {programs} should serve")


# --- what is shown ------------------------------------------------------------------------------


def exponents(points: list[Results]) -> list[float | None]:
    """By which power of the size the least time grows from the point before.

    The least one: what else the machine does in one turn would bend two powers.
    """
    found: list[float | None] = [None]
    for a, b in itertools.pairwise(points):
        found.append(math.log(b["least"] / a["least"]) / math.log(b["size"] / a["size"]))
    return found


def table(name: str, found: Results, machine: Results) -> str:
    """The series as a table, with its title and the number of compilations above."""
    rows = []
    for point, power in zip(found["points"], exponents(found["points"]), strict=True):
        gflops = point["flops"] / point["time"] / 1e9
        rows.append([
            str(point["size"]), duration(point["least"]), duration(point["time"]),
            "" if power is None else f"{power:.2f}", f"{gflops:.1f}",
            f"{gflops / machine['gflops']:.1%}", duration(point["first"]),
            f"{point['model_megabytes']:.1f} MB", f"{point['megabytes']:.0f} MB",
        ])  # fmt: skip
    count = found["compilations"]
    served = f"{count} compilation{'s' * (count > 1)} for {len(rows)} sizes"
    header = [name, "least", "median", "power", "GFLOP/s", "of peak", "first call, cold",
              "model's memory", "process"]  # fmt: skip
    return f"{found['title']}: {served}\n\n{markdown(header, rows)}"


def plot(results: Results, path: Path) -> None:
    """A column for each series, on logarithmic axes: times above, memory below."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed (pip install graphc[examples])")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    peak = results["machine"]["gflops"] * 1e9
    count = len(results["series"])
    figure, grid = pyplot.subplots(2, count, figsize=(3.6 * count, 6.4), squeeze=False)
    for (name, found), times, memory in zip(results["series"].items(), *grid, strict=True):
        points = found["points"]
        sizes = [p["size"] for p in points]
        times.plot(sizes, [p["time"] for p in points], "o-", label="median")
        times.plot(sizes, [p["least"] for p in points], ".--", label="least")
        times.plot(sizes, [p["first"] for p in points], "s:", label="first call, cold")
        times.plot(sizes, [p["flops"] / peak for p in points], "k-", lw=1, label="at peak")
        times.set_ylabel("seconds")
        times.set_title("\n".join(found["title"].split(", ", 1)), fontsize="small")
        memory.plot(sizes, [p["model_megabytes"] for p in points], "o-", label="model")
        memory.plot(sizes, [p["megabytes"] for p in points], "s:", label="process")
        memory.set_ylabel("MB")
        for axes in (times, memory):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlabel(name)
            axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"drew {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"of {', '.join(SERIES)}")
    parser.add_argument("--threads", type=int, default=cpus(), help="CPUs that it may use")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one turn")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between turns")
    parser.add_argument("--quick", action="store_true",
                        help="the two least sizes, one short round: a trial")  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results", help="a folder")
    parser.add_argument("--first-call", nargs=2, metavar=("SERIES", "SIZE"),
                        help=argparse.SUPPRESS)  # fmt: skip
    args = parser.parse_args()
    if unknown := set(args.series) - SERIES.keys():
        parser.error(f"there is no series {sorted(unknown)}")
    if args.quick:
        args.rounds, args.seconds, args.pause = 1, 0.01, 0.0
    return args


def main() -> None:
    args = parse()
    os.environ["GRAPHC_CACHE"] = "off"
    gc.set_num_threads(args.threads)
    if args.first_call:
        name, size = args.first_call
        print(json.dumps(first_call(SERIES[name], int(size))))
        return
    results: Results = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "version": f"graphc {gc.__version__}",
        "machine": machine_facts(args.threads),
        "settings": {k: getattr(args, k) for k in ("rounds", "seconds", "pause", "quick")},
        "series": {},
    }
    machine = results["machine"]
    print(f"{machine['cpu']}, {machine['threads']} threads: {machine['gflops']:.0f} GFLOP/s")
    for name in args.series or SERIES:
        sizes = SERIES[name].sizes[: 2 if args.quick else None]
        print(f"measuring {name}", file=sys.stderr, flush=True)
        results["series"][name] = measure(name, SERIES[name], sizes, args)
        print(f"\n{table(name, results['series'][name], machine)}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"scaling-{results['date']}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\nwrote {path}")
    plot(results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
