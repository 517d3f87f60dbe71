"""The examples of loops and branches: what they print is right; a run is one native call."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.executable import PREPARATIONS, Executable

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Counted = Callable[..., str]


def number(pattern: str, text: str) -> float:
    """The number that a pattern's group is in a text."""
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Counted:
    """``counted(name, *arguments)`` runs an example in this process; what it prints.

    Every run of a session in it, the first of its kind too, must be one native call that nothing
    interrupts for Python, behind at most one that prepares weights which have changed.
    """
    calls: list[Executable] = []
    runs: list[int] = []  # native calls of each run, without those that prepare
    call, execute = Executable.call, gc.Session._execute

    def counted_call(self: Executable, *feeds: Any) -> Any:
        calls.append(self)
        return call(self, *feeds)

    def counted_execute(self: gc.Session, plan: Any, values: list[Any]) -> Any:
        before, prepared = len(calls), PREPARATIONS["runs"]
        answer = execute(self, plan, values)
        prepared = PREPARATIONS["runs"] - prepared
        assert prepared <= 1
        runs.append(len(calls) - before - prepared)
        return answer

    # A run that is known is one call by itself, which cannot be counted here.
    monkeypatch.setattr(gc.Session, "_know", lambda *_: None)
    monkeypatch.setattr(Executable, "call", counted_call)
    monkeypatch.setattr(gc.Session, "_execute", counted_execute)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with gc.Graph().as_default():
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        assert runs
        assert runs == [1] * len(runs)
        assert not any(executable.host for executable in calls)
        return capsys.readouterr().out

    return run


# --- Newton and Mandelbrot --------------------------------------------------------------------


def test_newton_and_mandelbrot(counted, tmp_path):
    picture = tmp_path / "a" / "fractals.png"
    printed = counted("06_newton_mandelbrot.py", "--size", 256, "--picture", picture)
    roots = re.findall(r"sqrt\((\S+)\) = (\S+) in (\d+) turns.*off by (\S+)", printed)
    assert len(roots) == 4
    for a, root, _, slope in roots:
        # As many digits as are printed, of the number and of the root.
        np.testing.assert_allclose(float(root), float(a) ** 0.5, rtol=1e-5)
        assert float(slope) < 1e-9
    assert len({turns for _, _, turns, _ in roots}) > 1, "the values decide how many turns"
    shares = [float(x) for x in re.findall(r" (0\.\d{3})\b", printed.split("shares")[1])][:3]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
    # 1.5066 is known; 300 turns and these points give a little more.
    assert number(r"area (\S+) by", printed) == pytest.approx(1.5066, abs=0.03)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mandelbrot_equals_numpy():
    example = runpy.run_path(str(EXAMPLES / "06_newton_mandelbrot.py"))
    re_, im = np.linspace(-2, 0.5, 24, dtype=np.float32), np.linspace(-1.2, 1.2, 16)
    with gc.Graph().as_default(), gc.Session() as sess:
        fed = gc.constant(re_), gc.constant(im.reshape(4, 4), gc.float32)
        turns = sess.run(example["mandelbrot"](*fed, 50)).reshape(16, 24)
    c = re_.astype(np.float64) + 1j * im[:, np.newaxis]
    z, expected = np.zeros_like(c), np.zeros(c.shape, int)
    for _ in range(50):
        inside = np.abs(z) < 4
        expected += inside
        z = np.where(inside, z**2 + c, z)
    # Near the set's border float32 may escape a turn sooner or later.
    assert np.mean(turns == expected) > 0.97
    assert 0.05 < np.mean(turns == 50) < 0.5


# --- recurrent networks -----------------------------------------------------------------------


def test_lstm_on_the_digits(counted, tmp_path):
    picture = tmp_path / "lstm.png"
    printed = counted("07_lstm_mnist.py", "--quick", "--epochs", 15, "--picture", picture)
    assert "<Dataset digits:" in printed
    assert number(r"test accuracy (\S+)%", printed) > 90
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.mnist
def test_lstm_on_mnist(mnist, counted):
    printed = counted("07_lstm_mnist.py")
    assert "<Dataset MNIST:" in printed
    assert number(r"test accuracy (\S+)%", printed) >= 97.5


def test_character_lstm_on_sums_in_words(counted):
    printed = counted("08_char_lstm.py", "--quick", "--units", 64, "--epochs", 5, "--sample", 300)
    assert number(r"epoch 5: .*validation loss (\S+) nats", printed) < 0.9
    sample = printed.split("one native call\n")[1]
    # Nothing but characters of the text, and words that it knows, though not only those.
    words = re.findall(r"[a-z]+", sample)
    known = set(runpy.run_path(str(EXAMPLES / "08_char_lstm.py"))["sums"](500).split())
    known = {part for word in known for part in re.findall(r"[a-z]+", word)}
    assert np.mean([word in known for word in words]) > 0.4, sample
    assert "make" in words


def test_a_sample_has_the_probabilities_of_the_network():
    example = runpy.run_path(str(EXAMPLES / "08_char_lstm.py"))
    args = example["parse"](["--units", "16", "--temperature", "0.5"])
    with gc.Graph().as_default(), gc.Session() as sess:
        graph = example["build"](5, 10, args)
        sess.run(gc.global_variables_initializer())
        # With weights of zero the draws are independent, and the biases their logarithms.
        weights = {v.op.name: v for v in gc.trainable_variables()}
        shape = weights["output/weights"].shape.as_list()
        sess.run(gc.assign(weights["output/weights"], np.zeros(shape, np.float32)))
        logits = np.log(np.array([1, 2, 3, 4, 5], np.float32))
        sess.run(gc.assign(weights["output/biases"], logits))
        feeds = {graph.prompt: np.array([0, 1], np.int32), graph.length: 20_000}
        found = np.bincount(sess.run(graph.sample, feeds), minlength=5) / 20_000
    expected = np.array([1, 4, 9, 16, 25]) / 55
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(0.25 / 20_000))


@pytest.mark.slow
def test_character_lstm_on_tinyshakespeare(counted):
    try:
        gc.data.text()
    except gc.data.DataNotFoundError:
        pytest.skip("GRAPHC_DATA names no folder with tinyshakespeare")
    printed = counted("08_char_lstm.py")
    losses = re.findall(r"validation loss (\S+) nats", printed)
    assert float(losses[-1]) < 1.75
    # What it writes looks like a play: words, and names in capitals before a colon.
    sample = printed.split("one native call\n")[1]
    words = re.findall(r"[a-z]+", sample.lower())
    text = gc.data.text()
    known = set(re.findall(r"[a-z]+", text.decode(text.ids).lower()))
    assert np.mean([word in known for word in words]) > 0.6, sample


# --- networks whose shape an example decides --------------------------------------------------


def test_tree_network(counted):
    printed = counted("09_tree_network.py", "--steps", 1000)
    known, larger = (float(x) for x in re.findall(r"accuracy (\S+)% on", printed))
    assert known >= 98
    assert larger >= 95
    # What it shows of each kind is computed here again.
    for text, right in re.findall(r"^(.+) mod 3 = (\d)", printed, re.MULTILINE):
        assert re.fullmatch(r"[\d+*() -]+", text)
        assert evaluated(text) % 3 == int(right)


def evaluated(text: str) -> int:
    """The value of a sum, difference or product, in brackets where it is within another."""
    tokens = re.findall(r"\d|[-+*()]", text)

    def operand() -> int:
        if tokens[0] != "(":
            return int(tokens.pop(0))
        tokens.pop(0)
        value = whole()
        assert tokens.pop(0) == ")"
        return value

    def whole() -> int:
        left = operand()
        if not tokens or tokens[0] == ")":
            return left
        sign, right = tokens.pop(0), operand()
        return {"+": left + right, "-": left - right, "*": left * right}[sign]

    return whole()


def test_modular_network(counted):
    printed = counted("10_modular_network.py", "--steps", 1000)
    known, longer = (float(x) for x in re.findall(r"accuracy (\S+)% on", printed))
    assert known >= 92
    assert longer >= 90


def test_without_data_the_examples_make_do(counted, monkeypatch):
    monkeypatch.delenv("GRAPHC_DATA", raising=False)
    printed = counted("08_char_lstm.py", "--units", 8, "--epochs", 1, "--sample", 10)
    assert "using sums in words" in printed
