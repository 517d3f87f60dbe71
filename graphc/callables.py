"""How the answer of a program becomes the fetches, and results in the user's own arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from graphc.errors import DTypeError, InvalidArgumentError
from graphc.feeding import FetchTree, fits
from graphc.graph import Operation, Tensor
from graphc.runtime.direct import FORMS, SINGLE


def form_of(tree: FetchTree, computed: Sequence[Tensor]) -> int | None:
    """How native code can give the fetches by itself; None if it cannot."""
    root = tree.root
    if isinstance(root, Tensor):
        return SINGLE if tree.simple and list(computed) == [root] else None
    if isinstance(root, Operation) or not tree.simple:
        return None
    make, children = root
    return FORMS.get(make) if children and children == list(computed) else None


def builder_of(
    tree: FetchTree, computed: Sequence[Tensor]
) -> Callable[[tuple[Any, ...]], Any] | None:
    """What makes the fetches of the values of ``computed``; None if it takes more than these."""
    if not tree.simple:
        return None
    root = tree.root
    if isinstance(root, Operation):
        return lambda _: None
    places: dict[Any, int] = {t: k for k, t in enumerate(computed)}
    if isinstance(root, Tensor):
        return itemgetter(places[root])
    make, children = root
    if not all(isinstance(c, (Tensor, Operation)) for c in children):
        return lambda answer: tree.build(dict(zip(computed, answer, strict=True)))
    if len(children) < 2:
        only = places.get(children[0]) if children else None
        return lambda answer: make([None if only is None else answer[only]] if children else [])
    # What operations give stands behind the values.
    picked, nothing = itemgetter(*(places.get(c, -1) for c in children)), (None,)
    return lambda answer: make(picked(answer + nothing))


class Outs:
    """The arrays that the results of a callable are written to.

    Args:
      tree: the fetches.
      out: their structure, with an array for a tensor, or None for a new one every time; None for
        operations.

    Raises:
      InvalidArgumentError: an array has another shape than the tensor, is read-only, or shares
        memory with another one.
      TypeError: it is no array, or of another dtype; the structure is another.
    """

    def __init__(self, tree: FetchTree, out: Any) -> None:
        self.root = tree.root
        self.arrays: dict[Tensor, np.ndarray] = {}
        self._match(self.root, out)
        arrays = list(self.arrays.items())
        for k, (tensor, a) in enumerate(arrays):
            for other, b in arrays[:k]:
                if np.shares_memory(a, b):
                    raise _refused(tensor, f"shares memory with the one for {other.name}")

    def _match(self, node: Any, out: Any) -> None:
        if out is None:
            return
        if isinstance(node, Tensor):
            self._take(node, out)
        elif isinstance(node, Operation):
            raise DTypeError(f"out must be None for {node.name!r}, which has no value")
        else:
            _, children = node
            parts = list(out.values()) if isinstance(out, dict) else out
            if not isinstance(parts, (list, tuple)) or len(parts) != len(children):
                raise DTypeError(
                    f"out must have the structure of the fetches: {len(children)} entries where it "
                    f"has {out!r}"
                )
            for child, part in zip(children, parts, strict=True):
                self._match(child, part)

    def _take(self, tensor: Tensor, array: Any) -> None:
        dtype = tensor.dtype.base_dtype.numpy
        if not isinstance(array, np.ndarray):
            raise DTypeError(f"out for {tensor.name} must be an array, not {type(array).__name__}")
        if array.dtype != dtype:
            raise DTypeError(f"out for {tensor.name} must be of {dtype}, not of {array.dtype}")
        if not array.flags.writeable:
            raise _refused(tensor, "is read-only")
        if tensor in self.arrays and self.arrays[tensor] is not array:
            raise _refused(tensor, "is another one than where the tensor stands first")
        if tensor.sizes is not None and not fits(array.shape, tensor.sizes):
            raise _refused(tensor, f"has the shape {array.shape}, the tensor {tensor.shape}")
        self.arrays[tensor] = array

    def direct(self, computed: Sequence[Tensor]) -> list[np.ndarray | None] | None:
        """The arrays in order, if native code can write to all of them."""
        for a in self.arrays.values():
            flags = a.flags
            if a.ndim == 0 or type(a) is not np.ndarray or not flags.c_contiguous & flags.aligned:
                return None
        return [self.arrays.get(t) for t in computed]

    def fill(self, values: dict[Tensor, Any]) -> dict[Tensor, Any]:
        """Copy the values to their arrays; these then stand for them.

        Nothing is written where one of them does not fit.
        """
        for t, a in self.arrays.items():
            if np.shape(values[t]) != a.shape:
                raise _refused(t, f"has the shape {a.shape}, the result {np.shape(values[t])}")
        for t, a in self.arrays.items():
            a[...] = values[t]
        return values | self.arrays


def _refused(tensor: Tensor, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        tensor.op.node_def, tensor.op, f"the array that is out for {tensor.name} {why}"
    )
