"""Names and error texts are those of TensorFlow 1.15.5."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import nn
from graphc.build import constant
from graphc.errors import GraphError, InvalidArgumentError
from graphc.graph import get_collection
from graphc.losses import (
    Reduction,
    add_loss,
    compute_weighted_loss,
    get_regularization_loss,
    get_total_loss,
    mean_squared_error,
    softmax_cross_entropy,
)
from graphc.ops.array import placeholder
from graphc.ops.contraction_functions import matmul

LOGITS = [[1.0, 2.0]]


def zeros(*shape: int, dtype=np.float32):
    return constant(np.zeros(shape, dtype))


def test_names_of_one_operation():
    x, w = zeros(1, 4, 4, 2), zeros(3, 3, 2, 5)
    assert nn.conv2d(x, w, 1, "SAME").name == "Conv2D:0"
    assert nn.conv2d(x, w, 1, "SAME").name == "Conv2D_1:0"
    assert nn.max_pool(x, 2, 2, "SAME").name == "MaxPool:0"
    assert nn.avg_pool(x, 2, 2, "SAME").name == "AvgPool:0"
    assert nn.max_pool2d(x, 2, 2, "SAME").name == "MaxPool2d:0"
    assert nn.bias_add(x, [1.0, 2.0]).name == "BiasAdd:0"
    assert nn.relu(x).name == "Relu:0"
    assert nn.softmax(x).name == "Softmax:0"
    assert nn.l2_loss(x).name == "L2Loss:0"
    assert matmul(zeros(2, 3), zeros(3, 2)).name == "MatMul:0"
    assert (zeros(2, 3) @ zeros(3, 2)).name == "matmul_1:0"
    scale = zeros(2)
    assert nn.fused_batch_norm(x, scale, scale)[0].name == "FusedBatchNormV3:0"


def test_names_of_several_operations():
    sparse = nn.sparse_softmax_cross_entropy_with_logits(labels=[0], logits=LOGITS)
    name = "SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits:0"
    assert sparse.name == name
    dense = nn.softmax_cross_entropy_with_logits(labels=[[0.0, 1.0]], logits=LOGITS)
    assert dense.name == "softmax_cross_entropy_with_logits_sg/Reshape_2:0"
    both = nn.softmax_cross_entropy_with_logits_v2(labels=[[0.0, 1.0]], logits=LOGITS)
    assert both.name == "softmax_cross_entropy_with_logits/Reshape_2:0"
    binary = nn.sigmoid_cross_entropy_with_logits(labels=LOGITS, logits=LOGITS)
    assert binary.name == "logistic_loss:0"
    assert nn.moments(zeros(2, 2), [0])[1].name == "moments/Squeeze_1:0"
    assert nn.dropout(zeros(2), rate=0.5).name == "dropout/mul_1:0"
    assert nn.l2_normalize(zeros(2), 0).name == "l2_normalize:0"
    assert nn.zero_fraction(zeros(2)).name == "zero_fraction/fraction:0"
    assert nn.embedding_lookup(zeros(3, 2), [1]).name == "embedding_lookup/Identity:0"
    x = nn.batch_normalization(zeros(2, 2), zeros(2), zeros(2), zeros(2), zeros(2), 1e-3)
    assert x.name == "batchnorm/add_1:0"


def test_names_of_losses():
    first = mean_squared_error([1.0, 2.0], [2.0, 4.0])
    second = softmax_cross_entropy([[0.0, 1.0]], LOGITS)
    assert first.name == "mean_squared_error/value:0"
    assert second.name == "softmax_cross_entropy_loss/value:0"
    assert get_total_loss().name == "total_loss:0"
    assert [t.name for t in get_collection("losses")] == [first.name, second.name]


def test_shapes():
    x = placeholder("float", [None, 28, 28, 1])
    w = zeros(5, 5, 1, 32)
    assert nn.conv2d(x, w, [1, 1, 1, 1], "SAME").shape.as_list() == [None, 28, 28, 32]
    assert nn.conv2d(x, w, [1, 2, 2, 1], "VALID").shape.as_list() == [None, 12, 12, 32]
    pooled = nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    assert pooled.shape.as_list() == [None, 14, 14, 1]
    product = matmul(placeholder("float", [None, 4]), zeros(4, 5))
    assert product.shape.as_list() == [None, 5]
    unknown = placeholder("float")
    assert matmul(unknown, zeros(4, 5)).op.type == "BatchMatMulV2"
    assert nn.conv2d(unknown, w, 1, "SAME").shape.as_list() == [None, None, None, 32]
    both = nn.conv2d_transpose(zeros(1, 2, 2, 5), zeros(3, 3, 2, 5), [1, 4, 4, 2], 2)
    assert both.shape.as_list() == [1, 4, 4, 2]
    assert both.name == "conv2d_transpose:0"


def test_errors_of_products():
    a = zeros(2, 3)
    with pytest.raises(ValueError, match="Dimensions must be equal, but are 3 and 2 for 'MatMul'"):
        matmul(a, a)
    text = (
        r"Input 'b' of 'MatMul' Op has type float64 that does not match type float32 of "
        r"argument 'a'\."
    )
    with pytest.raises(TypeError, match=text):
        matmul(a, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="Only one of transpose_a and adjoint_a can be True"):
        matmul(a, a, transpose_a=True, adjoint_a=True)
    with pytest.raises(ValueError, match="Shape must be rank 2 but is rank 1"):
        matmul(a, zeros(3))


def test_errors_of_convolutions():
    x, w = zeros(1, 4, 4, 3), zeros(3, 3, 2, 1)
    text = (
        r"Depth of input \(3\) is not a multiple of input depth of filter \(2\) for 'Conv2D' "
        r"\(op: 'Conv2D'\) with input shapes: \[1,4,4,3\], \[3,3,2,1\]\."
    )
    with pytest.raises(ValueError, match=text):
        nn.conv2d(x, w, [1, 1, 1, 1], "SAME")
    with pytest.raises(ValueError, match="Negative dimension size caused by subtracting 5 from 4"):
        nn.conv2d(x, zeros(5, 5, 3, 1), 1, "VALID")
    with pytest.raises(ValueError, match="is not in the list of allowed values"):
        nn.conv2d(x, zeros(3, 3, 3, 1), 1, "FULL")
    with pytest.raises(ValueError, match="must be 1 in the batch and depth dimensions"):
        nn.conv2d(x, zeros(3, 3, 3, 1), [2, 1, 1, 1], "SAME")
    with pytest.raises(ValueError, match="ksize cannot be zero"):
        nn.max_pool(x, [1, 0, 2, 1], 1, "SAME")
    with pytest.raises(ValueError, match=r"it must be of size 4\. Got padding of size: 1"):
        nn.conv2d(x, zeros(3, 3, 3, 1), 1, [[1, 1]])


def test_errors_of_cross_entropies():
    text = "Only call `softmax_cross_entropy_with_logits` with named arguments"
    with pytest.raises(ValueError, match=text):
        nn.softmax_cross_entropy_with_logits(LOGITS, LOGITS)
    with pytest.raises(ValueError, match="Both labels and logits must be provided"):
        nn.sparse_softmax_cross_entropy_with_logits(labels=[0])
    with pytest.raises(ValueError, match=r"Rank mismatch: Rank of labels \(received 2\)"):
        nn.sparse_softmax_cross_entropy_with_logits(labels=[[0]], logits=LOGITS)
    with pytest.raises(ValueError, match=r"Shape mismatch: .*received \(2,\)"):
        nn.sparse_softmax_cross_entropy_with_logits(labels=[0, 1], logits=LOGITS)
    with pytest.raises(ValueError, match="Logits cannot be scalars"):
        nn.sparse_softmax_cross_entropy_with_logits(labels=0, logits=1.0)
    with pytest.raises(ValueError, match="logits and labels must have the same shape"):
        nn.sigmoid_cross_entropy_with_logits(labels=[1.0], logits=[1.0, 2.0])


def test_errors_of_dropout_and_others():
    x = zeros(3)
    with pytest.raises(ValueError, match=r"rate must be a scalar tensor or a float .*, got 1"):
        nn.dropout(x, 0.0)
    with pytest.raises(ValueError, match="You must provide a rate to dropout"):
        nn.dropout(x)
    with pytest.raises(ValueError, match="x has to be a floating point tensor"):
        nn.dropout(constant([1, 2]), 0.5)
    with pytest.raises(ValueError, match="keep_prob must be a floating point number or Tensor"):
        nn.dropout(x, "half")
    with pytest.raises(ValueError, match="Both 'mean' and 'variance' must be None"):
        nn.fused_batch_norm(zeros(1, 1, 1, 3), x, x, mean=x)
    with pytest.raises(ValueError, match="weights can not be broadcast to values"):
        compute_weighted_loss(zeros(2, 3), zeros(3))
    with pytest.raises(ValueError, match="Invalid Reduction Key wrong"):
        compute_weighted_loss(zeros(2), reduction="wrong")
    with pytest.raises(ValueError, match=r"labels must not be None\."):
        mean_squared_error(None, [1.0])


def test_a_label_that_is_no_class_fails_the_run(run):
    labels, logits = placeholder("int32", [None]), placeholder("float", [None, None])
    loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    text = r"Received a label value of 9 which is outside the valid range of \[0, 3\)\."
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        run(loss, {labels: [9, 0], logits: np.zeros((2, 3))})
    assert caught.value.op is loss.op
    with pytest.raises(InvalidArgumentError, match="Received a label value of -1"):
        run(loss, {labels: [0, -1], logits: np.zeros((2, 3))})


def test_sizes_that_do_not_fit_fail_the_run(run):
    x = placeholder("float", [None, None])
    product = matmul(x, x)
    text = r"Matrix size-incompatible: In\[0\]: \[2,3\], In\[1\]: \[2,3\]"
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        run(product, {x: np.zeros((2, 3))})
    assert caught.value.op is product.op


def test_the_collection_of_losses():
    assert get_regularization_loss().op.type == "Const"
    add_loss(constant(1.0), None)
    assert get_collection("losses") == []
    loss = compute_weighted_loss(zeros(2), reduction=Reduction.NONE)
    assert get_collection("losses") == [loss]
    with pytest.raises(GraphError):
        Reduction.validate("sum")
