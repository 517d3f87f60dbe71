"""LeNet reaches 99 % on MNIST, and its file predicts the same bits in processes of their own."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "03_lenet_mnist.py"

# All that this program is given is the file and the images.
OTHER_PROGRAM = """
import sys
import numpy as np
import graphc as gc

model = gc.load(sys.argv[1])
images = np.load(sys.argv[2])
pieces = [model(images=piece)["probability"] for piece in np.split(images, 10)]
np.save(sys.argv[3], np.concatenate(pieces))
"""


@pytest.mark.mnist
def test_lenet_on_mnist(mnist, python, tmp_path):
    example = runpy.run_path(str(SCRIPT))
    model = tmp_path / "lenet.graphc"
    with gc.Graph().as_default():
        accuracy, probabilities = example["train"](example["parse"](["--save", str(model)]))
    assert accuracy >= 0.99
    assert probabilities.shape == (10_000, 10)
    assert np.mean(probabilities.argmax(axis=1) == mnist.test.labels) == accuracy

    images = mnist.test.as_float()
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "first.npy", images[:1000])
    del images
    python("-c", OTHER_PROGRAM, model, tmp_path / "images.npy", tmp_path / "by_api.npy")
    assert np.load(tmp_path / "by_api.npy").tobytes() == probabilities.tobytes()
    out = tmp_path / "by_command.npy"
    python("-m", "graphc", "run", model, "--feed", f"images={tmp_path / 'first.npy'}", "--out", out)
    found = np.load(tmp_path / "by_command-probability.npy")
    assert found.tobytes() == probabilities[:1000].tobytes()
    digits = np.load(tmp_path / "by_command-digit.npy")
    np.testing.assert_array_equal(digits, probabilities[:1000].argmax(axis=1))
