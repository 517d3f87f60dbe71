"""Products that are only added up made one product, where their operands are smaller than they.

``A1 @ B1 + A2 @ B2`` is ``[A1 A2] @ [B1; B2]``: the gradient of a weight that the steps of an
unrolled network share, say. No product is stored, and the long sum runs at a product's speed. The
terms are the same and are added up in one sum: it differs by rounding, and by where it overflows.
:mod:`control_sums` does the same for the turns of a loop.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from graphc.dtypes import float32, float64
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.ops.contraction import TRANSPOSED
from graphc.passes.control_sums import worth_joining

SUMS = ("AddN", "AddV2", "Add")


@dataclass(frozen=True)
class JoinProducts:
    """Replace products of one form in a sum by the product of their joined operands."""

    name: str = "added"

    def run(self, fn: Function) -> Function:
        """The function with fewer products; those that are joined are dead."""
        found = _sums(fn)
        if not found:
            return fn
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            if op not in found:
                rebuilder.copy(op)
                continue
            build = functools.partial(_joined, rebuilder, op, found[op])
            (rebuilder.map[op.outputs[0]],) = rebuilder.declared(op, build)
        return rebuilder.finish()


def _sums(fn: Function) -> dict[Operation, list[Operation]]:
    """The sums, with the products in each that are joined."""
    sums = [op for op in fn.operations if op.type in SUMS]
    uses: dict[Tensor, int] = {}
    if sums:
        for t in (*fn.results(), *(t for op in fn.operations for t in op.inputs)):
            uses[t] = uses.get(t, 0) + 1
    found = {}
    for op in sums:
        alike: dict[object, list[Operation]] = {}
        for t in op.inputs:
            if uses[t] == 1 and t.sizes == op.outputs[0].sizes and _gains(t.op):
                flags = tuple(t.op.attrs[flag] for flag in TRANSPOSED[t.op.type])
                key = (t.op.type, flags, *(x.dtype for x in t.op.inputs))
                alike.setdefault(key, []).append(t.op)
        most = max(alike.values(), key=len, default=[])
        if len(most) > 1:
            found[op] = most
    return found


def _gains(op: Operation) -> bool:
    """Whether the operands of a product, of one batch, are no larger than it is."""
    # Of 16 bits, each product is rounded to its type: together they would be rounded once.
    if op.type not in TRANSPOSED or op.outputs[0].dtype not in (float32, float64):
        return False
    turned = op.attrs[TRANSPOSED[op.type][0]]
    left, right, out = (t.sizes or () for t in (*op.inputs, *op.outputs))
    if not len(left) == len(right) == len(out) or not left[:-2] == right[:-2] == out[:-2]:
        return False
    return worth_joining(out[-2], left[-2 if turned else -1], out[-1])


def _joined(rebuilder: Rebuilder, total: Operation, products: list[Operation]) -> list[Tensor]:
    """The sum, with one product in the place of the first of several."""
    first = products[0]
    flags = {flag: first.attrs[flag] for flag in TRANSPOSED[first.type]}
    turned_left, turned_right = flags.values()
    rank = len(first.outputs[0].sizes or ())
    axes = (rank - 2 if turned_left else rank - 1, rank - 1 if turned_right else rank - 2)
    operands = [
        call("ConcatV2", [rebuilder.map[op.inputs[k]] for op in products], axis)
        for k, axis in enumerate(axes)
    ]
    terms = [call(first.type, *operands, **flags)]
    others = set(products)
    terms += [rebuilder.map[t] for t in total.inputs if t.op not in others]
    return [call("AddN", terms) if len(terms) > 1 else terms[0]]
