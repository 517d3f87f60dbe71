"""Random numbers as plain functions of a key, the number of the run and the element's index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import Attr, ElementContext, ElementOp, InferContext, Sample, register
from graphc.ops import random_bits
from graphc.ops.random_bits import ARRAYS, EXPRESSIONS, Bits

INDEX = (dtypes.int32, dtypes.int64)
EMPTY_RANGE = "Need minval < maxval"


def flat_index(ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
    """The row-major position of an element of the output."""
    flat: ir.Expr = ir.ZERO
    for i, size in zip(index, ctx.out_sizes(), strict=True):
        flat = ir.add(ir.mul(flat, ctx.size(size)), i)
    return flat


class Stateless(ElementOp):
    """A tensor of shape ``shape``; ``key`` is two uint32, ``counter`` the number of the run."""

    family = "random"
    inputs = "shape: T, key: uint32, counter: int64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"dtype": Attr("dtype", dtypes.float32)}
    value_operands: ClassVar[tuple[int, ...]] = (0,)
    differentiable = False
    rtol: ClassVar[float] = 2e-6

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        ctx.rank(0, 1)
        ctx.rank(2, 0)
        (words,) = ctx.rank(1, 1)
        ctx.equal(words, 2, "A key has 2 elements")
        return [TensorType(self.out_dtype(ctx), ctx.value(0))]

    def out_dtype(self, ctx: InferContext) -> DType:
        """What the attribute says."""
        dtype: DType = ctx.attrs["dtype"]
        if not dtype.is_floating:
            raise ShapeError(f"{self.name} makes floats, not {dtype.name}")
        return dtype

    def value(self, m: Any, bits: Bits, dtype: DType) -> Any:
        """The random number made of the bits."""
        return random_bits.uniform(m, bits, dtype)

    def bits(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> Bits:
        """The bits of the element at ``index``."""
        k0, k1 = ctx.operand(1, (ir.ZERO,)), ctx.operand(1, (ir.ONE,))
        run = ctx.operand(2, ())
        return random_bits.element_bits(EXPRESSIONS, k0, k1, run, flat_index(ctx, index))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The number for the element's position."""
        value: ir.Expr = self.value(
            EXPRESSIONS, self.bits(ctx, index), ctx.op.outputs[0].dtype
        )
        return value

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The same formulas on arrays."""
        shape, bits = array_bits(*inputs[:3])
        return self.value(ARRAYS, bits, attrs["dtype"]).reshape(shape)

    def samples(self) -> Iterable[Sample]:
        """Each dtype; runs beyond 2**32; a scalar; nothing."""
        key = np.array([1234, 2**32 - 7])
        for dtype in dtypes.FLOATS:
            attrs = {"dtype": dtype}
            rtol = self.rtol if dtype is not dtypes.float64 else self.rtol * 2.0**29
            yield Sample((np.array([5, 7]), key, np.int64(3)), attrs, rtol=rtol)
        yield Sample((np.array([33]), key, np.int64(2**40 + 1)), rtol=self.rtol, note="late run")
        yield Sample((np.array([], np.int64), key, np.int64(0)), rtol=self.rtol, note="scalar")
        yield Sample((np.array([0, 3]), key, np.int64(0)), note="empty")


def array_bits(shape: Any, key: Any, counter: Any) -> tuple[tuple[int, ...], Bits]:
    """The shape, and the bits of all its elements in row-major order."""
    sizes = tuple(int(s) for s in np.asarray(shape).reshape(-1))
    index = np.arange(int(np.prod(sizes, dtype=np.int64)), dtype=np.int64)
    k0, k1 = (np.asarray(k, np.uint32).reshape(1) for k in np.asarray(key))
    run = np.asarray(counter, np.int64).reshape(1)
    return sizes, random_bits.element_bits(ARRAYS, k0, k1, run, index)


@register
class StatelessUniform(Stateless):
    """Floats in [0, 1), every multiple of the precision as likely."""

    name = "StatelessUniform"


@register
class StatelessNormal(Stateless):
    """Floats with mean 0 and standard deviation 1, normally distributed."""

    name = "StatelessNormal"
    rtol = 4e-6

    def value(self, m: Any, bits: Bits, dtype: DType) -> Any:
        """The inverse of the distribution function."""
        return random_bits.normal(m, bits, dtype)


@register
class StatelessTruncatedNormal(Stateless):
    """Normally distributed floats, given that they are at most 2 away from 0."""

    name = "StatelessTruncatedNormal"
    rtol = 4e-6

    def value(self, m: Any, bits: Bits, dtype: DType) -> Any:
        """The inverse of the distribution function between -2 and 2."""
        return random_bits.truncated_normal(m, bits, dtype)


@register
class StatelessUniformInt(Stateless):
    """Integers in [``minval``, ``maxval``), as good as equally likely.

    ``minval >= maxval`` is an error.
    """

    name = "StatelessUniformInt"
    inputs = "shape: T, key: uint32, counter: int64, minval: Tout, maxval: Tout"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX, "Tout": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {}
    fallible = True

    def out_dtype(self, ctx: InferContext) -> DType:
        """That of the limits, which are scalars."""
        ctx.rank(3, 0)
        ctx.rank(4, 0)
        return ctx.dtype(3)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The integer for the element's position."""
        low, high = ctx.operand(3, ()), ctx.operand(4, ())
        bits = self.bits(ctx, index)
        value = random_bits.uniform_int(EXPRESSIONS, bits, low, high, low.dtype)
        return ir.Require(ir.apply("lt", low, high), value, ctx.site(EMPTY_RANGE))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The same formulas on arrays."""
        shape, bits = array_bits(*inputs[:3])
        low, high = (np.asarray(v).reshape(1) for v in inputs[3:])
        if not low < high:
            raise ValueError(f"{EMPTY_RANGE}, got {low} >= {high}")
        dtype = dtypes.as_dtype(low.dtype)
        return random_bits.uniform_int(ARRAYS, bits, low, high, dtype).reshape(shape)

    def samples(self) -> Iterable[Sample]:
        """Small and large ranges, nothing."""
        key, run = np.array([7, 99]), np.int64(1)
        for low, high in ((0, 10), (-5, 3), (-(2**31), 2**31 - 1), (3, 4)):
            yield Sample((np.array([4, 9]), key, run, np.int64(low), np.int64(high)))
        yield Sample((np.array([0]), key, run, np.int64(0), np.int64(2)), note="empty")
