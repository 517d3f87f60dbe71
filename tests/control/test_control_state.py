"""Variables, random numbers and training in loops and branches."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc


def loop(n, step, *start):
    """The loop variables after ``n`` turns."""
    found = gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [gc.constant(0), *start]
    )
    return found[1:]


def after(op, value):
    with gc.control_dependencies([op]):
        return gc.identity(value)


def start(session):
    session.run(gc.global_variables_initializer())


# --- assignments ----------------------------------------------------------------------------------


def test_an_assignment_every_turn(in_modes):
    def work(session):
        v = gc.Variable(1.0)
        y = gc.while_loop(lambda i: i < 3, lambda i: after(v.assign_add(2.0), i + 1), [0])
        start(session)
        return [session.run(y), session.run(v), session.run(y), session.run(v)]

    assert in_modes(work) == [3, 7, 3, 13]


def test_an_assignment_that_is_read(in_modes):
    def work(session):
        v = gc.Variable(1.0)
        y = loop(3, lambda i, x: (x + v.assign(v * 2.0),), 0.0)
        start(session)
        return [session.run(y)[0], session.run(v)]

    assert in_modes(work) == [14, 8]


def test_no_turn_assigns_nothing(in_modes):
    def work(session):
        v = gc.Variable(1.0)
        y = loop(0, lambda i, x: (x + v.assign(5.0),), 0.0)
        start(session)
        return [session.run(y)[0], session.run(v)]

    assert in_modes(work) == [0, 1]


def test_assignments_in_branches(in_modes):
    def work(session):
        v, p = gc.Variable(1.0), gc.placeholder(gc.bool, [])
        y = gc.cond(p, lambda: v.assign_add(1.0), lambda: v.assign_sub(5.0))
        z = gc.cond(p, lambda: v.assign(9.0).op, gc.no_op)
        start(session)
        found = []
        for fetch, way in ((y, True), (y, False), (z, False), (z, True)):
            found += [session.run(fetch, {p: way}), session.run(v)]
        return found

    assert in_modes(work) == [2, 2, -3, -3, False, -3, True, 9]


def test_control_dependencies_order_what_is_around(in_modes):
    def work(session):
        v = gc.Variable(1.0)
        before = v + 0.0
        with gc.control_dependencies([before]):
            y = loop(3, lambda i, x: (x + v.assign_add(1.0),), 0.0)[0]
        with gc.control_dependencies([y]):
            later = v + 0.0
        start(session)
        return [*session.run([before, y, later]), session.run(v)]

    assert in_modes(work) == [1, 9, 4, 4]


def test_a_loop_sees_the_assignment_that_it_waits_for(in_modes):
    def work(session):
        v = gc.Variable(1.0)
        first = loop(3, lambda i, x: (x + v,), 0.0)[0]
        a = v.assign_add(10.0)
        with gc.control_dependencies([a]):
            second = loop(3, lambda i, x: (x + v,), 0.0)[0]
        start(session)
        return session.run([first, a, second])

    assert in_modes(work) == [3, 11, 33]


def test_two_variables_in_order(in_modes):
    def work(session):
        v, u = gc.Variable(0.0), gc.Variable(0.0)

        def step(i, x):
            with gc.control_dependencies([v.assign_add(1.0)]):
                b = u.assign(v * 10.0)
            return (x + b,)

        y = loop(3, step, 0.0)[0]
        start(session)
        return [session.run(y), *session.run([v, u])]

    assert in_modes(work) == [60, 3, 30]


def test_a_condition_that_reads_what_the_body_assigns(in_modes):
    def work(session):
        v = gc.Variable(1.0)
        y = gc.while_loop(lambda i: v < 10.0, lambda i: after(v.assign(v * 2.0), i + 1), [0])
        start(session)
        return [session.run(y), session.run(v)]

    assert in_modes(work) == [4, 16]


def test_nested_loops_and_branches_assign(in_modes):
    def work(session):
        v = gc.Variable(1.0)

        def inner(j):
            even = gc.equal(j % 2, 0)
            taken = gc.cond(even, lambda: v.assign_add(1.0), lambda: gc.identity(v))
            return after(taken, j + 1)

        y = gc.while_loop(
            lambda i: i < 4,
            lambda i: after(gc.while_loop(lambda j: j < i, inner, [0]), i + 1),
            [gc.constant(0)],
        )
        start(session)
        return [session.run(y), session.run(v)]

    assert in_modes(work) == [4, 5]


def test_an_assignment_that_is_not_in_place(in_modes):
    """The value before the assignment is read after it was computed, the other way round."""

    def work(session):
        v = gc.Variable([1.0, 2.0, 3.0])

        def step(i, x):
            y = gc.reduce_sum(v)
            with gc.control_dependencies([y]):
                a = v.assign(v[::-1] + gc.cast(i, gc.float32))
            return (after(a, x + y),)

        y = loop(3, step, 0.0)[0]
        start(session)
        return [session.run(y), session.run(v)]

    total, v = in_modes(work)
    assert total == 6 + 6 + 9
    assert v.tolist() == [6, 5, 4]


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_run_that_fails_commits_nothing(mode, deep):
    with gc.Session(mode=mode) as session:
        v, n = gc.Variable([0.0, 0.0]), gc.placeholder(gc.int32, [])
        r = gc.random_uniform([], seed=1)
        x = gc.constant([1.0, 2.0, 3.0])

        def step(i, s):
            with gc.control_dependencies([v.assign_add([1.0, 2.0])]):
                return (s + gc.gather(x, i) + gc.random_uniform([], seed=2) * 0.0,)

        y = loop(n, step, 0.0)[0]
        if deep:
            y = gc.cond(n > 0, lambda: loop(n, step, 0.0)[0], lambda: 0.0)
        start(session)
        twin = gc.Session(mode=mode)
        start(twin)
        assert session.run(y, {n: 3}) == 6
        assert session.run(v).tolist() == [3, 6]
        with pytest.raises(gc.errors.InvalidArgumentError, match=r"3 is not in \[0, 3\)"):
            session.run([y, r], {n: 4})
        assert session.run(v).tolist() == [3, 6]
        assert session.run(y, {n: 2}) == 3
        assert session.run(v).tolist() == [5, 10]
        # Nor have the counters of the random numbers moved.
        assert session.run(r) == twin.run(r)


# --- random numbers -------------------------------------------------------------------------------


def test_random_numbers_are_others_every_turn_and_every_run(in_modes):
    def work(session):
        draw = lambda: gc.random_uniform([2], seed=3)  # noqa: E731
        a = loop(4, lambda i, a: (a.write(i, draw()),), gc.TensorArray(gc.float32, size=4))[0]
        rows = a.stack()
        found = [session.run(rows), session.run(rows)]
        assert len(set(np.ravel(found).tolist())) == 16
        again = gc.Session(mode=session._runner.mode)
        assert again.run(rows).tolist() == found[0].tolist()
        return found

    in_modes(work)


def test_random_numbers_in_nested_bodies(in_modes):
    def work(session):
        gc.set_random_seed(5)

        def row(i, j):
            return gc.cond(
                gc.equal(j, 0), lambda: gc.random_normal([2]), lambda: gc.random_uniform([2])
            )

        def outer(i, a):
            return loop(2, lambda j, a: (a.write(i * 2 + j, row(i, j)),), a)

        rows = loop(2, outer, gc.TensorArray(gc.float32, size=4))[0].stack()
        found = [session.run(rows), session.run(rows)]
        assert len(set(np.ravel(found).tolist())) == 16
        return found

    in_modes(work)


def test_the_gradient_sees_the_same_random_numbers(in_modes):
    def work(session):
        x = gc.constant([1.0, 1.0, 1.0])
        y = loop(4, lambda i, y: (y * (x + gc.random_uniform([3], seed=1)),), x)[0]
        z = gc.cond(x[0] > 0.0, lambda: y * gc.random_normal([3], seed=2), lambda: y)
        value, grad = session.run([z, gc.gradients(z, x)[0]])
        assert (value != grad).all()
        return [value, grad]

    in_modes(work)


# --- training -------------------------------------------------------------------------------------


def test_optimizers_train_through_loops(in_modes):
    def work(session):
        v = gc.Variable([1.0, 2.0])
        h = loop(3, lambda i, y: (gc.tanh(y * v),), gc.constant([0.5, 0.6]))[0]
        loss = gc.reduce_sum(gc.square(h))
        train = gc.train.AdamOptimizer(0.1).minimize(loss)
        start(session)
        losses = [session.run([loss, train])[0] for _ in range(6)]
        assert losses == sorted(losses, reverse=True)
        return [*losses, session.run(v)]

    in_modes(work)


def test_training_in_a_loop_is_training_outside(in_modes):
    def work(session):
        x = gc.constant([[1.0, 2.0], [3.0, 4.0]])
        found = []
        for inside in (True, False):
            v = gc.Variable([[1.0], [2.0]])
            optimizer = gc.train.MomentumOptimizer(0.01, 0.9)

            def step(v=v, optimizer=optimizer):
                loss = gc.reduce_sum(gc.square(gc.matmul(x, v) - 1.0))
                return optimizer.minimize(loss, var_list=[v]), loss

            if inside:
                last = loop(20, lambda i, _: (after(*step()),), 0.0)[0]
                start(session)
                found.append([session.run(last), session.run(v)])
            else:
                train, loss = step()
                start(session)
                for _ in range(20):
                    value = session.run([loss, train])[0]
                found.append([value, session.run(v)])
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
        return found[0]

    in_modes(work)


def test_variables_made_in_bodies(in_modes):
    def work(session):
        def step(i, x):
            with gc.variable_scope("q", reuse=gc.AUTO_REUSE):
                v = gc.get_variable("w", [2], initializer=gc.ones_initializer())
            return (x * 2.0 + v,)

        y = loop(2, step, gc.zeros([2]))[0]
        z = gc.cond(gc.constant(True), lambda: step(0, y)[0], lambda: y)
        assert [v.name for v in gc.global_variables()] == ["q/w:0"]
        start(session)
        return session.run([y, z])

    y, z = in_modes(work)
    assert y.tolist() == [3, 3]
    assert z.tolist() == [7, 7]
