"""Arrays that a loop writes row by row, as the loop that goes back needs them.

To save an array that every turn changes in a few rows would take memory in the square of the turns.
What is saved are the rows that were replaced, and their numbers.  The loop that goes back carries
the array: it begins with the last value, and every turn puts the rows back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from graphc import dtypes
from graphc.build import constant, create, single
from graphc.graph import Operation, Region, Tensor, get_default_graph
from graphc.ops.control_build import parameter, save_output
from graphc.ops.control_growing import recalls
from graphc.ops.control_undo import WRITES, Group, Undo, place_of, turn_groups
from graphc.ops.shaping_slice import getitem


def _call(name: str, *inputs: object, **attrs: object) -> Tensor:
    return single(create(name, inputs, attrs))


def grows_inside(op: Operation) -> bool:
    """Whether an array grows in the operation, or in one of its bodies."""
    bodies = op.attrs.get("bodies", ())
    inside = (o for body in bodies for o in body.operations)
    return op.type == "PutRowGrowing" or any(grows_inside(o) for o in inside)


def _by_rows(tensor: Tensor) -> bool:
    """Whether an array, and what becomes of it in its body by writes, is read by single rows only.

    Then nothing sees whether it has more rows than it had.
    """
    home = tensor.op.region
    assert home is not None
    arrays, size = {tensor}, 0
    while len(arrays) > size:
        size = len(arrays)
        if not all(_reads_rows(op, arrays) for op in home.operations):
            return False
    return True


def _reads_rows(op: Operation, arrays: set[Tensor]) -> bool:
    """Whether an operation reads ``arrays`` by single rows only; adds what it makes of them."""
    bodies: tuple[Region, ...] = op.attrs.get("bodies", ())
    if not all(_reads_rows(inner, arrays) for body in bodies for inner in body.operations):
        return False
    if bodies:
        given = {k for body in bodies for k, t in enumerate(body.results) if t in arrays}
        if op.type == "While":
            count = len(bodies[1].params)
            given |= {k for k, t in enumerate(op.inputs[:count]) if t in arrays}
            arrays.update(body.params[k] for body in bodies for k in given)
        arrays.update(op.outputs[k] for k in given)
        return arrays.isdisjoint(op.attrs["saved"])
    used = [k for k, t in enumerate(op.inputs) if t in arrays]
    if used == [0] and op.type in (*WRITES, "Identity"):
        arrays.add(op.outputs[0])
    elif used == [1] and op.type == "AsRows":
        return True
    elif used:
        return used == [0] and op.type == "TakeRow"
    return True


# --- gradients of rows that are read --------------------------------------------------------------


def is_rows(part: Tensor) -> bool:
    """Whether a gradient is that of reading rows: zeros but for them.

    A choice may be among such gradients: a branch reads some rows, and another one others.
    """
    op = part.op
    if op.type == "PutRow":
        zeros = op.inputs[0]
        near = zeros.op.region is op.region and zeros.op.type != "While"
        return bool(op.attrs["add"]) and near and is_rows(zeros)
    if op.type == "Case":
        number = op.outputs.index(part)
        bodies: tuple[Region, ...] = op.attrs["bodies"]
        given = [b.results[number] for b in bodies if number < len(b.results)]
        # What a loop adds up there are no rows that could be handed out.
        inside = all(
            r.op.region is b and r.op.type != "While" for r, b in zip(given, bodies, strict=False)
        )
        return bool(given) and inside and all(is_rows(r) for r in given)
    return op.type == "ZerosLike" or _is_sum_of_rows(part)


def _is_sum_of_rows(part: Tensor) -> bool:
    """Whether a loop has made a gradient by adding rows, to zeros at first."""
    op = part.op
    number = op.outputs.index(part)
    if op.type != "While" or number >= len(op.attrs["bodies"][1].params):
        return False
    body: Region = op.attrs["bodies"][1]
    version = body.results[number]
    while version.op.type == "PutRow" and version.op.attrs["add"] and version.op.region is body:
        version = version.op.inputs[0]
    return version is body.params[number] and op.inputs[number].op.type == "ZerosLike"


def _rows(part: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The rows of such a gradient, in its region, with the numbers that they have."""
    op = part.op
    if op.type == "PutRow":
        return [*_rows(op.inputs[0]), (op.inputs[1], op.inputs[2])]
    if op.type != "Case":
        return []
    found = []
    number = op.outputs.index(part)
    for body in op.attrs["bodies"]:
        with get_default_graph().within(body):
            rows = [(place_of(index), row) for index, row in _rows(body.results[number])]
        for place, row in rows:
            # Where another branch has run, zeros are handed out in the place of both.
            index = _call("Sub", save_output(op, place), constant(1, dtypes.int64))
            found.append((index, save_output(op, row) if body.encloses(row.op.region) else row))
    return found


def _is_read(tensor: Tensor) -> bool:
    """Whether some operation reads a tensor."""
    younger = itertools.takewhile(
        lambda o: o.serial > tensor.op.serial, reversed(tensor.graph._ops.values())
    )
    return any(tensor in o.inputs for o in younger)


def added(
    total: Tensor, part: Tensor, fit: Callable[[Tensor, Tensor], Tensor], alone: bool
) -> Tensor:
    """The sum of two gradients; rows are added in place, without zeros for all the others.

    ``fit(part, total)`` is the part as long as the total, where that may be of another length;
    ``alone`` says that the part belongs to no other gradient.
    """
    op = part.op
    after = op.type == "While" and total.op.serial < op.serial
    if after and alone and is_rows(part) and not _is_read(part):
        # The loop adds its rows to what there is, and nobody asks for its rows by themselves.
        number = op.outputs.index(part)
        op.inputs = (*op.inputs[:number], total, *op.inputs[number + 1 :])
        return part
    if op.type == "While" or not is_rows(part):
        return _call("AddV2", total, fit(part, total))
    for index, row in _rows(part):
        total = _call("PutRow", total, index, row, add=True)
    return total


# --- what the way back carries --------------------------------------------------------------------


class CarriedArrays:
    """The arrays that the loop that goes back carries.

    Args:
      op: the loop that went forward.
      regions: the condition and the body of the loop that goes back: an array is a parameter of
        both.
      save: gives, in the body that goes back, the value that a tensor of the forward body had.

    Attributes:
      numbers: the loop variables that are carried, in the order in which they are asked for.
      again: for a value of an array, in the body that goes back, the same value after something
        that has changed it and changed it back: an inner loop that ran again, and its gradient.
    """

    def __init__(
        self, op: Operation, regions: Sequence[Region], save: Callable[[Tensor], Tensor]
    ) -> None:
        self.op = op
        self.regions = regions
        self.save = save
        self.numbers: list[int] = []
        self.again: dict[Tensor, Tensor] = {}
        self._before: list[Tensor] = []
        self._undo = Undo(regions[-1], save)
        #: The loop variables whose arrays change places, by any of their values in a turn.
        self._groups: dict[Tensor, Group] = {}
        for group in turn_groups(op.attrs["bodies"][1]):
            if group.writes:
                self._groups.update(dict.fromkeys(group.tensors, group))

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether a tensor of the forward body is a value of an array that is carried."""
        return tensor in self._groups

    def recalled(self, tensor: Tensor) -> dict[Tensor, Tensor]:
        """All values that an array had in the turn, ``tensor`` among them.

        Those of arrays with which it changes places are there, too.
        """
        group = self._groups[tensor]
        types = [self.op.outputs[k].type for k in group.numbers]
        params: list[list[Tensor]] = []
        for region_ in self.regions:
            with get_default_graph().within(region_):
                params.append([parameter(region_, t, "Parameter") for t in types])
        found = dict(zip(group.newest, params[-1], strict=True))
        for result, array in found.items():
            recalls(array, result)
        self._undo.over(group.steps, found)
        self.numbers += group.numbers
        body: Region = self.op.attrs["bodies"][1]
        self._before += [found[body.params[k]] for k in group.numbers]
        lengths = {(t.sizes or (None,))[0] for t in group.tensors}
        same = len(group.numbers) == 1 or (len(lengths) == 1 and isinstance(lengths.pop(), int))
        if not same or any(grows_inside(t.op) for t in group.tensors):
            found = {t: a if _by_rows(t) else self.cut(t, a) for t, a in found.items()}
        return found

    @property
    def starts(self) -> list[Tensor]:
        """The first values of the arrays in the loop that goes back."""
        return [self.op.outputs[k] for k in self.numbers]

    @property
    def results(self) -> list[Tensor]:
        """Their values for its next turn: the last that are the same, so that none is copied."""
        found = []
        for tensor in self._before:
            while tensor in self.again:
                tensor = self.again[tensor]
            found.append(tensor)
        return found

    def cut(self, tensor: Tensor, array: Tensor) -> Tensor:
        """The array as long as it was."""
        with get_default_graph().within(tensor.op.region):
            sizes = _call("Shape", tensor)
        return getitem(array, slice(0, getitem(self.save(sizes), 0)))
