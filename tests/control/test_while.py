"""while_loop: what comes out, whatever the loop variables are and however often it turns."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.executable import Executable

SCALAR, VECTOR = gc.TensorShape([]), gc.TensorShape([None])
Pair = collections.namedtuple("Pair", "x y")
CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


@pytest.mark.parametrize("name", CASES)
def test_values(name, everywhere):
    fetches, expected, *feeds = CASES[name]()
    everywhere(fetches, *feeds, expected=expected)


def times(n, step, *start, **options):
    """The loop variables after ``n`` turns of ``step``, which gets the number of the turn."""
    found = gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start], **options
    )
    return found[1:]


@pytest.fixture
def calls(monkeypatch):
    """The native calls of executables, one entry each."""
    made = []
    call = Executable.call

    def counted(self, *feeds):
        made.append(self)
        return call(self, *feeds)

    # A run that is known is one call by itself, which cannot be counted here.
    monkeypatch.setattr(gc.Session, "_know", lambda *_: None)
    monkeypatch.setattr(Executable, "call", counted)
    return made


# --- the loop variables ---------------------------------------------------------------------------


@case
def one_variable():
    return gc.while_loop(lambda i: i < 3, lambda i: i + 1, [0]), [3]


@case
def the_body_of_one_variable_may_give_a_list():
    return gc.while_loop(lambda i: i < 3, lambda i: [i + 1], [0]), [3]


@case
def fibonacci():
    return times(10, lambda i, a, b: (b, a + b), 0, 1), [55, 89]


@case
def a_variable_that_stays():
    return times(3, lambda i, a: (a,), gc.constant([1.0, 2.0])), [[1.0, 2.0]]


@case
def a_swap():
    a, b = gc.constant([1.0, 2.0]), gc.constant([3.0, 4.0])
    return times(5, lambda i, a, b: (b, a), a, b), [[3, 4], [1, 2]]


@case
def a_rotation():
    start = [gc.constant([k, k + 0.5]) for k in (1.0, 2.0, 3.0)]
    return times(5, lambda i, a, b, c: (b, c, a), *start), [[3, 3.5], [1, 1.5], [2, 2.5]]


@case
def a_shift_that_reads_the_old_value():
    a, b = gc.constant([1.0, 2.0]), gc.constant([0.0, 0.0])
    return times(5, lambda i, a, b: (a + 1, a * 2), a, b), [[6, 7], [10, 12]]


@case
def one_tensor_as_several_variables():
    x = gc.constant([1.0, 2.0])
    return times(5, lambda i, a, b: (a + 1, a), x, x), [[6, 7], [5, 6]]


@case
def the_same_value_for_two_variables():
    x = gc.constant(1.0)
    found = gc.while_loop(lambda a, b, c: a < 10.0, lambda a, b, c: (a * 2, a * 2, b), [x, x, x])
    return found, [16, 16, 8]


@case
def a_constant_as_a_result():
    return times(4, lambda i, a: (gc.constant(7.0),), 2.0), [7]


@case
def a_python_number_as_a_result():
    return times(4, lambda i, a: (7,), 2.0), [7]


@case
def a_captured_tensor_as_a_result():
    c = gc.constant([3.0, 4.0]) * 2
    return times(4, lambda i, a: (c,), gc.constant([0.0, 0.0])), [[6, 8]]


@case
def a_fed_tensor_as_a_result():
    c = gc.placeholder(gc.float32, [None])
    return times(4, lambda i, a: (c,), c * 2), [[1, 2, 3]], {c: [1.0, 2.0, 3.0]}


@case
def a_reversal_is_not_done_in_place():
    return times(3, lambda i, a: (a[::-1] + a,), gc.constant([1.0, 2.0, 4.0])), [[20, 16, 20]]


@case
def a_matrix_product():
    a = gc.placeholder(gc.float32, [None, None])
    return times(3, lambda i, x: (gc.matmul(x, a),), a), [np.eye(3) * 16], {a: np.eye(3) * 2}


DTYPES = ("int8", "uint8", "int64", "float16", "bfloat16", "float64", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, everywhere):
    if dtype == "bool":
        x, step, expected = gc.constant([True, False]), gc.logical_not, [False, True]
    else:
        x, expected = gc.constant([0, 1], dtype=dtype), [5, 6]
        step = lambda a: a + gc.constant(1, dtype=dtype)  # noqa: E731
    found = everywhere(times(5, lambda i, a: (step(a),), x))
    assert found[0].dtype == dtype
    assert found[0].tolist() == expected


def test_nested_structures(everywhere):
    def body(d, t):
        p = d["p"]
        return [{"i": d["i"] + 1, "p": Pair(p.y, p.x + p.y)}, ((t[0][0] * 2,),)]

    start = {"i": gc.constant(0), "p": Pair(gc.constant(1.0), gc.constant(2.0))}
    found = gc.while_loop(lambda d, t: d["i"] < 4, body, [start, ((gc.constant(1.0),),)])
    assert type(found[0]["p"]) is Pair
    value = everywhere(found)
    assert value == [{"i": 4, "p": Pair(8.0, 13.0)}, ((16.0,),)]


def test_the_structure_is_the_one_that_the_body_gives():
    loop = lambda start, body, **kw: gc.while_loop(lambda i, x: i < 3, body, start, **kw)  # noqa: E731
    assert type(loop([0, 1.0], lambda i, x: (i + 1, x))) is tuple
    assert type(loop((0, 1.0), lambda i, x: [i + 1, x])) is list
    same = loop([0, 1.0], lambda i, x: (i + 1, x), return_same_structure=True)
    assert type(same) is list
    one = gc.while_loop(lambda i: i < 3, lambda i: i + 1, [0], return_same_structure=True)
    assert type(one) is list
    pair = gc.while_loop(lambda p: p[0] < 3, lambda p: [(p[0] + 1, p[1])], [(0, 1.0)])
    assert type(pair) is list
    assert type(pair[0]) is tuple


def test_names_are_those_of_tensorflow():
    seen = []

    def body(i, x):
        seen.extend([i.name, x.name])
        return i + 1, x * 2.0

    a, b = gc.while_loop(lambda i, x: i < 3, body, [0, 1.0])
    c = gc.while_loop(lambda i: i < 3, lambda i: i + 1, [0])
    assert [a.name, b.name, c.name] == ["while/Exit:0", "while/Exit_1:0", "while_1/Exit:0"]
    assert seen == ["while/Identity:0", "while/Identity_1:0"]
    assert repr(b) == "<tf.Tensor 'while/Exit_1:0' shape=() dtype=float32>"
    named = gc.while_loop(lambda i: i < 3, lambda i: i + 1, [0], name="again")
    assert named.name == "again/Exit:0"


# --- turns ----------------------------------------------------------------------------------------


@case
def no_turn():
    return times(0, lambda i, a: (a * 2,), gc.constant([2.0, 3.0])), [[2, 3]]


@case
def a_condition_that_is_a_constant():
    return gc.while_loop(lambda i: gc.constant(False), lambda i: i + 1, [5]), [5]


@case
def a_condition_with_captured_tensors():
    a = gc.constant(3.0)
    found = gc.while_loop(
        lambda i, y: gc.logical_and(i < 10, y < a * 3), lambda i, y: (i + 1, y * 2), [0, 1.0]
    )
    return found, [4, 16]


@case
def collatz():
    n = gc.placeholder(gc.int32, [])

    def body(n, k):
        return gc.cond(gc.equal(n % 2, 0), lambda: n // 2, lambda: 3 * n + 1), k + 1

    return gc.while_loop(lambda n, k: gc.not_equal(n, 1), body, [n, 0]), [1, 111], {n: 27}


@case
def newton():
    a = gc.constant(2.0, gc.float64)

    def more(x):
        return gc.abs(x * x - a) > 1e-12

    return gc.while_loop(more, lambda x: (x + a / x) / 2.0, [a]), [np.sqrt(2.0)]


@case
def limits():
    yes, step = (lambda *v: gc.constant(True)), (lambda i: i + 1)
    return [
        gc.while_loop(yes, step, [0], maximum_iterations=7),
        gc.while_loop(lambda i: i < 3, step, [0], maximum_iterations=7),
        gc.while_loop(lambda i: i < 3, step, [0], maximum_iterations=0),
        gc.while_loop(yes, lambda i, x: (i + 1, x * 2), [0, 1.0], maximum_iterations=5),
        gc.while_loop(
            yes, lambda i, x: [i + 1, x * 2], (0, 1.0),
            maximum_iterations=gc.constant(4, gc.int64), return_same_structure=True,
        ),
    ], [7, 3, 0, 5, 32, 4, 16]  # fmt: skip


@case
def a_limit_with_shape_invariants():
    found = gc.while_loop(
        lambda x: gc.constant(True), lambda x: gc.concat([x, x], 0), [gc.constant([1.0])],
        shape_invariants=[VECTOR], maximum_iterations=3,
    )  # fmt: skip
    return found, [np.ones(8)]


def test_limits_give_the_structure_of_the_loop():
    one = gc.while_loop(lambda i: i < 3, lambda i: i + 1, [0], maximum_iterations=3)
    assert one.name == "while/Exit_1:0"
    two = gc.while_loop(lambda i, x: i < 3, lambda i, x: [i + 1, x], [0, 1.0], maximum_iterations=3)
    assert [t.name for t in two] == ["while_1/Exit_1:0", "while_1/Exit_2:0"]


@pytest.mark.parametrize("data", [True, False])
def test_any_number_of_turns_is_one_compilation_and_one_call(data, calls):
    n = gc.placeholder(gc.int32, [])
    x = gc.constant([0.0, 1.0]) if data else gc.constant(0.0)
    total = times(n, lambda i, a, b: (a + 1.0, gc.maximum(a, b)), x, x)
    with gc.Session() as session:
        for turns in (1, 10, 1000, 100_000, 0):
            before = len(calls)
            a, b = session.run(total, {n: np.array(turns, np.int32)})
            assert len(calls) == before + 1
            assert np.max(a) == turns + data
            assert np.max(b) == max(turns - 1, 0) + data
        assert session.compilations == 1


def test_batch_sizes_share_one_compilation(calls):
    x = gc.placeholder(gc.float32, [None, 3])
    y = times(4, lambda i, y: (gc.tanh(y) + x,), x)[0]
    with gc.Session() as session, gc.Session(mode="reference") as reference:
        for rows in (2, 5, 64, 3):
            data = np.sin(np.arange(rows * 3, dtype=np.float32)).reshape(rows, 3)
            found = session.run(y, {x: data})
            np.testing.assert_allclose(found, reference.run(y, {x: data}), rtol=1e-5, atol=1e-6)
        assert session.compilations == 1
    assert len(calls) == 4


# --- sizes ----------------------------------------------------------------------------------------


@case
def a_size_that_grows():
    def grow(i, x):
        return (gc.concat([x, x[:1] + 1.0], 0),)

    x = gc.constant([1.0, 2.0])
    return times(4, grow, x, shape_invariants=[SCALAR, VECTOR]), [[1, 2, 2, 2, 2, 2]]


@case
def a_size_that_shrinks_to_nothing():
    found = gc.while_loop(
        lambda i, x: gc.shape(x)[0] > 0, lambda i, x: (i + 1, x[1:]), [0, gc.constant([1.0, 2.0])],
        shape_invariants=[SCALAR, VECTOR],
    )  # fmt: skip
    return found, [2, []]


@case
def sizes_that_change_places():
    x = gc.placeholder(gc.float32, [None, None])
    free = gc.TensorShape([None, None])
    found = times(3, lambda i, x: (gc.transpose(x),), x, shape_invariants=[SCALAR, free])
    return found, [[[1], [2], [3]]], {x: [[1.0, 2.0, 3.0]]}


@case
def sizes_of_two_variables_that_depend_on_each_other():
    def step(i, x, y):
        return y, gc.concat([x, y], 0)

    x, y = [1.0], [2.0]
    start = gc.constant(x), gc.constant(y)
    for _ in range(5):
        x, y = y, x + y
    return times(5, step, *start, shape_invariants=[SCALAR, VECTOR, VECTOR]), [x, y]


def grow_together(i, x, y):
    return gc.concat([x + y, x[:1]], 0), gc.concat([x * y, y[:1]], 0)


def grown(x, y):
    for _ in range(3):
        x, y = np.concatenate([x + y, x[:1]]), np.concatenate([x * y, y[:1]])
    return [x, y]


@case
def sizes_that_stay_equal():
    """That they are equal is needed in every turn, and so again after every one."""
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    free = [SCALAR, VECTOR, VECTOR]
    return times(3, grow_together, x, y, shape_invariants=free), grown(x, y)


@case
def fed_sizes_that_stay_equal():
    x, y = (gc.placeholder(gc.float64, [None]) for _ in range(2))
    feeds = {x: np.array([1.0, 2.0]), y: np.array([3.0, 4.0])}
    free = [SCALAR, VECTOR, VECTOR]
    return times(3, grow_together, x, y, shape_invariants=free), grown(*feeds.values()), feeds


@case
def a_size_that_the_body_settles():
    """The invariant lets it change; what the body adds to it does not."""
    x = gc.placeholder(gc.float32, [None])
    more, free = gc.constant([1.0, 2.0, 3.0]), [SCALAR, VECTOR]
    found = times(3, lambda i, y: (y[::-1] + more,), x, shape_invariants=free)
    return found, [[4, 6, 8]], {x: [1.0, 0.0, -1.0]}


@case
def a_size_that_is_the_number_of_the_turn():
    def step(i, x):
        return (gc.cast(gc.range(i + 1), gc.float32),)

    return times(3, step, gc.zeros([0]), shape_invariants=[SCALAR, VECTOR]), [[0, 1, 2]]


@case
def a_slice_whose_sizes_every_turn_decides():
    x = gc.constant(np.arange(10.0))
    found = times(5, lambda i, s: (s + gc.reduce_sum(x[i : 2 * i]),), np.float64(0))
    return found, [sum(np.arange(10.0)[i : 2 * i].sum() for i in range(5))]


@case
def an_unknown_rank_that_stays():
    free = [SCALAR, gc.TensorShape(None)]
    return times(3, lambda i, x: (x + 1,), gc.constant([1.0]), shape_invariants=free), [[4]]


@case
def symbolic_sizes():
    x = gc.placeholder(gc.float32, [None, 3])
    return times(3, lambda i, y: (y * 2 + x,), x), [np.full((4, 3), 15)], {x: np.ones((4, 3))}


@case
def empty_tensors():
    x = gc.placeholder(gc.float32, [None])
    return times(3, lambda i, y: (y + x,), x), [[]], {x: []}


# --- around and inside ----------------------------------------------------------------------------


@case
def large_constants():
    x = gc.constant(np.arange(100, dtype=np.float32))
    return times(3, lambda i, y: (y + x,), x * 0), [3 * np.arange(100.0)]


@case
def captured_variables():
    v = gc.Variable([1.0, 2.0])
    return times(3, lambda i, y: (y * v + v.read_value(),), gc.constant([1.0, 1.0])), [[4, 22]]


@case
def a_variable_as_the_start():
    v = gc.Variable([1.0, 2.0])
    return [*times(3, lambda i, y: (y * 2,), v), v], [[8, 16], [1, 2]]


@case
def elements_by_the_number_of_the_turn():
    x = gc.constant(np.arange(10.0))
    return times(5, lambda i, s: (s + gc.gather(x, i) + x[i],), np.float64(0)), [20]


@case
def a_loop_in_a_loop():
    def outer(i, s):
        return times(i, lambda j, t: (t + gc.cast(i * j, gc.float32),), s)

    return times(5, outer, 0.0), [sum(i * j for i in range(5) for j in range(i))]


@case
def three_loops_that_use_what_is_around():
    def outer(i, s):
        def middle(j, t):
            inner = times(j, lambda k, u: (u + gc.cast(i * 100 + j * 10 + k, gc.float32),), t)
            return (inner[0] + gc.cast(i, gc.float32),)

        return times(i, middle, s)

    total = 0
    for i in range(5):
        for j in range(i):
            total += sum(i * 100 + j * 10 + k for k in range(j)) + i
    return times(5, outer, 0.0), [total]


@case
def loops_after_one_another():
    a = times(3, lambda i, x: (x * 2,), 1.0)[0]
    b = times(3, lambda i, x: (x * a,), a)[0]
    return [a, b, a + b], [8, 4096, 4104]


@case
def some_results_are_not_used():
    a = times(3, lambda i, x, y: (x * 2, y + x), 1.0, 0.0)
    times(9, lambda i, x: (x * 2,), 1.0)
    return a[1], [7]


@case
def a_captured_tensor_may_be_fed():
    x = gc.constant(3.0) * 2
    return times(3, lambda i, y: (y + x,), 0.0), [300], {x: 100.0}


@case
def a_result_may_be_fed():
    y = times(3, lambda i, y: (y + 1,), 0.0)[0]
    return y * 2, [200], {y: 100.0}


def test_work_that_fails_only_in_a_turn_is_not_done_before(everywhere):
    """What is the same in every turn may leave the loop; what can fail may not."""
    x, k = gc.constant([1.0, 2.0]), gc.placeholder(gc.int32, [])
    y = times(k - 5, lambda i, y: (y + gc.gather(x, k),), 0.0)
    everywhere(y, {k: 5}, expected=[0])
