"""Copies of operations with bodies: for another region, or to run once more on the way back."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from graphc import dtypes
from graphc.build import constant, create, single
from graphc.dims import DimLike
from graphc.errors import GraphError
from graphc.graph import Operation, Region, Tensor, TensorType, get_default_graph
from graphc.ops.control_build import (
    as_rows,
    make_owner,
    own_operands,
    parameter,
    region,
    save_output,
)
from graphc.ops.control_kept import Kept
from graphc.ops.host import HostOp
from graphc.ops.random import stateless_form
from graphc.ops.random_counter import counts
from graphc.ops.state import is_assignment

Start = Callable[[Operation], Tensor]
Save = Callable[[Tensor], Tensor]


def copy_control(
    op: Operation, start: Start, passing: Callable[[Operation], bool], save: Save
) -> tuple[Operation, dict[Tensor, Tensor]]:
    """A copy of an operation and of what it owns, in the current region, that runs it again.

    With it comes the copy's output for each of the operation's: it may have others besides.

    What it reads of a region that is only recalled here is recalled.  Only what its values need is
    copied: nothing is assigned, printed or checked a second time.  Random operations give the
    numbers that they gave.

    Args:
      op: a While or a Case.
      start: the counter that a random operation in it began with, in the current region.
      passing: which operations would give something else by now, as reads of variables do that
        are assigned meanwhile.
      save: gives, in the current region, the value that a tensor of the region recalled had.
    Raises:
      GraphError: its values need those of an assignment or of a Python function that may be called
        only once, and which no loop can hand out: see :meth:`_Again.kept`.
    """
    copier = _Again(needed_inside(op), start, passing, save)
    new = copier.owner(op)
    return new, {t: copier.mapping[t] for t in op.outputs if t in copier.mapping}


def copy_body(op: Operation, mapping: dict[Any, Any]) -> Operation:
    """A copy of an operation and of what it owns, over other tensors; what has an effect has it."""
    copier = _Copier()
    copier.mapping = mapping
    return copier.owner(op)


def needed_inside(op: Operation) -> set[Operation]:
    """The operations in the bodies, and in theirs, that the values of an operation need."""
    found: set[Operation] = set()
    bodies: tuple[Region, ...] = op.attrs["bodies"]
    stack = _given(op)
    while stack:
        inner = stack.pop().op
        if inner in found or not any(body.encloses(inner.region) for body in bodies):
            continue
        found.add(inner)
        if "bodies" in inner.attrs:
            stack += [*inner.inputs[: own_operands(inner)], *_given(inner)]
        elif _passes(inner):
            stack.append(inner.inputs[0])
        else:
            stack += [*inner.inputs, *inner.attrs.get("of", ())]
    return found


def _given(op: Operation) -> list[Tensor]:
    """What the bodies of an operation hand out."""
    return [*(t for body in op.attrs["bodies"] for t in body.results), *op.attrs["saved"]]


def _passes(op: Operation) -> bool:
    """Whether the first output is the first operand."""
    return isinstance(op.definition, HostOp) and op.definition.passes


class _Copier:
    """Copies operations, regions and all; ``mapping`` gives the copies of what they name."""

    def __init__(self) -> None:
        self.graph = get_default_graph()
        self.mapping: dict[Any, Any] = {}

    def owner(self, op: Operation) -> Operation:
        """A copy of an operation with bodies."""
        graph, mapping = self.graph, self.mapping
        saved = list(op.attrs["saved"])
        outs = op.outputs[len(op.outputs) - len(saved) :]
        bodies = []
        for body in op.attrs["bodies"]:
            with region(body.name) as made:
                for inner in body.operations:
                    if inner.type == "Parameter":
                        self.visit(inner, made)
                more = self.more(op, body, made)
                for inner in body.operations:
                    if inner.type != "Parameter":
                        self.visit(inner, made)
                made.results = [graph.visible(mapping.get(t, t)) for t in body.results] + more
            bodies.append(made)
        first = [graph.visible(mapping.get(t, t)) for t in op.inputs[: own_operands(op)]]
        new = make_owner(op.type, bodies, [*first, *self.starts(op)], self.name(op))
        kept = op.outputs[: len(op.outputs) - len(saved)]
        mapping.update(zip(kept, new.outputs, strict=False))
        if op.type == "While":
            mapping[kept[-1]] = new.outputs[-1]
        for t, out in zip(saved, outs, strict=True):
            if t in mapping:
                found = mapping[t]
                inside = any(made.encloses(found.op.region) for made in bodies)
                mapping[out] = save_output(new, found) if inside else found
        return new

    def more(self, op: Operation, body: Region, made: Region) -> list[Tensor]:
        """Results of the copy of a body besides those of the body."""
        return []

    def starts(self, op: Operation) -> list[Tensor]:
        """The first values of the loop variables that the copy has besides those of the loop."""
        return []

    def name(self, op: Operation) -> str:
        """A name for the copy."""
        return self.graph.unique_name(op.name.rsplit("/", 1)[-1])

    def visit(self, op: Operation, into: Region) -> None:
        """Copy an operation of a body, after what it waits for."""
        before = [self.mapping[c] for c in op.control_inputs if c in self.mapping]
        with self.graph.control_dependencies(before):
            self.note(op, self.copied(op, into))

    def note(self, op: Operation, new: Operation) -> None:
        """``new`` is the copy."""
        new.gradient_rule = op.gradient_rule
        self.mapping[op] = new
        if "bodies" not in op.attrs:
            self.mapping.update(zip(op.outputs, new.outputs, strict=True))

    def attributes(self, op: Operation) -> dict[str, Any]:
        """What the copy has."""
        return op.attrs

    def copied(self, op: Operation, into: Region) -> Operation:
        """The copy."""
        if "bodies" in op.attrs:
            return self.owner(op)
        inputs = [self.mapping.get(t, t) for t in op.inputs]
        attrs, types = self.attributes(op), [t.type for t in op.outputs]
        if op.type == "RandomCounter":
            attrs = attrs | {"of": [self.mapping.get(t, t) for t in op.attrs["of"]]}
        new = self.graph.add_operation(
            op.definition, inputs, attrs, types, self.name(op), op.location
        )
        if op.type == "Parameter":
            into.params += new.outputs
        return new


class _Again(_Copier):
    """Copies what runs again, without its effects."""

    def __init__(
        self,
        needed: Container[Operation],
        start: Start,
        passing: Callable[[Operation], bool],
        save: Save,
    ) -> None:
        super().__init__()
        self.passing = passing
        self.needed = needed
        self.start = start
        self.home = self.graph.region
        #: The copy of what counts for a random operation, by its output.
        self.counters: dict[Tensor, Tensor] = {}
        #: The number of the turn in the copy of a loop, where something asks for it.
        self.turns: dict[Operation, Tensor] = {}
        assert self.home is not None
        #: What loops and branches have handed out for this copy.
        self.lists = Kept(self.home, save)

    def visit(self, op: Operation, into: Region) -> None:
        """Copy an operation of a body, if its value is needed."""
        if op not in self.needed and op.type != "Parameter":
            return
        if _passes(op):
            self.mapping[op.outputs[0]] = self.mapping.get(op.inputs[0], op.inputs[0])
        elif counts(op):
            self.repeat(op)
        elif op.type == "RandomCounter":
            self.note(op, create("RandomCounter", (), {"of": [self.counters[op.attrs["of"][0]]]}))
        elif self.happens_once(op):
            for t in op.outputs:
                self.mapping[t] = self.kept(t)
        else:
            self.note(op, self.copied(op, into))

    def happens_once(self, op: Operation) -> bool:
        """Whether the operation cannot run again: its value is kept."""
        if _passes(op) or counts(op) or op.type == "RandomCounter":
            return False
        once = is_assignment(op) or not (op.definition.pure or _repeatable(op))
        return once or self.passing(op)

    # --- values that are kept -------------------------------------------------------------------

    def more(self, op: Operation, body: Region, made: Region) -> list[Tensor]:
        """The number of the next turn, of a loop in which something happens once."""
        if op.type != "While" or not self._keeps(op):
            return []
        turn = parameter(made, TensorType(dtypes.int32, ()), "turn")
        if body is op.attrs["bodies"][0]:
            return []
        self.turns[op] = turn
        return [single(create("AddV2", (turn, constant(1))))]

    def starts(self, op: Operation) -> list[Tensor]:
        """The number of the first turn."""
        return [constant(0)] if op in self.turns else []

    def _keeps(self, op: Operation) -> bool:
        """Whether values of something in a loop are kept."""
        return any(
            (o in self.needed and self.happens_once(o)) or ("bodies" in o.attrs and self._keeps(o))
            for body in op.attrs["bodies"]
            for o in body.operations
        )

    def _owners(self, op: Operation) -> list[Operation]:
        """The loops and branches around an operation, up to what is recalled, the inner first.

        Raises:
          GraphError: it is in the condition of a loop, which hands out nothing.
        """
        assert self.home is not None
        found, region = [], op.region
        while region is not self.home.recalled:
            assert region is not None
            assert region.owner is not None
            owner = region.owner
            if owner.type == "While" and region is owner.attrs["bodies"][0]:
                what = (
                    "has an effect: that would have to run it twice"
                    if not self.passing(op)
                    else "reads a variable that is assigned meanwhile: read it in the body, and "
                    "let a loop variable have the value"
                )
                raise GraphError(
                    f"'{op.name}' ({op.type}, declared at {op.location}) is in the condition of a "
                    f"nested loop whose gradient is asked for, and {what}"
                )
            found.append(owner)
            region = owner.region
        return found

    def kept(self, tensor: Tensor) -> Tensor:
        """The value that an operation which cannot run again gave: what it is in hands it out.

        Loops hand out those of all their turns.

        Raises:
          GraphError: no loop can, as it is in a condition or of no shape that is known.
        """
        owners = self._owners(tensor.op)
        assert self.home is not None
        assert self.home.recalled is not None
        around = self.home.recalled.owner
        if any(o.type == "While" for o in owners) and around is not None and around.type == "While":
            # What a loop hands out is handed out of another one.
            _row_sizes(tensor)
        return self.lists.value(
            tensor, owners, self.turns, lambda stack, _: as_rows(stack, _row_sizes(tensor))
        )

    def attributes(self, op: Operation) -> dict[str, Any]:
        """What the copy has: see :func:`repeated`."""
        return repeated(op)

    def repeat(self, op: Operation) -> None:
        """The numbers that a random operation gave, by the counter that it had."""
        if op.type == "CountFrom" and op.inputs[0] in self.mapping:
            first = self.mapping[op.inputs[0]]  # It begins to count in what is copied.
        else:
            with self.graph.within(self.home):
                first = self.start(op)
        counter = single(create("CountFrom", (first,)))
        self.counters[op.outputs[0]] = counter
        if op.type == "CountFrom":
            self.mapping[op.outputs[0]] = counter
            return
        inputs = [self.graph.visible(self.mapping.get(t, t)) for t in op.inputs]
        name, operands, attrs = stateless_form(op, inputs, counter)
        self.mapping[op.outputs[0]] = single(create(name, operands, attrs))


def _row_sizes(tensor: Tensor) -> tuple[DimLike, ...]:
    """The shape of what happens once in loops in loops.

    Raises:
      GraphError: it is not known.
    """
    op, sizes = tensor.op, tensor.sizes
    if sizes is None or not all(isinstance(s, int) for s in sizes):
        raise GraphError(
            f"'{op.name}' ({op.type}, declared at {op.location}) has an effect, gives tensors of "
            "shapes that are not known, and is in a nested loop whose gradient is asked for: state "
            "the shape by set_shape"
        )
    return sizes


def repeated(op: Operation) -> dict[str, Any]:
    """The attributes of an operation that runs again: what it checks has been found right."""
    return op.attrs | {"checked": False} if "checked" in op.attrs else op.attrs


def _repeatable(op: Operation) -> bool:
    """Whether Python computes the operation, and may do so again."""
    return isinstance(op.definition, HostOp) and op.definition.repeatable(op)
