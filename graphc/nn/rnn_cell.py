"""Recurrent cells, under the names of ``tf.nn.rnn_cell`` of TensorFlow 1.15."""

from __future__ import annotations

from graphc.nn.rnn_cell_base import LSTMStateTuple, RNNCell
from graphc.nn.rnn_cell_basic import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell
from graphc.nn.rnn_cell_wrappers import (
    DeviceWrapper,
    DropoutWrapper,
    MultiRNNCell,
    ResidualWrapper,
)

__all__ = [
    "BasicLSTMCell", "BasicRNNCell", "DeviceWrapper", "DropoutWrapper", "GRUCell", "LSTMCell",
    "LSTMStateTuple", "MultiRNNCell", "RNNCell", "ResidualWrapper",
]  # fmt: skip
