"""Rewrites: patterns written like algebra, and the one driver that applies them.

A pattern is built from :func:`any_` (matches any tensor), :func:`number` (a constant whose
elements all have one value) and :func:`op` (an op over patterns)::

    x = any_("x")
    Rule("x * 1", op("Mul", x, number(1)), lambda m: m["x"])

The driver walks a function once, producers first, and tries the rules on every operation that it
has copied.  It carries names and locations over, checks that the replacement has the same type,
and bounds the work: a replacement must be cheaper than what it replaces by :func:`weight`, so that
rewriting ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import CompileError
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.op import ElementOp

Match = dict[str, Any]

_WEIGHTS = {"Pow": 40, "RealDiv": 6, "FloorDiv": 14, "FloorMod": 14, "Const": 0, "Square": 2,
            "Reciprocal": 5, "Sqrt": 6, "Transpose": 3, "Reshape": 2, "Identity": 1}  # fmt: skip


def weight(op: Operation) -> int:
    """How much one operation counts: a rewrite must lower the sum over what it touches."""
    known = _WEIGHTS.get(op.type)
    if known is not None:
        return known
    return 3 if isinstance(op.definition, ElementOp) else 100


@dataclass(frozen=True)
class Pattern:
    """What a rule looks for.

    ``kind``: ``any``, ``number`` or ``op``.  ``name`` is what the match calls the tensor (or the
    op's types, joined by ``|``); ``value`` the number, None for any.
    """

    kind: str
    name: str
    args: tuple[Pattern, ...] = ()
    value: float | None = None
    commutative: bool = False


def any_(name: str) -> Pattern:
    """Any tensor; twice the same name means twice the same tensor."""
    return Pattern("any", name)


def number(value: float | None = None, name: str = "") -> Pattern:
    """A constant whose elements are all ``value`` (any value if None)."""
    return Pattern("number", name, value=value)


_COMMUTATIVE = {"Add", "AddV2", "Mul", "Maximum", "Minimum", "LogicalAnd", "LogicalOr"}


def op(types: str, *args: Pattern) -> Pattern:
    """An operation of one of the types (``"Add|AddV2"``) over patterns, in any order if the op
    is commutative."""
    commutative = all(t in _COMMUTATIVE for t in types.split("|"))
    return Pattern("op", types, args, commutative=commutative)


@dataclass(frozen=True)
class Rule:
    """Replace what ``pattern`` matches by what ``build`` returns; None from it declines."""

    name: str
    pattern: Pattern
    build: Callable[[Match], Tensor | None]


# Ops whose output has the elements of the first operand (of Fill: the second), and no others.
_SPREADING = (
    "BroadcastLike", "BroadcastTo", "ExpandDims", "ExpandReduced", "Fill", "Reshape", "Squeeze",
    "Tile", "Transpose",
)  # fmt: skip


def uniform_value(tensor: Tensor) -> Any:
    """The one value that all elements of a constant have; None if there is none."""
    op = tensor.op
    if op.type in _SPREADING and not op.attrs.get("mean"):
        return uniform_value(op.inputs[1 if op.type == "Fill" else 0])
    if op.type != "Const":
        return None
    array = tensor.op.attrs["value"]
    if array.size == 0 or array.dtype == object:
        return None
    first = array.reshape(-1)[0]
    if array.size > 1 and not (array.size <= 1 << 16 and (array == first).all()):
        return None
    return first


def match(pattern: Pattern, tensor: Tensor, found: Match, ops: set[Operation]) -> bool:
    """Match a tensor; bindings go to ``found``, the operations matched to ``ops``."""
    if pattern.kind == "any":
        return found.setdefault(pattern.name, tensor) is tensor
    if pattern.kind == "number":
        value = uniform_value(tensor)
        if value is None or (pattern.value is not None and value != pattern.value):
            return False
        if pattern.name:
            found[pattern.name] = value
        return True
    if tensor.op.type not in pattern.name.split("|") or tensor.index:
        return False
    inputs = tensor.op.inputs
    if len(inputs) != len(pattern.args):
        return False
    orders: list[Sequence[Tensor]] = [inputs]
    if pattern.commutative:
        orders.append(inputs[::-1])
    for order in orders:
        trial, seen = dict(found), set(ops)
        if all(match(p, t, trial, seen) for p, t in zip(pattern.args, order, strict=True)):
            found.update(trial)
            ops |= seen
            ops.add(tensor.op)
            found[pattern.name] = tensor.op
            return True
    return False


@dataclass
class Counts:
    """How often each rule was applied."""

    by_rule: dict[str, int] = field(default_factory=dict)


class Driver:
    """Applies rules to a function; see the module's text."""

    def __init__(self, fn: Function, rules: Sequence[Rule], counts: Counts | None = None) -> None:
        self.rebuilder = Rebuilder(fn)
        self.fn = fn
        self.counts = counts or Counts()
        self.by_type: dict[str, list[Rule]] = {}
        for rule in rules:
            for type_ in rule.pattern.name.split("|"):
                self.by_type.setdefault(type_, []).append(rule)

    def run(self) -> Function:
        """The rewritten function; the given one where no pattern matches."""
        if not any(map(self.matches, self.fn.operations)):
            return self.fn
        for operation in self.fn.operations:
            new = self.rebuilder.copy(operation)
            if len(new.outputs) == 1 and operation.type in self.by_type:
                self.rebuilder.map[operation.outputs[0]] = self.simplify(
                    new.outputs[0], operation
                )
        return self.rebuilder.finish()

    def matches(self, operation: Operation) -> bool:
        """Whether some rule may apply to an operation as it is."""
        return len(operation.outputs) == 1 and any(
            match(rule.pattern, operation.outputs[0], {}, set())
            for rule in self.by_type.get(operation.type, ())
        )

    def simplify(self, tensor: Tensor, source: Operation) -> Tensor:
        """Apply rules to a tensor until none applies."""
        while True:
            for rule in self.by_type.get(tensor.op.type, ()):
                found: Match = {}
                ops: set[Operation] = set()
                if match(rule.pattern, tensor, found, ops):
                    found["out"] = tensor
                    new = self.build(rule, found, tensor, source, ops)
                    if new is not None:
                        tensor = new
                        break
            else:
                return tensor

    def build(
        self, rule: Rule, found: Match, tensor: Tensor, source: Operation, ops: set[Operation]
    ) -> Tensor | None:
        """The replacement, checked; None if the rule declined."""
        graph = self.rebuilder.graph
        first = len(graph._ops)
        graph.provenance = source.location
        with graph.as_default(), graph.name_scope(None), graph.name_scope(source.name):
            new = rule.build(found)
        graph.provenance = None
        if new is None or new is tensor:
            return None
        added = list(graph._ops.values())[first:]
        if new.type != tensor.type:
            raise CompileError(
                f"rewrite {rule.name!r} turned {tensor.type} into {new.type} at {tensor.op.name}"
            )
        if sum(map(weight, added)) >= sum(map(weight, ops)):
            raise CompileError(
                f"rewrite {rule.name!r} does not make {tensor.op.name} cheaper: it might not end"
            )
        origin = self.fn.origin.get(source.name)
        if origin is not None:
            for op_ in added:
                self.rebuilder.origin[op_.name] = origin
        self.counts.by_rule[rule.name] = self.counts.by_rule.get(rule.name, 0) + 1
        return new
