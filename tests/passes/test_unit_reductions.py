"""Reductions over axes of size one, which once were merged into other reductions' loops."""

import numpy as np

import graphc as gc


def test_a_sum_over_one_element_is_not_repeated() -> None:
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None, 3])
        y = gc.reduce_sum(gc.reduce_sum(x, 1) * 2.0, 0)
        z = gc.reduce_sum(gc.reduce_sum(x, 0, keepdims=True) * 2.0)
        with gc.Session() as sess:
            one = np.array([[1.0, 2.0, 3.0]], np.float32)
            assert sess.run([y, z], {x: one}) == [12.0, 12.0]
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [1, 3])
        y = gc.reduce_sum(gc.reduce_sum(x, 0) * 2.0, 0)
        z = gc.reduce_sum(gc.reduce_sum(x, 1) * 2.0, 0)
        with gc.Session() as sess:
            assert sess.run([y, z], {x: one}) == [12.0, 12.0]
