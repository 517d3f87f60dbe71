"""make_callable: the builtin behind it, when it leaves the work to Python, and ``out``."""

import threading

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.executable import Executable

MODES = ["static", "eager", "reference"]


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture(params=MODES)
def session(request):
    with gc.Session(mode=request.param) as s:
        yield s


def f32(*values):
    return np.array(values, np.float32)


@pytest.fixture
def calls(monkeypatch):
    """How often Python is asked to call an executable."""
    seen = []
    call = Executable.call
    monkeypatch.setattr(Executable, "call", lambda self, *a: seen.append(a) or call(self, *a))
    return seen


def test_after_the_first_call_python_has_no_part_in_it(calls):
    x = gc.placeholder(gc.float32, [None])
    with gc.Session() as s:
        for fetches in (x * 2, [x * 3, x + 1], (x * 3, x - 1)):
            call = s.make_callable(fetches, [x])
            first = call(f32(1, 2))
            del calls[:]
            again = call(f32(1, 2))
            assert not calls
            assert type(again) is type(first)
            np.testing.assert_array_equal(again, first)
            assert np.shape(call(f32(1, 2, 3)))[-1] == 3
            assert not calls


def test_what_is_not_the_very_array_goes_through_python(calls):
    x = gc.placeholder(gc.float32, [3])
    with gc.Session() as s:
        call = s.make_callable(x * 2, [x])
        call(f32(1, 2, 3))
        for value in ([1, 2, 3], np.arange(3), np.arange(6, dtype=np.float32)[::2]):
            np.testing.assert_array_equal(call(value), 2 * np.asarray(value))
        del calls[:]
        call(f32(1, 2, 3))
        assert not calls


def test_errors_come_through(session):
    x = gc.placeholder(gc.int32, [None], "x")
    y = gc.placeholder(gc.int32, [None], "y")
    call = session.make_callable(x // y, [x, y])
    one = np.array([1], np.int32)
    assert call(one, one) == 1
    for _ in range(2):
        with pytest.raises(gc.errors.InvalidArgumentError, match="zero"):
            call(one, 0 * one)
        with pytest.raises(ValueError, match="Cannot feed value of shape"):
            call(one, np.ones([1, 1], np.int32))
        with pytest.raises(ValueError, match="Expected 2 values for the feed list, got 1"):
            call(one)
    assert call(one, one) == 1
    session.close()
    with pytest.raises(RuntimeError, match="closed Session"):
        call(one, one)


def test_a_variable_of_another_shape(session):
    v = gc.Variable(f32(1, 2), validate_shape=False)
    session.run(v.initializer)
    call = session.make_callable(v + 1.0)
    for _ in range(3):
        np.testing.assert_array_equal(call(), [2, 3])
    session.run(gc.assign(v, f32(1, 2, 3), validate_shape=False))
    for _ in range(3):
        np.testing.assert_array_equal(call(), [2, 3, 4])


def test_updates(session):
    v = gc.Variable(f32(0, 0))
    session.run(v.initializer)
    call = session.make_callable(v.assign_add(f32(1, 2)))
    for k in range(1, 5):
        np.testing.assert_array_equal(call(), [k, 2 * k])


def test_shapes_in_turn():
    x, y = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32, [None])
    with gc.Session() as s:
        call = s.make_callable(x + y, [x, y])
        for n, m in [(3, 3), (1, 3), (3, 1), (4, 4), (1, 1), (0, 0), (1, 3)] * 3:
            found = call(np.ones(n, np.float32), np.ones(m, np.float32))
            assert found.shape == (max(n, m) if n and m else 0,)


def test_keyword_arguments_are_taken(session):
    x = gc.placeholder(gc.float32, [1])
    call = session.make_callable(x * 2, [x])
    for _ in range(3):
        assert call(f32(2), options=None, run_metadata=None) == 4


# --- out ------------------------------------------------------------------------------------------


def test_out_is_written_and_returned(session, calls):
    x = gc.placeholder(gc.float32, [None, 2])
    a, b = np.zeros([3, 2], np.float32), np.zeros([3], np.float64)
    fetches = {"a": x * 2, "b": [gc.cast(gc.reduce_sum(x, 1), gc.float64), x.op]}
    call = session.make_callable(fetches, [x], out={"a": a, "b": [b, None]})
    for k in range(1, 4):
        value = np.full([3, 2], k, np.float32)
        found = call(value)
        assert found["a"] is a
        assert found["b"][0] is b
        assert found["b"][1] is None
        np.testing.assert_array_equal(a, 2 * value)
        np.testing.assert_array_equal(b, value.sum(1))


def test_out_by_the_direct_way(calls):
    x = gc.placeholder(gc.float32, [None])
    y = np.zeros(4, np.float32)
    with gc.Session() as s:
        call = s.make_callable([x * 2, x + 1], [x], out=[y, None])
        call(f32(1, 2, 3, 4))
        del calls[:]
        found = call(f32(5, 6, 7, 8))
        assert not calls
        assert found[0] is y
        np.testing.assert_array_equal(y, [10, 12, 14, 16])
        np.testing.assert_array_equal(found[1], [6, 7, 8, 9])


def test_out_that_is_also_fed(session):
    x = gc.placeholder(gc.float32, [None])
    memory = np.arange(6, dtype=np.float32)
    start = memory[:4]
    for given, fed in ((memory[1:5], start), (start, start), (start, memory[2:])):
        call = session.make_callable(gc.cumsum(x), [x], out=given)
        for _ in range(3):
            memory[:] = range(6)
            wanted = np.cumsum(fed)
            assert call(fed) is given
            np.testing.assert_array_equal(given, wanted)


def test_out_that_is_not_contiguous_or_a_scalar(session):
    x = gc.placeholder(gc.float32, [2, 3])
    y, total = np.zeros([3, 2], np.float32).T, np.zeros([], np.float32)
    call = session.make_callable([x * 2, gc.reduce_sum(x)], [x], out=[y, total])
    for k in (1, 2):
        call(np.full([2, 3], k, np.float32))
        np.testing.assert_array_equal(y, np.full([2, 3], 2 * k))
        assert total == 6 * k


def test_out_of_a_size_that_the_run_decides(session):
    x = gc.placeholder(gc.float32, [None])
    y = np.zeros(2, np.float32)
    call = session.make_callable(gc.boolean_mask(x, x > 0), [x], out=y)
    for _ in range(3):
        assert call(f32(1, -1, 2)) is y
        np.testing.assert_array_equal(y, [1, 2])
    with pytest.raises(gc.errors.InvalidArgumentError, match=r"shape \(2,\), the result \(3,\)"):
        call(f32(1, 1, 2))
    np.testing.assert_array_equal(y, [1, 2])


def test_out_of_a_wrong_shape(session):
    x = gc.placeholder(gc.float32, [None], "x")
    y = np.zeros(2, np.float32)
    call = session.make_callable(gc.add(x, 1.0, name="more"), [x], out=y)
    for _ in range(2):
        call(f32(1, 2))
        with pytest.raises(gc.errors.InvalidArgumentError, match="out for more:0") as e:
            call(f32(1, 2, 3))
        assert e.value.op.name == "more"
        np.testing.assert_array_equal(y, [2, 3])


def test_out_is_checked_when_it_is_given(session):
    x = gc.placeholder(gc.float32, [2], "x")
    y = gc.multiply(x, 2.0, name="y")
    z = gc.add(x, 2.0, name="z")
    frozen = np.zeros(2, np.float32)
    frozen.flags.writeable = False
    memory = np.zeros(3, np.float32)
    both = np.zeros(2, np.float32)
    for fetches, out, error, words in [
        (y, [1.0, 2.0], TypeError, "must be an array, not list"),
        (y, np.zeros(2), TypeError, "float32, not of float64"),
        (y, np.zeros(3, np.float32), gc.errors.InvalidArgumentError, r"shape \(3,\)"),
        (y, frozen, gc.errors.InvalidArgumentError, "read-only"),
        ([y, z], [both, both], gc.errors.InvalidArgumentError, "shares memory"),
        ([y, z], [memory[1:], memory[:2]], gc.errors.InvalidArgumentError, "shares memory"),
        ([y, z], both, TypeError, "structure"),
        ([y, z], [both], TypeError, "structure"),
        (y.op, both, TypeError, "operation|None for 'y'"),
    ]:
        with pytest.raises(error, match=words):
            session.make_callable(fetches, [x], out=out)


def test_threads_while_shapes_and_variables_change():
    x = gc.placeholder(gc.float32, [None])
    v = gc.Variable(f32(1), validate_shape=False)
    with gc.Session() as s:
        s.run(v.initializer)
        call = s.make_callable(x * 2 + gc.reduce_sum(v), [x])
        other = s.make_callable(gc.assign(v, f32(0.5, 0.5), validate_shape=False))
        back = s.make_callable(gc.assign(v, f32(1), validate_shape=False))
        wrong = []

        def work(n):
            found = (call(np.full(n, k, np.float32)) == 2 * k + 1 for k in range(300))
            wrong.extend(n for right in found if not right.all())

        threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 5, 100)]
        for t in threads:
            t.start()
        for _ in range(30):
            other()
            back()
        for t in threads:
            t.join()
        assert not wrong
