"""Which tensors of a graph are arrays that may be of another length in another turn of a loop.

Those that grow are, and those that change places with others, whatever hands them on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from graphc.graph import Graph, Operation, Tensor

_KEEPING = frozenset(
    {"FitLike", "Identity", "PutRow", "PutRowGrowing", "Slice", "StridedSlice", "ZerosLike"}
)
"""Ops that give their first operand, changed in place or cut, or something of its length."""


class ArrayFamilies:
    """Tensors that are one array at different times, and its gradients, as disjoint sets.

    A graph only grows, so a family is never taken apart; operations are read once.
    """

    def __init__(self) -> None:
        self._read = 0
        self._parent: dict[Tensor, Tensor] = {}
        #: What families have: an array that grows, a row that is written, exchanged loop variables.
        self._growing: set[Tensor] = set()
        self._written: set[Tensor] = set()
        self._exchanged: set[Tensor] = set()

    def update(self, graph: Graph) -> None:
        """Take in the operations that were declared since the last time."""
        new = list(itertools.islice(graph._ops.values(), self._read, None))
        self._read += len(new)
        for op in new:
            if op.type in _KEEPING:
                self.unite(op.inputs[0], op.outputs[0])
                root = self._root(op.outputs[0])
                if op.type == "PutRowGrowing":
                    self._growing.add(root)
                elif op.type == "PutRow":
                    self._written.add(root)
            elif op.type == "AddN":
                for t in op.inputs:
                    self.unite(t, op.outputs[0])
            elif "bodies" in op.attrs:
                self._hand_on(op)

    def grows(self, tensor: Tensor) -> bool:
        """Whether the array that a tensor is may be of another length elsewhere."""
        root = self._root(tensor)
        return root in self._growing or (root in self._written and root in self._exchanged)

    def _hand_on(self, op: Operation) -> None:
        """What an operation with bodies takes in and gives back is one array."""
        bodies = op.attrs["bodies"]
        if op.type == "Case":
            for body in bodies:
                for outside, inside in zip(op.outputs, body.results, strict=False):
                    self.unite(outside, inside)
            self._note_exchanged(op.outputs[: len(bodies[0].results)])
            return
        for k, first in enumerate(op.inputs[: len(bodies[1].params)]):
            self.unite(first, op.outputs[k])
            self.unite(first, bodies[0].params[k])
            self.unite(first, bodies[1].params[k])
            self.unite(first, bodies[1].results[k])
        self._note_exchanged(bodies[1].params)

    def _note_exchanged(self, tensors: Iterable[Tensor]) -> None:
        """Of several tensors that are one array, any may be any other's at another time."""
        seen: set[Tensor] = set()
        for t in tensors:
            root = self._root(t)
            if root in seen:
                self._exchanged.add(root)
            seen.add(root)

    def _root(self, tensor: Tensor) -> Tensor:
        parent = self._parent
        path = []
        while (above := parent.get(tensor, tensor)) is not tensor:
            path.append(tensor)
            tensor = above
        parent.update(dict.fromkeys(path, tensor))
        return tensor

    def unite(self, a: Tensor, b: Tensor) -> None:
        """Two tensors are one array."""
        a, b = self._root(a), self._root(b)
        if a is not b:
            self._parent[b] = a
            for kind in (self._growing, self._written, self._exchanged):
                if b in kind:
                    kind.add(a)


def _families(graph: Graph) -> ArrayFamilies:
    found = graph.scratch.setdefault(ArrayFamilies, ArrayFamilies())
    assert isinstance(found, ArrayFamilies)
    found.update(graph)
    return found


def grows(tensor: Tensor) -> bool:
    """Whether a tensor is an array, or a gradient of one, that is of another length elsewhere."""
    return _families(tensor.graph).grows(tensor)


def recalls(recalled: Tensor, tensor: Tensor) -> None:
    """A tensor on the way back is what an array was on the way forward."""
    _families(tensor.graph).unite(recalled, tensor)
