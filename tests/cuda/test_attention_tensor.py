"""Attention of 16-bit floats on tensor cores: sizes, forms, masks, and how exact it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice, ShimFault

import graphc as gc

RNG = np.random.default_rng(11)
ROUNDED = {gc.float16: 2.0**-11, gc.bfloat16: 2.0**-8}
"""What rounding once may change, as a part of the number."""


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def softmax(scores: np.ndarray) -> np.ndarray:
    """Weights of rows, in float64; of a row of -inf alone they are no numbers."""
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def mixed_precision(scores: Any, bias: Any, dtype: Any) -> Any:
    """The softmax in float32, as mixed precision is usually written."""
    wide = gc.cast(scores, gc.float32) * 0.25
    return gc.cast(gc.nn.softmax(wide if bias is None else wide + bias), dtype)


def short(scores: Any, bias: Any, dtype: Any) -> Any:
    """Everything in 16 bits."""
    scaled = scores * 0.25
    return gc.nn.softmax(scaled if bias is None else scaled + gc.cast(bias, dtype))


class Case:
    """Attention for (batch, queries, keys, depth, width), with feeds and what is expected."""

    def __init__(
        self, dtype: Any, shape: tuple[int, ...], form: Any, known: bool = True,
        turned: bool = True, bias: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        batch, queries, keys, depth, width = shape
        shapes = [(batch, queries, depth), (batch, depth, keys), (batch, keys, width)]
        q, k, v = (RNG.standard_normal(s).astype(dtype.as_numpy_dtype) for s in shapes)
        wide = [a.astype(np.float64) for a in (q, k, v)]
        scores = wide[0] @ wide[1] * 0.25
        self.weights = softmax(scores if bias is None else scores + bias)
        self.expected = self.weights @ wide[2]
        # What errors of all weights may add up to: those of a part of each, and those that are
        # the same for each.
        self.relative = self.weights @ np.abs(wide[2])
        self.absolute = np.abs(wide[2]).sum(-2, keepdims=True)
        feeds = [q, np.swapaxes(k, -1, -2).copy() if turned else k, v]
        some = [[None, None, depth], [None, None, depth] if turned else [None, depth, None],
                [None, None, width]]  # fmt: skip
        tensors = [
            gc.placeholder(dtype, a.shape if known else s)
            for a, s in zip(feeds, some, strict=True)
        ]
        added = None
        if bias is not None:
            feeds.append(bias.astype(np.float32))
            added = gc.placeholder(gc.float32, bias.shape if known else [None, None])
            tensors.append(added)
        scores = gc.matmul(tensors[0], tensors[1], transpose_b=turned)
        self.y = gc.matmul(form(scores, added, dtype), tensors[2])
        self.feeds = dict(zip(tensors, feeds, strict=True))
        self.dtype = dtype

    def check(self, found: np.ndarray) -> None:
        """Every weight is rounded once, what they are divided by follows, and so is the result.

        Beside that there are errors of float32, and what is too small for float16.
        """
        assert found.dtype == self.dtype.as_numpy_dtype
        assert found.shape == self.expected.shape
        wide, error = found.astype(np.float64), ROUNDED[self.dtype]
        allowed = error * (self.relative + 2 * np.abs(self.expected)) + 1e-5 * self.relative
        if self.dtype is gc.float16:
            allowed = allowed + 2.0**-25 * (1 + self.absolute)
        np.testing.assert_array_equal(np.isnan(wide), np.isnan(self.expected))
        worst = np.nanmax(np.abs(wide - self.expected) / allowed, initial=0.0)
        assert worst <= 1.0, worst


def causal(queries: int, keys: int) -> np.ndarray:
    """A mask that leaves later keys out."""
    return np.where(np.arange(keys) <= np.arange(queries)[:, None] + 3, 0.0, -np.inf)


def run(case: Case, device: Any) -> np.ndarray:
    """The values on a device, in one kernel."""
    with gc.Session(device=device) as session:
        found = session.run(case.y, case.feeds)
    if isinstance(device, ShimDevice):
        (text,) = device.texts
        assert "gc_product_held<" in text
    return found


@pytest.mark.parametrize(
    ("dtype", "shape", "form", "known", "turned"),
    [
        (gc.bfloat16, (1, 730, 730, 64, 64), mixed_precision, True, True),
        (gc.float16, (2, 70, 33, 16, 24), mixed_precision, False, True),
        (gc.bfloat16, (1, 1, 65, 5, 7), short, False, False),
        (gc.float16, (2, 31, 64, 8, 40), short, False, False),
        (gc.bfloat16, (1, 65, 130, 128, 128), mixed_precision, False, True),
        (gc.float16, (1, 33, 50, 256, 256), mixed_precision, False, True),
        (gc.bfloat16, (1, 40, 20, 200, 100), mixed_precision, False, False),
    ],
)
def test_values(dtype, shape, form, known, turned, device):
    case = Case(dtype, shape, form, known, turned)
    case.check(run(case, device))


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16])
@pytest.mark.parametrize("form", [mixed_precision, short])
def test_masks(dtype, form, shim):
    bias = causal(70, 90)
    bias[5], bias[6, :80], bias[7, 3] = -np.inf, -np.inf, np.nan
    case = Case(dtype, (1, 70, 90, 24, 17), form, known=False, bias=bias)
    found = run(case, shim)
    assert np.isnan(found[0, [5, 7]].astype(np.float32)).all()
    case.check(found)


@pytest.mark.parametrize("shape", [(2, 1, 1, 40), (1, 3, 20, 1), (40,), (3, 1, 40)])
def test_biases_are_broadcast(shape, shim):
    bias = RNG.standard_normal(shape).astype(np.float32)
    q, k, v = (RNG.standard_normal((2, 3, n, 8)).astype(np.float16) for n in (20, 40, 40))
    sizes = [2, 3, None, 8]
    tensors = [gc.placeholder(gc.float16, sizes) for _ in range(3)]
    added = gc.placeholder(gc.float32, shape)
    scores = gc.cast(gc.matmul(*tensors[:2], transpose_b=True), gc.float32) + added
    y = gc.matmul(gc.cast(gc.nn.softmax(scores), gc.float16), tensors[2])
    with gc.Session(device=shim) as session:
        found = session.run(y, dict(zip([*tensors, added], [q, k, v, bias], strict=True)))
    assert "gc_product_held<" in shim.texts[-1]
    wide = [a.astype(np.float64) for a in (q, k, v)]
    weights = softmax(wide[0] @ np.swapaxes(wide[1], -1, -2) + bias)
    np.testing.assert_allclose(found, weights @ wide[2], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16])
@pytest.mark.parametrize("form", [mixed_precision, short])
def test_it_is_no_less_exact_than_what_stores_scores(dtype, form, shim):
    """The CPU rounds scores and weights where the user's graph does."""
    bias = RNG.standard_normal((60, 100))
    case = Case(dtype, (2, 60, 100, 40, 48), form, known=False, bias=bias)
    with gc.Session() as session:
        stored = session.run(case.y, case.feeds)
    errors = [
        np.sqrt(np.mean(np.square(y.astype(np.float64) - case.expected)))
        for y in (run(case, shim), stored)
    ]
    assert errors[0] <= 1.02 * errors[1]


def test_scores_may_be_larger_than_float16(shim):
    """In float16 they would be infinite; what is subtracted from them leaves weights."""
    q = np.full((1, 20, 16), 100.0, np.float16)
    k = np.full((1, 30, 16), 100.0, np.float16)
    k[0, 7] = 101.0
    v = RNG.standard_normal((1, 30, 8)).astype(np.float16)
    tensors = [gc.placeholder(gc.float16, [1, None, n]) for n in (16, 16, 8)]
    scores = gc.matmul(*tensors[:2], transpose_b=True)
    y = gc.matmul(gc.nn.softmax(scores), tensors[2])
    with gc.Session(device=shim) as session:
        found = session.run(y, dict(zip(tensors, (q, k, v), strict=True)))
    np.testing.assert_array_equal(found, np.broadcast_to(v[:, 7:8], found.shape))


class Older(ShimDevice):
    """A GPU without the tensor cores."""

    arch = "sm_75"


def test_without_tensor_cores_scores_are_stored(shim):
    case = Case(gc.bfloat16, (1, 40, 50, 16, 16), mixed_precision, known=False)
    device = Older()
    with gc.Session(device=device) as session:
        found = session.run(case.y, case.feeds)
    text = "".join(device.texts)
    assert "gc_product<" not in text
    assert "gc_product_held<" not in text
    np.testing.assert_allclose(found.astype(np.float64), case.expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("keys", "rows"), [(0, 5), (5, 0)])
def test_nothing(keys, rows, shim):
    case = Case(gc.bfloat16, (2, 3, 4, 8, 8), short, known=False)
    tensors = list(case.feeds)
    arrays = [np.zeros((2, n, 8), gc.bfloat16.as_numpy_dtype) for n in (rows, keys, keys)]
    with gc.Session(device=shim) as session:
        found = session.run(case.y, dict(zip(tensors, arrays, strict=True)))
    np.testing.assert_array_equal(found.astype(np.float32), np.zeros((2, rows, 8)))


@pytest.mark.parametrize(
    ("shape", "known"), [((1, 66, 130, 24, 37), False), ((1, 728, 728, 16, 24), True)]
)
def test_there_is_no_race(shape, known, shim):
    case = Case(gc.bfloat16, shape, mixed_precision, known)
    device = RaceDevice(both_orders=False)
    run(case, device)
    assert "gc_copy_async(keys" in device.texts[-1]
    assert ("gc_copy_async(values" in device.texts[-1]) == known


class Unguarded(RaceDevice):
    """A device that leaves out one of the barriers between keys and values."""

    BARRIER = "        gc_copy_wait(0);\n        __syncthreads();\n"

    def __init__(self, number: int) -> None:
        super().__init__(both_orders=False)
        self.number = number

    def load(self, text: str, functions: Any) -> Any:
        parts = text.split(self.BARRIER)
        assert len(parts) == 3
        waits = [self.BARRIER, self.BARRIER]
        waits[self.number] = "        gc_copy_wait(0);\n"
        return super().load(parts[0] + waits[0] + parts[1] + waits[1] + parts[2], functions)


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_barrier_is_found(number, shim):
    case = Case(gc.bfloat16, (1, 30, 70, 16, 16), mixed_precision, known=False)
    with gc.Session(device=Unguarded(number)) as session, pytest.raises(ShimFault):
        session.run(case.y, case.feeds)
