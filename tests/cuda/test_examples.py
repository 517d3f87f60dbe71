"""The examples on a device: they print what they print on the CPU."""

from __future__ import annotations

import dataclasses
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Small enough for a CPU that plays a GPU.
ARGUMENTS = {
    "01_linear_and_logistic_regression.py": ["--steps", 3],
    "02_two_layer_net.py": ["--sizes", 8, 20, 10, 4, "--steps", 3],
    "03_lenet_mnist.py": ["--quick", "--epochs", 1, "--batch", 8],
    "05_reading_the_compiler.py": [],
    "06_newton_mandelbrot.py": ["--size", 8, "--most", 10],
    "07_lstm_mnist.py": ["--quick", "--epochs", 1, "--units", 4, "--batch", 8],
    "08_char_lstm.py": ["--quick", "--epochs", 1, "--units", 4, "--batch", 256, "--sample", 9],
    "09_tree_network.py": ["--steps", 1, "--units", 3, "--batch", 2],
    "10_modular_network.py": ["--steps", 1, "--units", 3, "--batch", 2],
}
# Its other processes run on the CPU, and it asks for the same bits of them.
ON_CPU = "04_save_and_run_elsewhere.py"
QUICK = {"02_two_layer_net.py", "05_reading_the_compiler.py"}
SECONDS = re.compile(r"[\d.]+ (?:s|us each|ms)\b")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


def test_every_example_is_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*ARGUMENTS, ON_CPU}


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """16 images to train on, and 16 to test with."""
    whole = gc.data.digits()
    some = {
        name: dataclasses.replace(split, images=split.images[:16], labels=split.labels[:16])
        for name, split in (("train", whole.train), ("test", whole.test))
    }
    monkeypatch.setattr(gc.data, "digits", lambda: dataclasses.replace(whole, **some))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in ARGUMENTS],
)
def test_it_prints_what_it_prints_on_the_cpu(name, device, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, *map(str, ARGUMENTS[name])])
    session, sessions, printed = gc.Session, [], []
    for place in ("cpu", device):

        def made(*args, place=place, **options):
            sessions.append(place)
            return session(*args, device=place, **options)

        monkeypatch.setattr(gc, "Session", made)
        with gc.Graph().as_default():
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        printed.append(SECONDS.sub("", capsys.readouterr().out))
    assert device in sessions
    found = [NUMBER.sub("", text) for text in printed]
    assert found[1] == found[0]
    wanted, values = (np.array(NUMBER.findall(text), float) for text in printed)
    np.testing.assert_allclose(values, wanted, rtol=1e-2, atol=1e-4)
