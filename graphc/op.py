"""What an op is: one class per op holds everything that is true of it.

A subclass of :class:`Op` states the op's operands (``inputs``), attributes, type inference, its
gradient, how it is computed (an ``element`` definition, a template or a decomposition), its NumPy
reference and sample inputs.  :func:`register` refuses a class that leaves something out; tests,
documentation, files and import tables are generated from the registry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError, DTypeError, ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop.ir import ZERO, Expr
from graphc.shapes import shape_text


@dataclass(frozen=True, slots=True)
class Arg:
    """An operand of an op: ``"x: T"``, ``"values: N*T"``, ``"axis: int32|int64"``."""

    name: str
    type_var: str | None
    types: tuple[DType, ...]
    variadic: bool = False
    ref: bool = False


@dataclass(frozen=True, slots=True)
class Attr:
    """An attribute of an op.

    Attributes:
      kind: ``int``, ``float``, ``bool``, ``str``, ``ints``, ``dtype``, ``shape``, ``array`` or
        ``any``; how it is written to files.
      default: its value when the caller gives none; ``REQUIRED`` if there is none.
    """

    kind: str
    default: Any = ...


REQUIRED = ...


@dataclass(frozen=True)
class Sample:
    """One row of inputs that the generated tests run an op on.

    Attributes:
      inputs: arrays (or a list of arrays for a variadic operand), in float64, int64 or bool; the
        tests cast them to every dtype the op declares.
      attrs: attributes.
      grad: operands to check the gradient of (indices); None: every floating operand;
        ``()``: none, because the sample sits where there is no derivative.
      dtypes: restricts the dtypes of the first type variable.
      rtol: relative tolerance against the reference in float32; scaled for other types.
    """

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    grad: tuple[int, ...] | None = None
    dtypes: tuple[DType, ...] | None = None
    rtol: float = 2e-6
    note: str = ""


class ShapeEnv:
    """What inference may assume of symbolic sizes.

    While the user declares, nothing is assumed: two sizes that may differ give an unknown size.
    The compiler's environment (:mod:`graphc.passes.extract`) records assumptions as guards.
    """

    def canonical(self, size: DimLike) -> DimLike:
        """The size with everything substituted that is known of its symbols."""
        return size

    def assume_equal(self, a: DimLike, b: DimLike) -> DimLike:
        """The size to go on with when ``a`` and ``b``, not both ints, must be equal."""
        return a if isinstance(a, int) else b if isinstance(b, int) else a

    def broadcast_unknown(self, a: DimLike, b: DimLike) -> DimLike:
        """The broadcast size of two sizes that are not equal as far as is known, neither 1."""
        if isinstance(a, int):
            return a
        return b if isinstance(b, int) else dims.fresh()

    def is_one(self, size: DimLike) -> bool | None:
        """Whether the size is 1; None where that is not known and nothing may be assumed."""
        return size == 1 if isinstance(size, int) else None

    def value_symbols(self, tensor: Tensor, count: int) -> tuple[DimLike, ...]:
        """Sizes standing for the elements of an integer tensor that only a run can tell."""
        return tuple(dims.fresh("v", positive=False) for _ in range(count))


DECLARING = ShapeEnv()


class InferContext:
    """What ``Op.infer`` sees: operand types, attributes, known values; and how it complains."""

    def __init__(
        self,
        definition: Op,
        name: str,
        inputs: Sequence[Tensor],
        attrs: dict[str, Any],
        env: ShapeEnv = DECLARING,
    ) -> None:
        self.definition = definition
        self.name = name
        self.tensors = inputs
        self.inputs = [t.type for t in inputs]
        self.attrs = attrs
        self.env = env

    def sizes(self, i: int) -> tuple[DimLike, ...] | None:
        """The sizes of operand ``i``; None for unknown rank."""
        return self.inputs[i].sizes

    def dtype(self, i: int) -> DType:
        """The (non-reference) dtype of operand ``i``."""
        return self.inputs[i].dtype.base_dtype

    def value(self, i: int) -> tuple[DimLike, ...] | None:
        """The elements of a small integer operand of rank 0 or 1 as sizes.

        Elements that only a run can tell are fresh symbols.  None when even their number is
        unknown.
        """
        known = partial_value(self.tensors[i])
        if known is not None:
            return tuple(self._resolved(v) for v in known)
        sizes = self.sizes(i)
        if sizes is None or len(sizes) > 1 or not all(isinstance(s, int) for s in sizes):
            return None
        count = sizes[0] if sizes else 1
        assert isinstance(count, int)
        return self.env.value_symbols(self.tensors[i], count)

    def _resolved(self, value: DimLike | Element) -> DimLike:
        if not isinstance(value, Element):
            return self.env.canonical(value)
        sizes = value.tensor.sizes
        count = sizes[0] if sizes else 1
        assert isinstance(count, int)
        return self.env.value_symbols(value.tensor, count)[value.position]

    def error(self, message: str) -> ShapeError:
        """A ShapeError in TensorFlow's words: the message, the op and its operand shapes."""
        shapes = ", ".join(shape_text(t.sizes) for t in self.inputs)
        return ShapeError(
            f"{message} for '{self.name}' (op: '{self.definition.name}') with input shapes: "
            f"{shapes}."
        )

    def equal(self, a: DimLike, b: DimLike, message: str = "Dimensions must be equal") -> DimLike:
        """The common size of two that must be equal; raises if they cannot be."""
        a, b = self.env.canonical(a), self.env.canonical(b)
        if a == b:
            return a
        if isinstance(a, int) and isinstance(b, int):
            raise self.error(f"{message}, but are {a} and {b}")
        return self.env.assume_equal(a, b)

    def broadcast(
        self, a: tuple[DimLike, ...] | None, b: tuple[DimLike, ...] | None
    ) -> tuple[DimLike, ...] | None:
        """NumPy's broadcast of two shapes; None when a rank is unknown."""
        if a is None or b is None:
            return None
        rank = max(len(a), len(b))
        a = (1,) * (rank - len(a)) + tuple(a)
        b = (1,) * (rank - len(b)) + tuple(b)
        return tuple(self._broadcast_size(x, y) for x, y in zip(a, b, strict=True))

    def _broadcast_size(self, a: DimLike, b: DimLike) -> DimLike:
        a, b = self.env.canonical(a), self.env.canonical(b)
        if a == b or b == 1:
            return a
        if a == 1:
            return b
        if isinstance(a, int) and isinstance(b, int):
            raise self.error(f"Dimensions must be equal, but are {a} and {b}")
        return self.env.broadcast_unknown(a, b)

    def rank(self, i: int, rank: int) -> tuple[DimLike, ...]:
        """The sizes of operand ``i``, which must have the given rank; unknown ones are fresh."""
        sizes = self.sizes(i)
        if sizes is None:
            return tuple(dims.fresh() for _ in range(rank))
        if len(sizes) != rank:
            raise self.error(f"Shape must be rank {rank} but is rank {len(sizes)}")
        return sizes


class Element(NamedTuple):
    """An element of an integer tensor of rank 0 or 1 that only a run can tell."""

    tensor: Tensor
    position: int


def value_sizes(tensor: Tensor) -> tuple[DimLike, ...] | None:
    """The elements of a small integer tensor as sizes, where its graph tells all; else None."""
    known = partial_value(tensor)
    if known is None:
        return None
    sizes = tuple(v for v in known if not isinstance(v, Element))
    return sizes if len(sizes) == len(known) else None


def partial_value(tensor: Tensor) -> tuple[DimLike | Element, ...] | None:
    """The elements of a small integer tensor as sizes; those that its graph does not tell as
    elements of the tensors that they come from; None when it tells nothing.
    """
    if tensor._value_sizes is None:
        found = None
        sizes = tensor.sizes
        if tensor.dtype.base_dtype.is_integer and sizes is not None and len(sizes) <= 1:
            found = tensor.op.definition.sizes_of_value(tensor.op, tensor.index)
        tensor._value_sizes = () if found is None else (found,)
    return tensor._value_sizes[0] if tensor._value_sizes else None


Gradients = Sequence["Tensor | None"]


class Op:
    """Base of all op classes; a registered op is one instance of its class.

    Class attributes:
      name: TensorFlow's name of the op where it has the op.
      version: grows when the meaning of saved attributes changes.
      inputs: operands, ``"x: T, y: T"``; a type is a type variable or dtype names joined by ``|``;
        ``N*T`` is a list; ``Ref(T)`` a variable's handle.
      types: the dtypes that each type variable admits.
      attrs: attributes with kinds and defaults.
      value_operands: operands whose values, not only their shapes, decide the output's shape.
      constant_operands: operands that must be constants for the compiler (axes, permutations); a
        run that computes them compiles for their values.
      pure: False when running the op twice or not at all makes a difference.
      fallible: True when some operand values make a run fail.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    inputs: ClassVar[str] = ""
    types: ClassVar[dict[str, tuple[DType, ...]]] = {}
    attrs: ClassVar[dict[str, Attr]] = {}
    value_operands: ClassVar[tuple[int, ...]] = ()
    constant_operands: ClassVar[tuple[int, ...]] = ()
    pure: ClassVar[bool] = True
    fallible: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    family: ClassVar[str] = "op"
    args: ClassVar[tuple[Arg, ...]] = ()

    # --- what a class must say ------------------------------------------------------------------

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The types of the outputs.

        Raises:
          ShapeError: naming the operands and what was expected.
        """
        raise CompileError(f"op {self.name} has no infer")

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient of each input given those of the outputs; None where there is none."""
        raise CompileError(f"op {self.name} has no gradient")

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The outputs computed by NumPy: one array, or a tuple of them."""
        raise CompileError(f"op {self.name} has no reference")

    def samples(self) -> Iterable[Sample]:
        """Inputs for the generated tests."""
        raise CompileError(f"op {self.name} has no samples")

    # --- what a class may say -------------------------------------------------------------------

    def sizes_of_value(
        self, op: Operation, index: int
    ) -> tuple[DimLike | Element, ...] | None:
        """The elements of a small integer output as sizes, if the graph tells them.

        Where it tells some, the others are :class:`Element` of what they come from.
        """
        return None

    def type_attr(self, op: Operation, name: str) -> DType | None:
        """The dtype that type variable ``name`` has in ``op``."""
        for arg, tensors in bind_args(self, op.inputs):
            if arg.type_var == name and tensors:
                return tensors[0].dtype.base_dtype
        return None

    @property
    def doc(self) -> str:
        """The class's docstring."""
        return (type(self).__doc__ or "").strip()


class ElementOp(Op):
    """An op that says what one element of its output is."""

    family = "elementwise"

    def element(self, ctx: ElementContext, index: tuple[Expr, ...]) -> Expr:
        """The output's element at ``index`` as an expression of the operands' elements."""
        raise CompileError(f"op {self.name} has no element definition")


@dataclass(frozen=True)
class Reduction:
    """One element of a reduction's output.

    Attributes:
      op: ``add``, ``mul``, ``max``, ``min``, ``and`` or ``or``.
      extents: sizes of the reduced loops.
      body: the value at given reduced indices.
      finish: applied to the reduced value.
      dtype: what is accumulated; the body's dtype by default.
    """

    op: str
    extents: tuple[DimLike, ...]
    body: Callable[[tuple[Expr, ...]], Expr]
    finish: Callable[[Expr], Expr] = lambda value: value
    dtype: DType | None = None


class ReductionOp(Op):
    """An op whose output element is a reduction over further loops."""

    family = "reduction"

    def reduction(self, ctx: ElementContext, index: tuple[Expr, ...]) -> Reduction:
        """The reduction that gives the output's element at ``index``."""
        raise CompileError(f"op {self.name} has no reduction")


class TemplateOp(Op):
    """An op computed by a hand-scheduled template of :mod:`graphc.kernels`."""

    family = "contraction"
    template: ClassVar[str] = ""


@dataclass(frozen=True)
class ContractionForm:
    """A sum of products: ``out[b.., m.., n] = sum over k.. of lhs(b, m, k) * rhs(b, k, n)``.

    Attributes:
      batch, m, k: extents of the loops of each kind; ``n`` is one extent.
      lhs: the left factor at (batch indices, m indices, k indices).
      rhs: the right factor at (batch indices, k indices, n index).
      index: the output's index for (batch indices, m indices, n index).
    """

    batch: tuple[DimLike, ...]
    m: tuple[DimLike, ...]
    n: DimLike
    k: tuple[DimLike, ...]
    lhs: Callable[[tuple[Expr, ...], tuple[Expr, ...], tuple[Expr, ...]], Expr]
    rhs: Callable[[tuple[Expr, ...], tuple[Expr, ...], Expr], Expr]
    index: Callable[[tuple[Expr, ...], tuple[Expr, ...], Expr], tuple[Expr, ...]]


class ContractionOp(TemplateOp):
    """A sum of products: matrix products, convolutions and their gradients."""

    template = "contraction"

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """The op as a contraction of its operands."""
        raise CompileError(f"op {self.name} has no contraction")


class CompositeOp(Op):
    """An op defined by other ops; kept whole so that passes and files can recognise it."""

    family = "composite"

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same outputs, built from other ops over ``inputs``."""
        raise CompileError(f"op {self.name} has no decomposition")


class SpecialOp(Op):
    """An op that the compiler knows by itself: placeholders, constants, state, control."""

    family = "special"


class ElementContext:
    """What an ``element`` definition may ask; the lowering implements it."""

    op: Operation
    output_index: int = 0

    def operand(self, i: int, index: tuple[Expr, ...]) -> Expr:
        """Operand ``i``'s element at ``index``."""
        raise CompileError("an ElementContext must say how operands are read")

    def sizes(self, i: int) -> tuple[DimLike, ...]:
        """The sizes of operand ``i``."""
        sizes = self.op.inputs[i].sizes
        assert sizes is not None
        return sizes

    def out_sizes(self, i: int = 0) -> tuple[DimLike, ...]:
        """The sizes of output ``i``."""
        sizes = self.op.outputs[i].sizes
        assert sizes is not None
        return sizes

    def size(self, value: DimLike) -> Expr:
        """A size as an int64 expression."""
        raise CompileError("an ElementContext must say how sizes are expressed")

    def site(self, message: str, op: Operation | None = None) -> int:
        """Register an error site: the run fails with ``message`` when a Require names it."""
        raise CompileError("an ElementContext must register error sites")

    def broadcast_operand(self, i: int, index: tuple[Expr, ...]) -> Expr:
        """Operand ``i``'s element at an index of the output that it broadcasts to."""
        sizes = self.sizes(i)
        tail = index[len(index) - len(sizes) :]
        return self.operand(
            i, tuple(ZERO if s == 1 else x for s, x in zip(sizes, tail, strict=True))
        )


# --- the registry ---------------------------------------------------------------------------------

REGISTRY: dict[str, Op] = {}

_ARG = re.compile(r"^\s*(\w+)\s*:\s*(N\*)?(Ref\()?([\w|]+)\)?\s*$")


def _parse_args(cls: type[Op]) -> tuple[Arg, ...]:
    args = []
    for part in filter(None, (p.strip() for p in cls.inputs.split(","))):
        match = _ARG.match(part)
        if match is None:
            raise CompileError(f"op {cls.name}: operand {part!r} is not 'name: type'")
        name, variadic, ref, kind = match.groups()
        if kind in cls.types:
            arg = Arg(name, kind, cls.types[kind], bool(variadic), bool(ref))
        else:
            types = tuple(dtypes.as_dtype(t) for t in kind.split("|"))
            arg = Arg(name, None, types, bool(variadic), bool(ref))
        args.append(arg)
    return tuple(args)


def register(cls: type[Op]) -> type[Op]:
    """Class decorator: check that the op is complete and add it to the registry.

    Raises:
      CompileError: naming everything that the class leaves out.
    """
    missing = []
    if not cls.name or cls.name in REGISTRY:
        missing.append(f"a name of its own ({cls.name!r})")
    if not (cls.__doc__ or "").strip() or cls.__doc__ == cls.__base__.__doc__:
        missing.append("a docstring")
    needed = ["infer", "reference", "samples"]
    if cls.differentiable:
        needed.append("gradient")
    for base, method in (
        (ElementOp, "element"), (ReductionOp, "reduction"), (CompositeOp, "decompose"),
        (ContractionOp, "contraction"),
    ):  # fmt: skip
        if issubclass(cls, base):
            needed.append(method)
            if getattr(cls, method) is getattr(base, method):
                missing.append(method)
    missing += [m for m in needed if getattr(cls, m, None) is getattr(Op, m, None)]
    if issubclass(cls, TemplateOp) and not cls.template:
        missing.append("template")
    if not issubclass(cls, (ElementOp, ReductionOp, CompositeOp, TemplateOp, SpecialOp)):
        missing.append("a family (ElementOp, ReductionOp, TemplateOp, CompositeOp)")
    if missing:
        raise CompileError(f"op class {cls.__name__} lacks: {', '.join(dict.fromkeys(missing))}")
    cls.args = _parse_args(cls)
    REGISTRY[cls.name] = cls()
    return cls


def get_op(name: str) -> Op:
    """The registered op of that name.

    Raises:
      CompileError: when there is none.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise CompileError(f"there is no op named {name!r}") from None


def bind_args(definition: Op, inputs: Sequence[Tensor]) -> list[tuple[Arg, Sequence[Tensor]]]:
    """Each declared operand with the tensors given for it (one, or the variadic list)."""
    extra = len(inputs) - len(definition.args)
    bound: list[tuple[Arg, Sequence[Tensor]]] = []
    at = 0
    for arg in definition.args:
        count = 1 + extra if arg.variadic else 1
        bound.append((arg, inputs[at : at + count]))
        at += count
    return bound


def check_dtype(definition: Op, arg: Arg, dtype: DType) -> None:
    """Raise a DTypeError unless the operand admits the dtype."""
    if dtype.base_dtype not in arg.types:
        allowed = ", ".join(t.name for t in arg.types)
        raise DTypeError(
            f"Value passed to parameter '{arg.name}' has DataType {dtype.base_dtype.name} not in "
            f"list of allowed values: {allowed} (op: '{definition.name}')"
        )


# --- the reference interpreter of a graph -----------------------------------------------------------


def evaluate_reference(op: Operation, inputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """The outputs of one operation by its NumPy reference, in the declared dtypes."""
    definition = op.definition
    with np.errstate(all="ignore"):
        result = definition.reference(op.attrs, *inputs)
    values = result if isinstance(result, tuple) else (result,)
    return tuple(
        np.asarray(v, dtype=t.dtype.base_dtype.numpy)
        for v, t in zip(values, op.outputs, strict=True)
    )


def as_value(array: Any) -> tuple[int, ...] | None:
    """A small integer array of rank 0 or 1 as a tuple of ints; None for anything else."""
    if array.ndim > 1 or array.dtype.kind not in "iu" or array.size > 64:
        return None
    return tuple(int(v) for v in array.reshape(-1))


__all__ = [name for name in dir() if not name.startswith("_")]
_ = Dim
