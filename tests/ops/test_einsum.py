"""``einsum`` and ``tensordot`` beside NumPy's, for sizes known and not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError, InvalidArgumentError, ShapeError
from graphc.ops.base import grid

EQUATIONS: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("ba,cb->ca", ((2, 3), (4, 2))),
    ("bij,bjk->bik", ((5, 2, 3), (5, 3, 4))),
    ("bqhd,bkhd->bhqk", ((2, 3, 4, 5), (2, 6, 4, 5))),
    ("ij->ji", ((2, 3),)),
    ("ij->", ((2, 3),)),
    ("ij->i", ((2, 3),)),
    ("i,j->ij", ((2,), (3,))),
    ("i,i->", ((3,), (3,))),
    ("i,i->i", ((3,), (3,))),
    ("ij,ij->j", ((2, 3), (2, 3))),
    ("ij,kl->", ((2, 3), (4, 5))),
    ("ijk,kl,lm->ijm", ((2, 3, 4), (4, 5), (5, 6))),
    ("a b c, c d -> a b d", ((2, 3, 4), (4, 5))),
    ("ijk,jk->i", ((0, 3, 4), (3, 4))),
    ("ijk,jk->i", ((2, 0, 4), (0, 4))),
    ("ij,jk->ik", ((1, 1), (1, 1))),
]
ELLIPSES: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("...ij,...jk->...ik", ((5, 7, 2, 3), (5, 7, 3, 4))),
    ("...ij,jk->...ik", ((5, 7, 2, 3), (3, 4))),
    ("...i->...", ((2, 3),)),
    ("i...,i...", ((3, 2), (3, 2))),
    ("...,...", ((2,), (2,))),
]


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize(
    ("equation", "shapes", "known"),
    [(*row, known) for known in ("shape", "rank") for row in (*EQUATIONS, *ELLIPSES)]
    + [(*row, "nothing") for row in EQUATIONS],
)
def test_einsum(equation: str, shapes: tuple[tuple[int, ...], ...], known: str, mode: str):
    values = [grid(*s).astype(np.float32) for s in shapes]
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        sizes = {"shape": list(shapes), "rank": [[None] * len(s) for s in shapes]}
        declared: list[Any] = sizes.get(known) or [None] * len(shapes)
        xs = [gc.placeholder("float32", s) for s in declared]
        y = gc.einsum(equation, *xs)
        found, *grads = session.run([y, *gc.gradients(y, xs)], dict(zip(xs, values, strict=True)))
    expected = np.einsum(equation, *values)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found.shape == expected.shape
    if known == "shape":
        assert tuple(y.shape.as_list()) == expected.shape
    for k, grad in enumerate(grads):
        others = [v if i != k else None for i, v in enumerate(values)]
        np.testing.assert_allclose(
            grad, by_differences(equation, values[k], others), rtol=1e-4, atol=1e-4
        )


def by_differences(equation: str, value: np.ndarray, others: list[Any]) -> np.ndarray:
    """The derivative of the sum of the result: it is linear in each operand."""
    grad = np.zeros_like(value)
    for at in np.ndindex(*value.shape):
        one = np.zeros_like(value)
        one[at] = 1
        grad[at] = np.einsum(equation, *(one if v is None else v for v in others)).sum()
    return grad


@pytest.mark.parametrize(
    ("equation", "shapes", "text"),
    [
        ("ii->i", ((2, 2),), "more than once: ii"),
        ("ij,jk->il", ((2, 3), (3, 4)), "Invalid equation: l "),
        ("ij,jk->ik", ((2, 3),), "Got 1 arguments.*expecting 2"),
        ("i1->i", ((2, 3),), "incorrect format"),
        ("ij->i", ((2, 3, 4),), "rank 3, but 2 letters"),
        ("...ij->ij", ((2,),), "does not have the dimensions"),
        ("ij,jk->ik", ((2, 3), (4, 5)), "must be equal, but are 3 and 4"),
    ],
)
def test_equations_that_do_not_fit(equation: str, shapes: Any, text: str):
    with gc.Graph().as_default(), pytest.raises((GraphError, ShapeError), match=text):
        gc.einsum(equation, *(np.zeros(s) for s in shapes))


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize(
    ("make", "a", "b"),
    [
        (lambda a, b: gc.einsum("ij,ij->", a, b), (2, 3), (3, 2)),
        (lambda a, b: gc.einsum("abij,abjk->abik", a, b), (2, 3, 4, 5), (3, 2, 5, 4)),
        (lambda a, b: gc.tensordot(a, b, 2), (2, 3), (3, 2)),
    ],
)
def test_sizes_whose_products_alone_are_equal(make: Any, a: Any, b: Any, mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        with pytest.raises(ShapeError, match="must be equal, but are 2 and 3"):
            make(np.zeros(a), np.zeros(b))
        xs = [gc.placeholder("float32", [None] * len(s)) for s in (a, b)]
        y = make(*xs)
        with pytest.raises(InvalidArgumentError, match=r"ncompatible shapes"):
            session.run(y, {xs[0]: np.zeros(a), xs[1]: np.zeros(b)})


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("axes", "a", "b"),
    [
        (1, (2, 3), (3, 4)), (0, (2,), (3,)), (2, (2, 3, 4), (3, 4, 5)), (2, (2, 3), (2, 3)),
        ([[1], [0]], (2, 3), (3, 4)), ([1, 1], (2, 3), (4, 3)), ([[-1], [-2]], (2, 3), (3, 2)),
        ([[0, 2], [1, 0]], (2, 3, 4), (4, 2, 5)), ([[], []], (2,), (2,)), (1, (0, 3), (3, 2)),
    ],
)  # fmt: skip
def test_tensordot(axes: Any, a: tuple[int, ...], b: tuple[int, ...], known: bool):
    values = [grid(*s).astype(np.float32) for s in (a, b)]
    with gc.Graph().as_default(), gc.Session() as session:
        xs = [gc.placeholder("float32", s if known else [None] * len(s)) for s in (a, b)]
        y = gc.tensordot(*xs, axes)
        found = session.run(y, dict(zip(xs, values, strict=True)))
    np.testing.assert_allclose(found, np.tensordot(*values, axes), rtol=1e-5, atol=1e-6)
    assert len(y.shape) == found.ndim


@pytest.mark.parametrize(
    ("axes", "text"),
    [
        (3, "must not be larger than the number of dimensions"),
        (-1, "at least 0"),
        ([[0], [0, 1]], "Different number of contraction axes 'a' and 'b', 1 != 2"),
        ([[5], [0]], r"axes \[5\] of 'a'"),
        ([[0, 0], [0, 1]], "twice"),
        ([1], "integer or have length 2"),
    ],
)
def test_axes_that_do_not_fit(axes: Any, text: str):
    with gc.Graph().as_default(), pytest.raises(GraphError, match=text):
        gc.tensordot(np.zeros((2, 3)), np.zeros((2, 3)), axes)
