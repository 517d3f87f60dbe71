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


def run(code: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run code where the benchmarks' modules can be imported by their names."""
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, capture_output=True, text=True, input=given)


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
    # These two run the same scripts.
    shared = {"with_graphc", "with_tensorflow1"}
    assert shared < set(files)
    for name in {*files, "graphs"} - shared:
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


def test_a_peer_in_another_way_of_running_has_the_same_interpreter():
    names = "['torch', 'torch-compile', 'tensorflow', 'tensorflow-xla', 'tensorflow1']"
    code = (
        f"import sys, bench; sys.argv += ['--contenders', *{names}]\n"
        "sys.argv += ['--peer', 'torch=/t', '--peer', 'tensorflow-xla=/x']\n"
        "sys.argv += sys.stdin.read().split()\n"
        "print(*bench.interpreters(bench.parse()).values())"
    )
    assert run(code, "--peer tensorflow=/f --peer tensorflow1=/one").stdout == "/t /t /f /x /one\n"
    done = run(code, "--peer tensorflow=/f")
    assert done.returncode == 1
    assert "tensorflow1 is not installed here: --peer tensorflow1=" in done.stderr


@pytest.mark.parametrize("name", ["worker", "workloads", "graphs", "with_tensorflow1"])
def test_what_tensorflow_1_runs_is_of_python_3_7(name):
    text = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 7))
    for node in ast.walk(tree):
        # Annotations are not evaluated: from __future__ import annotations.
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(None))
    for node in ast.walk(tree):
        # | of dicts and of types, list[int], and what zip, math and itertools have since.
        assert not isinstance(node, ast.BitOr), name
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in {"dict", "list", "tuple", "set", "Callable"}, node.lineno
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"prod", "pairwise"} or ast.unparse(node) == "np.prod"
        if isinstance(node, ast.keyword):
            assert node.arg != "strict", node.lineno


@pytest.mark.parametrize("mode", ["static", "eager"])
def test_the_shared_scripts_run(mode):
    code = (
        "import os; os.environ['GRAPHC_CACHE'] = 'off'\n"
        "import with_graphc, with_numpy, workloads, worker\n"
        "import graphc\nimport numpy as np\n"
        "for name in ('x2p1_callable', 'two_layer_10', 'layer_norm'):\n"
        "    data = workloads.BY_NAME[name].data()\n"
        "    with graphc.Graph().as_default():\n"
        f"        ours = with_graphc.make(name, data, {mode!r})\n"
        "        theirs = with_numpy.make(name, data)\n"
        "        for _ in range(2):\n"
        "            np.testing.assert_allclose(ours(), theirs(), rtol=1e-4, atol=1e-5)\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


RESULTS = {
    "machine": {"threads": 2, "cpu": "a CPU", "gflops": 100.0, "gbytes": 10.0},
    "settings": {"rounds": 3}, "date": "2026-01-01",
    "workloads": {
        "x2p1": {
            "graphc": {"time": 2e-6, "version": "graphc 1"},
            "graphc-eager": {"time": 1e-6, "version": "graphc 1"},
            "torch": {"time": 9e-6, "version": "PyTorch 2"},
            "torch-compile": {"time": 5e-6, "version": "PyTorch 2"},
            "tensorflow1": {"time": 8e-5, "version": "TensorFlow 1"},
        },
        "softmax": {"graphc": {"time": 2e-3, "version": "graphc 1"}},
    },
    "gaps": {"x2p1": {}, "softmax": {"torch-compile": "no compiler", "torch": "why not"}},
}  # fmt: skip


def reported(function: str) -> str:
    return run(f"import report; print(report.{function}({RESULTS!r}))").stdout


def test_the_summary_names_the_fastest_other():
    *_, row = reported("summary").splitlines()
    cells = [c.strip() for c in row.strip("|").split("|")]
    assert cells == [
        "x * 2 + 1 on ten floats", "2.00 µs", "5.00 µs", "PyTorch compiled", "2.5x",
    ]  # fmt: skip


def test_the_full_table_has_every_contender():
    header, _, first, second = reported("table").splitlines()
    titles = [c.strip() for c in header.strip("|").split("|")][1:]
    assert titles == ["graphc", "graphc, eager", "PyTorch eager", "PyTorch compiled",
                      "TF 1 Session"]  # fmt: skip
    assert "80.0 µs (40x)" in first
    assert second.count("ms") == 1


def test_versions_are_named_once_and_gaps_with_their_reasons():
    assert reported("caption").endswith(" graphc 1, PyTorch 2, TensorFlow 1.\n")
    assert reported("gaps").splitlines() == [
        "PyTorch compiled lacks softmax: no compiler.", "PyTorch eager lacks softmax: why not.",
    ]  # fmt: skip


def test_what_nobody_does_is_a_gap():
    code = (
        "import sys, bench; sys.argv += ['--contenders', 'numpy', '--quick']\n"
        "args = bench.parse(); print(bench.measure('resnet18', bench.interpreters(args), args))"
    )
    assert run(code).stdout == "({}, {'numpy': 'not written for it'})\n"


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


def test_what_is_switched_off_has_the_same_values_and_another_program():
    code = """
import numpy as np, templates, graphc as gc
from graphc.passes import panels
case = next(c for c in templates.CASES if c[0].startswith("weights in panels"))
calls = templates.pair(*case[1:])
assert np.array_equal(*(np.isfinite(call()) for call in calls.values()))
name, before = "passes.panels.LEAST_BYTES", panels.LEAST_BYTES
try:
    with templates.switched({name: 7}):
        assert panels.LEAST_BYTES == 7
        raise KeyError
except KeyError:
    print(panels.LEAST_BYTES == before, len(templates.CASES))
"""
    done = run(code)
    assert done.stdout.split() == ["True", "14"], done.stderr


@pytest.mark.slow
def test_every_template_has_the_values_of_what_it_replaces():
    done = run("import templates\nfor case in templates.CASES: templates.pair(*case[1:])")
    assert done.returncode == 0, done.stderr
