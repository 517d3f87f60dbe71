"""What an op class says: operands, attributes, inference, gradient, definition, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop.ir import ZERO, Expr

if TYPE_CHECKING:
    from graphc.op.context import Element, InferContext


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
      shape_operands: operands of which only the sizes are used; their elements are never read, and
        need not be computed.
      pure: False when running the op twice or not at all makes a difference.
      broadcasts: True when the operands are broadcast against each other, element by element.
      fallible: True when some operand values make a run fail; see :meth:`can_fail`.
      prepared: True when the results are worth keeping from run to run while the variables that
        they depend on stay the same.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    inputs: ClassVar[str] = ""
    types: ClassVar[dict[str, tuple[DType, ...]]] = {}
    attrs: ClassVar[dict[str, Attr]] = {}
    value_operands: ClassVar[tuple[int, ...]] = ()
    constant_operands: ClassVar[tuple[int, ...]] = ()
    shape_operands: ClassVar[tuple[int, ...]] = ()
    broadcasts: ClassVar[bool] = False
    pure: ClassVar[bool] = True
    fallible: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    prepared: ClassVar[bool] = False
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

    def can_fail(self, op: Operation) -> bool:
        """Whether a run of ``op`` fails for some values of its operands.

        What can fail is computed even if nothing needs it, is not repeated at its uses, and comes
        before every update in place.  An op that fails for some dtypes only, or not for operands
        that are known, says so here.
        """
        return self.fallible

    def type_attr(self, op: Operation, name: str) -> DType | None:
        """The dtype that type variable ``name`` has in ``op``."""
        for arg, tensors in self.bind(op.inputs):
            if arg.type_var == name and tensors:
                return tensors[0].dtype.base_dtype
        return None

    def bind(self, inputs: Sequence[Tensor]) -> list[tuple[Arg, Sequence[Tensor]]]:
        """Each declared operand with the tensors given for it (one, or the variadic list)."""
        extra = len(inputs) - len(self.args)
        bound: list[tuple[Arg, Sequence[Tensor]]] = []
        at = 0
        for arg in self.args:
            count = 1 + extra if arg.variadic else 1
            bound.append((arg, inputs[at : at + count]))
            at += count
        return bound

    @property
    def doc(self) -> str:
        """The class's docstring."""
        return (type(self).__doc__ or "").strip()


class ElementOp(Op):
    """An op that says what one element of its output is.

    ``loop_order`` is the order of the output's dimensions, outermost first, in which its elements
    are best computed; None for that of memory.
    """

    family = "elementwise"
    loop_order: ClassVar[tuple[int, ...] | None] = None

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
    #: Operands whose elements are read so often that they have to lie in order.
    dense_operands: ClassVar[tuple[int, ...]] = ()
    #: Operands of which the template reads each element once: they may be computed there.
    once: ClassVar[tuple[int, ...]] = ()

    def dense(self, op: Operation) -> tuple[int, ...]:
        """Which operands of ``op`` these are."""
        return self.dense_operands


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


class ScanOp(TemplateOp):
    """A running reduction along an axis, by the combiner ``op``."""

    family = "reduction"
    template = "scan"
    op: ClassVar[str] = ""


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
