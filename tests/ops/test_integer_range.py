"""Integers at the ends of their types, where shapes are computed and where they are not."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ops import math
from graphc.ops.base import call

MODES = ("static", "eager", "reference")
HUGE = np.array([2**64 - 7, 1], np.uint64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: gc.concat([gc.constant(HUGE), HUGE], 0), np.concatenate([HUGE, HUGE])),
        (lambda: gc.stack([HUGE, HUGE]), np.stack([HUGE, HUGE])),
        (lambda: gc.stack([gc.constant(HUGE[0]), HUGE[1]]), HUGE),
        (lambda: gc.maximum(HUGE, np.array([2], np.uint64)), np.maximum(HUGE, 2)),
        (lambda: gc.add(HUGE, HUGE), HUGE + HUGE),
        (lambda: gc.subtract(HUGE[::-1], HUGE), HUGE[::-1] - HUGE),
        (lambda: gc.multiply(HUGE, HUGE), HUGE * HUGE),
        (lambda: gc.constant(2**62, "int64") * 8, np.int64(0)),
        (lambda: gc.reduce_prod(np.array([2**40, 2**40], np.int64)), np.int64(0)),
        (lambda: gc.constant([100], "int8") * 100 // 2, np.array([8], np.int8)),
        (lambda: (gc.constant(2**31 - 1) + 1) // 2, np.int32(-(2**30))),
    ],
)
def test_constants_wrap_around_as_arrays_do(make, expected, mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        found = session.run(make())
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64", "uint64"])
def test_an_array_keeps_its_integer_type(dtype: str):
    value = np.array([5, 9], dtype)
    with gc.Graph().as_default():
        assert math.invert(value).dtype.name == dtype
        assert math.truncatediv(value, value).dtype.name == dtype
        assert math.bitwise_and(value, value).dtype.name == dtype


def test_an_array_of_floats_is_not_taken_for_integers():
    value = np.array([1.5, 2.5])
    with gc.Graph().as_default():
        for op in ("TruncateDiv", "BitwiseAnd"):
            with pytest.raises(TypeError, match="float64 not in list of allowed values"):
                call(op, value, value)


def test_axes_and_shapes_are_int32_by_default():
    with gc.Graph().as_default():
        y = gc.reshape(np.zeros(6), np.array([2, 3]))
        assert y.op.inputs[1].dtype is gc.int32
        assert gc.reshape(np.zeros(6), [6]).op.inputs[1].dtype is gc.int32
