"""What the interpreter computes with: values of one or many lanes, storage, casts, expressions.

A *uniform* value, the same in every lane, is a Python int (int64), a Python bool or a NumPy
scalar; any other value is an array with one element per lane.  Only the lanes of the current mask
count: in the others a value may be anything, and no access is done for them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc.loop.scalar_math  # noqa: F401  registers the derived functions
from graphc.dtypes import DType, bool_, int64, rounded
from graphc.errors import GraphcError
from graphc.loop.ir import (
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    Guard,
    Load,
    Require,
    Var,
)
from graphc.loop.scalar import FUNCTIONS

Value = Any
Array = np.ndarray[Any, Any]


class KernelFault(GraphcError, RuntimeError):
    """A kernel did what no kernel may: an index out of bounds, a read of uninitialised storage,
    a divergent barrier, two lanes writing one element."""


class RequireFailed(GraphcError, RuntimeError):
    """The condition of a ``Require`` did not hold.

    Attributes:
      site: the number of the error site.
      details: what its detail expressions evaluated to, for the first failing lane.
    """

    def __init__(self, site: int, details: tuple[int, ...]) -> None:
        super().__init__(f"require#{site} failed, details {details}")
        self.site = site
        self.details = details


def _truncate(a: int, b: int) -> int:
    if b == 0:
        return 0
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


# int64 arithmetic of uniform values: most of what index expressions are made of.
_INTEGER: dict[str, Callable[[int, int], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "idiv": _truncate,
    "irem": lambda a, b: a - _truncate(a, b) * b if b else 0,
    "min": min,
    "max": max,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
_HALF = 1 << 63


def uniform(value: Value) -> bool:
    """Whether all lanes share the value."""
    return not isinstance(value, np.ndarray)


def typed(value: Value, dtype: DType) -> Value:
    """A value as NumPy has it: Python numbers become scalars of their dtype."""
    return dtype.as_numpy_dtype(value) if isinstance(value, (int, bool)) else value


def plain(value: Any, dtype: DType) -> Value:
    """A NumPy result in the form that values have."""
    if isinstance(value, np.ndarray) and value.ndim:
        return value if value.dtype == dtype.numpy else value.astype(dtype.numpy)
    if dtype is int64:
        return int(value)
    return bool(value) if dtype is bool_ else dtype.as_numpy_dtype(value)


def convert(value: Value, source: DType, target: DType) -> Value:
    """``Cast``: saturating from floats to integers, wrapping between integers."""
    a = np.asarray(typed(value, source))
    if target is bool_:
        return plain(a != 0, target)
    if source.is_floating and target.is_integer:
        t = np.trunc(a.astype(np.float64))
        low, high = int(target.min), int(target.max)
        above, below = t >= float(high) + (high < 1 << 52), t <= float(low)
        safe = np.where(np.isnan(t) | above | below, 0.0, t).astype(target.numpy)
        limit = np.where(above, target.numpy.type(high), target.numpy.type(low))
        return plain(np.where(above | below, limit, safe), target)
    return plain(rounded(a, target.numpy), target)


def bits_of(value: Value, source: DType, target: DType) -> Value:
    """``bitcast``."""
    a = np.asarray(typed(value, source))
    return plain(np.atleast_1d(a).view(target.numpy).reshape(a.shape), target)


class Storage:
    """The elements of a buffer: ``(size,)``, or ``(lanes, size)`` where each lane has its own.

    ``ready`` says which elements have been written; None for what the caller passed in.
    """

    __slots__ = ("buffer", "data", "ready")

    def __init__(self, buffer: Buffer, data: Array, ready: Array | None = None) -> None:
        self.buffer = buffer
        self.data = data
        self.ready = ready

    @staticmethod
    def fresh(buffer: Buffer, size: int, lanes: int | None) -> Storage:
        """Uninitialised storage, poisoned."""
        shape = (size,) if lanes is None else (lanes, size)
        dtype = buffer.dtype
        poison = np.nan if dtype.is_floating else dtype.max
        ready = np.zeros(shape, np.bool_)
        return Storage(buffer, np.full(shape, poison, dtype.numpy), ready)

    @property
    def private(self) -> bool:
        """Whether each lane has its own elements."""
        return self.data.ndim == 2

    def at(self, index: Value, mask: Array | None) -> tuple[Any, Any]:
        """The NumPy subscript of an access and the lanes it is done for.

        Raises:
          KernelFault: an active lane's index is out of bounds.
        """
        size = self.data.shape[-1]
        if uniform(index):
            active = mask is None or bool(mask.any())
            if active and not 0 <= index < size:
                raise KernelFault(f"index {index} out of bounds of {self.buffer.name}[{size}]")
            where = min(max(index, 0), size - 1)
            return ((slice(None), where) if self.private else where), mask
        bad = (index < 0) | (index >= size)
        if mask is not None:
            bad &= mask
        if bad.any():
            lane = int(np.argmax(bad))
            raise KernelFault(
                f"index {int(index[lane])} out of bounds of {self.buffer.name}[{size}] "
                f"in lane {lane}"
            )
        where = index if mask is None else np.where(mask, index, 0)
        return ((np.arange(len(index)), where) if self.private else where), mask

    def read(self, index: Value, mask: Array | None) -> Value:
        """The elements at ``index``; anything in lanes that are masked off."""
        where, mask = self.at(index, mask)
        if self.data.shape[-1] == 0:
            return plain(np.zeros(np.shape(index), self.data.dtype), self.buffer.dtype)
        if self.ready is not None:
            missing = ~self.ready[where]
            if bool((missing if mask is None else missing & mask).any()):
                raise KernelFault(f"{self.buffer.name}[{index}] is read before it is written")
        return plain(self.data[where], self.buffer.dtype)


Tape = list[tuple[Callable[..., Value], Any]]


class Evaluator:
    """Evaluates expressions in the lanes of a mask.

    An expression becomes, once, a list of steps in dependency order, so that a long chain needs
    no deep recursion; the value of a Guard is a list of its own, done under a narrower mask.
    """

    def __init__(self) -> None:
        self.env: dict[Var, Value] = {}
        self.memory: dict[Buffer, Storage] = {}
        self.mask: Array | None = None
        self.tapes: dict[Expr, Tape] = {}

    def eval(self, root: Expr) -> Value:
        """The value of an expression under the current mask."""
        if isinstance(root, Var):
            return self.env[root]
        tape = self.tapes.get(root)
        if tape is None:
            tape = self.tapes[root] = self._compile(root, set())
        values: dict[Expr, Value] = {}
        for step, node in tape:
            values[node] = step(node, values)
        return values[root]

    def _compile(self, root: Expr, done: set[Expr]) -> Tape:
        tape: Tape = []
        stack = [root]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            needs = node.operands
            if isinstance(node, Guard):
                needs = (node.cond, node.otherwise)
            elif isinstance(node, Require):
                needs = (node.cond,)
            missing = [n for n in needs if n not in done]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            done.add(node)
            tape.append((self._step(node, done), node))
        return tape

    def _step(self, node: Expr, done: set[Expr]) -> Callable[..., Value]:
        if isinstance(node, Const):
            value = plain(node.dtype.as_numpy_dtype(node.value), node.dtype)
            return lambda _node, _values: value
        if isinstance(node, Var):
            return lambda node, _values: self.env[node]
        if isinstance(node, Load):
            return self._load
        if isinstance(node, Cast):
            return lambda n, values: convert(values[n.value], n.value.dtype, n.dtype)
        if isinstance(node, Guard):
            inner = self._compile(node.value, set(done))
            return lambda n, values: self._guard(n, values, inner)
        if isinstance(node, Require):
            return self._require_step(node, done)
        assert isinstance(node, Apply)
        if node.fn == "bitcast":
            return lambda n, values: bits_of(values[n.args[0]], n.args[0].dtype, n.dtype)
        return self._apply_step(node)

    def _apply_step(self, node: Apply) -> Callable[..., Value]:
        numpy = FUNCTIONS[node.fn].numpy
        integer = _INTEGER.get(node.fn)
        args, dtype = node.args, node.dtype

        def general(_node: Apply, values: dict[Expr, Value]) -> Value:
            return plain(numpy(*[typed(values[a], a.dtype) for a in args]), dtype)

        if integer is None or args[0].dtype is not int64:
            return general

        def indices(node: Apply, values: dict[Expr, Value]) -> Value:
            a, b = values[args[0]], values[args[1]]
            if type(a) is int and type(b) is int:
                result = integer(a, b)
                if type(result) is int and not -_HALF <= result < _HALF:
                    return (result + _HALF) % (2 * _HALF) - _HALF
                return result
            return general(node, values)

        return indices

    def _load(self, node: Load, values: dict[Expr, Value]) -> Value:
        storage = self.memory[node.buffer]
        index = values[node.index]
        quick = type(index) is int and self.mask is None and storage.ready is None
        if quick and 0 <= index < storage.data.shape[0]:
            return plain(storage.data[index], node.dtype)
        return storage.read(index, self.mask)

    def _guard(self, node: Guard, values: dict[Expr, Value], inner: Tape) -> Value:
        cond = values[node.cond]
        otherwise = values[node.otherwise]
        if uniform(cond):
            return self._under(node.value, values, inner) if cond else otherwise
        outer = self.mask
        self.mask = cond if outer is None else outer & cond
        try:
            value = self._under(node.value, values, inner)
        finally:
            self.mask = outer
        value, otherwise = typed(value, node.dtype), typed(otherwise, node.dtype)
        return np.where(cond, value, otherwise)

    def _under(self, root: Expr, values: dict[Expr, Value], tape: Tape) -> Value:
        # Values of a narrower mask are no good outside of it.
        inside = dict(values)
        for step, node in tape:
            inside[node] = step(node, inside)
        return inside[root]

    def _require_step(self, node: Require, done: set[Expr]) -> Callable[..., Value]:
        inner = self._compile(node.value, set(done))
        details = [self._compile(d, set(done)) for d in node.details]

        def require(node: Require, values: dict[Expr, Value]) -> Value:
            bad = ~np.atleast_1d(np.asarray(values[node.cond]))
            if self.mask is not None:
                bad = bad & self.mask
            if bad.any():
                lane = int(np.argmax(bad))
                shown = []
                for detail, tape in zip(node.details, details, strict=True):
                    value = self._under(detail, values, tape)
                    shown.append(int(value if uniform(value) else value[lane]))
                raise RequireFailed(node.site, tuple(shown))
            return self._under(node.value, values, inner)

        return require
