"""Nested structures, as ``tf.nest`` of TensorFlow 1.15 takes them.

A *structure* is a leaf, or a sequence (list, tuple, namedtuple, ...) or mapping of structures.
Strings, bytes, NumPy arrays, tensors, variables, tensor arrays and sets are leaves.  The elements
of a mapping stand in the order of its sorted keys, whatever its own order.

Errors derive from ``ValueError`` where counts or nesting differ, and from ``TypeError`` where the
kinds of sequences differ, as there (``tensorflow/python/util/nest.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MappingView, Sequence
from typing import Any

from graphc.errors import DTypeError, GraphError

__all__ = [
    "assert_same_structure", "assert_shallow_structure", "flatten", "flatten_up_to",
    "get_traverse_shallow_structure", "is_nested", "is_sequence", "map_structure",
    "map_structure_up_to", "pack_sequence_as",
]  # fmt: skip

_TEXTS = (str, bytes)


class _Dot:
    """Stands for a leaf where an error prints a structure."""

    def __repr__(self) -> str:
        return "."


_DOT = _Dot()


def is_nested(structure: Any) -> bool:
    """Whether ``structure`` is a sequence or mapping, not a leaf."""
    if isinstance(structure, (list, tuple, dict)):
        return True
    return isinstance(structure, (Sequence, Mapping, MappingView)) and not isinstance(
        structure, _TEXTS
    )


is_sequence = is_nested


def _sorted_keys(mapping: Mapping[Any, Any]) -> list[Any]:
    try:
        return sorted(mapping)
    except TypeError:
        raise DTypeError("nest only supports dicts with sortable keys.") from None


def _children(structure: Any) -> Iterator[Any]:
    if isinstance(structure, Mapping):
        for key in _sorted_keys(structure):
            yield structure[key]
    else:
        yield from structure


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _like(structure: Any, children: list[Any]) -> Any:
    """A structure of the kind of ``structure`` over ``children``, in the order of `_children`."""
    kind = type(structure)
    if isinstance(structure, Mapping):
        values = dict(zip(_sorted_keys(structure), children, strict=True))
        pairs = [(key, values[key]) for key in structure]
        factory = getattr(structure, "default_factory", None)
        if hasattr(structure, "default_factory"):
            return kind(factory, pairs)
        return kind(pairs)
    if isinstance(structure, MappingView):
        return children
    if _is_namedtuple(structure):
        return kind(*children)
    if isinstance(structure, range):
        return children
    return kind(children)


def flatten(
    structure: Any,
    expand_composites: bool = False,  # noqa: ARG001 - TensorFlow's argument
) -> list[Any]:
    """The leaves of a structure in order; ``[structure]`` for a leaf.

    Args:
      structure: a structure of anything; what is no sequence or mapping is a leaf, tensor arrays
        among others.
      expand_composites: taken for TensorFlow's sake; there are no composite tensors here.
    Raises:
      TypeError: a mapping whose keys cannot be sorted.
    """
    if not is_nested(structure):
        return [structure]
    leaves: list[Any] = []
    for child in _children(structure):
        leaves.extend(flatten(child) if is_nested(child) else (child,))
    return leaves


def pack_sequence_as(
    structure: Any,
    flat_sequence: Any,
    expand_composites: bool = False,  # noqa: ARG001 - TensorFlow's argument
) -> Any:
    """A structure like ``structure`` whose leaves are those of ``flat_sequence``, in order.

    The inverse of :func:`flatten`: dicts keep their own order of keys, namedtuples, ordered and
    default dicts their type.

    Raises:
      ValueError: another number of leaves than ``structure`` has.
      TypeError: ``flat_sequence`` is no sequence, or a mapping's keys cannot be sorted.
    """
    if not is_nested(flat_sequence):
        raise DTypeError("flat_sequence must be a sequence")
    leaves = list(flat_sequence)
    if not is_nested(structure):
        if len(leaves) != 1:
            raise GraphError(f"Structure is a scalar but len(flat_sequence) == {len(leaves)} > 1")
        return leaves[0]
    wanted = len(flatten(structure))
    if wanted != len(leaves):
        raise GraphError(
            f"Could not pack sequence. Structure had {wanted} elements, but flat_sequence had "
            f"{len(leaves)} elements.  Structure: {structure}, flat_sequence: {flat_sequence}."
        )
    return _packed(structure, iter(leaves))


def _packed(structure: Any, leaves: Iterator[Any]) -> Any:
    if not is_nested(structure):
        return next(leaves)
    return _like(structure, [_packed(child, leaves) for child in _children(structure)])


def map_structure(func: Callable[..., Any], *structure: Any, **kwargs: Any) -> Any:
    """A structure like the first one of ``func`` of the leaves of all at each place.

    Args:
      func: takes as many leaves as there are structures.
      structure: at least one structure; all nested alike.
      check_types: (keyword) also refuse sequences of other kinds; True by default.
      expand_composites: (keyword) see :func:`flatten`.
    Raises:
      TypeError: ``func`` cannot be called, or the kinds of the sequences differ.
      ValueError: no structure, other keywords, or structures that are not nested alike.
    """
    if not callable(func):
        raise DTypeError(f"func must be callable, got: {func}")
    if not structure:
        raise GraphError("Must provide at least one structure")
    check_types = kwargs.pop("check_types", True)
    kwargs.pop("expand_composites", None)
    if kwargs:
        raise GraphError(
            "Only valid keyword arguments are `check_types` and `expand_composites`, not: "
            f"`{'`, `'.join(kwargs)}`"
        )
    for other in structure[1:]:
        assert_same_structure(structure[0], other, check_types=check_types)
    rows = zip(*map(flatten, structure), strict=True)
    return pack_sequence_as(structure[0], [func(*row) for row in rows])


# --- comparing structures -------------------------------------------------------------------------


def assert_same_structure(
    nest1: Any,
    nest2: Any,
    check_types: bool = True,
    expand_composites: bool = False,  # noqa: ARG001 - TensorFlow's argument
) -> None:
    """Refuse two structures that are not nested alike.

    Args:
      nest1, nest2: the structures.
      check_types: whether sequences must also be of the same type and mappings have the same
        keys.  Two namedtuples of the same name and fields count as one type, as do two kinds of
        mapping, or of list.
      expand_composites: see :func:`flatten`.
    Raises:
      ValueError: the nesting, a number of elements or the keys differ.
      TypeError: (with ``check_types``) the types of sequences differ.
    """
    fault = _difference(nest1, nest2, check_types)
    if fault is not None:
        kind, text = fault
        dots = [map_structure(lambda _: _DOT, nest) for nest in (nest1, nest2)]
        raise kind(
            "The two structures don't have the same nested structure.\n\n"
            f"First structure: {_described(nest1)}\n\nSecond structure: {_described(nest2)}\n\n"
            f"More specifically: {text}\n"
            f"Entire first structure:\n{dots[0]}\nEntire second structure:\n{dots[1]}"
        )


def _described(value: Any) -> str:
    return f"type={type(value).__name__} str={value}"


def _difference(
    a: Any, b: Any, check_types: bool
) -> tuple[type[GraphError] | type[DTypeError], str] | None:
    if is_nested(a) != is_nested(b):
        sequence, leaf = (a, b) if is_nested(a) else (b, a)
        text = f'Substructure "{_described(sequence)}" is a sequence, while substructure '
        return GraphError, f'{text}"{_described(leaf)}" is not'
    if not is_nested(a):
        return None
    if check_types:
        fault = _type_difference(a, b)
        if fault is not None:
            return fault
    rows_a, rows_b = list(_children(a)), list(_children(b))
    if len(rows_a) != len(rows_b):
        return GraphError, (
            "The two structures don't have the same number of elements. First structure: "
            f"{_described(a)}. Second structure: {_described(b)}"
        )
    faults = (_difference(x, y, check_types) for x, y in zip(rows_a, rows_b, strict=True))
    return next((fault for fault in faults if fault is not None), None)


def _type_difference(a: Any, b: Any) -> tuple[type[GraphError] | type[DTypeError], str] | None:
    if not _same_type(a, b):
        return DTypeError, (
            "The two namedtuples don't have the same sequence type. First structure "
            f"{_described(a)} has type {type(a).__name__}, while second structure "
            f"{_described(b)} has type {type(b).__name__}"
        )
    if isinstance(a, Mapping) and set(a) != set(b):
        return GraphError, (
            "The two dictionaries don't have the same set of keys. First structure has keys "
            f"{_described(list(a))}, while second structure has keys {_described(list(b))}"
        )
    return None


def _same_type(a: Any, b: Any) -> bool:
    if _is_namedtuple(a) and _is_namedtuple(b):
        return type(a).__name__ == type(b).__name__ and a._fields == b._fields
    if any(isinstance(a, kind) and isinstance(b, kind) for kind in (list, Mapping)):
        return True
    return type(a) is type(b)


# --- down to the depth of another structure -------------------------------------------------------


def assert_shallow_structure(shallow_tree: Any, input_tree: Any, check_types: bool = True) -> None:
    """Refuse an ``input_tree`` that is not nested like ``shallow_tree`` down to its leaves.

    A leaf of ``shallow_tree`` stands for any structure.

    Raises:
      ValueError: a number of elements or the keys differ.
      TypeError: a leaf where ``shallow_tree`` has a sequence, or (with ``check_types``) a
        sequence of another type.
    """
    if not is_nested(shallow_tree):
        return
    if not is_nested(input_tree):
        raise DTypeError(
            "If shallow structure is a sequence, input must also be a sequence. Input has type: "
            f"{type(input_tree)}."
        )
    if check_types and not _same_type(shallow_tree, input_tree):
        raise DTypeError(
            "The two structures don't have the same sequence type. Input structure has type "
            f"{type(input_tree)}, while shallow structure has type {type(shallow_tree)}."
        )
    if len(input_tree) != len(shallow_tree):
        raise GraphError(
            "The two structures don't have the same sequence length. Input structure has length "
            f"{len(input_tree)}, while shallow structure has length {len(shallow_tree)}."
        )
    if isinstance(shallow_tree, Mapping) and set(shallow_tree) != set(input_tree):
        missing = sorted(set(shallow_tree) - set(input_tree))
        raise GraphError(
            "The shallow_tree's keys are not a subset of the input_tree's keys. The shallow_tree "
            f"has the following keys that are not in the input_tree: {missing}."
        )
    for shallow, branch in zip(_children(shallow_tree), _children(input_tree), strict=True):
        assert_shallow_structure(shallow, branch, check_types)


def flatten_up_to(shallow_tree: Any, input_tree: Any, check_types: bool = True) -> list[Any]:
    """The parts of ``input_tree`` that stand where ``shallow_tree`` has leaves, in order.

    Raises:
      ValueError, TypeError: as :func:`assert_shallow_structure`.
    """
    assert_shallow_structure(shallow_tree, input_tree, check_types)
    return list(_parts(shallow_tree, input_tree))


def _parts(shallow: Any, tree: Any) -> Iterator[Any]:
    if not is_nested(shallow):
        yield tree
        return
    for below, branch in zip(_children(shallow), _children(tree), strict=True):
        yield from _parts(below, branch)


def get_traverse_shallow_structure(traverse_fn: Callable[[Any], Any], structure: Any) -> Any:
    """The part of ``structure`` that ``traverse_fn`` allows to enter, with bools as its leaves.

    Args:
      traverse_fn: called with a part of the structure: gives a bool for all of it, or a structure
        of bools, one for each of the part's elements.
      structure: what is traversed.
    Returns:
      True for each leaf that was reached, False for each part that was not entered.
    Raises:
      TypeError: ``traverse_fn`` gave anything else.
    """
    answer = traverse_fn(structure)
    if not is_nested(structure):
        if not isinstance(answer, bool):
            raise DTypeError(
                f"traverse_fn returned structure: {answer} for non-structure: {structure}"
            )
        return answer
    if answer is False:
        return False
    branches = list(_children(structure))
    if answer is True:
        answers: list[Any] = [True] * len(branches)
    elif is_nested(answer):
        assert_shallow_structure(answer, structure)
        answers = list(_children(answer))
    else:
        raise DTypeError(f"traverse_fn returned a non-bool scalar: {answer} for: {structure}")
    if not all(isinstance(a, bool) for a in answers):
        raise DTypeError(
            f"traverse_fn didn't return a depth=1 structure of bools.  saw: {answer}  for "
            f"structure: {structure}"
        )
    return _like(
        structure,
        [
            get_traverse_shallow_structure(traverse_fn, branch) if enter else False
            for enter, branch in zip(answers, branches, strict=True)
        ],
    )


def map_structure_up_to(
    shallow_tree: Any, func: Callable[..., Any], *inputs: Any, check_types: bool = True
) -> Any:
    """A structure like ``shallow_tree`` of ``func`` of the parts of ``inputs`` at each leaf.

    Raises:
      ValueError: no inputs, or (as TypeError) see :func:`assert_shallow_structure`.
    """
    if not inputs:
        raise GraphError("Cannot map over no sequences")
    parts = [flatten_up_to(shallow_tree, tree, check_types) for tree in inputs]
    return pack_sequence_as(shallow_tree, [func(*row) for row in zip(*parts, strict=True)])
