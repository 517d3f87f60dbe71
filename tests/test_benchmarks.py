"""The benchmark rows: how much work they are, and that contenders must agree on their values."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import graphc as gc

BENCHMARKS = Path(gc.__file__).parents[1] / "benchmarks"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code where the benchmarks' modules can be imported by their names."""
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_work_of_the_model_rows():
    names = "('encoder_1', 'encoder_8', 'resnet18')"
    done = run(f"from workloads import BY_NAME; print(*(int(BY_NAME[n].flops) for n in {names}))")
    # ResNet-18 is 1.814 G multiply-adds, an encoder layer 12 d^2 and 2 T d for each token.
    one = 4 * 128 * 2 * (12 * 256**2 + 2 * 128 * 256)
    assert done.stdout.split()[:2] == [str(one), str(8 * one)]
    assert int(done.stdout.split()[2]) / 2 == pytest.approx(1.814e9, rel=1e-3)


@pytest.mark.parametrize("key", ["value", "projection"])
def test_contenders_that_compute_other_things_are_refused(key):
    rows = "{c: {'value': 0.5, 'projection': 0.01} for c in 'abc'}"
    code = f"import bench; rows = {rows}; bench.check('row', rows)\n"
    assert run(code).returncode == 0
    done = run(f"{code}rows['b'][{key!r}] += 1e-2; bench.check('row', rows)")
    assert done.returncode == 1
    assert "row: {'b'" in done.stderr


def test_every_contender_has_a_module_a_title_and_known_rows():
    done = run("import bench, report, worker; print(*bench.CONTENDERS); print(*report.TITLES);"
               "print(*worker.MODULES); print(*{m for m, _ in worker.MODULES.values()});"
               "print(*bench.BY_NAME)")  # fmt: skip
    contenders, titles, modules, files, rows = (line.split() for line in done.stdout.splitlines())
    assert contenders == titles
    assert sorted(contenders) == sorted(modules)
    assert sorted(files) == sorted(p.stem for p in BENCHMARKS.glob("with_*.py"))
    for name in files:
        tree = ast.parse((BENCHMARKS / f"{name}.py").read_text(encoding="utf-8"))
        (builders,) = (
            node.value for node in tree.body
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BUILDERS"
        )  # fmt: skip
        known = [ast.literal_eval(key) for key in builders.keys]
        assert known
        assert set(known) <= set(rows), name


def test_a_peer_may_have_an_interpreter_of_its_own():
    code = (
        "import sys, bench; sys.argv += ['--contenders', 'onnxruntime', '--peer', {!r}];"
        "print(bench.interpreters(bench.parse()))"
    )
    assert run(code.format("onnxruntime=/a/python")).stdout == "{'onnxruntime': '/a/python'}\n"
    done = run(code.format("onnx=/a/python"))
    assert done.returncode == 1
    assert "expected NAME=PYTHON" in done.stderr


# --- scaling --------------------------------------------------------------------------------------

SYMBOLIC = {"batch", "steps", "tokens"}


@pytest.mark.parametrize(
    "names",
    [["batch", "width"], pytest.param(["depth", "steps", "tokens"], marks=pytest.mark.slow)],
)
def test_scaling_measures_every_size_and_compiles_a_symbolic_one_once(names, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "scaling.py"), *names, "--quick", "--threads", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("scaling-*.json")
    series = json.loads(path.read_text(encoding="utf-8"))["series"]
    assert list(series) == names
    for name, found in series.items():
        points = found["points"]
        assert len(points) == 2
        assert found["compilations"] == (1 if name in SYMBOLIC else 2)
        for point in points:
            assert 0 < point["least"] <= point["time"] < point["first"]
            assert point["model_megabytes"] < point["megabytes"]
            row = f"| {point['size']} "
            assert any(line.startswith(row) for line in done.stdout.splitlines())
        assert points[0]["size"] < points[1]["size"]
        assert points[0]["flops"] < points[1]["flops"]
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert path.with_suffix(".png").exists() == drawn
    assert ("drew " if drawn else "no picture: ") in done.stdout


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a peak of memory cannot begin again here"
)
def test_the_memory_of_a_model_is_its_weights_and_little_more():
    code = (
        "import os; os.environ['GRAPHC_CACHE'] = 'off'; import scaling\n"
        "print(scaling.first_call(scaling.SERIES['width'], 1024)['model_megabytes'])"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    # Four layers of 4 MB; gradients are applied where they are computed.
    assert 16 < float(done.stdout) < 24


def test_the_work_of_the_scaling_series():
    sizes = "dict(batch=1024, width=2048, depth=32, steps=512, tokens=1024)"
    done = run(f"import scaling; s = {sizes}\n"
               "print(*(int(scaling.SERIES[k].flops(n)) for k, n in s.items()))\n"
               "assert all(scaling.SERIES[k].sizes[-1] == n for k, n in s.items())")  # fmt: skip
    assert done.returncode == 0, done.stderr
    batch, width, depth, steps, tokens = map(int, done.stdout.split())
    # Three products for a layer's weights in a step; the first layer's input needs no gradient.
    assert batch == 2 * 1024 * (11 * 256**2 + 3 * 2560)
    assert width == 2 * 64 * (11 * 2048**2 + 3 * 20480)
    assert depth == 2 * 64 * (95 * 256**2 + 3 * 2560)
    assert steps == 2 * 32 * 512 * 4 * 128 * (3 * 256 - 128)
    assert tokens == 1024 * 2 * (12 * 256**2 + 2 * 1024 * 256)


def test_scaling_refuses_a_size_that_is_compiled_again():
    code = "import scaling; scaling.check_compilations('batch', 1, {})"
    assert run(code.format(1)).returncode == 0
    done = run(code.format(2))
    assert done.returncode == 1
    assert "batch: 2 compilations, where 1 should serve" in done.stderr
