"""Which groups have the same kernel: layers of one form, turns that were unrolled.

A kernel is a function of the operations in its group, of how they are put together, and of what
the compiler knows of their operands; not of their names, nor of where the operands come from.
"""

from __future__ import annotations

from graphc.dims import product
from graphc.function import format_type
from graphc.graph import Tensor
from graphc.lower_operands import Lowering
from graphc.op import value_sizes
from graphc.passes.basic import attrs_key
from graphc.passes.plan import Group

SPELLED_BYTES = 1024
"""Constants of up to so many bytes may shape a kernel."""


def group_key(lowering: Lowering, group: Group) -> object:
    """Equal for groups whose kernels are equal but for the name, if they cannot fail."""
    return _Key(lowering, group).build()


class _Key:
    def __init__(self, lowering: Lowering, group: Group) -> None:
        self.lowering = lowering
        self.group = group
        self.own = set(group.tensors)
        self.buffers: dict[Tensor, int] = {}
        self.numbers: dict[Tensor, int] = {}
        self.parts: list[object] = []

    def build(self) -> object:
        """Everything that the kernel depends on, as something hashable."""
        group = self.group
        if group.template is not None:
            for t in group.template.outputs:
                self.tensor(t)
        members = [(m.role, m.place, self.tensor(m.tensor)) for m in group.members]
        stored = [(self.tensor(t), self.buffer(t), self.length(t)) for t in group.outputs]
        frame = ", ".join(str(s) for s in group.frame)
        return (
            frame, tuple(group.reduced), group.plain, group.template is None, tuple(members),
            tuple(stored), tuple(self.parts),
        )  # fmt: skip

    def buffer(self, tensor: Tensor) -> int:
        """The number of the tensor's storage, in the order in which storage is met."""
        root = self.lowering.storage(tensor)
        return self.buffers.setdefault(root, len(self.buffers))

    def length(self, tensor: Tensor) -> str:
        """The elements of the tensor's storage: of a view, those of what it is a view of."""
        return str(product(self.lowering.storage(tensor).sizes or ()))

    def tensor(self, tensor: Tensor) -> int:
        """The number of a tensor whose description is among the parts."""
        found = self.numbers.get(tensor)
        if found is not None:
            return found
        op, plan = tensor.op, self.lowering.plan
        known: object = format_type(tensor.type)
        if tensor.dtype.is_integer:
            known = (known, repr(value_sizes(tensor)))
        if op.type == "Const" and op.attrs["value"].nbytes <= SPELLED_BYTES:
            value = op.attrs["value"]
            part: object = ("const", known, str(value.dtype), value.tobytes(), self.buffer(tensor))
        elif tensor in plan.inlined or tensor in self.own:
            operands = tuple(self.tensor(t) for t in op.inputs)
            attrs = repr(attrs_key(op))
            inlined = tensor in plan.inlined
            part = (op.type, id(op.definition), tensor.index, inlined, attrs, known, operands)
        else:
            part = ("operand", known, self.buffer(tensor), self.length(tensor))
        self.parts.append(part)
        return self.numbers.setdefault(tensor, len(self.parts) - 1)
