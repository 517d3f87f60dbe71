"""A row to sort, and numbers whose order is that of its elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from graphc.dtypes import float32, int32, int64
from graphc.kernels import emit
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Stmt


class Row(NamedTuple):
    """A row of which all elements are wanted in order.

    Attributes:
      values: where the elements go, in order, from ``base`` on.
      places: where their places in the row go.
      base: likewise.
      columns: how many elements there are.
      element: gives the element at a place.
      descending: whether the largest comes first; equal ones keep their order all the same.
    """

    values: Buffer
    places: Buffer
    base: Expr
    columns: Expr
    element: Callable[[Expr], Expr]
    descending: bool

    def key(self, stmts: list[Stmt], place: Expr) -> Expr:
        """The key of an element; see :func:`sort_key`."""
        return sort_key(stmts, self.element(place), self.descending)


def sort_key(stmts: list[Stmt], value: Expr, descending: bool) -> Expr:
    """An int32, or for 8 bytes an int64, whose order is that of the values; NaN has the largest.

    What it needs is declared in ``stmts``.
    """
    dtype = value.dtype
    bits = int64 if dtype.size == int64.size else int32
    if dtype.is_floating:
        value = emit.let(stmts, "x", value if dtype.size >= bits.size else ir.cast(value, float32))
        zero = ir.const(0, value.dtype)
        # Both zeros are equal.
        plain = ir.select(ir.apply("eq", value, zero), zero, value)
        raw = emit.let(stmts, "bits", ir.bitcast(plain, bits))
        largest = ir.const((1 << (8 * bits.size - 1)) - 1, bits)
        key = ir.select(raw < ir.const(0, bits), ir.apply("xor", raw, largest), raw)
        key = ir.select(ir.apply("isnan", value), largest, key)
    elif dtype.size < bits.size:
        key = ir.cast(value, bits)
    else:
        key = flipped(ir.bitcast(value, bits)) if dtype.is_unsigned else value
    return ir.apply("not", key) if descending else key


def flipped(key: Expr) -> Expr:
    """A key for unsigned order from one for signed order, or the other way round."""
    return ir.apply("xor", key, ir.const(-1 << (8 * key.dtype.size - 1), key.dtype))
