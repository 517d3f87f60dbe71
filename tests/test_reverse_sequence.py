"""reverse_sequence: shapes and errors as TensorFlow 1.15.5 gives them (values: the registry)."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.build import constant
from graphc.errors import InvalidArgumentError
from graphc.graph import Graph
from graphc.ops.array import placeholder
from graphc.ops.shaping_slice import reverse_sequence
from graphc.session import Session

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as graph:
        yield graph


def test_values_of_unknown_sizes():
    x, lengths = placeholder("float", [None, None]), placeholder("int64", [None])
    y = reverse_sequence(x, lengths, 1)
    other = reverse_sequence(x, [1, 2, 0], seq_dim=0, batch_dim=1)
    assert y.shape.as_list() == [None, None]
    with Session() as session:
        assert session.run(y, {x: X, lengths: [3, 2]}).tolist() == [[2, 1, 0], [4, 3, 5]]
        assert session.run(other, {x: X}).tolist() == [[0, 4, 2], [3, 1, 5]]
        for wrong in (4, -1):
            with pytest.raises(InvalidArgumentError, match=rf"seq_lengths\[1\] = {wrong} is not"):
                session.run(y, {x: X, lengths: [0, wrong]})


def test_the_lengths_tell_the_batch():
    y = reverse_sequence(placeholder("float", [None, 3]), placeholder("int32", [5]), 1)
    assert y.shape.as_list() == [5, 3]


@pytest.mark.parametrize(
    ("lengths", "options", "kind", "text"),
    [
        ([1, 2, 3], {"seq_axis": 1}, ValueError, "must be equal, but are 2 and 3"),
        ([1, 2], {"seq_axis": 3}, ValueError, "seq_dim must be < input rank: 3 vs. 2"),
        ([1, 2], {"seq_axis": 1, "batch_axis": 5}, ValueError, "batch_dim must be < input rank"),
        ([1, 2], {"seq_axis": 0}, ValueError, "batch_dim == seq_dim == 0"),
        ([[1, 2]], {"seq_axis": 1}, ValueError, "must be rank 1 but is rank 2"),
        ([1.0, 2.0], {"seq_axis": 1}, TypeError, "float32"),
        ([1, 2], {}, TypeError, "Expected int for argument 'seq_dim'"),
        ([1, 2], {"seq_axis": 1, "seq_dim": 1}, ValueError, "Cannot specify both 'seq_axis' and"),
    ],
)
def test_errors(lengths, options, kind, text):
    with pytest.raises(kind, match=text):
        reverse_sequence(constant(X), lengths, **options)
