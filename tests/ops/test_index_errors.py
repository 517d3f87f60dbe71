"""An index out of range fails in every mode: one from the end is no index either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.errors import InvalidArgumentError, ShapeError

X = np.arange(12, dtype=np.float32).reshape(3, 4)
USES: dict[str, Callable[[Any], Any]] = {
    "gather": lambda i: gc.gather(X, gc.stack([0, i])),
    "gather, second axis": lambda i: gc.gather(X, gc.stack([[0, i]]), axis=1),
    "gather, batches": lambda i: gc.gather(X, gc.stack([[0], [i], [0]]), batch_dims=1),
    "gather_nd": lambda i: gc.gather_nd(X, gc.stack([[0, 0], [2, i]])),
    "invert_permutation": lambda i: gc.invert_permutation(gc.stack([0, i, 1])),
    "cross entropy": lambda i: nn.sparse_softmax_cross_entropy_with_logits(
        labels=gc.stack([0, i, 1]), logits=X
    ),
}


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("use", USES)
def test_out_of_range(use: str, mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        i = gc.placeholder("int32", [])
        y = USES[use](i)
        session.run(y, {i: 2})
        for wrong in (-1, -3, 4, 2**31 - 1, -(2**31)):
            with pytest.raises(InvalidArgumentError):
                session.run(y, {i: wrong})


def test_a_fixed_permutation_that_is_none():
    with gc.Graph().as_default(), pytest.raises(ShapeError, match=r"\[2, 0, 2\] is not a perm"):
        gc.invert_permutation([2, 0, 2])
