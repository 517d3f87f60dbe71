"""Nested structures: values and errors as ``tensorflow.nest`` of 1.15.5 gave them."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from graphc import nest
from graphc.errors import DTypeError, GraphError

P = collections.namedtuple("P", "x y")
SAME_AS_P = collections.namedtuple("P", "x y")
R = collections.namedtuple("R", "x y")


@pytest.mark.parametrize(
    ("structure", "leaves"),
    [
        (3, [3]),
        (None, [None]),
        ("ab", ["ab"]),
        (b"ab", [b"ab"]),
        ([], []),
        ([1, (2, [3, []])], [1, 2, 3]),
        ({"b": 1, "a": [2, 3]}, [2, 3, 1]),
        (collections.OrderedDict([("b", 1), ("a", 2)]), [2, 1]),
        (P(1, {"z": 2, "y": 3}), [1, 3, 2]),
        (range(3), [0, 1, 2]),
        (collections.deque([1, [2]]), [1, 2]),
        ({"b": 1}.values(), [1]),
    ],
)
def test_flatten(structure, leaves):
    assert nest.flatten(structure) == leaves


def test_arrays_and_sets_are_leaves():
    array = np.zeros(3)
    assert nest.flatten([array])[0] is array
    assert nest.flatten({1, 2}) == [{1, 2}]
    assert not nest.is_nested(array)
    assert not nest.is_nested("ab")
    assert nest.is_nested(P(1, 2))
    assert nest.is_nested({})


def test_keys_that_cannot_be_sorted():
    with pytest.raises(DTypeError, match="sortable keys") as caught:
        nest.flatten({"b": 1, 1: 2})
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("structure", "flat", "packed"),
    [
        (1, [7], 7),
        ([0], (3,), [3]),
        (P(1, {"b": 2, "a": 0}), [1, 2, 3], P(1, {"b": 3, "a": 2})),
        ([0, (0, [0])], "abc", None),
        ([0, (0, [0])], [1, 2, 3], [1, (2, [3])]),
        (collections.deque([0, 0]), [5, 6], collections.deque([5, 6])),
    ],
)
def test_pack(structure, flat, packed):
    if packed is None:
        with pytest.raises(DTypeError, match="must be a sequence"):
            nest.pack_sequence_as(structure, flat)
        return
    found = nest.pack_sequence_as(structure, flat)
    assert found == packed
    assert type(found) is type(packed)


def test_packed_dicts_keep_their_order_and_kind():
    ordered = collections.OrderedDict([("b", 1), ("a", 2)])
    found = nest.pack_sequence_as(ordered, [1, 2])
    assert list(found.items()) == [("b", 2), ("a", 1)]
    assert type(found) is collections.OrderedDict
    default = nest.pack_sequence_as(collections.defaultdict(list, b=1, a=2), [1, 2])
    assert dict(default) == {"b": 2, "a": 1}
    assert default["new"] == []


@pytest.mark.parametrize(
    ("structure", "flat", "text"),
    [
        ([1, 2], [1], "Structure had 2 elements, but flat_sequence had 1 elements"),
        ([1], [1, 2], "Structure had 1 elements, but flat_sequence had 2 elements"),
        (1, [1, 2], r"Structure is a scalar but len\(flat_sequence\) == 2 > 1"),
    ],
)
def test_a_wrong_count_of_leaves(structure, flat, text):
    with pytest.raises(GraphError, match=text) as caught:
        nest.pack_sequence_as(structure, flat)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, (2,)], [[3, (4,)][0], (9,)]),
        (P(1, 2), SAME_AS_P(3, 4)),
        ({"a": 1}, collections.OrderedDict(a=2)),
        (collections.defaultdict(int, a=1), {"a": 1}),
        ([], []),
        (1, "a"),
    ],
)
def test_same_structures(first, second):
    nest.assert_same_structure(first, second)


@pytest.mark.parametrize(
    ("first", "second", "kind", "text"),
    [
        ([1, 2], [1, [2]], ValueError, 'Substructure "type=list str=.2." is a sequence, while'),
        ([1, 2], 1, ValueError, 'substructure "type=int str=1" is not'),
        ([1, 2], [1, 2, 3], ValueError, "don't have the same number of elements"),
        ({"a": 1}, {"b": 1}, ValueError, "don't have the same set of keys"),
        ({"a": 1}, {"a": [1]}, ValueError, "is a sequence"),
        ([1, 2], (1, 2), TypeError, "has type list, while second structure .* has type tuple"),
        (P(1, 2), R(1, 2), TypeError, "has type P, while second structure .* has type R"),
        (P(1, 2), (1, 2), TypeError, "has type P"),
        ([], (), TypeError, "has type list"),
    ],
)
def test_different_structures(first, second, kind, text):
    with pytest.raises(kind, match=text) as caught:
        nest.assert_same_structure(first, second)
    assert isinstance(caught.value, GraphError | DTypeError)
    assert "Entire first structure:" in str(caught.value)


def test_types_need_not_be_checked():
    nest.assert_same_structure([1, 2], (1, 2), check_types=False)
    nest.assert_same_structure({"a": 1}, {"b": 1}, check_types=False)
    with pytest.raises(ValueError, match="same number"):
        nest.assert_same_structure([1, 2], (1, 2, 3), check_types=False)


def test_map_structure():
    assert nest.map_structure(lambda a, b: a + b, [1, (2,)], [3, (4,)]) == [4, (6,)]
    found = nest.map_structure(lambda a, b: a + b, [1, (2,)], [3, [4]], check_types=False)
    assert found == [4, (6,)]
    with pytest.raises(TypeError, match="has type tuple"):
        nest.map_structure(lambda a, b: a + b, [1, (2,)], [3, [4]])
    with pytest.raises(ValueError, match="at least one structure"):
        nest.map_structure(lambda a: a)
    with pytest.raises(TypeError, match="callable"):
        nest.map_structure(3, [1])
    with pytest.raises(ValueError, match="not: `foo`"):
        nest.map_structure(lambda a: a, [1], foo=2)


def test_up_to_the_depth_of_another():
    assert nest.flatten_up_to([1, 2], [1, [2]]) == [1, [2]]
    assert nest.flatten_up_to(0, [1, [2]]) == [[1, [2]]]
    found = nest.map_structure_up_to([1, 2], lambda a, b: (a, b), [1, 2], [[3], [4, 5]])
    assert found == [(1, [3]), (2, [4, 5])]


@pytest.mark.parametrize(
    ("shallow", "tree", "kind", "text"),
    [
        ([1, 2], [1, 2, 3], ValueError, "Input structure has length 3, while .* length 2"),
        ([1, 2], 3, TypeError, "input must also be a sequence"),
        ([1, 2], (3, 4), TypeError, "same sequence type"),
        ({"a": 2}, {"b": 3}, ValueError, r"not in the input_tree: \['a'\]"),
    ],
)
def test_another_shallow_structure(shallow, tree, kind, text):
    with pytest.raises(kind, match=text):
        nest.assert_shallow_structure(shallow, tree)


def test_traversed_structure():
    traverse = nest.get_traverse_shallow_structure
    assert traverse(lambda s: True, [1, (2,)]) == [True, (True,)]
    assert traverse(lambda s: not isinstance(s, tuple), [1, (2,)]) == [True, False]
    pick = lambda s: P(False, True) if isinstance(s, P) else True  # noqa: E731
    assert traverse(pick, [P(1, [2, 3]), 4]) == [P(False, [True, True]), True]
    for wrong in (3, [True, [True]]):
        with pytest.raises(TypeError, match="traverse_fn"):
            traverse(lambda s, wrong=wrong: wrong, [1, [2]])
    with pytest.raises(TypeError, match="non-structure"):
        traverse(lambda s: [True], [1])
