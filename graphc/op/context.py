"""What inference sees and may assume: :class:`InferContext` and :class:`ShapeEnv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import Tensor
from graphc.shapes import shape_text

if TYPE_CHECKING:
    from graphc.op.definition import Op


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

    def guards_runs(self, tensors: Sequence[Tensor]) -> bool:
        """Whether what is assumed for an operation of these operands is checked once in a run."""
        return False

    def learn(self, found: Mapping[Symbol, DimLike]) -> None:
        """Sizes that turned out to be known."""

    def stands_for(self, new: Tensor, old: Tensor) -> None:
        """A pass has put ``new`` in the place of ``old``."""


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


def as_value(array: Any) -> tuple[int, ...] | None:
    """A small integer array of rank 0 or 1 as a tuple of ints; None for anything else."""
    if array.ndim > 1 or array.dtype.kind not in "iu" or array.size > 64:
        return None
    return tuple(int(v) for v in array.reshape(-1))
