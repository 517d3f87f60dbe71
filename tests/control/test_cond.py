"""cond, case and switch_case: the branch that is taken, and only that one."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


@pytest.mark.parametrize("name", CASES)
def test_values(name, everywhere):
    for fetches, expected, feeds in CASES[name]():
        everywhere(fetches, feeds, expected=expected)


def loop(n, step, *start):
    found = gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start]
    )
    return found[1:]


def both(fetches, yes, no, *feeds):
    """The cases of a graph with one bool placeholder, which is the graph's first tensor."""
    p = gc.get_default_graph().get_tensor_by_name("p:0")
    more = feeds[0] if feeds else {}
    return [(fetches, yes, {p: True, **more}), (fetches, no, {p: False, **more})]


@pytest.fixture(autouse=True)
def pred(graph):
    return gc.placeholder(gc.bool, [], name="p")


def p():
    return gc.get_default_graph().get_tensor_by_name("p:0")


@case
def tensors_from_inside_and_around():
    x = gc.constant([1.0, 2.0])
    a = gc.cond(p(), lambda: x, lambda: x * 2)
    b = gc.cond(p(), lambda: gc.constant(1), lambda: gc.constant(2))
    return both([a, b], [[1, 2], 1], [[2, 4], 2])


@case
def structures():
    x = gc.constant([1.0, 2.0])
    a = gc.cond(p(), lambda: (x, [x + 1]), lambda: (x * 3, [x]))
    b = gc.cond(p(), lambda: {"k": x}, lambda: {"k": -x})
    c = gc.cond(p(), lambda: [x], lambda: x * 5)
    return both(
        [a, b, c], [[1, 2], [2, 3], [1, 2], [1, 2]], [[3, 6], [1, 2], [-1, -2], [5, 10]]
    )


@case
def python_numbers():
    return both(gc.cond(p(), lambda: 1.5, lambda: 2.5), [1.5], [2.5])


@case
def operations_give_the_predicate():
    return both(gc.cond(p(), gc.no_op, gc.no_op), [True], [False])


@case
def sizes_that_differ():
    x = gc.placeholder(gc.float32, [None])
    y = gc.cond(p(), lambda: x, lambda: gc.concat([x, x], 0))
    z = gc.cond(gc.shape(y)[0] > 3, lambda: y[:3], lambda: gc.concat([y, [9.0]], 0))
    fetches = [y, gc.reduce_sum(y), gc.shape(y), z, gc.reshape(y, [-1, 1]) * 2.0, y + 1.0]
    return both(
        fetches,
        [[1, 2], 3, [2], [1, 2, 9], [[2], [4]], [2, 3]],
        [[1, 2, 1, 2], 6, [4], [1, 2, 1], [[2], [4], [2], [4]], [2, 3, 2, 3]],
        {x: [1.0, 2.0]},
    )


@case
def static_sizes_that_differ():
    y = gc.cond(p(), lambda: gc.zeros([2, 3]), lambda: gc.ones([4, 3]))
    assert y.shape.as_list() == [None, 3]
    return both([y, gc.reduce_sum(y, 0)], [np.zeros((2, 3)), [0] * 3], [np.ones((4, 3)), [4] * 3])


@case
def an_empty_branch():
    y = gc.cond(p(), lambda: gc.zeros([0]), lambda: gc.ones([1]))
    return both(y * 2.0, [[]], [[2]])


@case
def branches_in_branches():
    q, x = gc.constant(True), gc.constant(1.0)
    inner = lambda a, b: gc.cond(q, lambda: x + a, lambda: x + b)  # noqa: E731
    return both(gc.cond(p(), lambda: inner(1, 2), lambda: inner(3, 4)), [2], [4])


@case
def a_loop_in_a_branch():
    x = gc.constant(2.0)
    y = gc.cond(p(), lambda: loop(3, lambda i, y: (y * x,), x)[0], lambda: x - 1.0)
    return both(y, [16], [1])


@case
def a_branch_in_a_loop():
    def step(i, y):
        even = gc.equal(i % 2, 0)
        return (gc.cond(gc.logical_and(even, p()), lambda: y * 2, lambda: y + 1),)

    return both(loop(5, step, 1.0), [(((1 * 2) + 1) * 2 + 1) * 2], [6])


@case
def a_swap_in_a_branch_in_a_loop():
    def step(i, a, b):
        return gc.cond(p(), lambda: (b, a), lambda: (a, b + a))

    return both(loop(3, step, gc.constant([1.0]), gc.constant([2.0])), [[2], [1]], [[1], [5]])


@case
def the_same_tensor_from_every_branch():
    x = gc.constant([1.0])
    return both(gc.cond(p(), lambda: (x, x), lambda: (x, x + 1)), [[1], [1]], [[1], [2]])


@case
def a_switch():
    k = gc.placeholder(gc.int32, [])
    three = [lambda c=c: gc.constant(c) for c in (1.0, 2.0, 3.0)]
    plain = gc.switch_case(k, three)
    other = gc.switch_case(k, {1: three[1], 0: three[0]}, default=lambda: gc.constant(-1.0))
    pairs = gc.switch_case(k, [(2, three[0]), (0, three[1]), (1, three[2])])
    values = {0: (1, 1, 2), 1: (2, 2, 3), 2: (3, -1, 1), 7: (3, -1, 1), -1: (3, -1, 1)}
    return [([plain, other, pairs], v, {k: key}) for key, v in values.items()]


@case
def a_switch_in_a_loop():
    def step(i, y):
        return (gc.switch_case(i % 3, [lambda: y + 1, lambda: y * 3, lambda: y - 2]),)

    value = 1.0
    for i in range(7):
        value = (value + 1, value * 3, value - 2)[i % 3]
    return [(loop(7, step, 1.0), [value], {})]


@case
def cases():
    a = gc.placeholder(gc.float32, [])
    tests = [(a < 0, lambda: a), (a < 10, lambda: a * 2)]
    one = gc.case(tests, default=lambda: a * 3)
    two = gc.case({a < 0: lambda: a, a > 2: lambda: a * 2}, exclusive=True, default=lambda: a * 3)
    three = gc.case(tests)
    return [
        ([one, two, three], [-1, -1, -1], {a: -1.0}),
        ([one, two, three], [2, 3, 2], {a: 1.0}),
        ([one, two, three], [10, 10, 10], {a: 5.0}),
        ([one, two], [60, 40], {a: 20.0}),
    ]


def test_names_and_shapes_are_those_of_tensorflow():
    x = gc.constant(1.0)
    a, b = gc.cond(p(), lambda: (x, x + 1), lambda: (x, x))
    assert [a.name, b.name] == ["cond/Merge:0", "cond/Merge_1:0"]
    assert repr(a) == "<tf.Tensor 'cond/Merge:0' shape=() dtype=float32>"
    first = gc.case([(p(), lambda: x)], default=lambda: x)
    assert first.name == "case/cond/Merge:0"
    index = gc.constant(0)
    assert gc.switch_case(index, [lambda: x]).name == "switch_case/indexed_case/Identity:0"
    assert type(gc.switch_case(index, [lambda: [x]])) is list
    assert type(gc.cond(p(), lambda: [x], lambda: [x], strict=True)) is list
    assert gc.cond(p(), lambda: x, lambda: gc.ones([2])).shape.ndims is None


def test_what_is_not_taken_is_not_run(in_modes):
    """The other branch divides by zero, and reads out of range."""

    def work(session):
        k, q = gc.placeholder(gc.int32, []), gc.placeholder(gc.bool, [])
        x = gc.constant([1, 2, 3])
        y = gc.cond(q, lambda: 6 // k + gc.gather(x, k), lambda: k)
        found = [session.run(y, {q: True, k: 2}), session.run(y, {q: False, k: 0})]
        with pytest.raises(gc.errors.InvalidArgumentError):
            session.run(y, {q: True, k: 0})
        with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
            session.run(y, {q: True, k: 5})
        return [*found, session.run(y, {q: False, k: 5})]

    assert in_modes(work) == [6, 0, 5]


def test_a_known_predicate_leaves_one_branch():
    with gc.Session() as session:
        y = gc.cond(gc.constant(True), lambda: gc.constant(1.0), lambda: gc.ones([2])[0] * 3.0)
        assert session.run(y) == 1.0
        z = gc.switch_case(gc.constant(9), [lambda: gc.constant(1.0), lambda: gc.constant(2.0)])
        assert session.run(z) == 2.0
