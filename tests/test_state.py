"""State is versioned: what reads see, in which order assignments are, what a failed run leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import errors
from graphc.graph import Graph
from graphc.runtime.executable import COMPILATIONS

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


@pytest.fixture(params=MODES)
def session(request):
    with gc.Session(mode=request.param) as s:
        yield s


def initialized(session, *values):
    variables = [gc.Variable(v) for v in values]
    session.run([v.initializer for v in variables])
    return variables


# --- reads and assignments ------------------------------------------------------------------------


def test_a_read_sees_the_start_of_the_run_unless_it_is_ordered(session):
    (v,) = initialized(session, 1.0)
    before = v.read_value()
    update = v.assign_add(10.0)
    with gc.control_dependencies([update]):
        after = v.read_value()
        doubled = v * 2.0
    assert session.run([before, after, doubled, v]) == [1.0, 11.0, 22.0, 11.0]
    assert session.run([v + 0.0, update.op]) == [11.0, None]
    assert session.run(v) == 21.0


def test_a_variable_fetched_by_itself_gives_its_value_after_the_run(session):
    (v,) = initialized(session, 1.0)
    assert session.run([v, v.assign(5.0).op]) == [5.0, None]
    assert session.run([v.assign_sub(2.0).op, v, v + 0.0]) == [None, 3.0, 5.0]


def test_assignments_are_ordered_by_control_then_by_creation(session):
    (v,) = initialized(session, 1.0)
    a = v.assign(v * 3.0)
    b = v.assign_add(4.0)
    session.run([b.op, a.op])
    assert session.run(v) == 7.0
    with gc.control_dependencies([b]):
        c = v.assign(v * 10.0)
    session.run(c)
    assert session.run(v) == 110.0


def test_the_same_assignment_happens_once_in_a_run(session):
    (v,) = initialized(session, 0.0)
    add = v.assign_add(1.0)
    session.run([add, add.op, add])
    assert session.run(v) == 1.0


def test_assign_add_twice_in_order(session):
    (v,) = initialized(session, 0.0)
    first = v.assign_add(1.0)
    with gc.control_dependencies([first]):
        second = v.assign_add(v)
    assert session.run(second) == 2.0
    assert session.run([first, second]) == [3.0, 6.0]


def test_a_chain_of_references(session):
    (v,) = initialized(session, 1.0)
    ref = gc.assign_add(gc.assign(v, 5.0), 2.0)
    assert session.run(ref) == 7.0
    assert session.run(v) == 7.0


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_two_variables_are_swapped(session, size):
    a, b = initialized(session, np.full(size, 1.0, "f"), np.full(size, 2.0, "f"))
    swap = gc.group(a.assign(b), b.assign(a))
    for k in range(3):
        session.run(swap)
        x, y = session.run([a, b])
        assert (x[0], y[-1]) == ((2.0, 1.0) if k % 2 == 0 else (1.0, 2.0))


def test_three_variables_are_rotated(session):
    a, b, c = initialized(session, 1.0, 2.0, 3.0)
    session.run([a.assign(b), b.assign(c), c.assign(a)])
    assert session.run([a, b, c]) == [2.0, 3.0, 1.0]


def test_assigning_a_variable_to_itself(session):
    (v,) = initialized(session, [1.0, 2.0])
    assert session.run(v.assign(v)).tolist() == [1.0, 2.0]
    assert session.run(v.assign(gc.identity(v) + 0.0)).tolist() == [1.0, 2.0]


def test_an_update_of_part_of_a_graph_that_reads_the_old_value_elsewhere(session):
    (v,) = initialized(session, np.arange(1000, dtype=np.float32))
    new = v.assign(v * 2.0 + 1.0)
    turned = v[::-1]
    total = gc.reduce_sum(v)
    old = np.arange(1000, dtype=np.float32)
    a, b, c, d = session.run([new, turned, total, gc.exp(v * 0.001)])
    np.testing.assert_array_equal(a, old * 2 + 1)
    np.testing.assert_array_equal(b, old[::-1])
    assert c == old.sum()
    np.testing.assert_allclose(d, np.exp(old * 0.001), rtol=1e-6)


@pytest.mark.parametrize(
    "update",
    [
        lambda v: v[::-1],
        lambda v: gc.transpose(gc.reshape(v, [4, 4]))[:, 0] + gc.zeros([16])[:4],
        lambda v: gc.gather(v, gc.range(15, -1, -1)),
        lambda v: gc.concat([v[8:], v[:8]], 0),
        lambda v: v - gc.reduce_max(v),
        lambda v: gc.cumsum(v) if hasattr(gc, "cumsum") else v + v[::-1],
        lambda v: gc.reshape(gc.transpose(gc.reshape(v, [4, 4])), [16]),
        lambda v: gc.reshape(gc.matmul(gc.reshape(v, [4, 4]), gc.reshape(v, [4, 4])), [16]),
        lambda v: gc.exp(v * 0.1) / gc.reduce_sum(gc.exp(v * 0.1)),
    ],
)
def test_updates_that_read_other_elements_of_the_old_value(update):
    start = np.arange(16, dtype=np.float32)
    found = []
    for mode in MODES:
        with Graph().as_default(), gc.Session(mode=mode) as session:
            (v,) = initialized(session, start)
            new = update(v)
            if new.shape.as_list() == [16]:
                session.run(v.assign(new).op)
            found.append(session.run([v, new]))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_several_variables_updated_from_one_another(session):
    w, m = initialized(session, np.ones(100, "f"), np.zeros(100, "f"))
    grad = w * 2.0
    new_m = m.assign(0.9 * m + grad)
    with gc.control_dependencies([new_m]):
        step = w.assign_sub(0.1 * m.read_value())
    expected_w, expected_m = np.ones(100), np.zeros(100)
    for _ in range(5):
        session.run(step.op)
        expected_m = 0.9 * expected_m + expected_w * 2
        expected_w = expected_w - 0.1 * expected_m
    np.testing.assert_allclose(session.run(w), expected_w, rtol=1e-5)
    np.testing.assert_allclose(session.run(m), expected_m, rtol=1e-5)


def test_initialization_from_other_variables(session):
    a = gc.Variable([1.0, 2.0])
    b = gc.Variable(a.initialized_value() * 3.0)
    session.run(gc.global_variables_initializer())
    assert session.run(b).tolist() == [3.0, 6.0]
    session.run(a.assign([5.0, 5.0]))
    session.run(b.initializer)
    assert session.run(b).tolist() == [15.0, 15.0]


def test_is_initialized_is_asked_anew(session):
    v = gc.Variable(1.0)
    known = gc.is_variable_initialized(v)
    report = gc.report_uninitialized_variables()
    assert not session.run(known)
    assert session.run(report).tolist() == [b"Variable"]
    session.run(v.initializer)
    assert session.run(known)
    assert session.run(report).tolist() == []


def test_fetches_are_not_views_of_variables(session):
    (v,) = initialized(session, [1.0, 2.0])
    a, b = session.run([v, v.read_value()])
    session.run(v.assign_add([1.0, 1.0]))
    assert a.tolist() == b.tolist() == [1.0, 2.0]
    a[:] = 9
    assert session.run(v).tolist() == [2.0, 3.0]


# --- shapes ---------------------------------------------------------------------------------------


def test_a_variable_may_change_its_shape_where_that_was_declared(session):
    v = gc.Variable([1.0, 2.0], validate_shape=False)
    x = gc.placeholder(gc.float32, [None])
    change = gc.assign(v, x, validate_shape=False)
    total = gc.reduce_sum(v)
    grow = gc.assign(v, gc.concat([v, v], 0), validate_shape=False)
    session.run(v.initializer)
    for n in (2, 3, 1, 0, 5):
        found = session.run(change, {x: np.ones(n)})
        assert found.tolist() == [1.0] * n
        assert session.run(total) == n
        assert session.run(v).shape == (n,)
    session.run(grow)
    session.run(grow)
    assert session.run(v).shape == (20,)
    session.run(v.assign_add(v))
    assert session.run(total) == 40.0


@pytest.mark.parametrize("kind", ["assign", "assign_add", "assign_sub"])
def test_an_assignment_of_another_shape_is_refused(session, kind):
    (v,) = initialized(session, [1.0, 2.0])
    x = gc.placeholder(gc.float32, [None])
    update = getattr(v, kind)(x)
    with pytest.raises(errors.InvalidArgumentError, match=r"lhs shape= \[2\] rhs shape= \[3\]"):
        session.run(update, {x: [1.0, 2.0, 3.0]})
    assert session.run(v).tolist() == [1.0, 2.0]
    session.run(update, {x: [1.0, 2.0]})
    with pytest.raises(errors.InvalidArgumentError, match=r"lhs shape= \[2\] rhs shape= \[1\]"):
        session.run(update, {x: [1.0]})


# --- failures -------------------------------------------------------------------------------------


def failing(kind: str) -> tuple[Any, dict[Any, Any], dict[Any, Any]]:
    """A tensor that fails for the first feeds and not for the second."""
    i = gc.placeholder(gc.int32, [None])
    if kind == "gather":
        return gc.gather(gc.constant([1.0, 2.0]), i), {i: [0, 9]}, {i: [0, 1]}
    if kind == "division":
        return gc.cast(gc.constant([4, 6]) // i, gc.float32), {i: [2, 0]}, {i: [1, 2]}
    logits = gc.constant([[1.0, 2.0], [0.5, 0.5]])
    loss = gc.nn.sparse_softmax_cross_entropy_with_logits(labels=i, logits=logits)
    return loss, {i: [0, 2]}, {i: [0, 1]}


@pytest.mark.parametrize("kind", ["gather", "division", "label"])
@pytest.mark.parametrize("order", ["before", "after", "in", "idle"])
@pytest.mark.parametrize("size", [2, 5000])
def test_a_run_that_fails_changes_nothing(session, kind, order, size):
    v, w = initialized(session, np.ones(size, "f"), np.float32(1))
    value, bad, good = failing(kind)
    if order == "before":
        with gc.control_dependencies([value]):
            fetches = [v.assign(v * 2.0), w.assign_add(1.0)]
    elif order == "after":
        first, second = v.assign(v * 2.0), w.assign_add(1.0)
        with gc.control_dependencies([first, second]):
            fetches = [first, second, gc.identity(value)]
    elif order == "in":
        fetches = [v.assign(v * 2.0), w.assign_add(gc.reduce_sum(value)), v.assign_add(v)]
    else:
        fetches = [v.assign(v * 2.0), w.assign_add(1.0), value.op]
    for _ in range(2):
        with pytest.raises(errors.InvalidArgumentError):
            session.run(fetches, bad)
        a, b = session.run([v, w])
        assert (a == 1.0).all()
        assert b == 1.0
    session.run(fetches, good)
    a, b = session.run([v, w])
    assert (a > 1.0).all()
    assert b > 1.0


# --- random numbers -------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers_in_a_new_session(session, graph):
    graph.seed = 7
    a, b = gc.random_uniform([5]), gc.random_normal([5], seed=3)
    runs = [session.run([a, b]) for _ in range(3)]
    with gc.Session() as other:
        again = [other.run([a, b]) for _ in range(3)]
    for x, y in zip(runs, again, strict=True):
        np.testing.assert_allclose(x[0], y[0], rtol=1e-6)
        np.testing.assert_allclose(x[1], y[1], rtol=1e-5)
    assert not np.array_equal(runs[0][0], runs[1][0])
    assert not np.array_equal(runs[0][0], runs[0][1])


def test_only_what_is_run_advances(session, graph):
    graph.seed = 7
    a, b = gc.random_uniform([5]), gc.random_uniform([5])
    first, second = session.run(a), session.run(a)
    with gc.Session() as other:
        other.run(b)
        other.run([b, gc.constant(1.0)])
        np.testing.assert_allclose(other.run(a), first, rtol=1e-6)
        x, y = other.run([a, a + 0.0])
        np.testing.assert_allclose(x, second, rtol=1e-6)
        np.testing.assert_array_equal(x, y)


def test_a_run_that_fails_does_not_advance(session, graph):
    graph.seed = 7
    a = gc.random_uniform([5])
    i = gc.placeholder(gc.int32, [])
    b = gc.gather(a, i)
    with gc.Session() as other:
        expected = other.run([b, a], {i: 1})
    for _ in range(3):
        with pytest.raises(errors.InvalidArgumentError):
            session.run([b, a], {i: 5})
    found = session.run([b, a], {i: 1})
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_without_a_seed_runs_differ_and_nothing_is_compiled_again(session):
    a = gc.random_uniform([8])
    first, second = session.run(a), session.run(a)
    assert not np.array_equal(first, second)
    with gc.Session() as one, gc.Session() as two:
        x = one.run(a)
        before = objects_built()
        np.testing.assert_array_equal(two.run(a), x)
        assert objects_built() == before


def objects_built() -> int:
    return COMPILATIONS["objects"]


def test_sizes_that_random_numbers_decide(session, graph):
    """The run that finds the sizes and the run that uses them see the same numbers."""
    graph.seed = 5
    n = gc.random_uniform([], 1, 9, dtype=gc.int32)
    rows = gc.fill([n], 1.0)
    for _ in range(6):
        size, found = session.run([n, rows])
        assert found.shape == (size,)


def test_sizes_that_an_assignment_decides(session):
    (v,) = initialized(session, 2)
    add = v.assign_add(1)
    with gc.control_dependencies([add]):
        rows = gc.fill([v.read_value()], 1.0)
    for n in (3, 4, 5):
        assert session.run(rows).shape == (n,)
        assert session.run(v) == n


# --- random programs against a sequential model ---------------------------------------------------


@dataclass(frozen=True)
class Step:
    """``kind`` on variable ``target`` with the value of read ``source``, after ``after``."""

    kind: str
    target: int
    source: int
    after: tuple[int, ...]


@st.composite
def programs(draw):
    count = draw(st.integers(1, 9))
    steps = []
    for k in range(count):
        kind = draw(st.sampled_from(["read", "read", "assign", "add", "sub", "double"]))
        after = draw(st.sets(st.integers(0, k - 1), max_size=2)) if k else set()
        source = draw(st.integers(-1, k - 1)) if kind != "double" else -1
        steps.append(Step(kind, draw(st.integers(0, 1)), source, tuple(sorted(after))))
    wanted = draw(st.sets(st.integers(0, count - 1), min_size=1))
    return steps, sorted(wanted)


def model(steps, wanted, start):
    """What the contract says: every step's value, and the variables after the run."""
    needed, stack = set(), list(wanted)
    while stack:
        k = stack.pop()
        if k not in needed:
            needed.add(k)
            stack += [*steps[k].after, *([steps[k].source] if steps[k].source >= 0 else [])]
    values, ancestors = {}, {}
    chains: dict[int, list[tuple[int, Any]]] = {0: [], 1: []}
    for k in sorted(needed):
        step = steps[k]
        # The read itself waits for control dependencies only; the operation for its operand too.
        ahead = set(step.after).union(*(ancestors[b] for b in step.after))
        ancestors[k] = ahead
        if step.source >= 0:
            ancestors[k] = ahead | {step.source} | ancestors[step.source]

        def seen(target, ahead=ahead):
            ordered = [v for at, v in chains[target] if at in ahead]
            return ordered[-1] if ordered else start[target]

        operand = values[step.source] if step.source >= 0 else np.float32(3)
        chain = chains[step.target]
        last = chain[-1][1] if chain else start[step.target]
        if step.kind == "read":
            values[k] = seen(step.target) + operand
        elif step.kind == "double":
            values[k] = seen(step.target) * np.float32(2)
        else:
            new = {"assign": operand, "add": last + operand, "sub": last - operand}[step.kind]
            new = np.broadcast_to(new, start[step.target].shape).astype(np.float32)
            chain.append((k, new))
            values[k] = new
    after = [chains[t][-1][1] if chains[t] else start[t] for t in (0, 1)]
    return [values[k] for k in wanted], after


def declare(steps, variables):
    made = []
    for step in steps:
        v = variables[step.target]
        with gc.control_dependencies([made[k].op for k in step.after]):
            operand = made[step.source] if step.source >= 0 else gc.constant(np.float32(3))
            if step.kind == "read":
                made.append(gc.add(v.read_value(), operand))
            elif step.kind == "double":
                made.append(gc.multiply(v.read_value(), np.float32(2)))
            else:
                operand = gc.add(operand, gc.zeros(v.shape))
                name = {"assign": "assign", "add": "assign_add", "sub": "assign_sub"}[step.kind]
                made.append(getattr(v, name)(operand))
    return made


@pytest.mark.parametrize("mode", ["static", "reference"])
def test_random_programs_agree_with_the_model(mode):
    @settings(max_examples=120 if mode == "static" else 40)
    @given(programs())
    def check(program):
        steps, wanted = program
        start = [np.arange(1, 41, dtype=np.float32), np.arange(40, dtype=np.float32) * 2 - 5]
        with Graph().as_default(), gc.Session(mode=mode) as session:
            variables = initialized(session, *start)
            made = declare(steps, variables)
            for _ in range(2):
                expected, start = model(steps, wanted, start)
                found = session.run([made[k] for k in wanted])
                for a, b in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(a, b)
                for v, b in zip(variables, start, strict=True):
                    np.testing.assert_array_equal(session.run(v), b)

    check()
