"""Arrays that are on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import OpError
from graphc.runtime.cuda_device import Device


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """Elements side by side in a device's memory.

    Attributes:
      address: where they begin.
      owner: what keeps the memory.
      foreign: whether it is another library's, which has streams that nobody here knows.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    device: Device
    foreign: bool = False

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


@contextlib.contextmanager
def users_go_on(device: Device, feeds: Sequence[Any]) -> Iterator[None]:
    """What users do with their arrays after this comes after what the device did in it."""
    try:
        yield
    except BaseException:
        # The error to show is the first one.
        with contextlib.suppress(OpError):
            _let_go_on(device, feeds)
        raise
    _let_go_on(device, feeds)


def _let_go_on(device: Device, feeds: Sequence[Any]) -> None:
    if any(isinstance(f, DeviceArray) and f.foreign for f in feeds):
        with device.active():
            device.wait()
    device.join()
