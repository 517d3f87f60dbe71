"""Values of the public functions, compiled, against TensorFlow 1.15.5's and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc import losses, nn
from graphc.build import constant
from graphc.gradients import gradients
from graphc.ops.array import placeholder
from graphc.ops.contraction_functions import matmul
from graphc.ops.reduction_functions import reduce_sum

LOGITS = [[1.0, 2.0, 3.0]]
IMAGE = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
KERNEL = np.ones((3, 3, 1, 1), np.float32)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_cross_entropies_as_tensorflow(run):
    close(run(nn.softmax_cross_entropy_with_logits(labels=[[0.0, 0.0, 1.0]], logits=LOGITS)),
          [0.40760594606399536])  # fmt: skip
    close(run(nn.softmax_cross_entropy_with_logits_v2(labels=[[0.2, 0.3, 0.5]], logits=LOGITS)),
          [1.1076059341430664])  # fmt: skip
    labels = [[0.0, 1.0, 0.5]]
    close(run(nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=LOGITS)),
          [[1.3132617473602295, 0.12692800164222717, 1.5485873222351074]])  # fmt: skip
    close(run(nn.weighted_cross_entropy_with_logits(labels, LOGITS, 2.0)),
          [[1.3132617473602295, 0.25385600328445435, 1.5728809833526611]])  # fmt: skip
    close(run(nn.log_softmax(LOGITS)),
          [[-2.4076058864593506, -1.4076058864593506, -0.40760594606399536]])  # fmt: skip


def test_losses_as_tensorflow(run):
    close(run(losses.log_loss([1.0, 0.0], [0.9, 0.2])), 0.1642518937587738)
    close(run(losses.huber_loss([1.0, 5.0], [1.5, 2.0])), 1.3125)
    close(run(losses.sparse_softmax_cross_entropy([2], LOGITS)), 0.40760594606399536)
    close(run(losses.mean_squared_error([1.0, 2.0], [2.0, 4.0], weights=[1.0, 0.0])), 1.0)
    close(run(losses.sigmoid_cross_entropy([[1.0, 0.0, 1.0]], LOGITS)), 0.8295924067497253)


def test_convolutions_as_tensorflow(run):
    assert run(nn.conv2d(IMAGE, KERNEL, [1, 2, 2, 1], "SAME")) == [
        [[[45.0], [39.0]], [[66.0], [50.0]]]
    ]
    assert run(nn.conv2d(IMAGE, KERNEL, [1, 1, 1, 1], "VALID")) == [
        [[[45.0], [54.0]], [[81.0], [90.0]]]
    ]
    window, strides = [1, 3, 3, 1], [1, 2, 2, 1]
    assert run(nn.max_pool(IMAGE, window, strides, "SAME")) == [
        [[[10.0], [11.0]], [[14.0], [15.0]]]
    ]
    assert run(nn.avg_pool(IMAGE, window, strides, "SAME")) == [
        [[[5.0], [6.5]], [[11.0], [12.5]]]
    ]
    transposed = nn.conv2d_transpose(IMAGE[:, :2, :2], KERNEL, [1, 4, 4, 1], strides, "SAME")
    assert np.array(run(transposed))[0, :, :, 0].tolist() == [
        [0, 0, 1, 1], [0, 0, 1, 1], [4, 4, 10, 6], [4, 4, 9, 5]
    ]  # fmt: skip
    assert run(nn.depthwise_conv2d(IMAGE, KERNEL, [1, 1, 1, 1], "VALID")) == [
        [[[45.0], [54.0]], [[81.0], [90.0]]]
    ]


def test_normalisation_as_tensorflow(run):
    x = constant(np.arange(8, dtype=np.float32).reshape(4, 2))
    mean, variance = nn.moments(x, [0])
    assert run([mean, variance]) == [[3.0, 4.0], [5.0, 5.0]]
    expected = [-2.1830132, -0.39433777, 1.39433765, 3.18301320]
    found = run(nn.batch_normalization(x, mean, variance, 0.5, 2.0, 1e-3))
    np.testing.assert_allclose(found, np.repeat(expected, 2).reshape(4, 2), rtol=1e-6)
    images = constant(np.arange(8, dtype=np.float32).reshape(4, 1, 1, 2))
    statistics = nn.fused_batch_norm(images, [1.0, 1.0], [0.0, 0.0])[1:]
    close(run(list(statistics)), [[3.0, 4.0], [6.6666669845581055, 6.6666669845581055]])
    assert run(nn.dropout(x, 1.0)) == run(x)


def test_reductions_of_losses(run):
    values, weights = constant([[1.0, 2.0], [3.0, 4.0]]), [[2.0], [0.0]]
    found = {
        kind: run(losses.compute_weighted_loss(values, weights, reduction=kind))
        for kind in losses.Reduction.all()
    }
    kinds = losses.Reduction
    assert found[kinds.NONE] == [[2.0, 4.0], [0.0, 0.0]]
    assert found[kinds.SUM] == 6.0
    assert found[kinds.MEAN] == 1.5
    assert found[kinds.SUM_OVER_BATCH_SIZE] == 1.5
    assert found[kinds.SUM_BY_NONZERO_WEIGHTS] == 3.0
    assert run(losses.compute_weighted_loss(values, 0.0)) == 0.0


def test_other_losses(run):
    assert run(losses.absolute_difference([1.0, 2.0], [3.0, 1.0])) == 1.5
    assert run(losses.hinge_loss([1.0, 0.0], [0.25, 0.5])) == 1.125
    close(run(losses.cosine_distance([[0.6, 0.8]], [[1.0, 0.0]], axis=1)), 0.4)
    smooth = losses.softmax_cross_entropy([[0.0, 0.0, 1.0]], LOGITS, label_smoothing=0.3)
    log = np.array(LOGITS[0]) - np.log(np.exp(LOGITS[0]).sum())
    close(run(smooth), -(np.array([0.1, 0.1, 0.8]) * log).sum())
    close(run(losses.sparse_softmax_cross_entropy([[2]], LOGITS)), -log[2])


def test_small_functions(run):
    x = np.array([[-2.0, 0.5], [7.0, 0.0]], np.float32)
    assert run(nn.relu6(x)) == [[0.0, 0.5], [6.0, 0.0]]
    assert run(nn.crelu(x)) == [[0.0, 0.5, 2.0, 0.0], [7.0, 0.0, 0.0, 0.0]]
    close(run(nn.leaky_relu([-2, 3], 0.5)), [-1.0, 3.0])
    assert run(nn.l2_loss([3.0, 4.0])) == 12.5
    close(run(nn.l2_normalize([3.0, 4.0], 0)), [0.6, 0.8])
    assert run(nn.zero_fraction(x)) == 0.25
    assert run(nn.xw_plus_b([[1.0, 2.0]], [[1.0], [1.0]], [0.5])) == [[3.5]]
    assert run(nn.bias_add([[1.0, 2.0]], [1.0, -1.0])) == [[2.0, 1.0]]
    assert run(nn.embedding_lookup(x, [1, 1, 0])) == x[[1, 1, 0]].tolist()
    close(run(nn.swish([1.0])), [0.7310586])
    close(run(nn.softmax(x, axis=0)), np.exp(x) / np.exp(x).sum(0))
    close(run(nn.log_poisson_loss([2.0], [0.5])), [np.exp(0.5) - 1.0])


def test_cross_entropy_over_other_shapes(run):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4)).astype(np.float32)
    labels = rng.integers(0, 4, (2, 3))
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log, labels[..., None], -1)[..., 0]
    for shape in ([2, 3, 4], [None, None, 4], [None, None, None], None):
        x = placeholder("float", shape)
        sparse = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=x)
        hot = np.eye(4, dtype=np.float32)[labels]
        dense = nn.softmax_cross_entropy_with_logits_v2(labels=hot, logits=x)
        for found in run([sparse, dense], {x: logits}):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    x = constant(np.moveaxis(logits, -1, 1))
    dense = nn.softmax_cross_entropy_with_logits(labels=np.moveaxis(hot, -1, 1), logits=x, dim=1)
    np.testing.assert_allclose(run(dense), expected, rtol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 3], [0, 0]]])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_of_unknown_sizes(run, padding, stride):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, 7, 6, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 2, 3, 4)).astype(np.float32)
    results = []
    for shape in (image.shape, [None, None, None, 3]):
        x, w = placeholder("float", shape), constant(kernel)
        y = nn.conv2d(x, w, stride, padding)
        total = reduce_sum(nn.softplus(y))
        fetches = [y, *gradients(total, [x, w])]
        results.append(run(fetches, {x: image}))
    for fixed, free in zip(*results, strict=True):
        np.testing.assert_allclose(free, fixed, rtol=1e-5, atol=1e-5)


def test_a_second_derivative(run):
    a, b = constant([[1.0, 2.0], [3.0, 4.0]]), constant([[0.5], [1.5]])
    y = reduce_sum(nn.softplus(matmul(a, b)))
    (first,) = gradients(y, [a])
    (second,) = gradients(reduce_sum(first), [a])
    s = 1 / (1 + np.exp(-np.array([[3.5], [7.5]])))
    expected = s * (1 - s) * 2.0 * np.array([[0.5, 1.5]])
    np.testing.assert_allclose(run(second), expected, rtol=1e-5)


def test_dropout(run):
    x = constant(np.ones(1000, np.float32))
    dropped = np.array(run(nn.dropout(x, rate=0.25, seed=1)))
    assert set(np.round(dropped, 5)) == {0.0, 1.33333}
    assert 650 < np.count_nonzero(dropped) < 850
    ones = constant(np.ones((8, 5), np.float32))
    rows = nn.dropout(ones, rate=0.5, noise_shape=[None, 1], seed=2)
    assert rows.shape.as_list() == [8, 5]
    found = np.array(run(rows))
    assert (found == found[:, :1]).all()
    rate = placeholder("float", [])
    (slope,) = gradients(nn.dropout(x, rate=rate, seed=3), [x])
    assert set(run(slope, {rate: 0.5})) == {0.0, 2.0}
