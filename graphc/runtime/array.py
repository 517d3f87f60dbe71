"""Arrays as native code likes them."""

from __future__ import annotations

from typing import Any

import numpy as np


def aligned_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros on a 64-byte boundary."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count].view(dtype).reshape(shape)
