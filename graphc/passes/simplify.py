"""Algebraic simplification and constant folding.

Only rewrites that keep every value, NaN, infinities and signed zeros included, are here; for
floating point that excludes ``x * 0`` and ``x + 0``. Two round otherwise: ``x ** 3``, and
``1 + erf(x)``, of every gelu, for which fewer digits of ``erf(x)`` are computed than it has.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc.build import constant_of, create, single
from graphc.dims import product
from graphc.dtypes import float32
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.op import SpecialOp, evaluate_reference, value_sizes
from graphc.passes.sizes import resolved
from graphc.rewrite import Counts, Driver, Match, Rule, any_, number, op

MAX_FOLDED_BYTES = 1 << 16

x, y = any_("x"), any_("y")


def _call(name: str, *inputs: object, **attrs: object) -> Tensor:
    return single(create(name, inputs, attrs))


def same_type(m: Match, name: str = "x") -> Tensor | None:
    """The operand, if it has the type of the whole."""
    operand: Tensor = m[name]
    return operand if operand.type == m["out"].type else None


def integer_only(m: Match) -> Tensor | None:
    """The operand, for integers."""
    return same_type(m) if m["x"].dtype.is_integer else None


def square(m: Match) -> Tensor | None:
    """``x ** 2`` of the same type."""
    return _call("Square", m["x"]) if same_type(m) is not None else None


def cube(m: Match) -> Tensor | None:
    """``x ** 3`` of the same type, as products: they round once more than a power.

    In 16 bits the square would lose too much.
    """
    if same_type(m) is None or m["out"].dtype.size < 4:
        return None
    return _call("Mul", _call("Square", m["x"]), m["x"])


def pass_through(m: Match) -> Tensor | None:
    """The input of an op that changes nothing."""
    return same_type(m)


def drop_transpose(m: Match) -> Tensor | None:
    """A transposition that moves nothing."""
    perm = value_sizes(m["out"].op.inputs[1])
    if perm is not None and list(perm) == list(range(len(perm))):
        return same_type(m)
    return None


def merge_transposes(m: Match) -> Tensor | None:
    """Two transpositions in a row are one."""
    outer = value_sizes(m["out"].op.inputs[1])
    inner = value_sizes(m["out"].op.inputs[0].op.inputs[1])
    if outer is None or inner is None:
        return None
    perm = [inner[k] for k in outer if isinstance(k, int)]
    return _call("Transpose", m["x"], constant_of(np.array(perm, np.int32)))


def merge_reshapes(m: Match) -> Tensor | None:
    """A reshape of a reshape reads the first operand.

    Unless a -1 comes out of that operand's sizes as something else.  Where the run is right the two
    are equal, but it is the inner one that tells whether it is.
    """
    out: Tensor = m["out"]
    inner, shape = out.op.inputs
    assert inner.sizes is not None
    solved = -1 in (value_sizes(shape) or (-1,))
    if solved and product(m["x"].sizes) != product(inner.sizes):
        return None
    merged = _call("Reshape", m["x"], shape)
    return merged if merged.type == out.type else None


def power_of_two_divisor(m: Match) -> Tensor | None:
    """Division by a power of two is a product, exactly."""
    divisor = float(m["c"])
    mantissa, _ = np.frexp(divisor)
    out: Tensor = m["out"]
    if abs(mantissa) != 0.5 or not 1e-30 < abs(divisor) < 1e30 or same_type(m) is None:
        return None
    if out.dtype.name == "float16" and not 2.0**-14 <= abs(divisor) <= 2.0**14:
        return None
    return _call("Mul", m["x"], constant_of(np.array(1.0 / divisor, out.dtype.numpy)))


def one_plus_erf(m: Match) -> Tensor | None:
    """``1 + erf(x)`` in float32: an error of the digits that the sum drops does not matter."""
    operand: Tensor = m["x"]
    if operand.dtype.base_dtype is not float32 or operand.type != m["out"].type:
        return None
    return _call("OnePlusErf", operand)


def reduce_nothing(m: Match) -> Tensor | None:
    """A reduction over dimensions of size 1 only takes them away."""
    out: Tensor = m["out"]
    sizes, axes = m["x"].sizes, value_sizes(m["axes"])
    if axes is None or not all(isinstance(a, int) for a in axes):
        return None
    if any(sizes[a] != 1 for a in axes):
        return None
    if out.op.attrs["keep_dims"] or not axes:
        return same_type(m)
    return _call("Squeeze", m["x"], squeeze_dims=tuple(axes))


RULES = [
    Rule("identity", op("Identity|StopGradient|PreventGradient", x), pass_through),
    Rule("default", op("PlaceholderWithDefault", x), pass_through),
    Rule("x * 1", op("Mul", x, number(1)), same_type),
    Rule("x / 1", op("RealDiv", x, number(1)), same_type),
    Rule("x / 2**k", op("RealDiv", x, number(None, "c")), power_of_two_divisor),
    Rule("x - 0", op("Sub", x, number(0)), same_type),
    Rule("x + 0", op("Add|AddV2", x, number(0)), integer_only),
    Rule("--x", op("Neg", op("Neg", x)), same_type),
    Rule("x ** 1", op("Pow", x, number(1)), same_type),
    Rule("x ** 2", op("Pow", x, number(2)), square),
    Rule("x ** 3", op("Pow", x, number(3)), cube),
    Rule("1 + erf(x)", op("Add|AddV2", op("Erf", x), number(1)), one_plus_erf),
    Rule("cast to itself", op("Cast", x), same_type),
    Rule("fit to itself", op("FitLike", x, y), same_type),
    Rule("reshape to itself", op("Reshape", x, y), same_type),
    Rule("reshape twice", op("Reshape", op("Reshape", x, y), any_("z")), merge_reshapes),
    Rule("transpose to itself", op("Transpose", x, y), drop_transpose),
    Rule("transpose twice", op("Transpose", op("Transpose", x, y), any_("z")), merge_transposes),
    Rule("broadcast to itself", op("BroadcastTo", x, y), same_type),
    Rule("sum to itself", op("SumToShape", x, y), same_type),
    Rule(
        "reduce nothing",
        op("Sum|Mean|Prod|Max|Min|All|Any", x, any_("axes")),
        reduce_nothing,
    ),
    Rule("tile by one", op("Tile", x, number(1)), same_type),
]


@dataclass(frozen=True)
class Simplify:
    """Algebraic rewrites that keep every value, but for the rounding of two."""

    name: str = "simplify"
    counts: Counts = field(default_factory=Counts, compare=False)

    def run(self, fn: Function) -> Function:
        """The simplified function."""
        return Driver(fn, RULES, self.counts).run()


@dataclass(frozen=True)
class Fold:
    """Compute what depends on constants only, and shape arithmetic whose result is known."""

    name: str = "fold"

    def run(self, fn: Function) -> Function:
        """The function with small constant results as constants."""
        rebuilder = Rebuilder(fn)
        for operation in fn.operations:
            inputs = [rebuilder.map[t] for t in operation.inputs]
            values: list[np.ndarray] | None = None
            definition = operation.definition
            foldable = (
                not isinstance(definition, SpecialOp)
                and definition.pure
                and not definition.can_fail(operation)
            )
            if foldable:
                values = known_values(operation.outputs)
                if values is None and all(t.op.type == "Const" for t in inputs):
                    values = self.evaluate(operation, inputs)
            if values is None:
                rebuilder.copy(operation, inputs)
            else:
                rebuilder.expand(operation, functools.partial(constants, values))
        return resolved(rebuilder.finish())

    def evaluate(self, operation: Operation, inputs: list[Tensor]) -> list[np.ndarray] | None:
        """The outputs by the ops' own references, if they are small."""
        for t in operation.outputs:
            # No elements of a size that a run decides are not a constant either.
            if t.sizes is None or not all(isinstance(s, int) for s in t.sizes):
                return None
            count = product(t.sizes)
            if not isinstance(count, int) or count * max(1, t.dtype.size) > MAX_FOLDED_BYTES:
                return None
        arrays = [t.op.attrs["value"] for t in inputs]
        return list(evaluate_reference(operation, arrays))


def constants(values: list[np.ndarray], _inputs: Sequence[Tensor]) -> list[Tensor]:
    """The values as constants, whatever the inputs are."""
    return [constant_of(a) for a in values]


def known_values(outputs: list[Tensor]) -> list[np.ndarray] | None:
    """The outputs as arrays, if they are integers that the shapes alone tell."""
    arrays = []
    for t in outputs:
        sizes = value_sizes(t)
        if sizes is None or t.sizes is None:
            return None
        if not all(isinstance(s, int) for s in (*sizes, *t.sizes)):
            return None
        array = np.array(sizes, t.dtype.base_dtype.numpy)
        arrays.append(array.reshape(tuple(int(s) for s in t.sizes if isinstance(s, int))))
    return arrays if outputs else None
