"""Products that a loop only adds up, as one product behind the loop.

The gradient of a weight that every turn uses is such a sum.  To add a product of few rows to it
takes as long as to bring the sum from memory and back; the operands of all turns, one below the
other, are smaller, and their product is one of many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.dims import Dim, DimLike, Symbol, symbols_of
from graphc.function import Function
from graphc.graph import Tensor, TensorType
from graphc.ops.base import call
from graphc.ops.movement_value import int_tensor

MOST_ROWS = 128
"""With more rows, a turn's product takes longer than the sum takes to come and go."""


@dataclass(frozen=True)
class Product:
    """``left^T right``, which a turn adds to a sum; of one number of rows in every turn."""

    left: Tensor
    right: Tensor

    @property
    def operands(self) -> tuple[Tensor, Tensor]:
        """Both."""
        return self.left, self.right


def products_added(body: Function, param: Tensor, result: Tensor) -> list[Product]:
    """The products that a turn adds to a loop variable, if nothing else uses that; else nothing."""
    uses: dict[Tensor, int] = {}
    for op in body.operations:
        for t in op.inputs:
            uses[t] = uses.get(t, 0) + 1
    for o in body.outputs:
        uses[o.tensor] = uses.get(o.tensor, 0) + 1
    decided = decided_by(body)
    found: list[Product] = []
    total = result
    while total is not param:
        if total.op.type not in ("Add", "AddV2") or uses[total] > 1:
            return []
        total, term = total.op.inputs
        product = _product(term, decided)
        if product is None or uses[term] > 1:
            return []
        found.append(product)
    return found if uses[param] == 1 else []


def decided_by(body: Function) -> set[Symbol]:
    """The sizes that may be others in every turn."""
    found = {s for t in body.carried for size in t.sizes or () for s in symbols_of(size)}
    found |= {late.symbol for late in body.late}
    return found | {s for op in body.operations for s in op.attrs.get("symbols", ())}


def _product(term: Tensor, decided: set[Symbol]) -> Product | None:
    op = term.op
    if op.type != "MatMul" or not op.attrs["transpose_a"] or op.attrs["transpose_b"]:
        return None
    left, right = op.inputs
    (rows, p), (_, n) = left.sizes or (), right.sizes or ()
    if {left.dtype, right.dtype} != {term.dtype} or not symbols_of(rows).isdisjoint(decided):
        return None
    return Product(left, right) if worth_joining(p, rows, n) else None


def worth_joining(m: DimLike, steps: DimLike, n: DimLike) -> bool:
    """Whether a product in a sum takes less time to join with the others than to add."""
    if not (isinstance(m, int) and isinstance(n, int)):
        return False
    few = steps if isinstance(steps, int) else MOST_ROWS // 2
    return few <= MOST_ROWS and few * (m + n) <= m * n


def stack_type(tensor: Tensor, turns: Symbol) -> TensorType:
    """The type of a tensor's values in all turns."""
    return TensorType(tensor.dtype, (Dim((((turns,), 1),)), *(tensor.sizes or ())))


def summed(start: Tensor, stacks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """``start`` and the products of all turns, whose operands are stacked."""
    total = start
    for pair in stacks:
        left, right = (
            call("Reshape", t, int_tensor([-1, (t.sizes or ())[-1]])) for t in pair
        )
        total = call("AddV2", total, call("MatMul", left, right, transpose_a=True))
    return total
