"""Second derivatives as matrices."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ShapeError


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_of_a_product_and_of_cubes(mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        v = gc.Variable([2.0, 3.0, 5.0])
        m = gc.placeholder("float64", [1, 2])
        product, cubes = gc.reduce_prod(v), gc.reduce_sum(m * m * m)
        (of_v,) = gc.hessians([product, gc.reduce_sum(v)], v)
        (of_m,) = gc.hessians(cubes, [m])
        session.run(v.initializer)
        expected = [[0, 5, 3], [5, 0, 2], [3, 2, 0]]
        np.testing.assert_allclose(session.run(of_v), expected, atol=1e-5)
        found = session.run(of_m, {m: [[2.0, 3.0]]})
    assert found.shape == (1, 2, 1, 2)
    np.testing.assert_allclose(found.reshape(2, 2), [[12, 0], [0, 18]])


def test_scalars_nothing_and_what_is_linear():
    with gc.Graph().as_default(), gc.Session() as session:
        s, none, x = gc.constant(2.0), gc.zeros([0]), gc.constant([1.0, 2.0])
        found = gc.hessians(s * s * s + gc.reduce_sum(none) + gc.reduce_sum(x), [s, none, x])
        values = session.run(found)
    assert [v.shape for v in values] == [(), (0, 0), (2, 2)]
    assert values[0] == 12.0
    assert not values[2].any()


def test_a_shape_that_is_not_known():
    with gc.Graph().as_default():
        x = gc.placeholder("float32", [None])
        with pytest.raises(ShapeError, match="must be known"):
            gc.hessians(gc.reduce_sum(x), x)
