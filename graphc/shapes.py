"""Static shapes as the user sees them: :class:`TensorShape` and :class:`Dimension`.

A dimension that TensorFlow would show as ``None`` (``?``) holds a symbolic size underneath; the
same symbol in two places means that the two sizes are equal, which TensorFlow cannot say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from graphc.dims import Dim, DimLike, fresh
from graphc.errors import DTypeError, ShapeError


class Dimension:
    """One dimension of a :class:`TensorShape`: ``value`` is an int, or None when unknown."""

    __slots__ = ("size",)

    def __init__(self, value: Any) -> None:
        if isinstance(value, Dimension):
            self.size: DimLike | None = value.size
        elif value is None or isinstance(value, Dim):
            self.size = value
        else:
            self.size = int(value.__index__() if hasattr(value, "__index__") else int(value))
            if self.size < 0:
                raise ShapeError(f"Dimension {self.size} must be >= 0")

    @property
    def value(self) -> int | None:
        """The size, or None if it is not known before the graph runs."""
        return self.size if isinstance(self.size, int) else None

    def is_compatible_with(self, other: Any) -> bool:
        """True unless both are known and differ."""
        mine, theirs = self.value, Dimension(other).value
        return mine is None or theirs is None or mine == theirs

    def __repr__(self) -> str:
        return f"Dimension({self.value})"

    def __str__(self) -> str:
        return "?" if self.value is None else str(self.value)

    def __int__(self) -> int:
        if self.value is None:
            raise DTypeError("an unknown Dimension has no int value")
        return self.value

    def __index__(self) -> int:
        return int(self)

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, (int, Dimension)) and other is not None:
            return NotImplemented
        mine, theirs = self.value, Dimension(other).value
        if mine is None or theirs is None:
            return None
        return mine == theirs

    def __ne__(self, other: object) -> Any:
        result = self.__eq__(other)
        return result if result is None or result is NotImplemented else not result

    def __hash__(self) -> int:
        return hash(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def _arith(self, other: Any, fn: Any) -> Dimension:
        theirs = Dimension(other).size
        if self.size is None or theirs is None:
            return Dimension(None)
        return Dimension(fn(self.size, theirs))

    def __add__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: a // b)

    def __rfloordiv__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: b // a)

    def __mod__(self, other: Any) -> Dimension:
        return self._arith(other, lambda a, b: a % b)

    def _order(self, other: Any, fn: Any) -> Any:
        mine, theirs = self.value, Dimension(other).value
        return None if mine is None or theirs is None else fn(mine, theirs)

    def __lt__(self, other: Any) -> Any:
        return self._order(other, lambda a, b: a < b)

    def __le__(self, other: Any) -> Any:
        return self._order(other, lambda a, b: a <= b)

    def __gt__(self, other: Any) -> Any:
        return self._order(other, lambda a, b: a > b)

    def __ge__(self, other: Any) -> Any:
        return self._order(other, lambda a, b: a >= b)


class TensorShape:
    """The static shape of a tensor: unknown rank, or a list of dimensions that may be unknown.

    ``sizes`` is the tuple of sizes (ints and symbolic :class:`~graphc.dims.Dim`), or None for
    unknown rank.  Unknown dimensions given as ``None`` get a fresh symbol.
    """

    __slots__ = ("sizes",)

    def __init__(self, dims: Any) -> None:
        self.sizes: tuple[DimLike, ...] | None
        if dims is None:
            self.sizes = None
        elif isinstance(dims, TensorShape):
            self.sizes = dims.sizes
        elif isinstance(dims, (int, Dimension, Dim)):
            self.sizes = (_size(dims),)
        else:
            self.sizes = tuple(_size(d) for d in dims)

    @property
    def dims(self) -> list[Dimension] | None:
        """The dimensions, or None for unknown rank."""
        return None if self.sizes is None else [Dimension(s) for s in self.sizes]

    @property
    def ndims(self) -> int | None:
        """The rank, or None."""
        return None if self.sizes is None else len(self.sizes)

    rank = ndims

    def as_list(self) -> list[int | None]:
        """The sizes as a list, None where unknown."""
        if self.sizes is None:
            raise ShapeError("as_list() is not defined on an unknown TensorShape.")
        return [s if isinstance(s, int) else None for s in self.sizes]

    def is_fully_defined(self) -> bool:
        """Whether rank and every size are known."""
        return self.sizes is not None and all(isinstance(s, int) for s in self.sizes)

    def num_elements(self) -> int | None:
        """The number of elements, or None when some size is unknown."""
        if self.sizes is None:
            return None
        total = 1
        for s in self.sizes:
            if not isinstance(s, int):
                return None
            total *= s
        return total

    def is_compatible_with(self, other: Any) -> bool:
        """True unless a known rank or a known size of the two differs."""
        theirs = TensorShape(other)
        if self.sizes is None or theirs.sizes is None:
            return True
        return len(self.sizes) == len(theirs.sizes) and all(
            not (isinstance(a, int) and isinstance(b, int)) or a == b
            for a, b in zip(self.sizes, theirs.sizes, strict=True)
        )

    def merge_with(self, other: Any) -> TensorShape:
        """The shape that holds what is known of both.

        Raises:
          ShapeError: (a ValueError) when the two contradict each other.
        """
        theirs = TensorShape(other)
        if self.sizes is None:
            return theirs
        if theirs.sizes is None:
            return self
        if len(self.sizes) != len(theirs.sizes):
            raise ShapeError(
                f"Shapes {shape_text(self.sizes)} and {shape_text(theirs.sizes)} must have the "
                "same rank"
            )
        merged: list[DimLike] = []
        for i, (a, b) in enumerate(zip(self.sizes, theirs.sizes, strict=True)):
            if isinstance(a, int) and isinstance(b, int) and a != b:
                raise ShapeError(
                    f"Dimension {i} in both shapes must be equal, but are {a} and {b}. Shapes are "
                    f"{shape_text(self.sizes)} and {shape_text(theirs.sizes)}."
                )
            merged.append(b if isinstance(b, int) else a)
        return TensorShape(merged)

    def concatenate(self, other: Any) -> TensorShape:
        """This shape followed by another."""
        theirs = TensorShape(other)
        if self.sizes is None or theirs.sizes is None:
            return TensorShape(None)
        return TensorShape(self.sizes + theirs.sizes)

    def with_rank(self, rank: int) -> TensorShape:
        """This shape, which must have (or may have) the given rank."""
        if self.sizes is None:
            return TensorShape([None] * rank)
        if len(self.sizes) != rank:
            raise ShapeError(f"Shape {shape_text(self.sizes)} must have rank {rank}")
        return self

    def with_rank_at_least(self, rank: int) -> TensorShape:
        """This shape, which must have (or may have) at least ``rank`` dimensions."""
        if self.sizes is not None and len(self.sizes) < rank:
            raise ShapeError(f"Shape {shape_text(self.sizes)} must have rank at least {rank}")
        return self

    def with_rank_at_most(self, rank: int) -> TensorShape:
        """This shape, which must have (or may have) at most ``rank`` dimensions."""
        if self.sizes is not None and len(self.sizes) > rank:
            raise ShapeError(f"Shape {shape_text(self.sizes)} must have rank at most {rank}")
        return self

    def assert_is_compatible_with(self, other: Any) -> None:
        """Raise a ShapeError unless the shapes are compatible."""
        if not self.is_compatible_with(other):
            raise ShapeError(f"Shapes {self} and {TensorShape(other)} are incompatible")

    def assert_has_rank(self, rank: int) -> None:
        """Raise a ShapeError unless the rank is (or may be) the given one."""
        if self.sizes is not None and len(self.sizes) != rank:
            raise ShapeError(f"Shape {self} must have rank {rank}")

    def assert_is_fully_defined(self) -> None:
        """Raise a ShapeError unless everything is known."""
        if not self.is_fully_defined():
            raise ShapeError(f"Shape {self} is not fully defined")

    def __len__(self) -> int:
        if self.sizes is None:
            raise ShapeError("Cannot take the length of shape with unknown rank.")
        return len(self.sizes)

    def __iter__(self) -> Iterator[Dimension]:
        if self.sizes is None:
            raise ShapeError("Cannot iterate over a shape with unknown rank.")
        return iter([Dimension(s) for s in self.sizes])

    def __getitem__(self, key: Any) -> Any:
        if self.sizes is None:
            return TensorShape(None) if isinstance(key, slice) else Dimension(None)
        if isinstance(key, slice):
            return TensorShape(self.sizes[key])
        return Dimension(self.sizes[key])

    def __bool__(self) -> bool:
        return self.sizes is not None

    def __eq__(self, other: object) -> bool:
        try:
            theirs = TensorShape(other)
        except (TypeError, ValueError):
            return NotImplemented
        if self.sizes is None or theirs.sizes is None:
            return self.sizes is theirs.sizes
        return self.as_list() == theirs.as_list()

    def __hash__(self) -> int:
        return hash(None if self.sizes is None else tuple(self.as_list()))

    def __add__(self, other: Any) -> TensorShape:
        return self.concatenate(other)

    def __repr__(self) -> str:
        if self.sizes is None:
            return "TensorShape(None)"
        return f"TensorShape({[Dimension(s) for s in self.sizes]})"

    def __str__(self) -> str:
        if self.sizes is None:
            return "<unknown>"
        if len(self.sizes) == 1:
            return f"({_text(self.sizes[0])},)"
        return f"({', '.join(_text(s) for s in self.sizes)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorShape, (None if self.sizes is None else self.as_list(),)


def _size(value: Any) -> DimLike:
    if isinstance(value, Dim):
        return value
    size = Dimension(value).size
    return fresh() if size is None else size


def _text(size: DimLike) -> str:
    return str(size) if isinstance(size, int) else "?"


def shape_text(sizes: Iterable[DimLike] | None) -> str:
    """``[2,?,3]``, as TensorFlow's shape errors print shapes; ``<unknown>`` for unknown rank."""
    return "<unknown>" if sizes is None else "[" + ",".join(_text(s) for s in sizes) + "]"


def as_shape(value: Any) -> TensorShape:
    """``value`` as a :class:`TensorShape`."""
    return value if isinstance(value, TensorShape) else TensorShape(value)
