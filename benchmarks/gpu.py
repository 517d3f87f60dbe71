"""On a machine with a GPU: the tests of `tests/cuda` for real, then the table of targets.

    python benchmarks/gpu.py [--minutes 7.5] [--out gpu.json] [--no-tests] [--torch PYTHON]

Each row is measured for graphc and for PyTorch, eager and compiled, each in a process of its own:
a failure costs its row alone, which has the message.  What is cheap comes first, and what the file
that is written has no figures of yet; what there is no time for is listed, with the figures of
before where there are any.  The exit status is 1 if a test has failed, whatever the targets say.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from gpu_rows import COMPILED, CONTENDERS, GRAPHC, Row, rows  # noqa: E402
from gpu_worker import TORCH, Worker, half, torch_python  # noqa: E402

import graphc as gc  # noqa: E402
from graphc.runtime.cuda_cupy import cuda_device  # noqa: E402

MINUTES = 7.5
FOR_TESTS = 0.45
"""The part of the time that tests may take."""
GRACE, STARTING = 4.0, 45.0
"""A row may take so many times its seconds, and so many more: a process may have to begin."""
LONG = 8.0
"""The seconds from which on a row is compiled while the tests run."""
Table = dict[str, dict[str, dict[str, Any]]]


# --- the tests ------------------------------------------------------------------------------------


def run_tests(
    limit: float, selection: Sequence[str] = ("-m", "cuda and not slow")
) -> dict[str, Any]:
    """The tests on the device.

    Args:
      limit: seconds after which they are stopped.
      selection: arguments of pytest.
    Returns:
      their last line, whether they pass, the names of those that fail, and the seconds.
    """
    command = [sys.executable, "-m", "pytest", "-q", *selection, *processes(), "tests/cuda"]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        lines = output.read().strip().splitlines()
    last = lines[-1] if lines else f"exit status {status}"
    if status != 0:
        print("\n".join(lines[-60:]))
    return {
        "line": last if status is not None else f"stopped after {limit:.0f} s: {last}",
        "passed": status == 0,
        "failed": [line for line in lines if line.startswith(("FAILED ", "ERROR "))],
        "s": time.monotonic() - start,
    }


def processes() -> list[str]:
    """pytest-xdist's option, where that is installed: the tests wait for the host above all."""
    if importlib.util.find_spec("xdist") is None:
        return []
    return ["-n", str(min(6, os.cpu_count() or 1))]


@contextlib.contextmanager
def warming(workers: dict[str, Worker]) -> Iterator[None]:
    """Meanwhile rows that take long to compile are compiled: what they leave in caches is theirs.

    Nothing is timed, and nothing that fails matters here.
    """
    over = threading.Event()

    def warm(contender: str) -> None:
        long = [row for row in rows() if row.seconds.get(contender, 0) >= LONG]
        for row in sorted(long, key=lambda row: -row.seconds[contender]):
            if over.is_set():
                return
            with contextlib.suppress(Exception):
                workers[half(contender)].ask(row.name, contender, False, 600, quick=True)

    threads = [threading.Thread(target=warm, args=(how,)) for how in (GRAPHC, COMPILED)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        # The second time: a process that began as the first ones ended.
        for _ in range(2):
            for worker in workers.values():
                worker.close()
            for thread in threads:
                thread.join(10)


# --- the table ------------------------------------------------------------------------------------


def jobs(table: Sequence[Row], earlier: Table) -> list[tuple[Row, str]]:
    """Rows by contender in the order of measuring: never measured, cheap, graphc first."""

    def key(job: tuple[Row, str]) -> tuple[bool, float, int]:
        row, how = job
        # Targets that are parts of a copy's bandwidth need that one.
        seconds = 0.0 if row.kind == "copy" else row.seconds[how]
        return has_figures(earlier, row.name, how), seconds, CONTENDERS.index(how)

    return sorted(((row, how) for row in table for how in row.seconds), key=key)


def has_figures(table: Table, name: str, how: str) -> bool:
    """Whether a row has figures of a contender."""
    cell = table.get(name, {}).get(how, {})
    return bool(cell) and "error" not in cell


def measure(
    workers: dict[str, Worker], small: bool, left: Callable[[], float], earlier: Table
) -> Iterator[tuple[Table, list[str]]]:
    """Every row for every contender, and those that there was no time for; after each of them.

    Args:
      workers: by half.
      small: whether sizes are small.
      left: the seconds that are left.
      earlier: the figures of before.
    """
    everything = rows(small)
    table: Table = {
        row.name: {how: earlier[row.name][how] for how in row.seconds
                   if has_figures(earlier, row.name, how)}
        for row in everything
    }  # fmt: skip
    untimed: list[str] = []
    for row, how in jobs(everything, earlier):
        needed, seconds = row.seconds[how], left()
        if seconds < needed and not small:
            untimed.append(f"{row.name}, {how}: {needed:.0f} s, {max(0, seconds):.0f} s were left")
            yield table, untimed
            continue
        limit = min(max(seconds, 1.0), GRACE * needed + STARTING)
        found = workers[half(how)].ask(row.name, how, small, limit)
        if "error" not in found:
            found["measured"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        table[row.name][how] = found
        yield table, untimed


def judged(table: Table, small: bool) -> dict[str, Any]:
    """Every row with its targets, what is reached of them, and whether its values agree."""
    known = {
        name: {how: cell for how, cell in cells.items() if "error" not in cell}
        for name, cells in table.items()
    }
    found: dict[str, Any] = {}
    for row in rows(small):
        cells = known[row.name]
        found[row.name] = {
            **{how: table[row.name][how] for how in CONTENDERS if how in table[row.name]},
            "targets": [target.judged(cells, known) for target in row.targets],
        }
        if sum("value" in cell for cell in cells.values()) > 1:
            found[row.name]["values agree"] = agree(list(cells.values()))
    return found


def agree(cells: Sequence[dict[str, Any]], tolerance: float = 0.02) -> bool:
    """Whether contenders have the same values, before and after a step, but for rounding."""
    return all(
        abs(cell[unit] - cells[0][unit]) <= tolerance * abs(cells[0][unit]) + 1e-3
        for unit in ("value", "value, second") for cell in cells
    )  # fmt: skip


def earlier_table(path: Path, device: dict[str, Any]) -> Table:
    """What the file has of the same device, by row and contender."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if any(before.get(key) != value for key, value in device.items()):
        return {}
    return {
        name: {how: row[how] for how in CONTENDERS if how in row}
        for name, row in before.get("table", {}).items()
    }


# --- text -----------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> str:
    """The table as text: milliseconds, what is reached of the targets, and what is missing."""
    lines = [f"{'':28} {'graphc ms':>11} {'eager ms':>11} {'compiled ms':>11}  targets"]
    for name, row in found["table"].items():
        times = "".join(f" {time_of(row.get(how)):>11}" for how in CONTENDERS)
        lines.append(f"{name:28}{times}  {targets(row)}".rstrip())
        if not row.get("values agree", True):
            lines.append(f"{'':28} the contenders' values differ")
    failures = [
        f"  {name}, {how}: {row[how]['error'].splitlines()[0]}"
        for name, row in found["table"].items() for how in CONTENDERS
        if "error" in row.get(how, {})
    ]  # fmt: skip
    if failures:
        lines += ["failed:", *failures]
    if found["no time"]:
        lines += ["no time for:", *(f"  {line}" for line in found["no time"])]
    known = [t for row in found["table"].values() for t in row["targets"]]
    met, open_ = (sum(t["met"] is state for t in known) for state in (True, None))
    lines.append(f"{met} of {len(known)} targets are met, {open_} not known")
    return "\n".join(lines)


def time_of(cell: dict[str, Any] | None) -> str:
    """A cell's time as text, in milliseconds."""
    if cell is None:
        return "-"
    if "error" in cell:
        return "failed"
    milliseconds = cell.get("ms", cell.get("us", 0.0) / 1e3 or cell.get("s, cold", 0.0) * 1e3)
    return f"{milliseconds:.4g}"


def targets(row: dict[str, Any]) -> str:
    """The targets of a row as text: what is reached of what is asked for."""
    words = {True: "met", False: "MISSED", None: "not known"}
    return "; ".join(
        f"{t['target']}: {words[t['met']]}"
        + ("" if t["reached"] is None else f" ({t['reached']:.2f} of {t['least']:.2f})")
        for t in row["targets"]
    )


# --- the command ----------------------------------------------------------------------------------


def described(device: Any) -> dict[str, Any]:
    """The device, as far as figures depend on it."""
    found = {"device": device.name, "arch": device.arch}
    if hasattr(device, "made_of"):
        cupy, number = device.made_of
        found["gpu"] = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
        found["cupy"] = cupy.__version__
    return found


def halves(args: argparse.Namespace) -> dict[str, Worker]:
    """The processes that measure, by half."""
    return {GRAPHC: Worker(GRAPHC), TORCH: Worker(TORCH, args.torch)}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--torch", default=torch_python(), help="an interpreter that has it")
    parser.add_argument("--small", action="store_true", help="sizes that say nothing, quickly")
    return parser.parse_args()


def main() -> None:
    """Test, measure, write."""
    args = parsed()
    end = time.monotonic() + 60 * args.minutes
    try:
        device = described(cuda_device()) | {"small": args.small}
    except gc.errors.UnavailableError as error:
        sys.exit(f"{error}")
    passed, found = True, {**device, "python": platform.python_version(), "graphc": gc.__version__}
    if not args.no_tests:
        with contextlib.nullcontext() if args.small else warming(halves(args)):
            found["tests"] = run_tests(60 * args.minutes * FOR_TESTS)
        passed = bool(found["tests"]["passed"])
        print(found["tests"]["line"], flush=True)
    workers, earlier = halves(args), earlier_table(args.out, device)
    try:
        for table, untimed in measure(workers, args.small, lambda: end - time.monotonic(), earlier):
            # What is measured is kept, should somebody end this.
            found |= {"table": judged(table, args.small), "no time": untimed}
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    finally:
        for worker in workers.values():
            worker.close()
    print(show(found))
    print(f"-> {args.out}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
