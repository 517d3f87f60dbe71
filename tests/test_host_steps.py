"""Host steps: Python functions that compute in the course of a run."""

from __future__ import annotations

import gc as garbage
import weakref

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import plan_function
from graphc.errors import (
    FileFormatError,
    InternalError,
    InvalidArgumentError,
    OutOfRangeError,
    ResourceExhaustedError,
    UnimplementedError,
    UnknownError,
)
from graphc.passes.extract import extract
from graphc.program import format_program
from graphc.program_interpret import run_program
from graphc.program_verify import verify_program
from graphc.runtime import jit
from graphc.script_ops import numpy_function, py_func

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def _verified(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    gc.reset_default_graph()


@pytest.fixture(params=MODES)
def session(request):
    return gc.Session(mode=request.param)


def shaped(tensor, shape):
    tensor.set_shape(shape)
    return tensor


def doubled(a):
    return a * 2


# --- values ---------------------------------------------------------------------------------------


def test_values_go_through(session):
    x = gc.placeholder(gc.float32, [None, 3])
    y = shaped(py_func(doubled, [x + 1], gc.float32), [None, 3])
    total = gc.reduce_sum(y * y, axis=1)
    for rows in (1, 4, 0):
        data = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        found_y, found = session.run([y, total], {x: data})
        np.testing.assert_array_equal(found_y, (data + 1) * 2)
        np.testing.assert_allclose(found, np.sum(((data + 1) * 2) ** 2, axis=1), rtol=1e-6)


def test_several_results_of_several_types(session):
    x = gc.placeholder(gc.int64, [None])
    a, b, c = py_func(
        lambda v: (v[v > 0], v.astype(np.float64) / 2, v.size > 3), [x],
        [gc.int64, gc.float64, gc.bool],
    )  # fmt: skip
    a.set_shape([None])
    b.set_shape([None])
    c.set_shape([])
    first, twice, chosen = session.run(
        [a, b * 2, gc.cond(c, lambda: gc.constant(1), lambda: gc.constant(2))],
        {x: [-1, 5, 0, 7]},
    )
    np.testing.assert_array_equal(first, [5, 7])
    np.testing.assert_array_equal(twice, [-1.0, 5.0, 0.0, 7.0])
    assert chosen == 1


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16, gc.int8, gc.uint16, gc.uint64, gc.bool])
def test_dtypes(dtype):
    x = gc.constant(np.array([0, 1, 1], dtype.as_numpy_dtype))
    y = shaped(py_func(lambda v: v[::-1], [x], dtype), [3])
    found = gc.Session().run(y)
    assert found.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(found, [1, 1, 0])


def test_operands_are_copies_and_scalars_are_scalars():
    kept = []

    def change(a, s):
        kept.append(a)
        kept.append(type(s))
        a += 1
        return a

    x = gc.constant(np.zeros(3, np.float32)) * 2
    y = shaped(py_func(change, [x, gc.constant(1.5)], gc.float32), [3])
    session = gc.Session()
    np.testing.assert_array_equal(session.run(y + x), [1, 1, 1])
    np.testing.assert_array_equal(session.run(x), [0, 0, 0])
    assert kept[1] is np.float32
    np.testing.assert_array_equal(kept[0], [1, 1, 1])


def test_a_result_of_unknown_rank_can_be_fetched_and_handed_on(session):
    x = gc.placeholder(gc.float32, [None])
    y = py_func(lambda v: np.ones((2, 3, v.size), np.float32), [x], gc.float32)
    rank = shaped(py_func(lambda v: np.array(v.ndim), [gc.identity(y)], gc.int64), [])
    scalar = py_func(lambda v: v.sum(), [x], gc.float32)
    found, same, ndim, total = session.run([y, gc.identity(y), rank + 1, scalar], {x: [1, 2]})
    assert found.shape == same.shape == (2, 3, 2)
    assert ndim == 4
    assert type(total) is np.float32
    assert total == 3


def test_whoever_needs_the_rank_says_so(session):
    y = py_func(lambda: np.ones(3, np.float32), [], gc.float32)
    with pytest.raises(InvalidArgumentError, match=r"rank of PyFunc:0 .*set_shape") as caught:
        session.run(y + 1)
    assert caught.value.op.type == "AddV2"


def test_sizes_are_bound_from_what_comes_back():
    x = gc.placeholder(gc.float32, [None])
    y = shaped(py_func(lambda v: v[: int(v[0])], [x], gc.float32), [None])
    z = gc.concat([y, y * 2], 0)
    session = gc.Session()
    for n in (1, 4, 2, 0):
        data = np.array([n, 1, 2, 3, 4], np.float32)
        np.testing.assert_array_equal(
            session.run(z, {x: data}), np.concatenate([data[:n], data[:n] * 2])
        )
        assert session.run(gc.shape(z), {x: data})[0] == 2 * n
    assert session.compilations <= 5


def test_a_shape_of_another_tensor_is_computed_by_python(session):
    x = gc.placeholder(gc.float32, [None])
    calls = []

    def shape(v):
        calls.append(1)
        return np.array([v.size // 2, 2], np.int32)

    new = shaped(py_func(shape, [x], gc.int32), [2])
    y = gc.reshape(x, new)
    assert session.run(y, {x: np.arange(6)}).shape == (3, 2)
    assert len(calls) == 1


def test_constants_for_the_compiler_cannot_come_from_a_function_with_effects():
    x = gc.placeholder(gc.float32, [2, 3])
    perm = shaped(py_func(lambda: np.array([1, 0], np.int32), [], gc.int32), [2])
    with pytest.raises(InvalidArgumentError, match="stateful=False"):
        gc.Session().run(gc.transpose(x, perm), {x: np.zeros((2, 3))})
    pure = py_func(lambda: np.array([1, 0], np.int32), [], gc.int32, stateful=False)
    turned = gc.transpose(x, shaped(pure, [2]))
    assert gc.Session().run(turned, {x: np.zeros((2, 3))}).shape == (3, 2)


# --- order and effects ----------------------------------------------------------------------------


def test_steps_run_in_order_once_each_even_if_nobody_reads_them(session):
    log = []

    def note(tag):
        return py_func(lambda: log.append(tag), [], [])

    first = note("a")
    with gc.control_dependencies([first]):
        second = note("b")
        value = shaped(py_func(lambda: (log.append("c"), np.float32(3))[1], [], gc.float32), [])
    with gc.control_dependencies([second, value]):
        out = gc.identity(gc.constant(1.0)) + 1
    assert session.run(out) == 2
    assert log == ["a", "b", "c"]
    session.run([value + 1, value * 2])
    assert log == ["a", "b", "c", "a", "c"]


def test_equal_calls_are_not_merged(session):
    count = []
    ys = [shaped(py_func(lambda: count.append(1) or len(count), [], gc.int64), []) for _ in "ab"]
    assert session.run(ys) == [1, 2]


def test_a_check_before_a_step_comes_before_it():
    log = []
    x = gc.placeholder(gc.int32, [])
    picked = gc.gather(gc.constant([1.0, 2.0]), x)
    with gc.control_dependencies([picked]):
        step = py_func(lambda: log.append(1), [], [])
    session = gc.Session()
    with pytest.raises(InvalidArgumentError, match="not in"):
        session.run(step, {x: 7})
    assert log == []
    session.run(step, {x: 1})
    assert log == [1]


def test_steps_in_a_loop_run_in_every_turn(session):
    seen = []

    def grow(i, a):
        seen.append(int(i))
        return np.append(a, i).astype(np.int32)

    def body(i, a):
        return i + 1, shaped(py_func(grow, [i, a], gc.int32), [None])

    start = [gc.constant(0), gc.constant(np.zeros(0, np.int32))]
    shapes = [gc.TensorShape([]), gc.TensorShape([None])]
    n, a = gc.while_loop(lambda i, a: i < 5, body, start, shape_invariants=shapes)
    found_n, found = session.run([n, a * 10])
    assert found_n == 5
    np.testing.assert_array_equal(found, [0, 10, 20, 30, 40])
    assert seen == [0, 1, 2, 3, 4]


def test_only_the_branch_that_is_taken_calls(session):
    log = []
    flag = gc.placeholder(gc.bool, [])

    def call(tag):
        return lambda: shaped(
            py_func(lambda: (log.append(tag), np.float32(len(log)))[1], [], gc.float32), []
        )

    out = gc.cond(flag, call("t"), call("f")) * 10
    assert [session.run(out, {flag: f}) for f in (True, False, True)] == [10, 20, 30]
    assert log == ["t", "f", "t"]


def test_a_run_with_steps_is_one_native_call():
    x = gc.placeholder(gc.float32, [3])
    y = shaped(py_func(doubled, [x], gc.float32), [None]) + 1
    session = gc.Session()
    session.run(y, {x: np.zeros(3)})
    plan = session._plan(y, (x,))
    assert plan.single is not None
    calls = []
    native = plan.single.function
    plan.single.function = lambda *a: calls.append(1) or native(*a)
    np.testing.assert_array_equal(session.run(y, {x: np.zeros(3, np.float32)}), [1, 1, 1])
    assert calls == [1]


def test_it_reads_variables_as_they_are_at_its_place(session):
    v = gc.Variable(1.0)
    seen = []
    more = v.assign_add(2.0)
    with gc.control_dependencies([more]):
        look = py_func(lambda a: seen.append(float(a)), [v.read_value()], [])
    session.run(v.initializer)
    session.run(look)
    assert seen == [3.0]
    assert session.run(v) == 3.0


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("v"), InvalidArgumentError),
        (TypeError("v"), InvalidArgumentError),
        (StopIteration("v"), OutOfRangeError),
        (MemoryError("v"), ResourceExhaustedError),
        (NotImplementedError("v"), UnimplementedError),
        (RuntimeError("v"), UnknownError),
        (KeyError("v"), UnknownError),
        (gc.errors.GraphError("v"), UnknownError),
    ],
)
def test_what_the_function_raises_reaches_the_caller(raised, expected, session):
    def fail(_):
        raise raised

    v = gc.Variable(1.0)
    session.run(v.initializer)
    x = gc.placeholder(gc.float32, [2])
    bad = py_func(fail, [x], gc.float32)
    with pytest.raises(expected) as caught:
        session.run([v.assign_add(1.0), bad], {x: [1, 2]})
    assert type(caught.value) is expected
    assert caught.value.message.startswith(f"{type(raised).__name__}: ")
    assert caught.value.op is bad.op
    assert caught.value.__cause__ is raised
    assert "test_host_steps.py" in str(caught.value)
    assert session.run(v) == 1.0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_as_they_are(kind, session):
    def stop():
        raise kind

    v = gc.Variable(1.0)
    session.run(v.initializer)
    with pytest.raises(kind):
        session.run([v.assign_add(1.0), py_func(stop, [], [])])
    assert session.run(v) == 1.0


def test_a_failure_in_a_loop_ends_the_run(session):
    def fail_late(i):
        if i == 3:
            raise RuntimeError("three")
        return i

    v = gc.Variable(0)
    session.run(v.initializer)

    def body(i):
        with gc.control_dependencies([v.assign_add(1)]):
            return shaped(py_func(fail_late, [i], gc.int32), []) + 1

    loop = gc.while_loop(lambda i: i < 10, body, [0])
    with pytest.raises(UnknownError, match="three"):
        session.run(loop)
    assert session.run(v) == 0


@pytest.mark.parametrize(
    ("result", "types", "error", "message"),
    [
        (1.5, gc.float32, InvalidArgumentError,
         r"0-th value returned by pyfunc_\d+ is double, but expects float"),
        (1, gc.int32, InvalidArgumentError, "is int64, but expects int32"),
        ((np.float32(1),), [gc.float32, gc.float32], InvalidArgumentError,
         r"pyfunc_\d+ returns 1 values, but expects to see 2 values\."),
        ([1.0, 2.0], gc.float64, InvalidArgumentError, "returns 2 values, but expects to see 1"),
        (None, gc.float32, InvalidArgumentError, "returns 0 values, but expects to see 1"),
        (object(), gc.float32, InternalError, "Unsupported object type object"),
    ],
)  # fmt: skip
def test_results_that_were_not_declared(result, types, error, message, session):
    with pytest.raises(error, match=message):
        session.run(py_func(lambda: result, [], types))


def test_results_of_another_shape_than_stated(session):
    y = shaped(py_func(lambda: np.ones((2, 3), np.float32), [], gc.float32), [3, None])
    with pytest.raises(InvalidArgumentError, match=r"has shape \(2, 3\), but .* is \(3, \?\)"):
        session.run(y)


def test_sizes_that_do_not_go_together_call_only_once():
    calls = []
    x = gc.placeholder(gc.float32, [None])

    def shorter(v):
        calls.append(1)
        return v[:-1]

    y = shaped(py_func(shorter, [x], gc.float32), [None])
    v = gc.Variable(1.0)
    session = gc.Session()
    session.run(v.initializer)
    with pytest.raises(InvalidArgumentError):
        session.run([x + y, v.assign(5.0)], {x: [1, 2, 3]})
    assert calls == [1]
    assert session.run(v) == 1.0


def test_a_run_inside_a_run_of_the_same_session_is_refused():
    session = gc.Session()
    x = gc.constant(1.0) + 1
    inner = py_func(lambda: session.run(x), [], gc.float32)
    with pytest.raises(UnknownError, match="a run was started inside a run"):
        session.run(inner)
    other = gc.Session()
    assert session.run(py_func(lambda: other.run(x), [], gc.float32)) == 2.0


def test_not_callable():
    with pytest.raises(ValueError, match="Expected func to be callable"):
        py_func(3, [], gc.float32)


def test_strings():
    seen = []
    step = py_func(lambda s, n: seen.append((s, int(n))), [gc.constant("hi"), gc.constant(3)], [])
    gc.Session().run(step)
    assert seen == [(b"hi", 3)]
    named = py_func(lambda: "abc", [], gc.string)
    with pytest.raises(InvalidArgumentError, match="cannot give strings"):
        gc.Session().run([py_func(lambda a: 1, [named], gc.int64)])


# --- files, lives, the levels ---------------------------------------------------------------------


def test_a_file_holds_no_function(tmp_path):
    x = gc.placeholder(gc.float32, [3], name="x")
    y = shaped(py_func(doubled, [x], gc.float32, name="mine"), [3])
    with pytest.raises(FileFormatError, match=r"'mine' \(PyFunc, .*test_host_steps.py:\d+\) calls"):
        gc.save(tmp_path / "m.graphc", gc.Session(), x, {"y": y + 1})
    assert not (tmp_path / "m.graphc").exists()


def test_functions_live_as_long_as_their_graph():
    def build():
        class Big:
            pass

        big = Big()
        graph = gc.Graph()
        with graph.as_default():
            y = py_func(lambda: 1 if big else 0, [], gc.int64)
            assert gc.Session().run(y) == 1
        return weakref.ref(big)

    kept = build()
    garbage.collect()
    assert kept() is None


def test_many_runs_from_threads():
    x = gc.placeholder(gc.float32, [None])
    y = shaped(numpy_function(lambda v: v[v > 0], [x], gc.float32), [None])
    total = gc.reduce_sum(y) + gc.cast(gc.size(y), gc.float32)
    session = gc.Session()
    from concurrent.futures import ThreadPoolExecutor

    def work(k):
        data = np.full(k % 7, k, np.float32)
        return session.run(total, {x: data}) == (k % 7) * (k + 1)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(1, 200)))


def test_the_program_and_its_interpreter():
    x = gc.placeholder(gc.float32, [None])
    y = shaped(py_func(lambda v: v[v > 0], [x * 2], gc.float32), [None]) + 1
    fn = extract([y], [], {x: (None,)}, lambda op: None)
    program = verify_program(plan_function(fn, jit.host_target()))
    text = format_program(program)
    assert "host 0: &" in text
    assert len(program.hosts) == 1
    (found,) = run_program(program, {"Placeholder:0": np.array([1, -1, 3], np.float32)})
    np.testing.assert_array_equal(found, [3, 7])
