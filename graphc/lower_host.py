"""Few integers that a kernel computes from few integers: a host can do that beside a device.

Counters, conditions of loops and sizes are such.  A runtime that knows them need not wait for its
device to learn which way a run goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.dims import DimLike, Symbol, product, substitute
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor
from graphc.lower_operands import Lowering
from graphc.op import ContractionOp, SpecialOp, evaluate_reference, value_sizes
from graphc.passes.plan import Group

__all__ = ["FEW", "HostPart"]

FEW = 64
"""Elements of a tensor, at most, that the host computes."""
MOST_DEPTH = 32
"""Operations in a chain that a kernel computes and that the host does one by one."""

Values = Mapping[Tensor, np.ndarray]


class HostPart:
    """What of a group's results the host can compute, if it knows the integers that it is made of.

    Attributes:
      results: by the storage root, the tensors that are computed.
    """

    def __init__(self, lowering: Lowering, group: Group) -> None:
        self._lowering = lowering
        self._plan = lowering.plan
        self._inside = set(group.tensors)
        self._depths: dict[Tensor, int | None] = {}
        self.results = {
            lowering.storage(t): t
            for t in group.outputs
            if _few(t) and self._depth(t, MOST_DEPTH) is not None
        }

    def values(self, known: Values, sizes: Mapping[Symbol, DimLike]) -> dict[Tensor, np.ndarray]:
        """Those results that can be told.

        Args:
          known: what is in storage before the kernel runs, as flat arrays, as far as it is known.
          sizes: the sizes that are known.
        Returns:
          Flat arrays by the storage root.
        """
        run = _Evaluation(self, known, sizes)
        found = ((root, run.value(t)) for root, t in self.results.items())
        return {root: value.reshape(-1) for root, value in found if value is not None}

    def computes(self, tensor: Tensor) -> bool:
        """Whether the kernel computes a tensor, rather than to read it."""
        return tensor in self._inside or tensor in self._plan.inlined

    def root(self, tensor: Tensor) -> Tensor:
        """The tensor whose elements a tensor has, in the same order."""
        return self._plan.root(tensor)

    def storage(self, tensor: Tensor) -> Tensor:
        """The tensor whose buffer holds a tensor."""
        return self._lowering.storage(tensor)

    def _depth(self, tensor: Tensor, most: int) -> int | None:
        """How many operations in a chain compute a tensor; None if the host cannot, or too many."""
        if tensor not in self._depths:
            self._depths[tensor] = self._found_depth(tensor, most)
        found = self._depths[tensor]
        return None if found is None or found > most else found

    def _found_depth(self, tensor: Tensor, most: int) -> int | None:
        if not _whole(tensor):
            return None
        if tensor.op.type == "Const":
            return 0 if tensor.op.attrs["value"].size <= FEW else None
        if value_sizes(tensor) is not None:
            return 0
        if tensor in self._plan.aliases:
            return self._depth(self._plan.root(tensor), most)
        if not self.computes(tensor):
            return 0
        if not most or not _few(tensor) or not _plain(tensor.op):
            return None
        depth = 0
        for operand in tensor.op.inputs:
            below = self._depth(operand, most - 1)
            if below is None:
                return None
            depth = max(depth, below + 1)
        return depth


class _Evaluation:
    """One evaluation of a part."""

    def __init__(self, part: HostPart, known: Values, sizes: Mapping[Symbol, DimLike]) -> None:
        self.part = part
        self.known = known
        self.sizes = sizes
        self.done: dict[Tensor, np.ndarray | None] = {}

    def value(self, tensor: Tensor) -> np.ndarray | None:
        """The elements of a tensor; None where they are not known."""
        if tensor not in self.done:
            self.done[tensor] = self._value(tensor)
        return self.done[tensor]

    def _value(self, tensor: Tensor) -> np.ndarray | None:
        if tensor.op.type == "Const":
            constant: np.ndarray = tensor.op.attrs["value"]
            return constant
        shape = self._sizes(tensor.sizes)
        if shape is None:
            return None
        told = self._sizes(value_sizes(tensor))
        if told is not None:
            return np.array(told, tensor.dtype.base_dtype.numpy).reshape(shape)
        root = self.part.root(tensor)
        if root is not tensor:
            found = self.value(root)
        elif self.part.computes(tensor):
            found = self._computed(tensor)
        else:
            found = self.known.get(self.part.storage(tensor))
        return found.reshape(shape) if found is not None and found.size == product(shape) else None

    def _computed(self, tensor: Tensor) -> np.ndarray | None:
        inputs = []
        for operand in tensor.op.inputs:
            value = self.value(operand)
            if value is None:
                return None
            inputs.append(value)
        return evaluate_reference(tensor.op, inputs)[tensor.index]

    def _sizes(self, sizes: tuple[DimLike, ...] | None) -> tuple[int, ...] | None:
        if sizes is None:
            return None
        found = [substitute(s, self.sizes) for s in sizes]
        numbers = tuple(s for s in found if isinstance(s, int))
        return numbers if len(numbers) == len(found) else None


def _whole(tensor: Tensor) -> bool:
    dtype = tensor.dtype.base_dtype
    return dtype.is_integer or dtype.is_bool


def _few(tensor: Tensor) -> bool:
    count = None if tensor.sizes is None else product(tensor.sizes)
    return isinstance(count, int) and count <= FEW


def _plain(op: Operation) -> bool:
    """Whether the reference of an operation tells all of it, cannot fail, and is quick."""
    special = isinstance(op.definition, (SpecialOp, ContractionOp)) or bool(
        op.definition.can_fail(op)
    )
    return not special and not any(map(_sized, op.attrs.values()))


def _sized(value: Any) -> bool:
    """Whether an attribute depends on sizes, or is a function."""
    if isinstance(value, (list, tuple)):
        return any(map(_sized, value))
    return not isinstance(value, (type(None), bool, int, float, str, DType, np.generic))
