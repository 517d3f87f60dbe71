"""Arrays that are on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.runtime.cuda_device import Device


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """Elements side by side in a device's memory.

    Attributes:
      address: where they begin.
      owner: what keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    device: Device

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = np.empty(self.shape, self.dtype)
        if found.nbytes:
            with self.device.active():
                self.device.read(self.address, found)
        return found if dtype is None else found.astype(dtype, copy=False)
