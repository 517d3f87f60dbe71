"""Regions: operations that another operation owns and runs as it decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.graph.graph import Graph
    from graphc.graph.nodes import Operation, Tensor


class Region:
    """The body of a loop, a branch, a function: operations that do not run by themselves.

    They are operations of the graph like all others, with names, scopes and collections, and use
    tensors of the regions around them as they are; what they use so is found when the region's
    owner is made.

    Attributes:
      parent: the region around; None at the top level.
      depth: how many regions there are down to this one.
      params: tensors that stand for the values the owner passes in.
      results: tensors that are handed back to the owner.
      owner: the operation that runs the region; None while it is being declared.
      operations: what is in it, in the order of declaration.
      recalled: a region whose tensors may be used here although they are not visible: the forward
        computation of what this one differentiates.
      recall: gives a visible tensor that has the value of one of ``recalled``.
      reads: what is used in the place of tensors from around: see ``Operation.reads``.
    """

    def __init__(self, graph: Graph, name: str, parent: Region | None) -> None:
        self.graph = graph
        self.name = name
        self.parent = parent
        self.depth: int = 1 if parent is None else parent.depth + 1
        self.params: list[Tensor] = []
        self.results: list[Tensor] = []
        self.owner: Operation | None = None
        self.operations: list[Operation] = []
        self.recalled: Region | None = None
        self.recall: Callable[[Tensor], Tensor] | None = None
        self.reads: dict[Tensor, Tensor] = {}

    @property
    def carried(self) -> list[Tensor]:
        """The loop variables, where the owner is a loop."""
        return self.params

    @property
    def given(self) -> list[Tensor]:
        """What is handed back to the owner."""
        return self.results

    def __repr__(self) -> str:
        return f"<Region '{self.name}' of {len(self.operations)} operations>"

    def encloses(self, other: Region | None) -> bool:
        """Whether ``other`` is this region or lies in it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False
