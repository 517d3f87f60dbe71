"""embedding_lookup: one table or parts of one, ids of any shape, norms; as NumPy indexes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import nn
from graphc.build import constant
from graphc.errors import InvalidArgumentError
from graphc.gradients import gradients
from graphc.ops.array import placeholder
from graphc.ops.reduction_functions import reduce_sum
from graphc.session import Session
from graphc.variables import Variable, global_variables_initializer

TABLE = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
IDS = np.array([[6, 0, 3], [2, 2, 5]])


def parts(strategy, count):
    if strategy == "mod":
        return [TABLE[k::count] for k in range(count)]
    return np.array_split(TABLE, count)


def values(fetches, feeds=None):
    with Session() as session:
        session.run(global_variables_initializer())
        return session.run(fetches, feeds)


@pytest.mark.parametrize("ids", [IDS, IDS[0], IDS[0, 0], IDS[None, :, :0]])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_one_table(ids, dtype):
    for params in (TABLE, [TABLE], Variable(TABLE)):
        found = values(nn.embedding_lookup(params, ids.astype(dtype)))
        np.testing.assert_array_equal(found, TABLE[ids])


@pytest.mark.parametrize("strategy", ["mod", "div"])
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("ids", [IDS, np.arange(7), IDS[0, 0]])
def test_parts(strategy, count, ids):
    tables = [Variable(part) for part in parts(strategy, count)]
    found = nn.embedding_lookup(tables, ids, strategy)
    assert found.shape.as_list() == [*ids.shape, 3]
    np.testing.assert_array_equal(values(found), TABLE[ids])


@pytest.mark.parametrize("strategy", ["mod", "div"])
def test_parts_of_sizes_that_a_run_decides(strategy):
    tables = [placeholder("float", [None, 3]) for _ in range(3)]
    ids = placeholder("int64", [None, None])
    found = nn.embedding_lookup(tables, ids, strategy)
    feeds = dict(zip(tables, parts(strategy, 3), strict=True))
    np.testing.assert_array_equal(values(found, {**feeds, ids: IDS}), TABLE[IDS])


@pytest.mark.parametrize("strategy", ["mod", "div"])
def test_tables_of_other_ranks(strategy):
    flat = [constant(part[:, 0]) for part in parts(strategy, 2)]
    np.testing.assert_array_equal(
        values(nn.embedding_lookup(flat, IDS, strategy)), TABLE[IDS][..., 0]
    )
    deep = [constant(part.reshape(-1, 3, 1)) for part in parts(strategy, 2)]
    found = values(nn.embedding_lookup(deep, IDS, strategy))
    np.testing.assert_array_equal(found, TABLE[IDS][..., None])


@pytest.mark.parametrize("strategy", ["mod", "div"])
def test_gradients_reach_the_rows_that_were_read(strategy):
    tables = [Variable(part) for part in parts(strategy, 3)]
    weights = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
    total = reduce_sum(nn.embedding_lookup(tables, IDS, strategy) * weights)
    expected = np.zeros_like(TABLE)
    np.add.at(expected, IDS, weights)
    wanted = (
        [expected[k::3] for k in range(3)] if strategy == "mod" else np.array_split(expected, 3)
    )
    for found, part in zip(values(gradients(total, tables)), wanted, strict=True):
        np.testing.assert_allclose(found, part, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_long_rows_are_scaled_down(count):
    found = values(nn.embedding_lookup(parts("mod", count), IDS, max_norm=1.5))
    rows = TABLE[IDS]
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    assert (norms > 1.5).any()
    assert (norms < 1.5).any()
    np.testing.assert_allclose(found, rows * np.minimum(1, 1.5 / norms), rtol=1e-6)


@pytest.mark.parametrize("params", [TABLE, parts("mod", 3), parts("div", 3)])
@pytest.mark.parametrize("wrong", [-1, 7, 8, 100])
def test_an_id_out_of_range_fails_the_run(params, wrong):
    strategy = (
        "div"
        if isinstance(params, list) and len(params[0]) == 3 and (params[0][1] == TABLE[1]).all()
        else "mod"
    )
    ids = placeholder("int32", [None])
    found = nn.embedding_lookup(params, ids, strategy)
    with pytest.raises(InvalidArgumentError, match="is not in"):
        values(found, {ids: [0, wrong]})


@pytest.mark.parametrize(
    ("params", "strategy", "text"),
    [
        (None, "mod", "params must be specified"),
        ([], "mod", "Need at least one param"),
        ([TABLE, TABLE], "odd", "Unrecognized partition strategy: odd"),
    ],
)
def test_errors(params, strategy, text):
    with pytest.raises(ValueError, match=text):
        nn.embedding_lookup(params, [0], strategy)
