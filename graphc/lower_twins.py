"""Which groups have the same kernel: layers of one form, turns that were unrolled.

A kernel is a function of the operations in its group, of how they are put together, and of what
the compiler knows of their operands; not of their names, nor of where the operands come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from graphc.dims import Dim, DimLike, Symbol, product, symbols_of
from graphc.graph import Operation, Tensor
from graphc.lower_operands import Lowering
from graphc.op import value_sizes
from graphc.passes.basic import attrs_key
from graphc.passes.plan import Group

SPELLED_BYTES = 1024
"""Constants of up to so many bytes may shape a kernel."""

_NAME = re.compile(r"[A-Za-z_]\w*")
_SYMBOL = re.compile(r"[A-Za-z_]\w*(?![\w(])")


def group_key(lowering: Lowering, group: Group, symbols: Iterable[Symbol]) -> object:
    """Equal for groups whose kernels are equal but for names, if they cannot fail.

    ``symbols`` are the sizes that the kernel takes as scalars, in order: one that serves several
    groups gets each one's own.
    """
    return _Key(lowering, group).build(tuple(symbols))


class _Key:
    """Sizes are written with their symbols numbered, in the order that symbols have among them.

    So whatever is put in order by symbols is in one order in all groups that have one key.
    """

    def __init__(self, lowering: Lowering, group: Group) -> None:
        self.lowering = lowering
        self.group = group
        self.own = set(group.tensors)
        self.buffers: dict[Tensor, int] = {}
        self.numbers: dict[Tensor, int] = {}
        self.parts: list[object] = []
        self.written: list[str] = []
        self.others: list[str] = []
        self.symbols: set[Symbol] = set()

    def build(self, scalars: tuple[Symbol, ...]) -> object:
        """Everything that the kernel depends on, as something hashable."""
        group = self.group
        if group.template is not None:
            for t in group.template.outputs:
                self.tensor(t)
        members = [(m.role, m.place, self.tensor(m.tensor)) for m in group.members]
        # What is written over another tensor's memory cannot keep anything else there before.
        stored = [
            (self.tensor(t), self.buffer(t), self.length(t), self.lowering.storage(t) is t)
            for t in group.outputs
        ]
        frame = self.sizes(group.frame)
        return (
            frame, tuple(group.reduced), group.plain, group.template is None, tuple(members),
            tuple(stored), tuple(self.parts), self.numbered(scalars),
        )  # fmt: skip

    def numbered(self, scalars: tuple[Symbol, ...]) -> object:
        """The sizes that were written, and what else is known of their symbols."""
        # Templates alone have a version for the sizes that were seen first.
        hints = self.lowering.hints if self.group.template is not None else {}
        ordered = sorted(self.symbols | {*scalars}, key=lambda s: s.sort_key)
        names = {s.name: f"s{k}" for k, s in enumerate(ordered)}
        known = tuple((s.positive, hints.get(s)) for s in ordered)
        plain = all(_NAME.fullmatch(name) for name in names)
        if not plain or any(n in names for text in self.others for n in _NAME.findall(text)):
            return tuple(self.written), tuple(names), known
        text = _SYMBOL.sub(lambda found: names.get(found[0], found[0]), "\n".join(self.written))
        return text, tuple(names[s.name] for s in scalars), known

    def sizes(self, sizes: Iterable[DimLike]) -> int:
        """Write sizes down; the number of the line."""
        sizes = tuple(sizes)
        for size in sizes:
            if not isinstance(size, int):
                self.symbols |= symbols_of(size)
        self.written.append(", ".join(map(str, sizes)))
        return len(self.written) - 1

    def buffer(self, tensor: Tensor) -> int:
        """The number of the tensor's storage, in the order in which storage is met."""
        root = self.lowering.storage(tensor)
        return self.buffers.setdefault(root, len(self.buffers))

    def length(self, tensor: Tensor) -> int:
        """The elements of the tensor's storage: of a view, those of what it is a view of."""
        return self.sizes([product(self.lowering.storage(tensor).sizes or ())])

    def tensor(self, tensor: Tensor) -> int:
        """The number of a tensor whose description is among the parts."""
        found = self.numbers.get(tensor)
        if found is not None:
            return found
        op, plan = tensor.op, self.lowering.plan
        line = -1 if tensor.sizes is None else self.sizes(tensor.sizes)
        known: object = (tensor.dtype.code, line)
        if tensor.dtype.is_integer and (values := value_sizes(tensor)) is not None:
            known = (known, self.sizes(values))
        if op.type == "Const" and op.attrs["value"].nbytes <= SPELLED_BYTES:
            value = op.attrs["value"]
            part: object = ("const", known, str(value.dtype), value.tobytes(), self.buffer(tensor))
        elif tensor in plan.inlined or tensor in self.own:
            operands = tuple(self.tensor(t) for t in op.inputs)
            inlined = tensor in plan.inlined
            attrs = self.attributes(op)
            part = (op.type, id(op.definition), tensor.index, inlined, attrs, known, operands)
        else:
            part = ("operand", known, self.buffer(tensor), self.length(tensor))
        self.parts.append(part)
        return self.numbers.setdefault(tensor, len(self.parts) - 1)

    def attributes(self, op: Operation) -> object:
        """The attributes, with the numbers of the lines of those that are sizes."""
        found: list[object] = []
        for name, value in attrs_key(op):
            if isinstance(value, tuple) and any(isinstance(v, Dim) for v in value):
                some = [v for v in value if isinstance(v, (int, Dim))]
                others = [None if isinstance(v, (int, Dim)) else v for v in value]
                found.append((name, self.sizes(some), self.other(others)))
            elif isinstance(value, Dim):
                found.append((name, self.sizes([value])))
            else:
                found.append((name, self.other(value)))
        return tuple(found)

    def other(self, value: object) -> str:
        """What is no size, as text: were a symbol in it, none could be numbered."""
        self.others.append(repr(value))
        return self.others[-1]
