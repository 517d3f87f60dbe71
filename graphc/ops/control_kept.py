"""What loops and branches in a body hand out for the region that goes back.

Of an operation in nested loops these are the values of all turns, a row for each; the loops that go
through the turns once more count them to find the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.build import constant, create, single
from graphc.graph import Operation, Region, Tensor, get_default_graph
from graphc.ops.control_build import as_rows, own_operands, save_output

Rows = Callable[[Tensor, Operation], Tensor]
"""Gives a stack that a loop has handed out of another one as rows, in the region of that one."""


class Kept:
    """Values that operations gave in loops and branches of a body.

    Args:
      home: the region that goes back.
      save: gives, in ``home``, the value that a tensor of the body had.
    """

    def __init__(self, home: Region, save: Callable[[Tensor], Tensor]) -> None:
        self._home = home
        self._save = save
        #: What is handed out, as ``home`` has it.
        self._lists: dict[Tensor, Tensor] = {}
        #: For every run of a loop, how many turns there were in those before it.
        self._before: dict[Operation, Tensor] = {}

    def value(
        self,
        tensor: Tensor,
        owners: Sequence[Operation],
        turns: Mapping[Operation, Tensor],
        rows: Rows,
    ) -> Tensor:
        """The value that ``tensor`` had in a turn, in the current region.

        Args:
          tensor: what an operation in ``owners`` gave, of which ``home`` knows nothing.
          owners: the loops and branches that the operation is in, the inner first.
          turns: the numbers of the turns of the loops among them.
          rows: see :data:`Rows`.
        """
        values = self.listed(tensor, owners, rows)
        if any(o.type == "While" for o in owners):
            return row(values, self.place(owners, turns))
        return values

    def listed(
        self, tensor: Tensor, owners: Sequence[Operation], rows: Rows, joined: bool = False
    ) -> Tensor:
        """The values of a tensor in ``home``: of one in loops those of all turns, a row for each.

        They are listed once: a tensor is always asked for with the same arguments.

        Args:
          tensor: as for :meth:`value`.
          owners: likewise.
          rows: likewise.
          joined: whether ``rows`` makes rows of what the innermost loop hands out, too.
        """
        found = self._lists.get(tensor)
        if found is not None:
            return found
        graph = get_default_graph()
        handed = tensor
        for owner in owners:
            handed = save_output(owner, handed)
            if owner.type == "While":
                if joined:
                    with graph.within(owner.region):
                        handed = rows(handed, owner)
                joined = True
        with graph.within(self._home):
            found = self._lists[tensor] = self._save(handed)
        return found

    def place(self, owners: Sequence[Operation], turns: Mapping[Operation, Tensor]) -> Tensor:
        """The number of the row that the values of a turn have, in the current region."""
        outer, *inner = [o for o in reversed(owners) if o.type == "While"]
        found = turns[outer]
        for loop in inner:
            first = row(self._turns_before(loop, owners), found)
            found = single(create("AddV2", (first, turns[loop])))
        return found

    def _turns_before(self, inner: Operation, owners: Sequence[Operation]) -> Tensor:
        """For every run of a loop in a loop, how many turns there were in those before it."""
        found = self._before.get(inner)
        if found is None:
            around = owners[owners.index(inner) + 1 :]
            counted = self.listed(
                inner.outputs[own_operands(inner)], around, lambda stack, _: as_rows(stack)
            )
            with get_default_graph().within(self._home):
                found = single(create("Cumsum", (counted, constant(0)), {"exclusive": True}))
            self._before[inner] = found
        return found


def row(rows: Tensor, number: Tensor) -> Tensor:
    """One of several rows."""
    return single(create("TakeRow", (rows, number), {"checked": False}))
