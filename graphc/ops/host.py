"""Host steps: operations whose values a Python function computes in the course of a run.

A :class:`HostOp` is what the user declares.  In a compiled function it is a :class:`Host`, whose
results are arrays of known rank: of what nobody has stated the rank of, the elements in a row, and
the sizes beside them.
"""

from __future__ import annotations

import itertools
import traceback
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import (
    CompileError,
    GraphcError,
    InternalError,
    InvalidArgumentError,
    OpError,
    OutOfRangeError,
    ResourceExhaustedError,
    UnimplementedError,
    UnknownError,
)
from graphc.graph import Graph, Operation, Tensor, TensorType
from graphc.op import Attr, InferContext, Sample, SpecialOp, register

ANY = "|".join(t.name for t in (*dtypes.ALL, dtypes.string))

ResultType = tuple[DType, "tuple[DimLike | None, ...] | None"]


class HostOp(SpecialOp):
    """An op that Python computes.

    It runs once whenever a run comes to it, in the order of declaration among its kind, and is
    neither merged with an equal one nor left out where its results are not needed.

    Class attributes:
      passes: whether the first output is the first operand as it is.
      portable: whether it can be saved: whether it refers to no Python function.
    """

    family = "host"
    pure = False
    fallible = True
    differentiable = False
    passes: ClassVar[bool] = False
    portable: ClassVar[bool] = True

    def result_types(self, ctx: InferContext) -> Sequence[ResultType]:
        """The dtypes and sizes of the outputs; None for a size or a rank that a run decides."""
        raise CompileError(f"op {self.name} has no result_types")

    def compute(self, op: Operation, arrays: Sequence[Any]) -> Sequence[Any]:
        """The results for arrays of the operands; of one that ``passes``, nothing."""
        raise CompileError(f"op {self.name} has no compute")

    def repeatable(self, op: Operation) -> bool:
        """Whether a second call with the same operands would do no harm."""
        return False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """What ``result_types`` says; sizes that a run decides are unknown."""
        return [
            TensorType(
                dtype,
                None if sizes is None else tuple(dims.fresh() if s is None else s for s in sizes),
            )
            for dtype, sizes in self.result_types(ctx)
        ]

    def samples(self) -> Iterable[Sample]:
        """None: the tests of host steps cover it."""
        return ()


def is_host(op: Operation) -> bool:
    """Whether Python computes the operation."""
    return isinstance(op.definition, HostOp)


def calls_host(op: Operation) -> bool:
    """Whether an operation of a compiled function is a host step, or has one in its bodies."""
    if op.type == "Host":
        return True
    return any(calls_host(o) for body in op.attrs.get("bodies", ()) for o in body.operations)


# --- in a compiled function -----------------------------------------------------------------------


@register
class Host(SpecialOp):
    """A call back into Python, in a compiled function.

    The outputs are arrays of the attribute ``types``; then one int64 vector: the values of
    ``symbols``, the sizes among those types that the call decides.  ``source`` is the user's
    operation, ``strings`` its operands of strings by their number.  ``flat`` numbers the results
    of unknown rank: their elements stand in a row, and their sizes are further results, in
    order.  ``shaped`` numbers the operands that came so; their sizes are further operands.
    """

    name = "Host"
    inputs = f"values: N*{ANY}"
    attrs: ClassVar[dict[str, Attr]] = {
        "source": Attr("any", None),
        "strings": Attr("any", ()),
        "types": Attr("any", ()),
        "symbols": Attr("any", ()),
        "flat": Attr("ints", ()),
        "shaped": Attr("ints", ()),
    }
    family = "host"
    pure = False
    fallible = True
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """What the attributes say."""
        count = max(1, len(ctx.attrs["symbols"]))
        return [*ctx.attrs["types"], TensorType(dtypes.int64, (count,))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The interpreters call :func:`host_values`."""
        raise CompileError("Host is run by the interpreter, not by a reference")

    def samples(self) -> Iterable[Sample]:
        """None: the tests of host steps cover it."""
        return ()


def host_values(op: Operation, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a :class:`Host` operation.

    Raises:
      OpError: the function raised, or gave what was not declared; names the user's operation.
    """
    attrs = op.attrs
    source = attrs["source"]
    results = call(source, operands(op, arrays))
    shapes = [np.array(results[k].shape, np.int64) for k in attrs["flat"]]
    for k in attrs["flat"]:
        results[k] = results[k].reshape(-1)
    values = [*results, *shapes]
    for k, (value, type_) in enumerate(zip(values, attrs["types"], strict=True)):
        assert type_.sizes is not None
        wanted = tuple(s if isinstance(s, int) else None for s in type_.sizes)
        check_shape(source, k, value.shape, wanted)
    found = {}
    for value, type_ in zip(values, attrs["types"], strict=True):
        for size, n in zip(type_.sizes, value.shape, strict=True):
            if not isinstance(size, int):
                found[size.as_symbol] = n
    sizes = [found[s] for s in attrs["symbols"]] or [0]
    return [*values, np.array(sizes, np.int64)]


def operands(op: Operation, arrays: Sequence[np.ndarray]) -> list[Any]:
    """The user's operands, from those of the :class:`Host` operation."""
    strings = dict(op.attrs["strings"])
    shaped = op.attrs["shaped"]
    count = len(arrays) - len(shaped)
    given = list(arrays[:count])
    for k, sizes in zip(shaped, arrays[count:], strict=True):
        given[k] = given[k].reshape(sizes)
    rest = iter(given)
    return [
        strings[k] if k in strings else next(rest) for k in range(len(op.attrs["source"].inputs))
    ]


def check_shape(
    source: Operation, k: int, shape: Sequence[int], wanted: Sequence[int | None]
) -> None:
    """Refuse a result of another shape than was stated."""
    fits = len(shape) == len(wanted) and all(
        w is None or w == n for w, n in zip(wanted, shape, strict=True)
    )
    if not fits:
        stated = "(" + ", ".join("?" if w is None else str(w) for w in wanted) + ")"
        raise InvalidArgumentError(
            source.node_def, source,
            f"{k}-th value returned by {label(source)} has shape {tuple(shape)}, but its stated "
            f"shape is {stated}",
        )  # fmt: skip


def label(source: Operation) -> str:
    """What the function of an operation is called in messages."""
    return str(source.attrs.get("token") or source.name)


def call(source: Operation, arrays: Sequence[Any]) -> list[np.ndarray]:
    """The results of the user's operation as arrays of the declared dtypes."""
    definition = source.definition
    assert isinstance(definition, HostOp)
    # Scalars come as NumPy's scalars, as in TensorFlow.
    given = [a[()] if a.ndim == 0 else a for a in map(np.asarray, arrays)]
    results = list(definition.compute(source, given))
    wanted = source.outputs[1:] if definition.passes else source.outputs
    if len(results) != len(wanted):
        raise InvalidArgumentError(
            source.node_def, source,
            f"{label(source)} returns {len(results)} values, but expects to see {len(wanted)} "
            "values.",
        )  # fmt: skip
    pairs = enumerate(zip(results, wanted, strict=True))
    return [converted(source, k, r, t) for k, (r, t) in pairs]


def converted(source: Operation, k: int, value: Any, wanted: Tensor) -> np.ndarray:
    """A result as an array of exactly the declared dtype."""
    try:
        array = np.asarray(value, order="C")
    except ValueError as e:
        raise InvalidArgumentError(source.node_def, source, f"ValueError: {e}") from e
    if array.dtype == object:
        kind = type(array.reshape(-1)[0]).__name__ if array.size else "object"
        raise InternalError(source.node_def, source, f"Unsupported object type {kind}")
    dtype = wanted.dtype.base_dtype
    if array.dtype != dtype.numpy:
        raise InvalidArgumentError(
            source.node_def, source,
            f"{k}-th value returned by {label(source)} is {kind_name(array.dtype)}, but expects "
            f"{kind_name(dtype.numpy)}",
        )  # fmt: skip
    return array


def kind_name(dtype: Any) -> str:
    """A dtype in the words of TensorFlow's runtime."""
    name: str = np.dtype(dtype).name
    return {"float64": "double", "float32": "float", "float16": "half"}.get(name, name)


# --- Python functions -----------------------------------------------------------------------------

_CODES: tuple[tuple[type[Exception], type[OpError]], ...] = (
    (ValueError, InvalidArgumentError),
    (TypeError, InvalidArgumentError),
    (StopIteration, OutOfRangeError),
    (MemoryError, ResourceExhaustedError),
    (NotImplementedError, UnimplementedError),
)


def guarded(source: Operation, fn: Callable[..., Any], arrays: Sequence[Any]) -> Any:
    """What the user's function gives; what it raises becomes an error of the operation.

    Interrupts and exits pass as they are.
    """
    try:
        return fn(*arrays)
    except Exception as e:
        kind = next((code for kind, code in _CODES if isinstance(e, kind)), UnknownError)
        if isinstance(e, GraphcError) and kind is InvalidArgumentError:
            kind = UnknownError
        text = "".join(traceback.format_exception(e))
        raise kind(
            source.node_def, source, f"{type(e).__name__}: {e}\n{text}"
        ) from e


class HostFunction:
    """A Python function that a graph refers to; the graph keeps it, the registry does not."""

    __slots__ = ("__weakref__", "fn")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn


_functions: weakref.WeakValueDictionary[str, HostFunction] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def keep_function(graph: Graph, fn: Callable[..., Any]) -> str:
    """Register a function that lives as long as the graph; the token that it is called by."""
    token = f"pyfunc_{next(_numbers)}"
    holder = HostFunction(fn)
    _functions[token] = holder
    graph.scratch.setdefault("host functions", []).append(holder)
    return token


def find_function(token: str) -> Callable[..., Any]:
    """The function of a token.

    Raises:
      CompileError: it is gone with its graph.
    """
    holder = _functions.get(token)
    if holder is None:
        raise CompileError(f"callback {token} is not found: its graph is gone")
    return holder.fn


@register
class PyFunc(HostOp):
    """A Python function of NumPy arrays, called in the course of a run.

    ``token`` names the function, ``Tout`` the dtypes of its results.  Their shapes are unknown
    until ``set_shape`` states them.
    """

    name = "PyFunc"
    inputs = f"input: N*{ANY}"
    attrs: ClassVar[dict[str, Attr]] = {"token": Attr("str"), "Tout": Attr("dtypes")}
    portable = False

    def result_types(self, ctx: InferContext) -> Sequence[ResultType]:
        """The stated dtypes."""
        return [(t, None) for t in ctx.attrs["Tout"]]

    def compute(self, op: Operation, arrays: Sequence[Any]) -> Sequence[Any]:
        """The function's result, or results."""
        return as_results(guarded(op, find_function(op.attrs["token"]), arrays))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The function itself."""
        return tuple(as_results(find_function(attrs["token"])(*inputs)))


@register
class PyFuncStateless(PyFunc):
    """A Python function like :class:`PyFunc` that gives the same results for the same operands."""

    name = "PyFuncStateless"

    def repeatable(self, op: Operation) -> bool:
        """It says so."""
        return True


def as_results(value: Any) -> Sequence[Any]:
    """The results of a Python function: a list of several, nothing for None."""
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)
