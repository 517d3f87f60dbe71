"""A graph with a boundary: what passes rewrite, printers print and the lowering lowers.

A :class:`Function` is a copy of part of a user's graph, free of state: every input is an explicit
:class:`Input` (a feed, a variable's value before the run, a counter), every result an explicit
:class:`Output` (a fetch, a variable's value after the run).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graphc.dims import DimLike, Symbol
from graphc.graph import Graph, Operation, Tensor, TensorType


@dataclass(frozen=True, eq=False)
class Input:
    """A value that comes from outside.

    Attributes:
      kind: ``feed``; ``variable`` (its value before the run); ``prepared``, a fetch of the
        function's ``prepared``, by its key.  Of a body: ``carry``, a loop variable, in order;
        ``capture``, an operand of the body's owner, whose number is the key.
      tensor: the placeholder in the function's graph.
      source: the user's tensor (feed) or the variable's operation.
      key: what the session stores the variable under.
      raw: the sizes before any assumption: what a run binds and the guards compare.
    """

    kind: Literal["feed", "variable", "prepared", "carry", "capture"]
    tensor: Tensor
    source: Any
    key: str
    raw: tuple[DimLike, ...]


@dataclass(frozen=True, eq=False)
class Output:
    """A value that goes out: a fetch, or a variable's value after the run.

    An ``update`` has the shape of the variable's buffer and is written there; a ``store`` has
    another shape: it goes out like a fetch, and the session keeps it as the new buffer.  A
    ``check`` is computed because it can make the run fail, and goes nowhere.  ``sizes`` are those
    of a fetch of unknown rank, whose number is the key.  Of a body: an ``update`` is the next
    value of a loop variable, a ``result`` goes to the owner.
    """

    kind: Literal["fetch", "sizes", "update", "store", "check", "result"]
    tensor: Tensor
    source: Any
    key: str


@dataclass(frozen=True)
class Guard:
    """An assumption about sizes that a run must meet: ``left == right``.

    ``reason`` says which operation of the user's needs it, if any does.
    """

    left: DimLike
    right: DimLike
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.left} == {self.right}"


@dataclass(frozen=True, eq=False)
class Late:
    """A size that a run learns from an element of an integer tensor of the function.

    Attributes:
      symbol: the size.
      tensor, element: where it comes from.
      source: the user's tensor, where its value could be computed beforehand; else None.
    """

    symbol: Symbol
    tensor: Tensor
    element: int
    source: Tensor | None


@dataclass(eq=False)
class Function:
    """A pure graph with inputs and outputs.

    Attributes:
      graph: the operations.
      inputs, outputs: the boundary.
      guards: what was assumed of the symbols.
      late: sizes that are elements of integer tensors, learnt in the course of a run.
      env: the inference environment that holds the assumptions.
      consulted: variables whose being initialized or not shaped the function.
      prepared: what is computed once for each state of the variables, apart from the runs.
      origin: operations of the user's graph by the name of their copy, for error messages.
    """

    graph: Graph
    inputs: list[Input]
    outputs: list[Output]
    guards: list[Guard] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    origin: dict[str, Operation] = field(default_factory=dict)
    env: Any = None
    consulted: frozenset[str] = frozenset()
    prepared: Function | None = None

    @property
    def operations(self) -> list[Operation]:
        """Every operation, producers before consumers."""
        return self.graph.get_operations()

    def results(self) -> list[Tensor]:
        """The tensors that must be computed."""
        return [*(o.tensor for o in self.outputs), *(s.tensor for s in self.late)]

    @property
    def carried(self) -> list[Tensor]:
        """The loop variables, of a loop's body."""
        return [i.tensor for i in self.inputs if i.kind == "carry"]

    @property
    def given(self) -> list[Tensor]:
        """What is handed back to the owner, of a body."""
        return [o.tensor for o in self.outputs if o.kind in ("update", "result")]

    def binders(self) -> dict[Symbol, Tensor]:
        """The tensors whose computation tells a size that no input does."""
        found = {s.symbol: s.tensor for s in self.late}
        for op in self.operations:
            for symbol in op.attrs.get("symbols", ()):
                found[symbol] = op.outputs[0]
        return found


class Rebuilder:
    """Copies a function operation by operation; passes decide what each becomes.

    ``map`` takes tensors of the old graph to tensors of the new one; ``late`` and ``checks`` are
    sizes and outputs that come from a body into the function around.
    """

    def __init__(self, old: Function) -> None:
        self.old = old
        self.graph = Graph()
        self.graph.env = old.env
        self.map: dict[Tensor, Tensor] = {}
        self.origin: dict[str, Operation] = {}
        self.late: list[Late] = []
        self.checks: list[Output] = []

    def get(self, tensor: Tensor) -> Tensor:
        """The new tensor for an old one."""
        return self.map[tensor]

    def copy(
        self,
        op: Operation,
        inputs: Sequence[Tensor] | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> Operation:
        """The same operation over the mapped inputs, with the same types."""
        inputs = [self.map[t] for t in op.inputs] if inputs is None else inputs
        name = op.name if op.name not in self.graph._ops else self.graph.unique_name(op.name)
        types = [t.type for t in op.outputs]
        new = self.graph.add_operation(
            op.definition, inputs, attrs or op.attrs, types, name, op.location
        )
        if op.name in self.old.origin:
            self.origin[name] = self.old.origin[op.name]
        for a, b in zip(op.outputs, new.outputs, strict=True):
            self.map[a] = b
            if self.old.env is not None:
                self.old.env.stands_for(b, a)
        return new

    def finish(self) -> Function:
        """The new function, its boundary mapped; the old one, where no operation differs."""
        old = self.old
        if self._is_copy():
            return old
        inputs = [Input(i.kind, self.map[i.tensor], i.source, i.key, i.raw) for i in old.inputs]
        outputs = [Output(o.kind, self.map[o.tensor], o.source, o.key) for o in old.outputs]
        late = [
            Late(s.symbol, self.map[s.tensor], s.element, s.source)
            for s in old.late
            if s.tensor in self.map
        ]
        late += self.late
        outputs += self.checks
        return Function(
            self.graph, inputs, outputs, old.guards, late, self.origin, old.env, old.consulted,
            old.prepared,
        )  # fmt: skip

    def _is_copy(self) -> bool:
        """Whether all operations were copied in their order, and stand for the old ones."""
        before, after = self.old.graph._ops, self.graph._ops
        if self.late or self.checks or len(before) != len(after):
            return False
        image = self.map
        for old, new in zip(before.values(), after.values(), strict=True):
            if old.definition is not new.definition or old.name != new.name:
                return False
            if old.attrs is not new.attrs:
                return False
            if len(old.inputs) != len(new.inputs) or len(old.outputs) != len(new.outputs):
                return False
            if any(image.get(a) is not b for a, b in zip(old.inputs, new.inputs, strict=True)):
                return False
            for a, b in zip(old.outputs, new.outputs, strict=True):
                if image.get(a) is not b or a.type is not b.type:
                    return False
        return True

    def expand(self, op: Operation, build: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> None:
        """Put what ``build`` declares over the mapped inputs in the place of ``op``."""
        new = self.declared(op, lambda: build([self.map[t] for t in op.inputs]))
        self.map.update(zip(op.outputs, new, strict=True))

    def declared(
        self, op: Operation, build: Callable[[], Sequence[Tensor]]
    ) -> Sequence[Tensor]:
        """What ``build`` declares on behalf of ``op``.

        Names and locations are carried over here, so that no rule has to.
        """
        first = len(self.graph._ops)
        self.graph.provenance = op.location
        graph = self.graph
        with graph.as_default(), graph.name_scope(None), graph.name_scope(op.name):
            new = build()
        self.graph.provenance = None
        source = self.old.origin.get(op.name)
        if source is not None:
            for added in list(self.graph._ops.values())[first:]:
                self.origin[added.name] = source
        return new


def with_expanded(
    fn: Function,
    chosen: Collection[Operation],
    rule: Callable[[Operation, Sequence[Tensor]], Sequence[Tensor]],
) -> Function:
    """The function with what ``rule`` declares in the place of some operations."""
    if not chosen:
        return fn
    rebuilder = Rebuilder(fn)
    for op in fn.operations:
        if op in chosen:
            rebuilder.expand(op, functools.partial(rule, op))
        else:
            rebuilder.copy(op)
    return rebuilder.finish()


def format_function(fn: Function) -> str:
    """The function as text: inputs, one line per operation, outputs; symbols by name."""
    lines = [f"{i.kind} %{i.tensor.op.name}: {format_type(i.tensor.type)}  # {i.key}"
             for i in fn.inputs]  # fmt: skip
    boundary = {i.tensor.op for i in fn.inputs}
    for op in fn.operations:
        if op not in boundary:
            lines += format_operation(op).split("\n")
    lines += [f"assume {guard}" for guard in fn.guards]
    lines += [f"bind {s.symbol}: {format_tensor(s.tensor)}[{s.element}]" for s in fn.late]
    lines += [f"{o.kind} {format_tensor(o.tensor)}  # {o.key}" for o in fn.outputs]
    if fn.prepared is not None:
        lines.append("prepare:")
        lines += [f"  {line}" for line in format_function(fn.prepared).splitlines()]
    return "\n".join(lines) + "\n"


def format_type(type_: TensorType) -> str:
    """``f32[s0, 3]``; ``f32[*]`` for unknown rank."""
    if type_.sizes is None:
        return f"{type_.dtype.code}[*]"
    return f"{type_.dtype.code}[{', '.join(str(s) for s in type_.sizes)}]"


def format_tensor(tensor: Tensor) -> str:
    """``%name``, with ``:1`` for outputs after the first."""
    return f"%{tensor.op.name}" + (f":{tensor.index}" if tensor.index else "")


def format_operation(op: Operation, with_bodies: bool = True) -> str:
    """One line: results, op, operands, attributes, types; below it, indented, the bodies."""
    types = ", ".join(format_type(t.type) for t in op.outputs)
    operands = ", ".join(format_tensor(t) for t in op.inputs)
    bodies = op.attrs.get("bodies", ())
    attrs = ", ".join(
        f"{k}={_attr(v)}" for k, v in op.attrs.items() if not bodies or (k != "bodies" and v)
    )
    text = f"%{op.name} = {op.type}({operands})"
    text += (f" {{{attrs}}}" if attrs else "") + f" : {types}"
    for number, body in enumerate(bodies if with_bodies else ()):
        text += f"\n  body {number}:"
        text += "".join(f"\n    {line}" for line in format_function(body).splitlines())
    return text


def _attr(value: Any) -> str:
    if hasattr(value, "tolist"):
        if value.size <= 8:
            return repr(value.tolist())
        return f"<{value.dtype} {list(value.shape)}>"
    if isinstance(value, tuple) and value and isinstance(value[0], Symbol):
        return str([str(s) for s in value])
    return getattr(value, "name", None) or repr(value)
