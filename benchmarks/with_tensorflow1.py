"""The workloads in TensorFlow 1.15: graphc's own scripts, in a Session of TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphs
import numpy as np
import tensorflow as tf

VERSION = f"TensorFlow {tf.__version__}"
BUILDERS = graphs.BUILDERS
CONFIG = tf.ConfigProto()


def set_threads(count: int) -> None:
    CONFIG.intra_op_parallelism_threads = count


def make(name: str, data: dict[str, np.ndarray]) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    return graphs.make(tf, tf.Session(config=CONFIG), name, data)
