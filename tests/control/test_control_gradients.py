"""Gradients through loops, branches and arrays: first and second, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.control.loops import differences

F = gc.float64
X = [0.3, -0.5, 0.8]
CASES = {}
ts = gc.reduce_sum


def case(*points):
    def note(fn):
        for k, point in enumerate(points or (X,)):
            CASES[f"{fn.__name__}-{k}"] = fn, np.array(point, np.float64)
        return fn

    return note


def loop(n, step, *start, **options):
    found = gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start], **options
    )
    return found[1:]


@pytest.mark.parametrize("known", [True, False], ids=["static", "symbolic"])
@pytest.mark.parametrize("name", CASES)
def test_first_and_second(name, known, everywhere):
    fn, point = CASES[name]
    x = gc.placeholder(F, point.shape if known else [None] * point.ndim)
    y = fn(x)
    weights = np.cos(np.arange(point.size) + 1.0).reshape(point.shape)
    first = gc.gradients(y, x)[0]
    second = gc.gradients(ts(first * weights), x)[0]
    if second is None:
        second = gc.zeros_like(x)
    a, b = everywhere([first, second], {x: point}, rtol=1e-9)
    with gc.Session() as session:
        wanted = differences(lambda p: session.run([y, first], {x: p}), point)
        np.testing.assert_allclose(a, wanted[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, wanted[1], rtol=1e-4, atol=1e-5)
        assert session.compilations == 1


# --- loops ----------------------------------------------------------------------------------------


@case()
def a_power(x):
    return ts(loop(3, lambda i, y: (y * x,), x)[0])


@case()
def what_is_saved(x):
    return ts(loop(3, lambda i, y: (gc.tanh(y * x + 0.5),), x)[0])


@case()
def no_turn(x):
    return ts(loop(0, lambda i, y: (gc.tanh(y * x),), x * x)[0])


@case()
def turns_that_the_data_decides(x):
    body = lambda y: y * 1.5 + gc.sin(x)  # noqa: E731
    return ts(gc.while_loop(lambda y: ts(y * y) < 20.0, body, [x]))


@case()
def a_limit(x):
    yes = lambda y: gc.constant(True)  # noqa: E731
    return ts(gc.while_loop(yes, lambda y: y * gc.sin(x), [x], maximum_iterations=3))


@case()
def variables_that_change_places(x):
    return ts(loop(5, lambda i, a, b: (b, gc.tanh(a) * b), x, x * x)[0])


@case()
def a_product_of_the_last_two(x):
    return ts(loop(5, lambda i, a, b: (b, a * b), x, gc.sin(x))[1])


@case()
def variables_that_do_not_matter(x):
    return ts(loop(5, lambda i, a, b: (a * x, b + a), x, x)[0])


@case()
def a_variable_that_stays(x):
    return ts(gc.square(loop(5, lambda i, a, b: (a, b + a * a), x, x)[0]))


@case()
def results_from_around(x):
    return ts(loop(2, lambda i, a, b: (x * x, x), x, x * 3)[0] * x)


@case()
def integers_on_the_way(x):
    def step(i, s, k):
        return s * gc.cast(k, F) + ts(x * s), k + i

    return loop(3, step, gc.constant(1.0, F), 1)[0]


@case()
def elements_by_the_turn(x):
    def step(i, s):
        return (s + gc.gather(x, i) * x[2 - i] * s,)

    return loop(3, step, gc.constant(1.0, F))[0]


@case([[0.3, 0.4], [-0.5, 0.7]])
def matrix_products(x):
    return ts(loop(3, lambda i, y: (gc.tanh(gc.matmul(y, x)),), x)[0])


@case()
def reductions(x):
    return ts(loop(3, lambda i, y: (y / (1.0 + ts(y * y)) * x,), x)[0])


@case()
def a_loop_in_a_loop(x):
    def outer(i, y):
        return (loop(i, lambda j, z: (gc.sin(z) * x + z,), y)[0] * y,)

    return ts(loop(4, outer, x)[0])


@case()
def three_loops(x):
    def outer(i, y):
        def middle(j, z):
            return loop(2, lambda k, q: (gc.tanh(q * x) + z,), z)

        return (loop(2, middle, y)[0] * y,)

    return ts(loop(2, outer, x)[0])


@case()
def a_gradient_in_the_body(x):
    def step(i, y):
        return (y - 0.1 * gc.gradients(ts(gc.sin(y * x)), y)[0],)

    return ts(gc.square(loop(3, step, x)[0]))


@case()
def two_loops(x):
    a = loop(2, lambda i, y: (gc.sin(y) * x,), x)[0]
    return ts(loop(3, lambda i, y: (y * a + x,), a)[0] * a)


# --- branches -------------------------------------------------------------------------------------

LOW = [-1.0, 0.2, 0.3]


def positive(x):
    return ts(x) > 0.0


@case(X, LOW)
def a_branch(x):
    return ts(gc.cond(positive(x), lambda: x * x * x, lambda: gc.sin(x)))


@case(X, LOW)
def a_branch_that_does_not_depend(x):
    return ts(gc.cond(positive(x), lambda: gc.zeros_like(x) + 2.0, lambda: gc.sin(x)) * x)


@case(X, LOW)
def a_branch_that_gives_what_is_around(x):
    return ts(gc.cond(positive(x), lambda: x, lambda: x * x) * x)


@case(X, LOW)
def a_loop_in_a_branch(x):
    deep = lambda: loop(3, lambda i, y: (gc.sin(y) * x,), x)[0]  # noqa: E731
    return ts(gc.cond(positive(x), deep, lambda: x * 2.0))


@case(X, LOW)
def loops_over_what_their_branch_made(x):
    """The second loop's gradient needs the first one's result, and that what the branch made."""

    def deep():
        rows = gc.TensorArray(F, size=2).unstack(gc.stack([x, gc.sin(x)]))
        a = loop(2, lambda i, y: (gc.sin(y) * rows.read(i),), x)[0]
        return loop(2, lambda i, y: (gc.sin(y) * a + gc.tanh(a),), x)[0]

    return ts(gc.cond(positive(x), deep, lambda: x * 2.0))


@case()
def a_branch_in_a_loop(x):
    def step(i, y):
        a = gc.exp(y * 0.1)
        return (gc.cond(ts(y) > 0.3, lambda: a * x, lambda: gc.sin(y) * a + x),)

    return ts(loop(5, step, x)[0])


@case()
def a_branch_in_a_loop_in_a_branch(x):
    def step(i, y):
        return (gc.cond(gc.equal(i % 2, 0), lambda: y * x, lambda: gc.sin(y) + x),)

    return ts(gc.cond(positive(x), lambda: loop(3, step, x)[0], lambda: x * 2.0))


@case()
def a_loop_in_a_branch_in_a_loop(x):
    def step(i, y):
        deep = lambda: loop(i + 1, lambda j, z: (gc.sin(z) * x,), y)[0]  # noqa: E731
        return (gc.cond(gc.equal(i % 2, 0), deep, lambda: gc.sin(y) + x),)

    return ts(loop(4, step, x)[0])


@case()
def a_switch_in_a_loop(x):
    def step(i, y):
        return (gc.switch_case(i % 3, [lambda: y * x, lambda: gc.sin(y) + x, lambda: x * x * x]),)

    return ts(loop(5, step, x)[0])


# --- arrays ---------------------------------------------------------------------------------------


@case()
def rows_written(x):
    a, _ = loop(4, lambda i, a, y: (a.write(i, gc.sin(y)), y * x), gc.TensorArray(F, size=4), x)
    return ts(gc.square(a.stack() + 0.5))


@case()
def rows_read(x):
    a = gc.TensorArray(F, size=3).unstack(x)

    def step(i, out, s):
        return out.write(i, gc.sin(s) * a.read(i)), s + a.read(i) * a.read(2 - i)

    out, s = loop(3, step, gc.TensorArray(F, size=3), gc.constant(0.0, F))
    return ts(gc.square(out.stack())) + s


@case()
def rows_written_twice(x):
    def step(i, a):
        return (a.write(i % 3, gc.sin(a.read(i % 3)) * a.read((i + 1) % 3)),)

    return ts(gc.square(loop(6, step, gc.TensorArray(F, size=3).unstack(x))[0].stack()))


@case()
def an_empty_array(x):
    """No turn, but code for one, whose arrays are empty."""
    a = gc.TensorArray(F, size=0, element_shape=[])
    b, s = loop(0, lambda i, a, s: (a.write(i, ts(x)), s + a.read(i) * x), a, x)
    return ts(b.stack()) + ts(s * s)


@case()
def an_array_through_two_loops(x):
    def outer(i, a):
        return loop(2, lambda j, a: (a.write(i * 2 + j, x * gc.cast(i + j, F) * x),), a)

    a = loop(2, outer, gc.TensorArray(F, size=4))[0]
    return ts(gc.square(a.stack())) + ts(a.read(1))


@case()
def put_together_and_taken_apart(x):
    a = gc.TensorArray(F, size=3).scatter([2, 0, 1], x)
    b = gc.TensorArray(F, size=3).split(x, [1, 1, 1])
    return ts(a.gather([0, 0, 1]) * x) + ts(b.concat() * x * a.read(1)) + ts(a.stack() * x * x)


@case()
def an_array_that_grows(x):
    def write(i, a):
        return (a.write(i, gc.sin(x) * gc.cast(i + 1, F)),)

    def again(i, b, s):
        return b.write(i, a.read(i) * s), s * a.read(4 - i)

    a = loop(5, write, gc.TensorArray(F, size=0, dynamic_size=True))[0]
    b, s = loop(5, again, gc.TensorArray(F, size=0, dynamic_size=True), x)
    return ts(gc.square(b.stack())) + ts(s)


@case()
def map_scan_and_folds(x):
    mapped = gc.map_fn(lambda e: gc.sin(e) * ts(x), x)
    scanned = gc.scan(lambda a, e: a * gc.tanh(e) + e, x)
    return ts(mapped * scanned) * gc.foldl(lambda a, e: a * e + e, x)


# --- what is not differentiated -------------------------------------------------------------------


def test_no_back_prop_and_no_path():
    x = gc.constant(2.0)
    y = gc.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * x), [0, x], back_prop=False)[1]
    assert gc.gradients(y, x) == [None]
    z = loop(3, lambda i, a, b: (a * x, b + 1.0), x, x)[1]
    w = gc.constant(1.0)
    assert gc.gradients(z, w) == [None]
    n = gc.while_loop(lambda i: i < 3, lambda i: i + 1, [gc.cast(x, gc.int32)])
    assert gc.gradients(gc.cast(n, gc.float32), x) == [None]


def test_stopped_gradients_in_a_body(everywhere):
    x = gc.constant([1.0, 2.0])
    y = loop(3, lambda i, y: (gc.stop_gradient(y) * x,), x)[0]
    everywhere(gc.gradients(y, x)[0], expected=[[1, 8]])


@pytest.mark.parametrize("kind", ["cond", "while"])
def test_deep_nesting(kind):
    """Names grow with the depth by a part for every level, they do not double."""
    x = gc.constant(0.5, F)

    def level(depth, y):
        if depth == 0:
            return gc.sin(y) + x
        if kind == "cond":
            return gc.cond(y > -9.0, lambda: level(depth - 1, y * 0.9), lambda: y)
        return loop(1, lambda i, y: (level(depth - 1, y * 0.9),), y)[0]

    depth = 20 if kind == "cond" else 8
    grad = gc.gradients(level(depth, x), x)[0]
    longest = max(len(op.name) for op in grad.graph.get_operations())
    assert longest < 40 * (depth + 1)
    scale = 0.9**depth
    found = gc.Session().run(grad)
    np.testing.assert_allclose(found, scale * np.cos(scale * 0.5) + 1.0)


def test_a_long_loop():
    """Its memory is a few numbers for every turn; its code does not grow with them."""
    n, x = gc.placeholder(gc.int32, []), gc.constant(0.5, F)
    y = loop(n, lambda i, y: (gc.sin(y) + x,), x)[0]
    grad = gc.gradients(y, x)[0]
    with gc.Session() as session:
        found = [session.run(grad, {n: turns}) for turns in (1, 10, 20_000)]
        assert session.compilations == 1
    np.testing.assert_allclose(found[0], np.cos(0.5) + 1.0)
    value, slope_ = 0.5, 1.0
    for _ in range(20_000):
        slope_ = np.cos(value) * slope_ + 1.0
        value = np.sin(value) + 0.5
    np.testing.assert_allclose(found[2], slope_, rtol=1e-9)
