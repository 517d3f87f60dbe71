"""The Python operators of tensors, with TensorFlow's names for what they declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor, create, is_symbolic, single
from graphc.dtypes import DType
from graphc.errors import CompileError, DTypeError
from graphc.graph import Tensor, name_scope, overload

BinaryFn = Callable[[Any, Any, str], Tensor]

_TRUEDIV: dict[DType, DType] = {
    dtypes.uint8: dtypes.float32,
    dtypes.int8: dtypes.float32,
    dtypes.uint16: dtypes.float32,
    dtypes.int16: dtypes.float32,
    dtypes.int32: dtypes.float64,
    dtypes.int64: dtypes.float64,
    dtypes.uint32: dtypes.float64,
    dtypes.uint64: dtypes.float64,
}

_MATMUL: list[BinaryFn] = []


def set_matmul(fn: BinaryFn) -> None:
    """Tell what ``a @ b`` declares: ``fn(a, b, name)``; the contractions do."""
    _MATMUL[:] = [fn]


def _matmul(x: Any, y: Any, name: str) -> Tensor:
    if not _MATMUL:
        raise CompileError("no matrix product has been registered for the operator @")
    return _MATMUL[0](x, y, name)


def _declaring(op_name: str) -> BinaryFn:
    return lambda x, y, name: single(create(op_name, [x, y], None, name))


def truediv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` as Python 3 has it: integers are divided as floats.

    int8, int16 and their unsigned kin become float32, wider integers float64.
    Raises:
      TypeError: the two have different dtypes.
    """
    with name_scope(name, "truediv", [x, y]) as scope:
        x, y = convert_to_tensor(x, name="x"), convert_to_tensor(y, name="y")
        kind, other = x.dtype.base_dtype, y.dtype.base_dtype
        if kind is not other:
            raise DTypeError(f"x and y must have the same dtype, got {kind!r} != {other!r}")
        if not (kind.is_floating or kind.is_integer):
            raise DTypeError(f"Invalid dtype {kind!r} in __truediv__")
        target = _TRUEDIV.get(kind)
        if target is not None:
            x = single(create("Cast", [x], {"DstT": target}))
            y = single(create("Cast", [y], {"DstT": target}))
        return single(create("RealDiv", [x, y], None, scope))


def logical_xor(x: Any, y: Any, name: str = "LogicalXor") -> Tensor:
    """Whether exactly one of ``x`` and ``y`` is true, element by element."""
    either = single(create("LogicalOr", [x, y]))
    both = single(create("LogicalAnd", [x, y]))
    not_both = single(create("LogicalNot", [both]))
    return single(create("LogicalAnd", [either, not_both], None, name))


def _binary(op_name: str, fn: BinaryFn) -> None:
    """Give tensors the operator ``__<op_name>__`` and its reflection."""

    def forward(x: Tensor, y: Any) -> Any:
        with name_scope(None, op_name, [x, y]) as scope:
            if not isinstance(y, Tensor):
                try:
                    y = convert_to_tensor(y, dtype_hint=x.dtype.base_dtype, name="y")
                except (TypeError, ValueError):
                    if hasattr(type(y), f"__r{op_name}__"):
                        return NotImplemented
                    raise
            return fn(x, y, scope)

    def reflected(y: Tensor, x: Any) -> Tensor:
        with name_scope(None, op_name, [x, y]) as scope:
            wanted = None if is_symbolic(x) else y.dtype.base_dtype
            return fn(convert_to_tensor(x, dtype=wanted, name="x"), y, scope)

    forward.__name__, reflected.__name__ = f"__{op_name}__", f"__r{op_name}__"
    overload(forward.__name__, forward)
    overload(reflected.__name__, reflected)


def _comparison(operator: str, op_name: str) -> None:
    def compare(x: Tensor, y: Any) -> Tensor:
        return single(create(op_name, [x, y]))

    overload(f"__{operator}__", compare)


def _unary(operator: str, op_name: str) -> None:
    def apply(x: Tensor) -> Tensor:
        return single(create(op_name, [x]))

    overload(f"__{operator}__", apply)


OPERATORS: dict[str, BinaryFn] = {
    "add": _declaring("AddV2"),
    "sub": _declaring("Sub"),
    "mul": _declaring("Mul"),
    "truediv": truediv,
    "floordiv": _declaring("FloorDiv"),
    "mod": _declaring("FloorMod"),
    "pow": _declaring("Pow"),
    "and": _declaring("LogicalAnd"),
    "or": _declaring("LogicalOr"),
    "xor": logical_xor,
    "matmul": _matmul,
}
"""The binary operators: what ``__<key>__`` and ``__r<key>__`` declare."""

COMPARISONS = {"lt": "Less", "le": "LessEqual", "gt": "Greater", "ge": "GreaterEqual"}
"""The comparisons; ``==`` and ``!=`` compare tensors by identity, as in TensorFlow 1."""

UNARY = {"neg": "Neg", "abs": "Abs", "invert": "LogicalNot"}
"""The unary operators."""

for _name, _fn in OPERATORS.items():
    _binary(_name, _fn)
for _name, _op in COMPARISONS.items():
    _comparison(_name, _op)
for _name, _op in UNARY.items():
    _unary(_name, _op)
