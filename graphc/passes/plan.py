"""What fusion decides: groups of operations, each one kernel, and what is inlined."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.dims import DimLike
from graphc.function import format_operation, format_tensor
from graphc.graph import Operation, Tensor


@dataclass(eq=False)
class Member:
    """An operation in a loop group.

    ``role``: ``point`` computes one element per iteration of the full frame, ``reduce`` one per
    row from all of the row, ``row`` one per row.  ``place`` maps each dimension of the output to
    the frame dimension that indexes it, None where the size is 1.
    """

    tensor: Tensor
    role: str
    place: tuple[int | None, ...]


@dataclass(eq=False)
class Group:
    """Operations computed by one kernel.

    Attributes:
      template: the operation computed by a template, or None for a loop group.
      frame: sizes of the loops; ``reduced`` marks those that reductions run over.
      members: in dependency order (for a template: the epilogue).
      outputs: the tensors that are stored.
      plain: the frame is of one operation whose reduced loops cannot be shared (those of a pooling
        window, say).
    """

    frame: tuple[DimLike, ...]
    reduced: tuple[int, ...]
    members: list[Member]
    template: Operation | None = None
    outputs: list[Tensor] = field(default_factory=list)
    plain: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        """The stored-candidate tensors that the group computes."""
        own = list(self.template.outputs) if self.template is not None else []
        return own + [m.tensor for m in self.members]


@dataclass(eq=False)
class Plan:
    """The result of fusion: groups in execution order, and what is inlined or an alias."""

    groups: list[Group]
    inlined: set[Tensor]
    aliases: dict[Tensor, Tensor]

    def root(self, tensor: Tensor) -> Tensor:
        """The tensor whose storage ``tensor`` uses."""
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor


def is_source(tensor: Tensor) -> bool:
    """A constant or an input of the function."""
    return tensor.op.type in ("Const", "Placeholder")


def is_literal(tensor: Tensor) -> bool:
    """A constant of one element, which every kernel spells out."""
    return tensor.op.type == "Const" and tensor.op.attrs["value"].size == 1


def is_view(op: Operation) -> bool:
    """Whether the output has the input's elements in the same order."""
    return bool(getattr(op.definition, "view", False))


def only_unit_dims(op: Operation) -> bool:
    """A view that only adds or drops dimensions of size 1."""
    a, b = op.inputs[0].sizes, op.outputs[0].sizes
    assert a is not None
    assert b is not None
    return [s for s in a if s != 1] == [s for s in b if s != 1]


def format_plan(plan: Plan) -> str:
    """The plan as text, one block per kernel; bodies have plans of their own."""
    lines = []
    for k, g in enumerate(plan.groups):
        frame = "x".join(str(s) for s in g.frame) or "scalar"
        reduced = f" reduced {list(g.reduced)}" if g.reduced else ""
        lines.append(f"kernel {k}: [{frame}]{reduced}")
        if g.template is not None:
            lines.append(f"  template {format_operation(g.template, with_bodies=False)}")
        lines += [f"  {m.role:6} {format_operation(m.tensor.op)}" for m in g.members]
        lines.append("  store " + ", ".join(format_tensor(t) for t in g.outputs))
    return "\n".join(lines) + "\n"
