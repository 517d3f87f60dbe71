"""Products over named or numbered dimensions: ``einsum`` and ``tensordot``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from graphc.build import convert_to_tensor
from graphc.errors import GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.array import identity
from graphc.ops.contraction_functions import matmul
from graphc.ops.movement_value import count_between, dim_tensor, joined, pick, shape_tensor
from graphc.ops.reduction_functions import reduce_sum
from graphc.ops.shaping import broadcast_to, reshape, stack, transpose

_TERM = r"[A-Za-z]*(\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(f"{_TERM}(,{_TERM})*(->{_TERM})?")
# What stands for the dimensions of an ellipsis, the last dimension last.
_ELLIPSIS = "9876543210"


# --- tensordot ------------------------------------------------------------------------------------


def tensordot(a: Any, b: Any, axes: Any, name: str | None = None) -> Tensor:
    """The sum of the products of ``a`` and ``b`` over pairs of dimensions.

    Args:
      a, b: tensors of one dtype and of known rank.
      axes: how many of the last dimensions of ``a`` go with the first of ``b``, or two lists of
        as many dimensions of each.
      name: the name scope.
    Raises:
      ValueError: axes that an operand does not have, or lists of different lengths.
    """
    with name_scope(name, "Tensordot", [a, b]) as scope:
        a, b = convert_to_tensor(a, name="a"), convert_to_tensor(b, name="b")
        over_a, over_b = _axis_lists(axes, len(_sizes(a)), len(_sizes(b)))
        b = _aligned(b, over_b, a, over_a)
        kept_a = [i for i in range(len(_sizes(a))) if i not in over_a]
        kept_b = [i for i in range(len(_sizes(b))) if i not in over_b]
        product = matmul(_merged(a, [kept_a, over_a]), _merged(b, [over_b, kept_b]))
        shape = joined(pick(shape_tensor(a), kept_a), pick(shape_tensor(b), kept_b))
        return reshape(product, shape, name=scope)


def _sizes(x: Tensor) -> Sequence[Any]:
    if x.sizes is None:
        raise ShapeError(f"The rank of {x} must be known")
    return x.sizes


def _axis_lists(axes: Any, rank_a: int, rank_b: int) -> tuple[list[int], list[int]]:
    """The dimensions of each operand that ``axes`` names, counted from the front."""
    if isinstance(axes, int):
        if axes < 0:
            raise GraphError("'axes' must be at least 0.")
        if axes > min(rank_a, rank_b):
            raise GraphError(
                f"'axes' must not be larger than the number of dimensions of tensors: {axes} for "
                f"ranks {rank_a} and {rank_b}"
            )
        return list(range(rank_a - axes, rank_a)), list(range(axes))
    if not isinstance(axes, (list, tuple)) or len(axes) != 2:
        raise GraphError("'axes' must be an integer or have length 2.")
    of_a, of_b = ([x] if isinstance(x, int) else [int(i) for i in x] for x in axes)
    if len(of_a) != len(of_b):
        raise GraphError(
            f"Different number of contraction axes 'a' and 'b', {len(of_a)} != {len(of_b)}."
        )
    for found, rank, operand in ((of_a, rank_a, "a"), (of_b, rank_b, "b")):
        if any(not -rank <= i < rank for i in found):
            raise GraphError(f"axes {found} of '{operand}' must be in [{-rank}, {rank})")
    of_a, of_b = [i % rank_a for i in of_a], [i % rank_b for i in of_b]
    if len(set(of_a)) < len(of_a) or len(set(of_b)) < len(of_b):
        raise GraphError("'axes' names a dimension twice.")
    return of_a, of_b


# --- einsum ---------------------------------------------------------------------------------------


def einsum(equation: str, *inputs: Any, name: str | None = None) -> Tensor:
    """Products of elements summed over dimensions, as ``equation`` says: ``"ij,jk->ik"``.

    Every operand's dimensions have letters; those that the right side leaves out are summed over.
    Without a right side it is the letters that occur once, in the order of the alphabet.  ``...``
    stands for the dimensions that have no letters, which must be of the same sizes everywhere.

    Args:
      equation: the operands' letters, separated by commas, then ``->`` and the result's.
      *inputs: tensors of one dtype.
      name: the name scope.
    Raises:
      ValueError: an equation that is none, or does not fit the operands.
    """
    terms, out = _split(equation, len(inputs))
    with name_scope(name, "einsum", list(inputs)) as scope:
        tensors = [convert_to_tensor(x) for x in inputs]
        terms = [_spelled(x, term) for x, term in zip(tensors, terms, strict=True)]
        out = _result(terms, out)
        tensors = [_ranked(x, letters) for x, letters in zip(tensors, terms, strict=True)]
        found, letters = tensors[0], terms[0]
        for k in range(1, len(tensors)):
            later = set(out).union(*terms[k + 1 :])
            found, letters = _product(found, letters, tensors[k], terms[k], later)
        found, letters = _summed(found, letters, set(out))
        if letters != out:
            found = transpose(found, [letters.index(c) for c in out])
        return identity(found, name=scope)


def _split(equation: str, count: int) -> tuple[list[str], str | None]:
    text = equation.replace(" ", "")
    if not _EQUATION.fullmatch(text):
        raise GraphError(f"Indices have incorrect format: {equation}")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != count:
        raise GraphError(
            f"Got {count} arguments for equation {equation!r}, expecting {len(terms)}"
        )
    return terms, out if arrow else None


def _spelled(x: Tensor, term: str) -> str:
    """The letters of an operand, digits for its ellipsis."""
    if "..." not in term:
        return term
    count = len(_sizes(x)) - len(term) + 3
    if not 0 <= count <= len(_ELLIPSIS):
        raise ShapeError(f"{x} does not have the dimensions that {term!r} names")
    return term.replace("...", _ELLIPSIS[len(_ELLIPSIS) - count :])


def _result(terms: Sequence[str], out: str | None) -> str:
    """The letters of the result."""
    every = "".join(terms)
    dots = "".join(c for c in _ELLIPSIS if c in every)
    if out is None:
        out = dots + "".join(sorted(c for c in set(every) - set(dots) if every.count(c) == 1))
    out = out.replace("...", dots)
    for term in (*terms, out):
        if len(set(term)) < len(term):
            raise GraphError(f"Subscripts not supported: an axis appears more than once: {term}")
    unknown = sorted(set(out) - set(every))
    if unknown:
        raise GraphError(f"Invalid equation: {', '.join(unknown)} of the result is in no operand")
    return out


def _ranked(x: Tensor, letters: str) -> Tensor:
    if x.sizes is None:
        x = identity(x)
        x.set_shape([None] * len(letters))
    elif len(x.sizes) != len(letters):
        raise ShapeError(f"{x} has rank {len(x.sizes)}, but {len(letters)} letters: {letters!r}")
    return x


def _summed(x: Tensor, letters: str, kept: set[str]) -> tuple[Tensor, str]:
    """The sum over the letters that are not kept."""
    gone = [i for i, c in enumerate(letters) if c not in kept]
    if not gone:
        return x, letters
    return reduce_sum(x, gone), "".join(c for c in letters if c in kept)


def _product(a: Tensor, of_a: str, b: Tensor, of_b: str, later: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the letters that nothing needs later."""
    a, of_a = _summed(a, of_a, later | set(of_b))
    b, of_b = _summed(b, of_b, later | set(of_a))
    both = [c for c in of_a if c in of_b]
    batch, over = [c for c in both if c in later], [c for c in both if c not in later]
    free_a, free_b = [c for c in of_a if c not in both], [c for c in of_b if c not in both]
    b = _aligned(b, [of_b.index(c) for c in both], a, [of_a.index(c) for c in both])
    groups_a = [[of_a.index(c) for c in group] for group in (batch, free_a, over)]
    groups_b = [[of_b.index(c) for c in group] for group in (batch, over, free_b)]
    skipped = 0 if batch else 1
    product = matmul(_merged(a, groups_a[skipped:]), _merged(b, groups_b[skipped:]))
    results = [batch, free_a, free_b][skipped:]
    if any(len(group) != 1 for group in results):
        of_batch, of_rows, of_columns = groups_a[0], groups_a[1], groups_b[2]
        shape = joined(
            pick(shape_tensor(a), [*of_batch, *of_rows]), pick(shape_tensor(b), of_columns)
        )
        product = reshape(product, shape)
    return product, "".join(c for group in results for c in group)


def _aligned(b: Tensor, of_b: Sequence[int], a: Tensor, of_a: Sequence[int]) -> Tensor:
    """``b``, of whose dimensions the given ones have the sizes of those of ``a``.

    Merged dimensions would not show it where only the products of their sizes are equal.
    """
    pairs = [(_sizes(b)[j], _sizes(a)[i]) for j, i in zip(of_b, of_a, strict=True)]
    for size, wanted in pairs:
        if isinstance(size, int) and isinstance(wanted, int) and size != wanted:
            raise ShapeError(f"Dimensions must be equal, but are {wanted} and {size}: {a}, {b}")
    if all(size == wanted for size, wanted in pairs):
        return b
    sizes = [dim_tensor(b, k) for k in range(len(_sizes(b)))]
    for j, i in zip(of_b, of_a, strict=True):
        sizes[j] = dim_tensor(a, i)
    return broadcast_to(b, stack(sizes))


def _merged(x: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """``x`` with one dimension for each group of its dimensions."""
    order = [i for group in groups for i in group]
    if order != list(range(len(order))):
        x = transpose(x, order)
    if all(len(group) == 1 for group in groups):
        return x
    counts, at = [], 0
    for group in groups:
        counts.append(count_between(x, at, at + len(group)))
        at += len(group)
    return reshape(x, joined(*counts))
