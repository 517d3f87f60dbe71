"""How gradients of convolutions are computed: by columns of windows where that is less work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.dtypes import finfo
from graphc.op import evaluate_reference
from graphc.ops.base import call
from graphc.ops.conv import CONV_ATTRS, columns_pay, convolution
from graphc.ops.movement_value import int_tensor

Sizes = tuple[int, ...]
LENET: tuple[Sizes, Sizes, dict[str, Any]] = ((4, 12, 12, 20), (5, 5, 20, 50), {"padding": "VALID"})


def attributes(**given: Any) -> dict[str, Any]:
    return {key: attr.default for key, attr in CONV_ATTRS.items()} | given


def pays(image: Sizes, kernel: Sizes, size: int = 4, **attrs: Any) -> bool:
    return columns_pay(convolution(attributes(**attrs), image, kernel), kernel, size)


def by(stride: int, padding: str = "SAME") -> dict[str, Any]:
    return {"strides": (1, stride, stride, 1), "padding": padding}


@pytest.mark.parametrize(
    ("image", "kernel", "attrs", "expected"),
    [
        (*LENET, True),
        ((8, 56, 56, 64), (3, 3, 64, 128), by(2), True),
        ((8, 56, 56, 64), (1, 1, 64, 128), by(2), True),
        ((8, 224, 224, 3), (7, 7, 3, 64), by(2), True),
        ((8, 28, 28, 128), (3, 3, 128, 128), by(1), False),
        ((8, 28, 28, 64), (3, 3, 64, 64), by(1, "VALID"), False),
        ((64, 12, 12, 32), (5, 5, 32, 16), by(1, "VALID"), False),
        ((64, 28, 28, 32), (3, 3, 32, 4), by(2), False),
        ((8, 28, 28, 128), (3, 3, 64, 128), by(2), False),
        ((64, 0, 28, 32), (3, 3, 32, 64), by(2), False),
    ],
)
def test_columns_where_they_pay(image: Sizes, kernel: Sizes, attrs: dict[str, Any], expected: bool):
    assert pays(image, kernel, **attrs) is expected


def test_large_columns_are_not_made():
    """20 times all operands: refused above 64 MiB."""
    image, kernel, attrs = (1, 40, 40, 20), (9, 9, 20, 50), by(1, "VALID")
    assert pays((10, *image[1:]), kernel, **attrs)
    assert not pays((11, *image[1:]), kernel, **attrs)
    # Those of small images are not stored.
    assert pays((6400, *LENET[0][1:]), LENET[1], **LENET[2])
    # Columns of four times the operands at most are no reason, however many they are.
    assert pays((640, 56, 56, 64), (3, 3, 64, 128), **by(2))


@pytest.mark.parametrize("dtype", [gc.float32, gc.float16, gc.bfloat16])
def test_the_gradient_has_no_products_too_many(dtype: gc.DType):
    """Those of 64 places, and the sums; a convolution would have those of 144 places."""
    image, kernel, attrs = LENET
    grad = (4, 8, 8, 50)
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype(dtype.numpy) for s in (kernel, grad)]
    with gc.Graph().as_default():
        f, dy = (gc.placeholder(dtype, v.shape) for v in values)
        dx = call("Conv2DBackpropInput", int_tensor(image), f, dy, **attrs)
        metadata = gc.RunMetadata()
        with gc.Session() as session:
            feeds = dict(zip((f, dy), values, strict=True))
            found = session.run(dx, feeds, gc.RunOptions(trace=True), metadata)
    kernels = metadata.profile.kernels
    needed = 2 * np.prod(grad) * np.prod(kernel[:3])
    casts = 0 if dtype is gc.float32 else 2  # That of the filter is one kernel with its turning.
    assert len(kernels) == 2 + casts
    assert needed <= sum(r.operations for r in kernels) < 1.05 * needed
    (expected,) = evaluate_reference(dx.op, (np.array(image), *values))
    wide = [v.astype(np.float32) for v in (found, expected)]
    precision = float(finfo(dtype.numpy).eps)
    np.testing.assert_allclose(*wide, rtol=max(1e-4, precision), atol=1e-4)


@pytest.mark.parametrize("attrs", [by(1, "VALID"), by(2), by(2, "VALID")])
def test_any_batch_and_the_gradient_of_the_gradient(attrs: dict[str, Any]):
    """One compilation for all sizes, the empty batch among them."""
    image, kernel = (9, 8, 5), (4, 3, 5, 40)
    assert pays((64, *image), kernel, **attrs)
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(kernel).astype(np.float32) / 8
    with gc.Graph().as_default():
        x = gc.placeholder("float32", [None, *image])
        f = gc.placeholder("float32", kernel)
        y = nn.conv2d(x, f, **attrs)
        (dx,) = gc.gradients(gc.reduce_sum(gc.sin(y)), x)
        fetches = [dx, *gc.gradients(gc.reduce_sum(dx * dx), [x, f])]
        with gc.Session() as session, gc.Session(mode="reference") as reference:
            for batch in (3, 1, 2, 0):
                feeds = {x: rng.standard_normal((batch, *image)).astype(np.float32), f: weights}
                found = session.run(fetches, feeds)
                for a, b in zip(found, reference.run(fetches, feeds), strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
            assert session.compilations == 1
