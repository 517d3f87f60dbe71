"""Every example runs, and what it prints is right."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TESTED = {
    "01_linear_and_logistic_regression.py",
    "02_two_layer_net.py",
    "03_lenet_mnist.py",
    "04_save_and_run_elsewhere.py",
    "05_reading_the_compiler.py",
    # By test_control_flow.py:
    "06_newton_mandelbrot.py",
    "07_lstm_mnist.py",
    "08_char_lstm.py",
    "09_tree_network.py",
    "10_modular_network.py",
}


def number(pattern: str, text: str) -> float:
    """The number that a pattern's group is in a text."""
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def test_every_example_has_its_test():
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


def test_regression(example):
    printed = example("01_linear_and_logistic_regression.py")
    lines = re.findall(r"([\d.]+) x \+ ([\d.]+)", printed)
    found, expected = np.array(lines, float)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert abs(number(r"with the slope by (\S+):", printed)) < 1e-5
    assert number(r"([\d.]+)% of 360 test images right", printed) > 94


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_two_layers_agree_with_numpy_in_every_mode(example, mode):
    printed = example("02_two_layer_net.py", "--mode", mode)
    assert "500 steps" in printed
    for what in ("loss", "w1  ", "w2  "):
        assert number(rf"  {what} (\S+)", printed) < 1e-4


def test_two_layers_in_double_precision(example):
    printed = example("02_two_layer_net.py", "--dtype", "float64", "--rate", 1e-6)
    assert number(r"at first, (\S+) at last", printed) < 1e-3
    for what in ("loss", "w1  ", "w2  "):
        assert number(rf"  {what} (\S+)", printed) < 1e-9


def test_lenet_on_the_digits(example, tmp_path):
    paths = ["--picture", "a/demo.png", "--save", "b/lenet.graphc"]
    printed = example("03_lenet_mnist.py", "--quick", "--epochs", 6, *paths)
    assert "<Dataset digits:" in printed
    assert number(r"test accuracy (\S+)%", printed) > 93
    assert (tmp_path / "a" / "demo.png").read_bytes().startswith(b"\x89PNG")
    model = gc.load(tmp_path / "b" / "lenet.graphc")
    assert model(images=np.zeros((3, 28, 28, 1)))["probability"].shape == (3, 10)


def test_save_and_run_elsewhere(example, tmp_path):
    printed = example("04_save_and_run_elsewhere.py", "--epochs", 5, "--folder", tmp_path / "out")
    assert number(r"this process: (\S+)% of", printed) > 90
    assert printed.count("the same bits") == 2
    assert (tmp_path / "out" / "digits.graphc").exists()


def test_reading_the_compiler(example):
    printed = example("05_reading_the_compiler.py")
    for shown in ("%y = Mul(", "kernel 1:", "call k1(", "define void @k1(", "k1: "):
        assert shown in printed
    assert " lines)" in printed
    whole = example("05_reading_the_compiler.py", "--stage", "fuse")
    assert whole.count("---") == 1
    # What the docstring says: two kernels, the bias in the epilogue of the product.
    first, second = whole.split("kernel 1:")
    assert "template %MatMul" in first
    assert "%add = AddV2" in first
    assert "kernel 2:" not in second
