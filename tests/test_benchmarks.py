"""The benchmark rows: how much work they are, and that contenders must agree on their values."""

from __future__ import annotations

import ast
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
