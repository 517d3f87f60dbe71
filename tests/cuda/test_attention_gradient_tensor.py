"""The gradient of attention of 16-bit floats on tensor cores: sizes, forms, masks, how exact."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice, ShimFault

import graphc as gc
from graphc.passes import attention

RNG = np.random.default_rng(13)
ROUNDED = {gc.float16: 2.0**-11, gc.bfloat16: 2.0**-8}
"""What rounding once may change, as a part of the number."""
SMALLEST = {gc.float16: 2.0**-25, gc.bfloat16: 2.0**-134}
"""The same of numbers next to zero."""
SINGLE = 1e-5
"""What sums, exponentials and all else in float32 may, as a part of what is added up."""
SCALE = 0.25


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Scores of sizes that were first seen to be small would be stored."""
    for name in ("LEAST_SEEN_BYTES", "LEAST_QUERIES"):
        monkeypatch.setattr(attention, name, 0)


def mixed_precision(scores: Any, bias: Any, dtype: Any) -> Any:
    """The softmax in float32, as mixed precision is usually written."""
    wide = gc.cast(scores, gc.float32) * SCALE
    return gc.cast(gc.nn.softmax(wide if bias is None else wide + bias), dtype)


def short(scores: Any, bias: Any, dtype: Any) -> Any:
    """Everything in 16 bits."""
    scaled = scores * SCALE
    return gc.nn.softmax(scaled if bias is None else scaled + gc.cast(bias, dtype))


def turned(x: np.ndarray) -> np.ndarray:
    """Matrices transposed."""
    return np.swapaxes(x, -1, -2)


class Reference:
    """Attention and its gradients in float64, and by how much 16-bit storage may change them.

    Every weight and every gradient by a score is rounded once before it is multiplied, and so is
    every result, but not the one that what is subtracted from a row's slopes is made of.
    """

    def __init__(self, arrays: list[np.ndarray], bias: Any, dtype: Any) -> None:
        q, k, v, g = (a.astype(np.float64) for a in arrays)
        scores = q @ turned(k) * SCALE + (0.0 if bias is None else bias)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
        y, products = weights @ v, g @ turned(v)
        inner = products - (weights * products).sum(-1, keepdims=True)
        slopes = SCALE * weights * inner
        self.values = [y, slopes @ k, turned(slopes) @ q, turned(weights) @ g]
        part = ROUNDED[dtype]
        least = SMALLEST[dtype]
        size, all_of_v = weights @ np.abs(v), np.abs(v).sum(-2, keepdims=True)
        of_wide = (part + SINGLE) * size + part * np.abs(y) + least * all_of_v
        of_y = of_wide + part * np.abs(y)
        of_mean = (np.abs(g) * of_wide).sum(-1, keepdims=True)
        sizes = np.abs(g) @ turned(np.abs(v))
        sizes = sizes + (weights * sizes).sum(-1, keepdims=True)
        of_slopes = part * np.abs(slopes) + SCALE * weights * (of_mean + SINGLE * sizes) + least
        of_weights = (part + SINGLE) * weights + least
        pairs = (of_slopes, k), (turned(of_slopes), q), (turned(of_weights), g)
        sums = [a @ np.abs(b) for a, b in pairs]
        self.allowed = [of_y] + [
            error + part * np.abs(value) for error, value in zip(sums, self.values[1:], strict=True)
        ]
        self.allowed = [a + least for a in self.allowed]


class Case:
    """Attention with its gradients for (batch, queries, keys, depth, width), with feeds.

    ``mean`` is that of the keys and of the values.
    """

    def __init__(
        self, dtype: Any, shape: tuple[int, ...], form: Any, known: bool = True,
        by_rows: bool = True, bias: np.ndarray | None = None, mean: float = 0.0,
    ) -> None:  # fmt: skip
        batch, queries, keys, depth, width = shape
        shapes = [(queries, depth), (keys, depth), (keys, width), (queries, width)]
        arrays = [
            (RNG.standard_normal((batch, *s)) + of).astype(dtype.as_numpy_dtype)
            for s, of in zip(shapes, (0.0, mean, mean, 0.0), strict=True)
        ]
        self.dtype = dtype
        self.reference = Reference(arrays, bias, dtype)
        if not by_rows:
            arrays[1] = turned(arrays[1]).copy()
        some = [[None, None, depth], [None, None, depth] if by_rows else [None, depth, None],
                [None, None, width], [None, None, width]]  # fmt: skip
        tensors = [
            gc.placeholder(dtype, a.shape if known else s)
            for a, s in zip(arrays, some, strict=True)
        ]
        self.feeds = dict(zip(tensors, arrays, strict=True))
        added = None
        if bias is not None:
            added = gc.placeholder(gc.float32, bias.shape if known else [None, None])
            self.feeds[added] = bias.astype(np.float32)
        scores = gc.matmul(tensors[0], tensors[1], transpose_b=by_rows)
        y = gc.matmul(form(scores, added, dtype), tensors[2])
        self.fetches = [y, *gc.gradients(y, tensors[:3], grad_ys=tensors[3])]
        self.by_rows = by_rows

    def errors(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """What is wrong with each result, as a part of what may be."""
        wide = [a.astype(np.float64) for a in found]
        if not self.by_rows:
            wide[2] = turned(wide[2])
        made = self.reference
        return [
            np.abs(a - b) / c for a, b, c in zip(wide, made.values, made.allowed, strict=True)
        ]

    def check(self, found: list[np.ndarray]) -> None:
        """Every element is as exact as storage in 16 bits lets it be."""
        assert all(a.dtype == self.dtype.as_numpy_dtype for a in found)
        for errors, value in zip(self.errors(found), self.reference.values, strict=True):
            np.testing.assert_array_equal(np.isnan(errors), np.isnan(value))
            assert np.nanmax(errors, initial=0.0) <= 1.0, np.nanmax(errors)


def causal(queries: int, keys: int, lowest: float = -np.inf) -> np.ndarray:
    """A mask that leaves later keys out."""
    return np.where(np.arange(keys) <= np.arange(queries)[:, None] + 3, 0.0, lowest)


def run(case: Case, device: Any, launches: int = 2) -> list[np.ndarray]:
    """The values on a device; the gradients are made by so many launches of tensor cores."""
    with gc.Session(device=device) as session:
        found = session.run(case.fetches, case.feeds)
    if isinstance(device, ShimDevice):
        texts = device.texts[-1].split('extern "C" __global__')[1:]
        products = [text.count("gc_product_held<") for text in texts]
        # Attention itself, blocks of queries, and of keys: for both of their results, or for each.
        assert [n for n in products if n] == [1, 3, *([4] if launches == 2 else [3, 2])]
        assert sum("gc_product<" in text for text in texts) == 1
    return found


@pytest.mark.parametrize(
    ("dtype", "shape", "form", "known", "by_rows", "launches"),
    [
        (gc.bfloat16, (1, 512, 512, 64, 64), mixed_precision, True, True, 2),
        (gc.float16, (2, 70, 33, 16, 24), mixed_precision, False, True, 2),
        (gc.bfloat16, (1, 65, 130, 5, 7), short, False, False, 2),
        (gc.float16, (2, 31, 64, 8, 40), short, False, False, 2),
        (gc.bfloat16, (1, 65, 130, 80, 64), mixed_precision, False, True, 2),
        # Of wider heads the gradients of keys have registers for themselves.
        (gc.float16, (1, 40, 20, 100, 90), mixed_precision, False, False, 3),
        (gc.bfloat16, (1, 65, 50, 128, 128), mixed_precision, False, True, 3),
    ],
)
def test_values(dtype, shape, form, known, by_rows, launches, device):
    case = Case(dtype, shape, form, known, by_rows)
    case.check(run(case, device, launches))


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16])
@pytest.mark.parametrize("form", [mixed_precision, short])
def test_masks(dtype, form, shim):
    bias = causal(70, 90)
    bias[6, :80], bias[9, 40:] = -np.inf, -np.inf
    case = Case(dtype, (1, 70, 90, 24, 17), form, known=False, bias=bias)
    case.check(run(case, shim))


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16])
def test_rows_that_see_nothing_are_no_numbers(dtype, shim):
    """As in the graph as it is written: their own gradients, and those of all keys and values."""
    bias = causal(70, 90)
    bias[5] = -np.inf
    case = Case(dtype, (1, 70, 90, 24, 17), mixed_precision, known=False, bias=bias)
    found = run(case, shim)
    case.check(found)
    nowhere = [np.isnan(a.astype(np.float32)) for a in found]
    assert all(a[0, 5].all() and not np.delete(a[0], 5, 0).any() for a in nowhere[:2])
    assert all(a.all() for a in nowhere[2:])


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16])
def test_scores_far_from_zero(dtype, device):
    """As masks of large numbers have them: of some keys, and of all that a row sees."""
    bias = causal(70, 90, -1e9)
    bias[[3, 30]] = -1e9
    case = Case(dtype, (1, 70, 90, 24, 16), mixed_precision, known=False, bias=bias)
    # Where float32 has no digits left, scores that differ are the same.
    q, k, v, g = list(case.feeds.values())[:4]
    q[0, [3, 30]] = 0.0
    case.reference = Reference([q, k, v, g], bias, dtype)
    case.check(run(case, device))


@pytest.mark.parametrize("shape", [(2, 1, 1, 40), (1, 3, 70, 1), (40,), (3, 1, 40)])
def test_biases_are_broadcast(shape, shim):
    bias = RNG.standard_normal(shape).astype(np.float32)
    q, k, v, g = (RNG.standard_normal((2, 3, n, 8)).astype(np.float16) for n in (70, 40, 40, 70))
    tensors = [gc.placeholder(gc.float16, [2, 3, None, 8]) for _ in range(4)]
    added = gc.placeholder(gc.float32, shape)
    scores = gc.cast(gc.matmul(*tensors[:2], transpose_b=True), gc.float32) * SCALE + added
    y = gc.matmul(gc.cast(gc.nn.softmax(scores), gc.float16), tensors[2])
    fetches = [y, *gc.gradients(y, tensors[:3], grad_ys=tensors[3])]
    with gc.Session(device=shim) as session:
        found = session.run(fetches, dict(zip([*tensors, added], [q, k, v, g, bias], strict=True)))
    assert shim.texts[-1].count("gc_product_held<") == 8
    made = Reference([q, k, v, g], bias, gc.float16)
    for a, b, allowed in zip(found, made.values, made.allowed, strict=True):
        assert (np.abs(a.astype(np.float64) - b) <= allowed).all()


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16])
@pytest.mark.parametrize("form", [mixed_precision, short])
@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_it_is_no_less_exact_than_what_stores_scores(dtype, form, mean, shim):
    """The CPU rounds scores, weights and their gradients where the user's graph does.

    An error that is the same in all of a row's slopes is multiplied by the keys' mean.
    """
    bias = RNG.standard_normal((70, 100))
    case = Case(dtype, (2, 70, 100, 40, 48), form, known=False, bias=bias, mean=mean)
    with gc.Session() as session:
        stored = session.run(case.fetches, case.feeds)
    for mine, other, value in zip(
        run(case, shim), stored, case.reference.values, strict=True
    ):
        errors = [np.sqrt(np.mean(np.square(a.astype(np.float64) - value))) for a in (mine, other)]
        assert errors[0] <= 1.02 * errors[1]


def test_other_sizes_compile_nothing(shim):
    case = Case(gc.bfloat16, (2, 70, 33, 16, 24), mixed_precision, known=False)
    other = Case(gc.bfloat16, (1, 129, 200, 16, 24), mixed_precision, known=False)
    with gc.Session(device=shim) as session:
        case.check(session.run(case.fetches, case.feeds))
        feeds = dict(zip(case.feeds, other.feeds.values(), strict=True))
        other.check(session.run(case.fetches, feeds))
        assert session.compilations == 1


def test_scores_first_seen_to_be_small_are_stored(shim, monkeypatch):
    monkeypatch.undo()
    case = Case(gc.bfloat16, (2, 4, 70, 16, 16), mixed_precision, known=False)
    with gc.Session(device=shim) as session:
        session.run(case.fetches, case.feeds)
    assert "gc_product_held<" not in shim.texts[-1]


@pytest.mark.parametrize(("keys", "rows"), [(0, 5), (5, 0)])
def test_nothing(keys, rows, shim):
    case = Case(gc.bfloat16, (2, 3, 4, 8, 8), mixed_precision, known=False)
    arrays = [
        np.ones((2, n, 8), gc.bfloat16.as_numpy_dtype) for n in (rows, keys, keys, rows)
    ]
    with gc.Session(device=shim) as session:
        found = session.run(case.fetches, dict(zip(case.feeds, arrays, strict=True)))
    for a, n in zip(found, (rows, rows, keys, keys), strict=True):
        np.testing.assert_array_equal(a.astype(np.float32), np.zeros((2, n, 8)))


class Older(ShimDevice):
    """A GPU without the tensor cores."""

    arch = "sm_75"


def test_without_tensor_cores_scores_are_stored(shim):
    case = Case(gc.bfloat16, (1, 70, 50, 16, 16), mixed_precision, known=False)
    device = Older()
    with gc.Session(device=device) as session:
        found = session.run(case.fetches, case.feeds)
    text = "".join(device.texts)
    assert "gc_product<" not in text
    assert "gc_product_held<" not in text
    for a, b in zip(found, case.reference.values, strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0.05, atol=0.05 * np.abs(b).max())


@pytest.mark.parametrize(
    ("shape", "known", "launches"),
    [
        ((1, 66, 130, 24, 37), False, 2), ((1, 520, 512, 16, 24), True, 2),
        ((1, 66, 70, 128, 112), False, 3),
    ],
)  # fmt: skip
def test_there_is_no_race(shape, known, launches, shim):
    case = Case(gc.bfloat16, shape, mixed_precision, known)
    device = RaceDevice(both_orders=False)
    run(case, device, launches)
    assert "gc_copy_async(panel" in device.texts[-1]
    assert ("gc_copy_async(other" in device.texts[-1]) == (shape[-1] != 37)


class Unguarded(RaceDevice):
    """A device that leaves out the barrier between tiles of one of the launches."""

    def __init__(self, number: int) -> None:
        super().__init__(both_orders=False)
        self.number = number

    def load(self, text: str, functions: Any) -> Any:
        kernels = text.split('extern "C" __global__')
        places = [k for k, kernel in enumerate(kernels) if kernel.count("gc_product_held<") > 1]
        assert len(places) == 2
        at = places[self.number]
        kernels[at], count = re.subn(
            r"(gc_copy_wait\(0\);\n *)__syncthreads\(\);\n", r"\1\n", kernels[at], count=1
        )
        assert count == 1
        return super().load('extern "C" __global__'.join(kernels), functions)


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_barrier_is_found(number, shim):
    case = Case(gc.bfloat16, (1, 70, 100, 16, 16), mixed_precision, known=False)
    with gc.Session(device=Unguarded(number)) as session, pytest.raises(ShimFault):
        session.run(case.fetches, case.feeds)


def test_a_decoder_is_trained(shim, monkeypatch):
    """GPT-2 as `make gpu-check` writes it: its heads lie side by side in rows of a product."""
    monkeypatch.syspath_prepend(str(Path(gc.__file__).parents[1] / "benchmarks"))
    models = importlib.import_module("gpu_models")
    monkeypatch.setattr(attention, "LEAST_BYTES", 0)
    sizes = models.Sizes(1, 32, 48, 2, 2, 72, 20)
    arrays = models.decoder_data(sizes)

    def gradients(dtype, device):
        with gc.Graph().as_default():
            weights = {k: gc.constant(3 * a) for k, a in arrays.items() if k[0] in "wb"}
            x = gc.placeholder(gc.int32, arrays["x"].shape)
            logits = gc.cast(models.decoder(gc, sizes, weights, x, dtype), gc.float32)
            labels = arrays["y"].reshape(-1)
            entropy = gc.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            fetches = gc.gradients(gc.reduce_mean(entropy), list(weights.values()))
            with gc.Session(device=device) as session:
                found = session.run(fetches, {x: arrays["x"]})
        return np.concatenate([np.asarray(a, np.float64).ravel() for a in found])

    exact, stored = gradients(gc.float32, None), gradients(gc.bfloat16, None)
    found = gradients(gc.bfloat16, shim)
    texts = shim.texts[-1].split('extern "C" __global__')[1:]
    assert [n for n in (t.count("gc_product_held<") for t in texts) if n] == [1, 3, 4]
    errors = [np.sqrt(np.sum(np.square(a - exact))) for a in (found, stored)]
    assert errors[0] <= 1.1 * errors[1] <= 0.02 * np.sqrt(np.sum(np.square(exact)))
