"""What networks are made of, under the names of ``tf.nn`` of TensorFlow 1.15."""

from __future__ import annotations

from graphc.nn import rnn_cell
from graphc.nn.activations import (
    bias_add,
    crelu,
    elu,
    l2_loss,
    l2_normalize,
    leaky_relu,
    log_softmax,
    relu,
    relu6,
    relu_layer,
    selu,
    softmax,
    softplus,
    softsign,
    swish,
    xw_plus_b,
    zero_fraction,
)
from graphc.nn.convolution import (
    atrous_conv2d,
    avg_pool,
    avg_pool2d,
    conv2d,
    conv2d_backprop_filter,
    conv2d_backprop_input,
    conv2d_transpose,
    depthwise_conv2d,
    max_pool,
    max_pool2d,
)
from graphc.nn.embedding import embedding_lookup
from graphc.nn.entropy import (
    log_poisson_loss,
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits_v2,
    sparse_softmax_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits,
)
from graphc.nn.normalization import (
    batch_normalization,
    fused_batch_norm,
    layer_normalization,
    moments,
)
from graphc.nn.rnn import bidirectional_dynamic_rnn, dynamic_rnn, raw_rnn
from graphc.nn.rnn_static import static_bidirectional_rnn, static_rnn
from graphc.ops.dropout import dropout
from graphc.ops.math import log_sigmoid, sigmoid, tanh
from graphc.ops.sorting_functions import in_top_k, top_k

__all__ = [
    "atrous_conv2d", "avg_pool", "avg_pool2d", "batch_normalization", "bias_add",
    "bidirectional_dynamic_rnn", "conv2d", "conv2d_backprop_filter", "conv2d_backprop_input",
    "conv2d_transpose", "crelu", "depthwise_conv2d", "dropout", "dynamic_rnn", "elu",
    "embedding_lookup", "fused_batch_norm", "in_top_k", "l2_loss", "l2_normalize",
    "layer_normalization", "leaky_relu", "log_poisson_loss", "log_sigmoid", "log_softmax",
    "max_pool", "max_pool2d", "moments", "raw_rnn", "relu", "relu6", "relu_layer", "rnn_cell",
    "selu", "sigmoid", "sigmoid_cross_entropy_with_logits", "softmax",
    "softmax_cross_entropy_with_logits", "softmax_cross_entropy_with_logits_v2", "softplus",
    "softsign", "sparse_softmax_cross_entropy_with_logits", "static_bidirectional_rnn",
    "static_rnn", "swish", "tanh", "top_k", "weighted_cross_entropy_with_logits", "xw_plus_b",
    "zero_fraction",
]  # fmt: skip
