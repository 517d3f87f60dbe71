"""Copies of operations with bodies: for another region, or to run once more on the way back."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from graphc.build import create, single
from graphc.errors import GraphError
from graphc.graph import Operation, Region, Tensor, get_default_graph
from graphc.ops.control_build import make_owner, region, save_output
from graphc.ops.host import HostOp
from graphc.ops.random import stateless_form
from graphc.ops.random_counter import counts
from graphc.ops.state import is_assignment

Start = Callable[[Operation], Tensor]


def copy_control(
    op: Operation, start: Start, passing: Callable[[Operation], bool]
) -> Operation:
    """A copy of an operation and of what it owns, in the current region, that runs it again.

    What it reads of a region that is only recalled here is recalled.  Only what its values need is
    copied: nothing is assigned, printed or checked a second time.  Random operations give the
    numbers that they gave.

    Args:
      op: a While or a Case.
      start: the counter that a random operation in it began with, in the current region.
      passing: which operations would give something else by now, as reads of variables do that
        are assigned meanwhile.
    Raises:
      GraphError: its values need those of an assignment or of a Python function that may be called
        only once.
    """
    return _Again(needed_inside(op), start, passing).owner(op)


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


def own_operands(op: Operation) -> int:
    """How many operands come before what the bodies use from around."""
    return len(op.attrs["bodies"][1].params) if op.type == "While" else 1


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
        bodies = []
        for body in op.attrs["bodies"]:
            with region(body.name) as made:
                for inner in body.operations:
                    self.visit(inner, made)
                made.results = [graph.visible(mapping.get(t, t)) for t in body.results]
            bodies.append(made)
        first = [graph.visible(mapping.get(t, t)) for t in op.inputs[: own_operands(op)]]
        new = make_owner(op.type, bodies, first, self.name(op))
        for t in op.attrs["saved"]:
            if t in mapping:
                save_output(new, mapping[t])
        return new

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
        # What is saved because of the copy itself comes last, and is not in it.
        self.mapping.update(zip(op.outputs, new.outputs, strict=False))

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
    ) -> None:
        super().__init__()
        self.passing = passing
        self.needed = needed
        self.start = start
        self.home = self.graph.region
        #: The copy of what counts for a random operation, by its output.
        self.counters: dict[Tensor, Tensor] = {}

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
        elif is_assignment(op) or not (op.definition.pure or _repeatable(op)):
            for t in op.outputs:
                self.mapping[t] = self.kept(t)
        elif self.passing(op) and self.in_branches(op):
            self.mapping[op.outputs[0]] = self.kept(op.outputs[0])
        else:
            self.note(op, self.copied(op, into))

    def in_branches(self, op: Operation) -> bool:
        """Whether nothing but branches lies between an operation and what is recalled."""
        assert self.home is not None
        region = op.region
        while region is not None and region is not self.home.recalled:
            if region.owner is None or region.owner.type != "Case":
                return False
            region = region.owner.region
        return region is not None

    def kept(self, tensor: Tensor) -> Tensor:
        """The value that an effect in a branch gave: the branch hands it out.

        Raises:
          GraphError: it is in a nested loop, which would give one in every turn.
        """
        op, region = tensor.op, tensor.op.region
        assert self.home is not None
        if not self.in_branches(op):
            raise GraphError(
                f"'{op.name}' ({op.type}, declared at {op.location}) has an effect, and is in a "
                "nested loop whose gradient is asked for: that would have to run it twice"
            )
        while region is not self.home.recalled:
            assert region is not None
            assert region.owner is not None
            tensor, region = save_output(region.owner, tensor), region.owner.region
        with self.graph.within(self.home):
            return self.graph.visible(tensor)

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


def repeated(op: Operation) -> dict[str, Any]:
    """The attributes of an operation that runs again: what it checks has been found right."""
    return op.attrs | {"checked": False} if "checked" in op.attrs else op.attrs


def _repeatable(op: Operation) -> bool:
    """Whether Python computes the operation, and may do so again."""
    return isinstance(op.definition, HostOp) and op.definition.repeatable(op)
