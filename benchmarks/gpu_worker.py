"""One half of `gpu.py`, graphc's or PyTorch's, in a process of its own.

    python gpu_worker.py HALF [--place cpu]

HALF is "graphc" or "torch".  It reads lines of JSON, each with a row's name, the contender, whether
sizes are small and few calls enough, and answers each: figures by their units, or ``error``.  What
ends the process, or makes the device useless, costs the row that did it: `Worker` starts another.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc as memory
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent)) if path not in sys.path]

from gpu_rows import GRAPHC, Row, rows  # noqa: E402

LONGEST = 600
"""The most characters of a message."""
TORCH = "torch"


def half(contender: str) -> str:
    """The half that a contender belongs to."""
    return GRAPHC if contender == GRAPHC else TORCH


def torch_python() -> str:
    """The interpreter that has PyTorch: what ``GRAPHC_BENCH_PEERS`` names, as `bench.py` has it."""
    peers = os.environ.get("GRAPHC_BENCH_PEERS", "").split(",")
    named = dict(peer.split("=", 1) for peer in peers if "=" in peer)
    return named.get(TORCH, sys.executable)


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a row gives, or its failure."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - one row's failure, of whatever kind, is not the end
        lines = str(error).strip() or type(error).__name__
        return {"error": f"{type(error).__name__}: {lines}"[:LONGEST]}


# --- in the process -------------------------------------------------------------------------------


class Graphc:
    """graphc's half: ``device`` is a device of its own."""

    def __init__(self, device: Any) -> None:
        self._kinds = importlib.import_module("gpu_graphc").KINDS
        self._device = device

    def measure(self, row: Row, _: str, quick: bool) -> dict[str, Any]:
        """The figures of a row."""
        found: dict[str, Any] = self._kinds[row.kind](self._device, quick, **row.given)
        return found

    def tidy(self) -> None:
        """Give memory back; raises where the device works no more."""
        memory.collect()
        with self._device.active():
            self._device.wait()
            self._device.trim()


class Torch:
    """PyTorch's half, on "cuda" or "cpu"."""

    def __init__(self, place: str) -> None:
        self._torch = importlib.import_module("torch")
        if place == "cuda" and not self._torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no GPU")
        self._kinds = importlib.import_module("gpu_torch").KINDS
        self._place = place

    def measure(self, row: Row, how: str, quick: bool) -> dict[str, Any]:
        """The figures of a row, eager or compiled."""
        found: dict[str, Any] = self._kinds[row.kind](self._place, how, quick, **row.given)
        return {**found, "version": self._torch.__version__}

    def tidy(self) -> None:
        """Give memory back; raises where the device works no more."""
        torch = self._torch
        torch.compiler.reset()
        memory.collect()
        if self._place == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def opened(name: str, place: str) -> Graphc | Torch:
    """A half on a place."""
    if name == TORCH:
        return Torch(place)
    from graphc.runtime.cuda_cupy import cuda_device

    return Graphc(cuda_device())


def serve(name: str, place: str, asked: IO[str], answers: IO[str]) -> None:
    """Answer what is asked for, until there is no more or the device works no more."""
    tables = {small: {row.name: row for row in rows(small)} for small in (False, True)}
    found: list[Graphc | Torch] = []

    def start() -> dict[str, Any]:
        if not found:
            found.append(opened(name, place))
        return {}

    def tidy() -> dict[str, Any]:
        found[0].tidy()
        return {}

    for line in asked:
        job = json.loads(line)
        row = tables[job["small"]][job["row"]]
        answer = measured(start)
        if answer:
            answer["unavailable"] = True
        else:
            how, quick = job["how"], job["quick"]
            answer = measured(functools.partial(found[0].measure, row, how, quick))
            if left := measured(tidy):
                answer = {**left, **answer, "over": True}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer.keys() & {"over", "unavailable"}:
            return


# --- in the parent --------------------------------------------------------------------------------


class Worker:
    """A process with one half, started when it is asked for something, and again when it ended.

    Args:
      name: of the half.
      python: the interpreter that has what the half needs.
      place: where it measures, "cuda" or, PyTorch alone, "cpu".
    """

    def __init__(self, name: str, python: str = sys.executable, place: str = "cuda") -> None:
        self._command = [python, str(HERE / "gpu_worker.py"), name, "--place", place]
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: IO[str] | None = None
        self._unavailable: dict[str, Any] | None = None

    def ask(
        self, row: str, how: str, small: bool, limit: float, quick: bool = False
    ) -> dict[str, Any]:
        """A row's figures, or ``error``; within so many seconds."""
        job = {"row": row, "how": how, "small": small, "quick": quick or small}
        if self._unavailable is not None:
            return self._unavailable
        process = self._process or self._start()
        lines = self._lines
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = lines.get(timeout=limit)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            self.close()
            return {"error": f"stopped: it took more than {limit:.0f} s"}
        if not line:
            process.wait()
            if self._process is not process:
                return {"error": "stopped"}
            last = self._last_words()
            self.close()
            return {"error": f"the process ended ({process.returncode}): {last}"[:LONGEST]}
        answer: dict[str, Any] = json.loads(line)
        if answer.pop("over", False):
            self.close()
        if answer.pop("unavailable", False):
            self._unavailable = answer
            self.close()
        return answer

    def _start(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, start_new_session=True,
        )  # fmt: skip
        lines: queue.Queue[str] = queue.Queue()
        self._lines = lines

        def read() -> None:
            assert process.stdout is not None
            with process.stdout as answers:
                for line in answers:
                    lines.put(line)
            lines.put("")  # it has ended

        threading.Thread(target=read, daemon=True).start()
        return process

    def _last_words(self) -> str:
        assert self._errors is not None
        self._errors.seek(0)
        return " / ".join(self._errors.read().strip().splitlines()[-4:])

    def close(self) -> None:
        """End the process and those that it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        self._errors.close()  # type: ignore[union-attr]


def main() -> None:
    """Serve the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("half", choices=(GRAPHC, TORCH))
    parser.add_argument("--place", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    # Whatever prints to standard output must not get between the lines of JSON.
    with open(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(args.half, args.place, sys.stdin, answers)


if __name__ == "__main__":
    main()
