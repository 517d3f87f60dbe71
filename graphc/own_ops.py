"""Ops of one's own: registered from Python, and then ops like all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc import dims, dtypes
from graphc.build import create
from graphc.dims import DimLike
from graphc.dtypes import DType, as_dtype
from graphc.errors import DTypeError, GraphError
from graphc.graph import OP_NAME, Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.loop.printer import format_expr
from graphc.op import (
    REGISTRY,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Op,
    Sample,
    register,
)
from graphc.ops.host import HostOp, ResultType, as_results, guarded

NUMBERS = (*dtypes.NUMERIC, dtypes.bool_)

Shape = tuple["DimLike | None", ...] | None


def apply(fn: str, *values: Any) -> ir.Expr:
    """A scalar function of elements, for element expressions: ``apply("exp", x)``.

    The functions are those that the ops of graphc are made of: ``exp``, ``log1p``, ``tanh``,
    ``max``, ``lt``, ...; ``+``, ``-`` and ``*`` work as they are.
    """
    like = next((v for v in values if isinstance(v, ir.Expr)), None)
    if like is None:
        raise DTypeError(f"{fn}: at least one operand must be an element")
    return ir.apply(fn, *(ir.wrap(v, like.dtype) for v in values))


def select(condition: ir.Expr, x: Any, y: Any) -> ir.Expr:
    """``x`` where the condition holds, else ``y``, for element expressions."""
    like = x if isinstance(x, ir.Expr) else y
    if not isinstance(like, ir.Expr):
        raise DTypeError("select: one of the two values must be an element")
    return ir.select(condition, ir.wrap(x, like.dtype), ir.wrap(y, like.dtype))


def register_op(
    name: str,
    numpy: Callable[..., Any],
    *,
    operands: int = 1,
    element: Callable[..., ir.Expr] | None = None,
    shape: Callable[..., Any] | None = None,
    dtype: Callable[..., Any] | None = None,
    gradient: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register an op, and give the function that declares operations of it.

    With ``element`` the op is compiled and fused like any other, and ``numpy`` is its reference.
    Without it, ``numpy`` itself computes it, in the course of every run (a host step).

    Args:
      name: the op's type; no other op may have it.
      numpy: a function of arrays that gives an array, or several of an op without ``element``.
      operands: how many tensors it takes; those of an op with ``element`` have one dtype, and
        broadcast.
      element: a function of one element of each operand that gives the result's; it is made of
        ``+``, ``-``, ``*``, comparisons, :func:`apply` and :func:`select`.
      shape: of an op without ``element``: a function of the operands' shapes (tuples, with symbols
        for sizes that only a run tells) that gives the result's: a tuple, with None for what the
        call decides, or a list of them.  By default the first operand's.
      dtype: likewise a function of the operands' dtypes; by default the first operand's.
      gradient: a function of the operation and the gradients of its outputs that gives one for
        each operand; without it there is none.
    Returns:
      A function of the operands, and of a ``name`` for the operation.
    Raises:
      ValueError: a name that is taken or is none; a ``shape`` or ``dtype`` that ``element`` has no
        use for.
    """
    if name in REGISTRY or not OP_NAME.match(name):
        raise GraphError(f"no op can be registered as {name!r}: that is taken, or is no name")
    if operands < 1:
        raise GraphError(f"the op {name!r} must have an operand")
    if element is not None and (shape is not None or dtype is not None):
        raise GraphError(f"the op {name!r} has an element expression, and with it dtype and shape")
    base: type[Op] = _OwnElementOp if element is not None else _OwnHostOp
    parts: dict[str, Any] = {
        "__doc__": (numpy.__doc__ or "").strip() or f"An op of the user's own: {name}.",
        "name": name,
        "differentiable": gradient is not None,
        "rules": {
            "numpy": numpy, "element": element, "shape": shape, "dtype": dtype,
            "gradient": gradient,
        },
    }  # fmt: skip
    if element is not None:
        parts["inputs"] = ", ".join(f"x{k}: T" for k in range(operands))
        parts["types"] = {"T": NUMBERS}
    else:
        kinds = "|".join(t.name for t in NUMBERS)
        parts["inputs"] = ", ".join(f"x{k}: {kinds}" for k in range(operands))
    register(type(name, (base,), parts))

    def declare(*tensors: Any, **kwargs: Any) -> Any:
        """Declare an operation."""
        label = kwargs.pop("name", None)
        if kwargs or len(tensors) != operands:
            raise DTypeError(f"{name}() takes {operands} tensors and a name")
        outputs = create(name, tensors, None, label).outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    return declare


class _OwnOp(Op):
    rules: dict[str, Any]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """What the user's function gives; it gets zeros where nothing depends on an output."""
        full = [
            create("ZerosLike", [t]).outputs[0] if g is None else g
            for t, g in zip(op.outputs, grads, strict=True)
        ]
        answer = self.rules["gradient"](op, *full)
        found = list(answer) if isinstance(answer, (list, tuple)) else [answer]
        if len(found) != len(op.inputs):
            raise GraphError(
                f"the gradient of {self.name} gives {len(found)} values for {len(op.inputs)} "
                "operands"
            )
        return found

    def samples(self) -> Iterable[Sample]:
        """None: whoever registers an op tests it."""
        return ()


class _OwnElementOp(_OwnOp, ElementOp):
    """An op whose element the user has said."""

    broadcasts = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operands broadcast; the dtype that the expression has."""
        sizes: tuple[DimLike, ...] | None = ()
        for k in range(len(ctx.inputs)):
            sizes = ctx.broadcast(sizes, ctx.sizes(k))
        return [TensorType(self.probe([t.dtype for t in ctx.inputs]).dtype, sizes)]

    def probe(self, types: Sequence[DType]) -> ir.Expr:
        """The expression of operands of these dtypes."""
        return self.expression([ir.Var(f"x{k}", t.base_dtype) for k, t in enumerate(types)])

    def code_text(self, op: Operation) -> str:
        """What the compiled code depends on besides the op's name."""
        return format_expr(self.probe([t.dtype for t in op.inputs]))

    def expression(self, values: Sequence[ir.Expr]) -> ir.Expr:
        """The result's element."""
        found = self.rules["element"](*values)
        if not isinstance(found, ir.Expr):
            raise DTypeError(f"the element expression of {self.name} gives {found!r}")
        return found

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The user's expression of the operands' elements."""
        count = len(ctx.op.inputs)
        return self.expression([ctx.broadcast_operand(k, index) for k in range(count)])

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The user's function of arrays."""
        return self.rules["numpy"](*inputs)


class _OwnHostOp(_OwnOp, HostOp):
    """An op that the user's function of arrays computes."""

    def repeatable(self, op: Operation) -> bool:
        """An op has no effect."""
        return True

    def result_types(self, ctx: InferContext) -> Sequence[ResultType]:
        """What the user's rules say."""
        types = [t.dtype.base_dtype for t in ctx.inputs]
        kinds = self.rules["dtype"](*types) if self.rules["dtype"] else types[0]
        found: list[DType] = [
            as_dtype(k) for k in (kinds if isinstance(kinds, (list, tuple)) else [kinds])
        ]
        shapes: list[Shape] = [None] * len(found)
        given = [t.sizes for t in ctx.inputs]
        rule = self.rules["shape"]
        if rule is None:
            shapes = [given[0]] * len(found)
        elif all(s is not None for s in given):
            stated = rule(*given)
            shapes = stated if isinstance(stated, list) else [stated]
        if len(shapes) != len(found):
            raise ctx.error(f"{len(found)} dtypes and {len(shapes)} shapes are stated")
        for s in shapes:
            wrong = s is not None and not all(
                d is None or isinstance(d, (int, dims.Dim)) for d in s
            )
            if wrong:
                raise ctx.error(f"The shape rule gives {s!r}")
        return list(zip(found, shapes, strict=True))

    def compute(self, op: Operation, arrays: Sequence[Any]) -> Sequence[Any]:
        """The user's function of arrays."""
        return as_results(guarded(op, self.rules["numpy"], arrays))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The user's function of arrays."""
        return tuple(as_results(self.rules["numpy"](*inputs)))
