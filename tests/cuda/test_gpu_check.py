"""`make gpu-check`, from one end to the other, on a device that is none."""

from __future__ import annotations

import importlib
import io
import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.errors import UnavailableError

BENCHMARKS = Path(gc.__file__).parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """A function that imports a file of the benchmarks, by the name that they have there."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def script(module):
    return module("gpu")


@pytest.fixture
def inline(module, monkeypatch, shim):
    """graphc's half in this process, on the shim; there is no PyTorch."""
    worker = module("gpu_worker")

    def opened(name: str, place: str):
        if name == worker.TORCH:
            raise ImportError("there is no PyTorch")
        return worker.Graphc(shim)

    class Inline(worker.Worker):
        def ask(self, row, how, small, limit, quick=False):
            job = json.dumps({"row": row, "how": how, "small": small, "quick": quick or small})
            answers = io.StringIO()
            worker.serve(self._command[2], "cuda", io.StringIO(job + "\n"), answers)
            return json.loads(answers.getvalue())

    monkeypatch.setattr(worker, "opened", opened)
    return Inline


def test_from_one_end_to_the_other(script, inline, shim, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "cuda_device", lambda: shim)
    monkeypatch.setattr(script, "Worker", inline)
    tests = {"line": "all of them passed", "passed": True, "failed": []}
    monkeypatch.setattr(script, "run_tests", lambda _: tests)
    path = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu.py", "--small", "--out", str(path)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    found = json.loads(path.read_text())
    assert (found["device"], found["arch"], found["tests"]) == ("cuda:0", "sm_80", tests)
    assert found["no time"] == []
    rows = script.rows(True)
    assert list(found["table"]) == [row.name for row in rows]
    for row in rows:
        told = found["table"][row.name]
        # Every row has graphc's figures; PyTorch's have the reason why there are none.
        assert "error" not in told["graphc"], (row.name, told["graphc"])
        figures = {k: v for k, v in told["graphc"].items() if k not in ("measured", "version")}
        assert all(value > 0 for value in figures.values()), row.name
        for how in set(row.seconds) - {"graphc"}:
            assert told[how]["error"] == "ImportError: there is no PyTorch"
        assert len(told["targets"]) == len(row.targets)
    own = ("copy", "small run", "MLP step, first run")
    known = [t for name in own for t in found["table"][name]["targets"]]
    assert all(t["met"] in (True, False) and t["reached"] > 0 for t in known)
    assert shim.graphs > 10  # runs were replayed
    text = capsys.readouterr().out
    assert all(f"\n{row.name} " in text for row in rows)
    assert "softmax, eager: ImportError: there is no PyTorch" in text
    assert f"of {sum(len(row.targets) for row in rows)} targets are met" in text


def test_every_target_has_a_row(script):
    rows = {row.name: row for row in script.rows()}
    assert [f"{d} product {n}" in rows for d in ("float32", "tf32", "bfloat16", "int8")
            for n in (512, 1024, 2048, 4096, 8192)] == [True] * 20  # fmt: skip
    for name in ("encoder", "decoder"):
        for way in ("training", "inference"):
            row = rows[f"{name}, {way}"]
            assert (row.given["sizes"].batch, row.given["sizes"].tokens) == (8, 512)
            assert [t.text for t in row.targets] == [
                "no slower than torch.compile with CUDA graphs"
            ]
    for name in ("tanh(x) + 0.5", "gelu(x + b) * b", "softmax", "layer norm"):
        assert rows[name].given["elements"] * 4 >= 1 << 30
        assert [t.least for t in rows[name].targets] == [0.9, 1.0]
    steps = ("two layers of 10, step", "MLP step", "LeNet step", "LSTM step")
    assert all([t.least for t in rows[name].targets] == [3.0, 1.0] for name in steps)
    assert rows["LeNet step"].given["batch"] == 256
    decoder = rows["decoder, training"].given["sizes"]
    # GPT-2 small has 124 million weights; six operations for each of them and token, and attention.
    assert decoder.flops(True) == pytest.approx(6 * 123.7e6 * 4096 + 12 * 12 * 768 * 512 * 4096,
                                                rel=0.01)  # fmt: skip


COPY = {"copy": {"graphc": {"ms": 1.0, "GB/s": 100.0}}}


@pytest.mark.parametrize(
    ("name", "cells", "reached", "met"),
    [
        ("softmax", {"graphc": {"ms": 2.0, "GB/s": 91.0}, "compiled": {"ms": 1.9}}, [0.91, 0.95],
         [True, False]),
        ("softmax", {"graphc": {"ms": 2.0, "GB/s": 45.0}}, [0.45, None], [False, None]),
        ("MLP step", {"graphc": {"ms": 2.0}, "eager": {"ms": 6.0}, "compiled": {"ms": 3.0}},
         [3.0, 1.5], [True, True]),
        ("LSTM step", {"graphc": {"ms": 2.0}, "eager": {"ms": 3.0}}, [1.5, 0.5], [False, False]),
        ("small run", {"graphc": {"us": 10.0}}, [0.8], [False]),
        ("int8 product 512", {"graphc": {"ms": 1.0}, "eager": {"ms": 1.0}}, [1.0], [True]),
        ("bfloat16 relu(a b + bias) 4096",
         {"graphc": {"ms": 2.0, "ms, product": 1.5, "ms, pass": 1.0}}, [1.25], [True]),
        ("MLP step, first run", {"graphc": {"s, cold": 1.0, "s, cached": 0.4}}, [2.0, 0.5],
         [True, False]),
        ("encoder, training", {"graphc": {"error": "no memory"}, "compiled": {"ms": 1.0}}, [None],
         [None]),
    ],
)  # fmt: skip
def test_targets_are_judged(script, name, cells, reached, met):
    table = {row.name: {} for row in script.rows()}
    table |= {**COPY, "LSTM step, unrolled": {"compiled": {"ms": 1.0}}, name: cells}
    told = script.judged(table, False)[name]
    assert [t["reached"] for t in told["targets"]] == pytest.approx(reached)
    assert [t["met"] for t in told["targets"]] == met


def test_values_must_agree(script):
    table = {row.name: {} for row in script.rows()}
    ours = {"ms": 1.0, "value": 3.0, "value, second": 2.5}
    theirs = {"ms": 1.0, "value": 3.01, "value, second": 2.49}
    table["MLP step"] = {"graphc": ours, "eager": theirs}
    assert script.judged(table, False)["MLP step"]["values agree"]
    theirs["value, second"] = 2.7  # another gradient
    told = script.judged(table, False)
    assert not told["MLP step"]["values agree"]
    assert "values agree" not in told["LeNet step"]
    text = script.show({"table": told, "no time": []})
    assert "the contenders' values differ" in text
    assert "met (0." not in text


class Scripted:
    """A half whose answers are known; it takes the time that rows say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.now = 0.0

    def ask(self, row, how, small, limit, quick=False):
        self.asked.append((row, how))
        self.now += self.seconds[row][how]
        return {"error": "out of memory"} if row == "softmax" else {"ms": 1.0}


def test_what_there_is_no_time_for_is_told_and_measured_first_the_next_time(script):
    fake = Scripted()
    fake.seconds = {row.name: row.seconds for row in script.rows()}
    workers = {"graphc": fake, "torch": fake}
    *_, (table, untimed) = script.measure(workers, False, lambda: 120.0 - fake.now, {})
    assert fake.now <= 120
    assert fake.asked[0] == ("copy", "graphc")
    spent = [fake.seconds[name][how] for name, how in fake.asked[1:]]
    assert spent == sorted(spent)
    assert any(line.startswith("decoder, training, compiled: 75 s, ") for line in untimed)
    assert len(untimed) + len(fake.asked) == sum(len(s) for s in fake.seconds.values())
    assert table["softmax"]["eager"] == {"error": "out of memory"}
    assert "compiled" not in table["decoder, training"]
    before, fake.asked, fake.now = set(fake.asked), [], 0.0
    *_, (again, rest) = script.measure(workers, False, lambda: 200.0 - fake.now, table)
    failed = {("softmax", how) for how in ("graphc", "eager", "compiled")}
    first = [job for job in fake.asked if job not in before - failed]
    assert first == fake.asked[: len(first)]
    # What there was no time for now has the figures of before.
    left = {tuple(line.split(":")[0].rsplit(", ", 1)) for line in rest} & (before - failed)
    assert left
    assert all(again[name][how] == {"ms": 1.0, "measured": table[name][how]["measured"]}
               for name, how in left)  # fmt: skip


def test_figures_of_before_are_those_of_the_same_device(script, tmp_path):
    path = tmp_path / "gpu.json"
    device = {"device": "cuda:0", "arch": "sm_90", "gpu": "one"}
    assert script.earlier_table(path, device) == {}
    row = {"graphc": {"ms": 1.0}, "targets": []}
    path.write_text(json.dumps({**device, "table": {"softmax": row}}))
    assert script.earlier_table(path, device) == {"softmax": {"graphc": {"ms": 1.0}}}
    assert script.earlier_table(path, {**device, "gpu": "another"}) == {}


def test_a_row_that_fails_or_breaks_the_device_costs_itself_alone(module):
    worker = module("gpu_worker")

    class Half:
        broken = False

        def measure(self, row, how, quick):
            if row.name == "softmax":
                raise MemoryError("8 GiB were asked for")
            self.broken = row.name == "transpose"
            return {"ms": 1.0}

        def tidy(self):
            if self.broken:
                raise RuntimeError("an illegal memory access was encountered")

    def served(*names: str) -> list[dict]:
        jobs = [{"row": n, "how": "graphc", "small": False, "quick": False} for n in names]
        answers = io.StringIO()
        worker.serve("graphc", "cuda", map(json.dumps, jobs), answers)
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    real, worker.opened = worker.opened, lambda name, place: Half()
    try:
        assert served("copy", "softmax", "copy") == [
            {"ms": 1.0}, {"error": "MemoryError: 8 GiB were asked for"}, {"ms": 1.0}
        ]  # fmt: skip
        assert served("transpose", "copy") == [
            {"error": "RuntimeError: an illegal memory access was encountered", "ms": 1.0,
             "over": True}
        ]  # fmt: skip
    finally:
        worker.opened = real


PROCESS = """
import sys, time
for line in sys.stdin:
    if "softmax" in line:
        sys.exit("a driver's last words")
    time.sleep(30 if "transpose" in line else 0)
    print('{"ms": 1.0, "over": true}' if "tanh" in line else '{"ms": 2.0}', flush=True)
"""


def test_a_process_that_ends_or_takes_too_long_is_started_again(module):
    found = module("gpu_worker").Worker("graphc")
    found._command = [sys.executable, "-c", PROCESS]
    try:
        assert found.ask("copy", "graphc", False, 60) == {"ms": 2.0}
        same = found._process
        assert found.ask("tanh(x) + 0.5", "graphc", False, 60) == {"ms": 1.0}
        assert found.ask("copy", "graphc", False, 60) == {"ms": 2.0}
        assert found._process is not same
        told = found.ask("softmax", "graphc", False, 60)
        assert told == {"error": "the process ended (1): a driver's last words"}
        told = found.ask("transpose", "graphc", False, 0.5)
        assert told == {"error": "stopped: it took more than 0 s"}
        assert found.ask("copy", "graphc", False, 60) == {"ms": 2.0}
    finally:
        found.close()
    assert found._process is None


def test_a_half_that_is_not_there_is_asked_once(module, tmp_path):
    worker = module("gpu_worker")
    (tmp_path / "torch.py").write_text("raise ImportError('no PyTorch here')")
    found = worker.Worker("torch", place="cpu")
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = sys.argv[1:]"
    code += "; runpy.run_path(sys.argv[0], run_name='__main__')"
    found._command[1:1] = ["-c", code]
    try:
        told = found.ask("softmax", "eager", True, 120)
        assert told == {"error": "ImportError: no PyTorch here"}
        found._command = ["no such program"]
        assert found.ask("softmax", "compiled", True, 120) == told
    finally:
        found.close()


def test_what_takes_long_is_compiled_while_the_tests_run(script):
    class Slow:
        def __init__(self) -> None:
            self.closed = 0
            self.asked: list[tuple[str, str, bool]] = []
            self.began = threading.Event()

        def ask(self, row, how, small, limit, quick=False):
            self.asked.append((row, how, quick))
            self.began.set()
            raise RuntimeError("nobody minds")

        def close(self) -> None:
            self.closed += 1

    ours, theirs = Slow(), Slow()
    with script.warming({"graphc": ours, "torch": theirs}):
        assert ours.began.wait(60)
        assert theirs.began.wait(60)
    assert ours.asked[0] == ("decoder, training", "graphc", True)
    assert theirs.asked[0] == ("decoder, training", "compiled", True)
    assert {how for _, how, _ in ours.asked} == {"graphc"}
    assert ours.closed
    assert theirs.closed


# --- PyTorch's half -------------------------------------------------------------------------------

WITH_VALUES = (
    "two layers of 10, step", "two layers of 1000, step", "MLP step", "LeNet step", "LSTM step",
    "LSTM step, unrolled", "encoder, inference", "encoder, training", "decoder, inference",
    "decoder, training",
)  # fmt: skip


@pytest.fixture
def torch_half(module):
    """PyTorch's half on this CPU, where there is one; GRAPHC_BENCH_PEERS may name it."""
    worker = module("gpu_worker")
    found = worker.Worker("torch", worker.torch_python(), place="cpu")
    told = found.ask("small run", "eager", True, 120)
    if "No module named 'torch'" in told.get("error", ""):
        pytest.skip("PyTorch is not installed here, nor named by GRAPHC_BENCH_PEERS=torch=PYTHON")
    assert told["us"] > 0, told
    yield found
    found.close()


def graphc_values(module, row, dtype) -> tuple[float, float]:
    """The first two values of a row, on this CPU."""
    half = module("gpu_graphc")
    with gc.Graph().as_default(), gc.Session() as session:
        if row.kind == "model":
            sizes = {k: v for k, v in row.given.items() if k != "name"}
            data = module("gpu_models").MAKERS[row.given["name"]](**sizes)
            fetches, fed = half.built(row.given["name"], data)
            session.run(gc.global_variables_initializer())
        else:
            run = half.encoder_run if row.given["what"] == "encoder" else half.decoder_run
            fetches, fed = run(session, row.given["sizes"], row.given["train"], dtype)
        found = (session.run(fetches, fed)[0] for _ in range(2))
        first, second = (half.magnitude(np.asarray(value)) for value in found)
        return first, second


def test_pytorch_computes_what_graphc_does(module, torch_half):
    rows = {row.name: row for row in module("gpu_rows").rows(True)}
    for name in WITH_VALUES:
        row = rows[name]
        theirs = torch_half.ask(name, "eager", True, 120)
        assert theirs["ms"] > 0, (name, theirs)
        # bfloat16 has 8 bits, float32 24; both take two steps from the same weights.
        tolerance = 5e-3 if row.kind == "transformer" else 1e-4
        ours = graphc_values(module, row, gc.bfloat16)
        assert ours == pytest.approx((theirs["value"], theirs["value, second"]), rel=tolerance)
        if "training" in name or name in ("MLP step", "LeNet step"):
            assert ours[1] < ours[0]  # a step that changes nothing would agree as well


def test_pytorch_has_every_row_that_is_for_it(module, torch_half):
    for row in module("gpu_rows").rows(True):
        if "eager" in row.seconds and row.name not in WITH_VALUES:
            told = torch_half.ask(row.name, "eager", True, 120)
            assert told.get("ms", told.get("us", 0)) > 0, (row.name, told)
            assert "version" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer norm", "MLP step", "encoder, inference",
                                  "decoder, training"])  # fmt: skip
def test_pytorch_compiles_a_row_of_each_kind(torch_half, name):
    eager = torch_half.ask(name, "eager", True, 600)
    told = torch_half.ask(name, "compiled", True, 600)
    assert told.get("ms", 0) > 0, told
    if name in WITH_VALUES:
        assert told["value, second"] == pytest.approx(eager["value, second"], rel=5e-3)


# --- the tests, and no GPU ------------------------------------------------------------------------


def test_the_tests_are_run_and_a_failure_is_told(script, monkeypatch):
    monkeypatch.setattr(script, "processes", list)  # two tests need no more than one
    told = script.run_tests(120, ["-k", "what_is_no_name and shim_or_not"])
    assert not told["passed"]  # there is no such test
    assert "deselected" in told["line"]
    told = script.run_tests(120, ["-k", "names_are_those_of_tensorflow"])
    assert told["passed"], told
    assert "passed" in told["line"]
    assert told["failed"] == []


def test_tests_that_take_too_long_are_stopped(script, capsys):
    told = script.run_tests(0.2)
    assert not told["passed"]
    assert told["line"].startswith("stopped after 0 s: ")
    assert told["s"] < 60


def test_without_a_gpu_it_says_so(script, monkeypatch):
    def none():
        raise UnavailableError(None, None, "there is no device")

    monkeypatch.setattr(script, "cuda_device", none)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="there is no device"):
        script.main()
