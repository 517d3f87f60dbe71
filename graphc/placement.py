"""On which device a session runs: all that it runs, runs on one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.errors import GraphError, InvalidArgumentError, UnavailableError
from graphc.graph import Operation, parse_device
from graphc.runtime.cuda_cupy import cuda_device
from graphc.runtime.cuda_device import Device

REMEDY = (
    "Session(device=...) names the device of a whole session, and "
    "ConfigProto(allow_soft_placement=True) takes one that there is"
)


def named_device(name: Any) -> Device | None:
    """The device that a session was given by name; None for the CPU.

    Args:
      name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"/gpu:0"``, ``"/device:GPU:1"``, or a device as
        ``runtime`` has it.
    Raises:
      GraphError: (a ValueError) it is no such name.
      UnavailableError: there is no such device.
    """
    if not isinstance(name, str):
        device: Device = name
        return device
    try:
        kind = parse_device(name)
    except GraphError:
        kind = None
    if kind is None or kind.kind not in ("CPU", "GPU"):
        raise GraphError(f"device must be 'cpu' or 'cuda', 'cuda:1', '/gpu:0', ..., not {name!r}")
    return None if kind.kind == "CPU" else cuda_device(kind.index)


class Placement:
    """The device of a session that was given none: what the operations of its graph ask for.

    Where one asks for a GPU, everything runs there, whatever asks for the CPU too.

    Args:
      config: the session's settings: ``allow_soft_placement``, and ``device_count`` of GPUs.

    Attributes:
      settled: whether the session has begun.
    """

    def __init__(self, config: Any) -> None:
        self._soft = bool(getattr(config, "allow_soft_placement", False))
        counts = getattr(config, "device_count", None) or {}
        self._without = counts.get("GPU") == 0
        self.settled = False
        self._asking: Operation | None = None
        self._number: int | None = None
        self._on_gpu = False

    def device(self, operations: Iterable[Operation]) -> Device | None:
        """The device for these operations; None for the CPU.

        Raises:
          InvalidArgumentError: there is none that they all agree to; names one of them.
        """
        self._look(operations)
        self.settled = True
        if self._asking is None:
            return None
        op = self._asking
        try:
            if self._without:
                raise UnavailableError(None, None, "device_count says that there is no GPU")
            found = cuda_device(self._number)
        except UnavailableError as error:
            if self._soft:
                return None
            # Whoever mends what is missing may run again.
            self.settled, self._asking = False, None
            raise InvalidArgumentError(
                op.node_def, op,
                f"Cannot assign a device for operation {op.name}: it was explicitly assigned to "
                f"{op.device}, but {error.message}; {REMEDY}",
            ) from None  # fmt: skip
        self._on_gpu = True
        return found

    def check(self, operations: Iterable[Operation]) -> None:
        """Refuse operations, declared since, that ask for another device.

        Raises:
          InvalidArgumentError: one does.
        """
        self._look(operations)

    def _look(self, operations: Iterable[Operation]) -> None:
        for op in operations:
            if not op.device:
                continue
            name = parse_device(op.device)
            if name.kind in (None, "CPU"):
                continue
            if name.kind != "GPU":
                self._refuse(op, "there is no such kind of device")
            elif self.settled and not self._on_gpu:
                self._refuse(op, "the session has begun on the CPU already")
            elif self._asking is None:
                self._asking, self._number = op, name.index
            elif name.index is not None and name.index != self._number:
                if self._number is None and not self.settled:
                    self._asking, self._number = op, name.index
                else:
                    other = self._asking
                    self._refuse(
                        op, f"{other.name} to {other.device} (declared at {other.location}), and "
                        "all that a session runs, runs on one device",
                    )  # fmt: skip

    def _refuse(self, op: Operation, why: str) -> None:
        if not self._soft:
            raise InvalidArgumentError(
                op.node_def, op,
                f"Cannot assign a device for operation {op.name}: it was explicitly assigned to "
                f"{op.device}, but {why}; {REMEDY}",
            )  # fmt: skip
