"""All elements of rows in order: a radix sort of places, from the last byte to the first.

Its passes move places only, to and fro between the two results: until the last one the values'
memory holds places, too.  So there is no memory besides the results.
"""

from __future__ import annotations

from graphc.dtypes import DType, int32, int64
from graphc.kernels import emit
from graphc.kernels.sort_row import Row, flipped
from graphc.loop import ir
from graphc.loop.ir import ZERO, Buffer, Expr, Load, Stmt, Store

_DIGITS = 256
_BITS = 8


def has_radix_sort(dtype: DType) -> bool:
    """Whether elements of this type can be sorted so: a place must fit in the memory of one."""
    return dtype.size in (4, 8)


def radix_sort(row: Row) -> list[Stmt]:
    """Statements that sort one row, which takes a pass for each byte of an element."""
    values, places, base, columns = row.values, row.places, row.base, row.columns
    passes = values.dtype.size
    starts = ir.local("starts", int32, passes * _DIGITS)
    stmts: list[Stmt] = [ir.Alloc(starts)]
    stmts += emit.loop(
        ir.const(passes * _DIGITS), lambda i: [Store(starts, i, ir.const(0, int32))]
    )

    def slot(byte: int, key: Expr) -> Expr:
        """Where the count of a byte of a key is."""
        shifted = ir.apply("lshr", key, ir.const(byte * _BITS, key.dtype))
        digit = ir.apply("and", shifted, ir.const(_DIGITS - 1, key.dtype))
        return ir.add(ir.cast(digit, int64), ir.const(byte * _DIGITS))

    def count(i: Expr) -> list[Stmt]:
        inner: list[Stmt] = []
        key = emit.let(inner, "key", flipped(row.key(inner, i)))
        for byte in range(passes):
            at = emit.let(inner, "at", slot(byte, key))
            inner.append(Store(starts, at, ir.add(Load(starts, at), ir.const(1, int32))))
        return inner

    stmts += emit.loop(columns, count)
    for byte in range(passes):
        stmts += _sums(starts, byte * _DIGITS)
    for byte in range(passes):

        def move(i: Expr, byte: int = byte) -> list[Stmt]:
            inner: list[Stmt] = []
            place = i if byte == 0 else _read(places if byte % 2 == 0 else values, base + i)
            place = emit.let(inner, "place", place)
            key = emit.let(inner, "key", flipped(row.key(inner, place)))
            at = emit.let(inner, "at", slot(byte, key))
            to = emit.let(inner, "to", Load(starts, at))
            inner.append(Store(starts, at, ir.add(to, ir.const(1, int32))))
            target = values if byte % 2 == 0 else places
            inner.append(_write(target, ir.add(base, ir.cast(to, int64)), place))
            return inner

        stmts += emit.loop(columns, move)
    stmts += emit.loop(
        columns, lambda i: [Store(values, base + i, row.element(_read(places, base + i)))]
    )
    return stmts


def _sums(starts: Buffer, first: int) -> list[Stmt]:
    """Let counts become where the first element of each digit goes."""
    total = ir.local(f"total{first}", int32, 1)

    def add(i: Expr) -> list[Stmt]:
        inner: list[Stmt] = []
        at = emit.let(inner, "at", ir.add(i, ir.const(first)))
        found, before = (emit.let(inner, "n", Load(*p)) for p in ((starts, at), (total, ZERO)))
        return [*inner, Store(starts, at, before), Store(total, ZERO, ir.add(before, found))]

    return [ir.Alloc(total), Store(total, ZERO, ir.const(0, int32)),
            *emit.loop(ir.const(_DIGITS), add)]  # fmt: skip


def _bits_of(buffer: Buffer) -> DType:
    return int32 if buffer.dtype.size == int32.size else int64


def _read(buffer: Buffer, at: Expr) -> Expr:
    """A place that is kept in a result."""
    return ir.cast(ir.bitcast(Load(buffer, at), _bits_of(buffer)), int64)


def _write(buffer: Buffer, at: Expr, place: Expr) -> Stmt:
    """Keep a place in a result."""
    bits = ir.bitcast(ir.cast(place, _bits_of(buffer)), buffer.dtype)
    return Store(buffer, at, bits)
