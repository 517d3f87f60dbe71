"""One contender with one workload, in a process of its own: bench.py starts it and talks to it.

    python worker.py CONTENDER WORKLOAD THREADS

It writes one line of JSON when it is ready, and one for every line it reads: a number of seconds
to run for, or nothing more to be done with.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from typing import Any

import numpy as np
import workloads

MODULES = {
    "graphc": ("with_graphc", {}),
    "graphc-eager": ("with_graphc", {"mode": "eager"}),
    "numpy": ("with_numpy", {}),
    "torch": ("with_torch", {}),
    "torch-compile": ("with_torch", {"compiled": True}),
    "onnxruntime": ("with_onnxruntime", {}),
    "jax": ("with_jax", {}),
    "tensorflow": ("with_tensorflow", {}),
    "tensorflow-xla": ("with_tensorflow", {"jit_compile": True}),
    "tensorflow1": ("with_tensorflow1", {}),
}


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def restart_peak() -> None:
    """Let the peak of resident memory begin again from what is resident now, where Linux can."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


def peak_megabytes() -> float:
    """The most memory that was resident since the last ``restart_peak``."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summary(value: np.ndarray) -> dict[str, float]:
    """What must agree between contenders: the mean size of the elements, and a projection.

    The mean alone would not tell rows that are normalized from other such rows.
    """
    along = np.random.RandomState(11).standard_normal(value.size)
    projection = value.reshape(-1) @ along / np.sqrt(max(1, value.size))
    return {"value": float(np.abs(value).mean()), "projection": float(projection)}


def timed(call: Any, seconds: float) -> dict[str, Any]:
    """The median, least and number of the times of one call, for about so many seconds."""
    times = []
    stop = time.perf_counter() + seconds
    while not times or time.perf_counter() < stop:
        # Short calls are timed in blocks, so that reading the clock does not count.
        block = 1 if not times else max(1, min(1000, int(2e-4 / times[-1])))
        started = time.perf_counter()
        for _ in range(block):
            call()
        times.append((time.perf_counter() - started) / block)
    if len(times) > 2:
        del times[0]
    return {"median": float(np.median(times)), "least": min(times), "count": len(times)}


def gap(module: Any, name: str, options: dict[str, Any]) -> str | None:
    """Why a contender leaves a workload out, or None."""
    known = module.gap(name, **options) if hasattr(module, "gap") else None
    return known or (None if name in module.BUILDERS else "not written for it")


def main() -> None:
    contender, name, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Whatever prints to standard output must not get between the lines of JSON.
    sys.stdout, printed = open(os.dup(1), "w", encoding="utf-8"), sys.stdout  # noqa: SIM115
    os.dup2(2, 1)
    del printed
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    module_name, options = MODULES[contender]
    module = importlib.import_module(module_name)
    module.set_threads(threads)
    data = workloads.BY_NAME[name].data()
    missing = gap(module, name, options)
    if missing:
        say(version=module.VERSION, missing=missing)
        return
    imported = peak_megabytes()
    restart_peak()
    before = peak_megabytes()
    started = time.perf_counter()
    call = module.make(name, data, **options)
    built = time.perf_counter()
    value = np.asarray(call(), np.float64)
    first = time.perf_counter()
    # Some compile again at the second call, for what the first one was given.
    for _ in range(3):
        call()
    built_megabytes = peak_megabytes()
    restart_peak()
    say(version=module.VERSION, build=built - started, first=first - built, **summary(value))
    for line in sys.stdin:
        if not line.strip():
            break
        say(**timed(call, float(line)))
    running = peak_megabytes()
    say(
        megabytes=max(running, built_megabytes) - before, running_megabytes=running - before,
        process_megabytes=max(imported, built_megabytes, running),
    )  # fmt: skip


if __name__ == "__main__":
    main()
