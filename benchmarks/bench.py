"""graphc beside its eager mode, NumPy and the peers: the same work, in one run (make bench).

Every contender does every workload in a process of its own (worker.py). The processes of one
workload take turns, each for a fraction of a second, with pauses, for several rounds; the median
of the rounds counts. Whatever changes on the machine meanwhile meets all of them.

A peer that this interpreter cannot import may live in an environment of its own:

    python benchmarks/bench.py --peer torch=/path/to/python --peer jax=/path/to/python
    GRAPHC_BENCH_PEERS="torch=/path/to/python,tensorflow1=/path/to/python3.7" make bench

torch-compile runs where torch does and tensorflow-xla where tensorflow does, unless named as well.

Results go to benchmarks/results/<date>.json, with a table on standard output and a picture beside
it. --update-readme writes the table of a results file into README.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report
from workloads import BY_NAME, WORKLOADS

HERE = Path(__file__).resolve().parent
OURS = ("graphc", "graphc-eager", "numpy")
# By name: the module that a peer imports, and the peer whose interpreter does if it has no own one.
PEERS = {
    "torch": ("torch", None),
    "torch-compile": ("torch", "torch"),
    "onnxruntime": ("onnxruntime", None),
    "jax": ("jax", None),
    "tensorflow": ("tensorflow", None),
    "tensorflow-xla": ("tensorflow", "tensorflow"),
    "tensorflow1": (None, None),  # no interpreter that runs graphc runs it
}
CONTENDERS = (*OURS, *PEERS)
TIMEOUT = 300.0


class Worker:
    """A process with one contender and one workload."""

    def __init__(
        self, python: str, contender: str, workload: str, threads: int, cache: str
    ) -> None:
        environment = {
            k: v for k, v in os.environ.items()
            if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        }  # fmt: skip
        if contender in OURS:
            path = [str(HERE.parent), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        environment |= {
            "GRAPHC_CACHE": cache, "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3",
        }  # fmt: skip
        self.contender = contender
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), contender, workload, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, env=environment,
        )  # fmt: skip
        self.ready = self._answer()
        self.missing = bool(self.ready.get("missing"))

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.contender} stopped:\n{self._errors.read()[-2000:]}")
        return json.loads(line)

    def run(self, seconds: float) -> dict[str, float]:
        """The median and the least time of one call, in so many seconds of calls."""
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> dict[str, Any]:
        """End the process; what it says last."""
        last = {}
        if not self.missing:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            last = self._answer()
        self._process.stdin.close()
        self._process.wait(TIMEOUT)
        self._errors.close()
        return last

    def kill(self) -> None:
        """End a process that is not wanted any more."""
        self._process.kill()
        self._process.wait()


def interpreters(args: argparse.Namespace) -> dict[str, str]:
    """The interpreter for each contender that can run."""
    named = [p for p in os.environ.get("GRAPHC_BENCH_PEERS", "").split(",") if p] + args.peer
    given = {}
    for item in named:
        name, equals, path = item.partition("=")
        if not equals or name.strip() not in PEERS:
            raise SystemExit(f"--peer {item}: expected NAME=PYTHON with a NAME of {list(PEERS)}")
        given[name.strip()] = path.strip()
    found = {}
    for name in args.contenders or CONTENDERS:
        if name in OURS:
            found[name] = sys.executable
            continue
        module, other = PEERS[name]
        if name in given or other in given:
            found[name] = given.get(name) or given[other]
        elif module is not None and importlib.util.find_spec(module) is not None:
            found[name] = sys.executable
        elif args.contenders:
            raise SystemExit(f"{name} is not installed here: --peer {name}=/path/to/python")
    return found


def measure(
    name: str, pythons: dict[str, str], args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str]]:
    """Everything about one workload, by contender; and why the others leave it out."""
    results: dict[str, Any] = {}
    gaps: dict[str, str] = {}
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder:
        caches = {c: str(Path(folder, c)) for c in pythons}
        try:
            for contender, python in pythons.items():
                worker = Worker(python, contender, name, args.threads, caches[contender])
                if worker.missing:
                    gaps[contender] = worker.ready["missing"]
                    worker.close()
                    continue
                workers.append(worker)
                results[contender] = dict(worker.ready)
            if not workers:
                return results, gaps
            rounds: dict[str, list[dict[str, float]]] = {w.contender: [] for w in workers}
            for k in range(args.rounds):
                turn = k % len(workers)
                for worker in workers[turn:] + workers[:turn]:
                    rounds[worker.contender].append(worker.run(args.seconds))
                    # Threads of a contender spin for a while after its last call.
                    time.sleep(args.pause)
            while workers:
                worker = workers.pop()
                results[worker.contender] |= worker.close()
                times = [r["median"] for r in rounds[worker.contender]]
                results[worker.contender] |= {
                    "time": statistics.median(times), "rounds": times,
                    "least": min(r["least"] for r in rounds[worker.contender]),
                }  # fmt: skip
        finally:
            for worker in workers:
                worker.kill()
        if "graphc" in results:
            again = Worker(pythons["graphc"], "graphc", name, args.threads, caches["graphc"])
            results["graphc"]["cached"] = again.ready["first"]
            again.close()
    check(name, results)
    return results, gaps


def check(name: str, results: dict[str, Any]) -> None:
    """Refuse to compare contenders that compute different things."""
    scale = statistics.median(abs(r["value"]) for r in results.values())
    for key in ("value", "projection"):
        values = {c: r[key] for c, r in results.items()}
        middle = statistics.median(values.values())
        wrong = {c: v for c, v in values.items() if abs(v - middle) > 1e-3 * scale}
        if wrong:
            raise SystemExit(f"{name}: {wrong} differ from {middle}")


def machine_facts(threads: int) -> dict[str, Any]:
    """The machine and its peaks, measured by a process that may use as many CPUs as a worker."""
    code = (
        "import os, sys, json; sys.path.insert(0, sys.argv[1]); threads = int(sys.argv[2])\n"
        "if hasattr(os, 'sched_setaffinity'):\n"
        "    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])\n"
        "import machine; print(json.dumps(machine.describe(threads)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(HERE), str(threads)],
        check=True, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    return json.loads(done.stdout)


def cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=sorted(BY_NAME), metavar="NAME",
                        help=f"of {', '.join(BY_NAME)}; all by default")  # fmt: skip
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME",
                        help=f"of {', '.join(CONTENDERS)}; all that are here")  # fmt: skip
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON",
                        help="the interpreter that has a peer")  # fmt: skip
    parser.add_argument("--threads", type=int, default=cpus(), help="CPUs that each may use")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one turn")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between turns")
    parser.add_argument("--memory", action="store_true",
                        help="a table of the memory that each needs, too")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="two short rounds: a trial")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="a folder")
    parser.add_argument("--update-readme", nargs="?", const="", metavar="RESULTS.json",
                        help="write a table into README.md: of this file, measuring nothing, or "
                        "of this run")  # fmt: skip
    parser.add_argument("--readme", type=Path, default=HERE.parent / "README.md",
                        help=argparse.SUPPRESS)  # fmt: skip
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.pause = 2, 0.05, 0.0
    return args


def main() -> None:
    args = parse()
    if args.update_readme:
        results = json.loads(Path(args.update_readme).read_text(encoding="utf-8"))
        report.update_readme(args.readme, results)
        return
    pythons = interpreters(args)
    chosen = args.workloads or [w.name for w in WORKLOADS]
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_facts(args.threads),
        "settings": {k: getattr(args, k) for k in ("rounds", "seconds", "pause", "quick")},
        "workloads": {},
        "gaps": {},
    }
    for name in chosen:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        results["workloads"][name], results["gaps"][name] = measure(name, pythons, args)
    print(report.table(results))
    print()
    print(report.details(results))
    print()
    print(report.gaps(results))
    if args.memory:
        print()
        print(report.memory(results))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{results['date']}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\nwrote {path}")
    report.plot(results, path.with_suffix(".png"))
    if args.update_readme is not None:
        report.update_readme(args.readme, results)


if __name__ == "__main__":
    main()
