"""Bases of the elementwise families: what all unary, binary and comparison ops share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import create, single
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import (
    ir,
    scalar_math,  # noqa: F401 - registers the derived scalar functions
)
from graphc.loop.scalar import FUNCTIONS
from graphc.op import (
    Element,
    ElementContext,
    ElementOp,
    InferContext,
    Op,
    Sample,
    partial_value,
)

NAN, INF = float("nan"), float("inf")
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, INF, -INF, NAN, 1e-40, 3e38, -1e-310])
SMALL_INTS = np.array([[0, 1, 2], [3, 7, 100]])


def grid(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Distinct, irregular values between ``low`` and ``high``, the same in every run."""
    count = int(np.prod(shape))
    golden = (np.arange(1, count + 1) * 0.6180339887498949) % 1.0
    return (low + (high - low) * golden).reshape(shape)


class Unary(ElementOp):
    """An op that applies one scalar function to every element; the shape stays.

    ``fn`` names the scalar function; ``low`` and ``high`` bound the samples whose gradient is
    checked.
    """

    inputs = "x: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    fn: ClassVar[str] = ""
    low: ClassVar[float] = -2.0
    high: ClassVar[float] = 2.0
    rtol: ClassVar[float] = 2e-6
    special: ClassVar[bool] = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's shape; its dtype, but bool for predicates."""
        return [TensorType(self.out_dtype(ctx.dtype(0)), ctx.sizes(0))]

    def out_dtype(self, dtype: DType) -> DType:
        """The result's dtype."""
        return dtype

    def scalar(self, op: Operation, x: ir.Expr) -> ir.Expr:
        """The element for the operand's element."""
        return ir.apply(self.fn, x)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The scalar function of the operand at the same index."""
        return self.scalar(ctx.op, ctx.operand(0, index))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The scalar function's own NumPy definition."""
        return FUNCTIONS[self.fn].numpy(inputs[0])

    def samples(self) -> Iterable[Sample]:
        """Regular values, a scalar, empty and size-1 dims, and the special values."""
        yield Sample((grid(3, 4, low=self.low, high=self.high),), rtol=self.rtol)
        yield Sample((grid(low=self.low, high=self.high),), rtol=self.rtol, note="scalar")
        yield Sample((np.zeros((0, 3)),), grad=(), note="empty")
        yield Sample((grid(1, 1, 37, low=self.low, high=self.high),), rtol=self.rtol, grad=())
        if self.special:
            yield Sample(
                (SPECIAL,), grad=(), rtol=self.rtol, dtypes=dtypes.FLOATS, note="special values"
            )


class Binary(ElementOp):
    """An op that applies one scalar function to two operands, broadcast against each other."""

    inputs = "x: T, y: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    broadcasts = True
    fn: ClassVar[str] = ""
    low: ClassVar[float] = -2.0
    high: ClassVar[float] = 2.0
    rtol: ClassVar[float] = 2e-6

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The broadcast shape of the operands."""
        sizes = ctx.broadcast(ctx.sizes(0), ctx.sizes(1))
        return [TensorType(self.out_dtype(ctx.dtype(0)), sizes)]

    def out_dtype(self, dtype: DType) -> DType:
        """The result's dtype."""
        return dtype

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The element for the operands' elements."""
        return ir.apply(self.fn, x, y)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The scalar function of the two operands, each at its broadcast index."""
        x, y = ctx.broadcast_operand(0, index), ctx.broadcast_operand(1, index)
        return self.scalar(ctx.op, x, y)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The scalar function's own NumPy definition, which broadcasts."""
        return FUNCTIONS[self.fn].numpy(inputs[0], inputs[1])

    def samples(self) -> Iterable[Sample]:
        """Equal shapes, both kinds of broadcasting, scalars, empty dims, special values."""
        low, high, rtol = self.low, self.high, self.rtol
        x = grid(2, 3, 4, low=low, high=high)
        yield Sample((x, x[::-1, ::-1] * 0.75 + 0.2), rtol=rtol)
        yield Sample((x, grid(4, low=low, high=high) + 0.1), rtol=rtol, note="row broadcast")
        yield Sample((x[:, :, :1], x[:1] * 0.9 + 0.05), rtol=rtol, note="both broadcast")
        yield Sample((x[0, 0, 0], x[1] + 0.03), rtol=rtol, note="scalar operand")
        yield Sample((np.zeros((0, 3)), np.ones((1, 3))), grad=(), note="empty")
        left, right = np.meshgrid(SPECIAL, SPECIAL)
        yield Sample((left, right), grad=(), rtol=rtol, dtypes=dtypes.FLOATS, note="special")
        extreme = np.array([0, 1, -1, 2, -7, 127, -128])
        a, b = np.meshgrid(extreme, extreme)
        yield Sample((a, b), grad=(), dtypes=dtypes.SIGNED, note="extreme ints")

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The result for two sizes, if it is one; lets shape arithmetic stay symbolic."""
        return None

    def sizes_of_value(
        self, op: Operation, index: int
    ) -> tuple[DimLike | Element, ...] | None:
        """Shape arithmetic: the operation on sizes, element by element where it is one."""
        a, b = partial_value(op.inputs[0]), partial_value(op.inputs[1])
        if a is None or b is None:
            return None
        count = max(len(a), len(b)) if len(a) and len(b) else 0
        if len(a) not in (1, count) or len(b) not in (1, count):
            return None
        left, right = a if len(a) == count else a * count, b if len(b) == count else b * count
        values: list[DimLike | Element] = []
        for i, (x, y) in enumerate(zip(left, right, strict=True)):
            unknown = isinstance(x, Element) or isinstance(y, Element)
            value = None if unknown else self.symbolic_value(x, y)  # type: ignore[arg-type]
            whole = value is not None and fits(value, op.outputs[0].dtype)
            values.append(value if value is not None and whole else Element(op.outputs[0], i))
        return None if all(isinstance(v, Element) for v in values) else tuple(values)

    def grads(self, op: Operation, gx: Tensor | None, gy: Tensor | None) -> list[Tensor | None]:
        """Gradients summed over the dimensions that were broadcast."""
        x, y = op.inputs
        return [
            None if gx is None else unbroadcast(gx, x),
            None if gy is None else unbroadcast(gy, y),
        ]


class GradBinary(ElementOp):
    """The gradient of a scalar function: of two operands of one shape, linear in one of them."""

    inputs = "y: T, dy: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    low: ClassVar[float] = -2.0
    high: ClassVar[float] = 2.0
    rtol: ClassVar[float] = 4e-6

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The one shape that both operands have."""
        return [TensorType(ctx.dtype(0), merged_sizes(ctx, range(2)))]

    def scalar(self, op: Operation, a: ir.Expr, b: ir.Expr) -> ir.Expr:
        """The element for the operands' elements."""
        value: ir.Expr = self.formula(op.attrs, Scalars(a.dtype), a, b)
        return value

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """The value of two elements, in terms of the functions ``m`` offers."""
        raise CompileError(f"op {self.name} has no formula")

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The scalar of the two operands at the same index."""
        return self.scalar(ctx.op, ctx.operand(0, index), ctx.operand(1, index))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The same formula on arrays."""
        return self.formula(attrs, Arrays(np.asarray(inputs[0]).dtype), *inputs)

    def samples(self) -> Iterable[Sample]:
        """Regular values, a scalar, empty and size-1 dims, special values."""
        a, b = grid(3, 4, low=self.low, high=self.high), grid(3, 4, low=self.low, high=self.high)
        yield Sample((a, b[::-1] * 0.9 + 0.01), rtol=self.rtol)
        yield Sample((a[0, 0], b[1, 1]), rtol=self.rtol, note="scalar")
        yield Sample((np.zeros((0, 3)), np.zeros((0, 3))), grad=(), note="empty")
        left, right = np.meshgrid(SPECIAL, SPECIAL)
        yield Sample((left, right), grad=(), rtol=self.rtol, note="special")


class Compare(Binary):
    """A comparison: bool results, no gradient."""

    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    differentiable = False

    def out_dtype(self, dtype: DType) -> DType:
        """Bool."""
        return dtypes.bool_


class Scalars:
    """What formulas are written in, over the loop IR's expressions of one dtype."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    def __getattr__(self, fn: str) -> Callable[..., ir.Expr]:
        """A scalar function by name; ``where`` is select."""
        dtype = self.dtype

        def apply(*args: Any) -> ir.Expr:
            wrapped = [ir.wrap(a, dtype) for a in args]
            return ir.select(*wrapped) if fn == "where" else ir.apply(fn, *wrapped)

        return apply


class Arrays:
    """The same over NumPy arrays of one dtype."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def __getattr__(self, fn: str) -> Callable[..., Any]:
        """A scalar function's NumPy definition by name; ``where`` is select."""
        numpy = FUNCTIONS["select" if fn == "where" else fn].numpy
        kind = self.dtype.type

        def apply(*args: Any) -> Any:
            return numpy(*(kind(a) if type(a) in (int, float) else a for a in args))

        return apply


def fits(value: DimLike, dtype: DType) -> bool:
    """Whether an integer dtype has the number, or it is a size: others wrap around in a run."""
    low, high = dtype.base_dtype.limits
    return not isinstance(value, int) or bool(low <= value <= high)


def merged_sizes(ctx: InferContext, operands: Iterable[int]) -> tuple[DimLike, ...] | None:
    """The one shape that all the operands must have; what is known of it."""
    merged: tuple[DimLike, ...] | None = None
    for i in operands:
        sizes = ctx.sizes(i)
        if sizes is None:
            continue
        if merged is None:
            merged = sizes
        elif len(merged) != len(sizes):
            raise ctx.error(f"Shapes must be equal rank, but are {len(merged)} and {len(sizes)}")
        else:
            both = zip(merged, sizes, strict=True)
            merged = tuple(
                ctx.equal(a, b, f"Dimension {axis} in both shapes must be equal")
                for axis, (a, b) in enumerate(both)
            )
    return merged


def unbroadcast(grad: Tensor, like: Tensor) -> Tensor:
    """``grad`` summed over the dimensions that broadcasting added or stretched in ``like``."""
    if grad.sizes is not None and grad.sizes == like.sizes:
        return grad
    return single(create("SumToShape", [grad, like]))


def check_choice(ctx: InferContext, key: str, allowed: Sequence[str]) -> None:
    """The attribute ``key`` must be one of the strings that are allowed."""
    value = ctx.attrs[key]
    if value not in allowed:
        listed = ", ".join(f'"{a}"' for a in allowed)
        raise ctx.error(
            f"Value for attr '{key}' of \"{value}\" is not in the list of allowed values: {listed}"
        )


def call(op_name: str, *inputs: Any, name: str | None = None, **attrs: Any) -> Tensor:
    """Declare an op with one output and return that output."""
    return single(create(op_name, inputs, attrs, name))


def no_gradient(op: Op) -> bool:
    """Whether an op declares that it has no gradient."""
    return not op.differentiable
