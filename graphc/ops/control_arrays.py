"""Arrays that a loop writes row by row, as the loop that goes back needs them.

To save an array that every turn changes in a few rows would take memory in the square of the turns.
What is saved are the rows that were replaced, and their numbers.  The loop that goes back carries
the array: it begins with the last value, and every turn puts the rows back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc import dtypes
from graphc.build import constant, create, single
from graphc.graph import Operation, Region, Tensor, get_default_graph
from graphc.ops.control_build import as_rows, make_owner, parameter, region, save_output
from graphc.ops.control_growing import recalls
from graphc.ops.shaping_slice import getitem

WRITES = ("PutRow", "PutRowGrowing")


def _call(name: str, *inputs: object, **attrs: object) -> Tensor:
    return single(create(name, inputs, attrs))


@dataclass(frozen=True)
class Write:
    """A row that was replaced, in tensors of the body of a loop.

    Attributes:
      place: one more than the row's number; 0 where nothing was written.
      before: the row as it was.
    """

    place: Tensor
    before: Tensor

    def handed(self, op: Operation) -> Write:
        """The same, as an operation hands it out of one of its bodies."""
        # Where another branch has run both are zeros, which stands for no row.
        return Write(save_output(op, self.place), save_output(op, self.before))

    def undone(self, array: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """The array before, in the current region, where ``value`` gives what tensors were."""
        # Neither is computed again: that may take the array itself.
        index = _call("Sub", value(self.place), constant(1, dtypes.int64))
        return _call("PutRow", array, index, value(self.before))

    def listed(self) -> Write:
        """The same as a list of one row, in the current region."""
        front = constant(0)
        return Write(
            _call("ExpandDims", self.place, front), _call("ExpandDims", self.before, front)
        )


@dataclass(frozen=True)
class Turns:
    """Rows that an inner loop has replaced: writes of one turn, stacked over all of them."""

    writes: tuple[Write, ...]

    def handed(self, op: Operation) -> Turns:
        """The same, as an operation hands it out of one of its bodies."""
        return Turns(tuple(w.handed(op) for w in self.writes))

    def listed(self) -> Write:
        """The same as one list of rows, the first one first, in the current region."""
        if len(self.writes) == 1:
            return self.writes[0]
        turns = self.writes[::-1]
        before = single(create("Pack", [[w.before for w in turns]], {"axis": 1}))
        place = single(create("Pack", [[w.place for w in turns]], {"axis": 1}))
        return Write(as_rows(place), _call("AsRows", before, turns[0].before))

    def undone(self, array: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """The array before, in the current region, where ``value`` gives what tensors were."""
        stacks = {t: value(t) for w in self.writes for t in (w.place, w.before)}
        turns = getitem(_call("Shape", stacks[self.writes[0].place]), 0)
        with region("rows are left") as more:
            turn = parameter(more, turns.type, "Parameter")
            parameter(more, array.type, "Parameter")
            more.results = [_call("Greater", turn, constant(0, turn.dtype))]
        with region("rows put back") as back:
            turn = parameter(back, turns.type, "Parameter")
            rows = parameter(back, array.type, "Parameter")
            turn = _call("Sub", turn, constant(1, turn.dtype))
            for write in self.writes:
                rows = write.undone(
                    rows, lambda t: _call("TakeRow", stacks[t], turn, checked=False)
                )
            back.results = [turn, rows]
        name = get_default_graph().unique_name("While")
        return make_owner("While", (more, back), [turns, array], name).outputs[1]


def versions(newest: Tensor, home: Region) -> list[Tensor] | None:
    """What an array was before ``newest``, by writes of single rows: the oldest value is last.

    None where something else has made it than a parameter of ``home`` and such writes.
    """
    found = [newest]
    while found[-1].op.region is home:
        if found[-1].op.type == "Parameter":
            return found
        older = _older(found[-1])
        if older is None:
            return None
        found.append(older)
    return None


def _older(tensor: Tensor) -> Tensor | None:
    """The array before the operation that gives ``tensor`` has written to it."""
    op = tensor.op
    if op.type in WRITES or (op.type == "Identity" and not op.control_inputs):
        return op.inputs[0]
    if op.type == "While":
        return op.inputs[op.outputs.index(tensor)] if _chain_of_turn(tensor) else None
    if op.type != "Case":
        return None
    bodies: tuple[Region, ...] = op.attrs["bodies"]
    number = op.outputs.index(tensor)
    if number >= len(bodies[0].results):
        return None
    bases = {_base(body, body.results[number]) for body in bodies}
    return bases.pop() if len(bases) == 1 else None


def _base(body: Region, newest: Tensor) -> Tensor | None:
    """The array from around that a branch has written to."""
    found: Tensor | None = newest
    while found is not None and body.encloses(found.op.region):
        found = _older(found)
    return found


def _chain_of_turn(tensor: Tensor) -> list[Tensor]:
    """What an array that an inner loop gives was in a turn of it; see :func:`versions`.

    Empty where it is not the same array in all turns.
    """
    op = tensor.op
    body: Region = op.attrs["bodies"][1]
    number = op.outputs.index(tensor)
    if number >= len(body.params):
        return []
    chain = versions(body.results[number], body)
    if chain is None or chain[-1] is not body.params[number]:
        return []
    return chain


def _writes_to(tensor: Tensor) -> bool:
    """Whether the operation that gives a version of an array writes to it at all."""
    op = tensor.op
    if op.type == "While":
        return any(map(_writes_to, _chain_of_turn(tensor)))
    if op.type != "Case":
        return op.type in WRITES
    number = op.outputs.index(tensor)
    return any(written(body.results[number], body) for body in op.attrs["bodies"])


def _writes(tensor: Tensor) -> list[Write | Turns]:
    """The rows that the operation which gives ``tensor`` has replaced, the last one first."""
    op = tensor.op
    if op.type in WRITES:
        array, index = op.inputs[:2]
        with get_default_graph().within(op.region):
            return [Write(_place(index), _call("TakeRow", array, index, checked=False))]
    if op.type == "While":
        turn = [w for t in _chain_of_turn(tensor) for w in _writes(t)]
        return [_stacked(turn, op, op.outputs.index(tensor))] if turn else []
    found: list[Write | Turns] = []
    if op.type != "Case":
        return found
    number = op.outputs.index(tensor)
    for body in op.attrs["bodies"]:
        version = body.results[number]
        while body.encloses(version.op.region):
            found += [write.handed(op) for write in _writes(version)]
            older = _older(version)
            assert older is not None
            version = older
    return found


def _stacked(turn: Sequence[Write | Turns], loop: Operation, number: int) -> Turns:
    """What all turns of an inner loop have replaced of its variable ``number``."""
    if all(isinstance(w, Write) for w in turn):
        return Turns(tuple(w.handed(loop) for w in turn if isinstance(w, Write)))
    # A loop in the loop has replaced another number of rows in every turn: they are all listed.
    with get_default_graph().within(loop.attrs["bodies"][1]):
        first_to_last = [w.listed() for w in reversed(turn)]
        place = _joined([w.place for w in first_to_last])
        before = _joined([w.before for w in first_to_last])
    with get_default_graph().within(loop.region):
        places = as_rows(save_output(loop, place))
        rows = _call("AsRows", save_output(loop, before), loop.inputs[number])
    return Turns((Write(places, rows),))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Lists of rows, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return single(create("ConcatV2", [list(parts), constant(0)]))


def _place(index: Tensor) -> Tensor:
    """One more than the number of a row."""
    if index.dtype.base_dtype is not dtypes.int64:
        index = _call("Cast", index, DstT=dtypes.int64)
    return _call("AddV2", index, constant(1, dtypes.int64))


def grows_inside(op: Operation) -> bool:
    """Whether an array grows in the operation, or in one of its bodies."""
    bodies = op.attrs.get("bodies", ())
    inside = (o for body in bodies for o in body.operations)
    return op.type == "PutRowGrowing" or any(grows_inside(o) for o in inside)


def written(newest: Tensor, body: Region) -> bool:
    """Whether a body has made an array by writes of single rows to another one."""
    version: Tensor | None = newest
    while version is not None and body.encloses(version.op.region):
        if _writes_to(version):
            return True
        version = _older(version)
    return False


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
            rows = [(_place(index), row) for index, row in _rows(body.results[number])]
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
        body: Region = op.attrs["bodies"][1]
        #: What arrays were in a turn, by the loop variable that has them after it.
        self.chains = {
            k: found for k, t in enumerate(body.results) if (found := versions(t, body)) is not None
        }
        #: The loop variables whose arrays change places, by any of their values in a turn.
        self.cycles: dict[Tensor, list[int]] = {}
        for k in self.chains:
            cycle = self._cycle(k)
            tensors = [t for n in cycle for t in self.chains[n]]
            if any(map(_writes_to, tensors)):
                self.cycles.update(dict.fromkeys(tensors, cycle))

    def _cycle(self, first: int) -> list[int]:
        """The loop variables that an array goes through until it comes back to ``first``.

        Empty where it does not: then what it was is lost.
        """
        params = self.op.attrs["bodies"][1].params
        found = [first]
        while True:
            # A turn leaves in the last one what was in this one before.
            before = params.index(self.chains[found[-1]][-1])
            if before == first:
                return found
            if before in found or before not in self.chains:
                return []
            found.append(before)

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether a tensor of the forward body is a value of an array that is carried."""
        return tensor in self.cycles

    def recalled(self, tensor: Tensor) -> dict[Tensor, Tensor]:
        """All values that an array had in the turn, ``tensor`` among them.

        Those of arrays with which it changes places are there, too.
        """
        cycle = self.cycles[tensor]
        types = [self.op.outputs[k].type for k in cycle]
        params: list[list[Tensor]] = []
        for region_ in self.regions:
            with get_default_graph().within(region_):
                params.append([parameter(region_, t, "Parameter") for t in types])
        found: dict[Tensor, Tensor] = {}
        for k, array in zip(cycle, params[-1], strict=True):
            chain = self.chains[k]
            recalls(array, chain[0])
            found[chain[0]] = array
            for newer, older in itertools.pairwise(chain):
                for write in _writes(newer):
                    array = write.undone(array, self.save)
                found[older] = array
        self.numbers += cycle
        body: Region = self.op.attrs["bodies"][1]
        self._before += [found[body.params[k]] for k in cycle]
        lengths = {(t.sizes or (None,))[0] for k in cycle for t in self.chains[k]}
        same = len(cycle) == 1 or (len(lengths) == 1 and isinstance(lengths.pop(), int))
        if not same or any(grows_inside(t.op) for k in cycle for t in self.chains[k]):
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
