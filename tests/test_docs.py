"""What the documents show is run: the README's script, CONTRIBUTING's worked example."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompileError
from graphc.op import REGISTRY, evaluate_reference

ROOT = Path(__file__).parent.parent


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_readmes_script_prints_what_the_readme_says(tmp_path: Path) -> None:
    (script,) = blocks("README.md", "python")
    (wanted,) = blocks("README.md", "text")
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.stdout == wanted, run.stderr
    assert (tmp_path / "xor.graphc").stat().st_size > 0


def test_the_worked_example_adds_an_op_in_one_file(tmp_path: Path) -> None:
    (code,) = blocks("CONTRIBUTING.md", "python")
    path = tmp_path / "elementwise_logcosh.py"
    path.write_text(code, encoding="utf-8")
    names = set(REGISTRY)
    namespace: dict[str, object] = {"__name__": "graphc_example"}
    try:
        exec(compile(code, str(path), "exec"), namespace)
        (name,) = set(REGISTRY) - names
        check_op(name, tmp_path)
    finally:
        for name in set(REGISTRY) - names:
            del REGISTRY[name]


def check_op(name: str, folder: Path) -> None:
    """Values, gradients and the file round trip of an op's samples."""
    for number, sample in enumerate(REGISTRY[name].samples()):
        array = np.asarray(sample.inputs[0], np.float64)
        with gc.Graph().as_default():
            x = gc.placeholder(gc.float64, [None] * array.ndim, name="x")
            y = gc.identity(gc.build.create(name, [x]).outputs[0], name="y")
            (grad,) = gc.gradients(y, x)
            with gc.Session() as sess:
                value, slope, above, below = (
                    sess.run(t, {x: v})
                    for t, v in ((y, array), (grad, array), (y, array + 1e-6), (y, array - 1e-6))
                )
                (wanted,) = evaluate_reference(y.op.inputs[0].op, [array])
                np.testing.assert_allclose(value, wanted, rtol=1e-12)
                if sample.grad is None:
                    numeric = (np.asarray(above) - below) / 2e-6
                    np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-8)
                gc.save(folder / f"{number}.graphc", sess, {"x": x}, {"y": y})
        loaded = gc.load(folder / f"{number}.graphc")(x=array)
        np.testing.assert_array_equal(loaded, value)


def test_an_incomplete_op_is_refused() -> None:
    (code,) = blocks("CONTRIBUTING.md", "python")
    broken = re.sub(r"\n    def gradient\(.*?(?=\n    def )", "\n", code, flags=re.DOTALL)
    assert broken != code
    names = set(REGISTRY)
    with pytest.raises(CompileError, match="lacks: gradient"):
        exec(broken, {"__name__": "graphc_example"})
    assert set(REGISTRY) == names
