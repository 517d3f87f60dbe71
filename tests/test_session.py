"""Sessions: what may be fetched, how it comes back, and what is refused."""

from __future__ import annotations

import collections
import threading

import numpy as np
import pytest

import graphc as gc
from graphc import errors
from graphc.graph import Graph

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


@pytest.fixture(params=MODES)
def session(request):
    with gc.Session(mode=request.param) as s:
        yield s


# --- fetches --------------------------------------------------------------------------------------


def test_a_tensor_gives_an_array_and_a_scalar_a_numpy_scalar(session):
    found = session.run(gc.constant([1.0, 2.0]))
    assert type(found) is np.ndarray
    assert found.tolist() == [1.0, 2.0]
    scalar = session.run(gc.constant(3.0) + 1.0)
    assert type(scalar) is np.float32
    assert scalar == 4.0


def test_any_nesting_comes_back_as_it_was(session):
    pair = collections.namedtuple("pair", "first second")
    x = gc.placeholder(gc.float32)
    y = x * 2.0
    fetches = {"b": [x, (y, pair(y, {"c": x}))], "a": y.op, "n": []}
    found = session.run(fetches, {x: 3.0})
    assert found == {"b": [3.0, (6.0, pair(6.0, {"c": 3.0}))], "a": None, "n": []}
    assert type(found["b"][1][1]) is pair
    ordered = collections.OrderedDict([("z", y), ("a", x)])
    assert list(session.run(ordered, {x: 1.0}).items()) == [("z", 2.0), ("a", 1.0)]
    counted = collections.defaultdict(list, {"k": y})
    found = session.run(counted, {x: 1.0})
    assert found == {"k": 2.0}
    assert found["other"] == []


def test_a_dict_that_changes_later_does_not_change_the_structure(session):
    x, y = gc.constant(1.0), gc.constant(2.0)
    fetches = {"a": x}
    assert session.run(fetches) == {"a": 1.0}
    fetches["b"] = y
    assert session.run({"a": x}) == {"a": 1.0}
    assert session.run(fetches) == {"a": 1.0, "b": 2.0}


def test_nothing_and_operations_only(session):
    v = gc.Variable(1.0)
    assert session.run([]) == []
    assert session.run({}) == {}
    assert session.run(v.initializer) is None
    assert session.run([v.assign(2.0).op, gc.no_op()]) == [None, None]
    assert session.run(v) == 2.0


def test_a_tensor_twice_and_with_its_parts(session):
    x = gc.constant([[1.0, 2.0]])
    y = gc.exp(x)
    a, b, c, d = session.run([y, y, gc.reshape(y, [2]), x])
    assert a is b  # as in TensorFlow
    np.testing.assert_array_equal(a.reshape(-1), c)
    a[...] = 0
    assert c[0] != 0
    d[...] = 7
    assert session.run(x)[0, 0] == 1.0


def test_names_of_tensors_and_operations(session):
    x = gc.placeholder(gc.float32, name="x")
    gc.add(x, 1.0, name="y")
    assert session.run("y:0", {"x:0": 2.0}) == 3.0
    assert session.run(["y", "y:0"], {x: 2.0}) == [None, 3.0]


@pytest.mark.parametrize(
    ("fetch", "error", "message"),
    [
        (None, TypeError, "Fetch argument None has invalid type"),
        (1.0, TypeError, "Can not convert a float into a Tensor or Operation"),
        ("nothing:0", ValueError, "refers to a Tensor which does not exist"),
        ("nothing", ValueError, "not in the graph"),
        ("a:b:c", ValueError, "not a valid one"),
        ([None], TypeError, "invalid type"),
        (np.zeros(2), TypeError, "Can not convert a ndarray"),
    ],
)
def test_what_cannot_be_fetched(session, fetch, error, message):
    with pytest.raises(error, match=message) as caught:
        session.run(fetch)
    assert isinstance(caught.value, errors.GraphcError)


def test_a_tensor_of_another_graph(session):
    with Graph().as_default():
        other = gc.constant(1.0)
        placeholder = gc.placeholder(gc.float32)
    with pytest.raises(ValueError, match="not an element of this graph"):
        session.run(other)
    with pytest.raises(TypeError, match="Cannot interpret feed_dict key as Tensor"):
        session.run(gc.constant(1.0), {placeholder: 1.0})


def test_unfetchable_and_unfeedable(session, graph):
    x = gc.constant(1.0)
    y = x + 1.0
    graph.prevent_fetching(y.op)
    graph.prevent_feeding(x)
    with pytest.raises(ValueError, match="not fetchable"):
        session.run(y)
    with pytest.raises(ValueError, match="may not be fed"):
        session.run(x, {x: 2.0})


def test_constants_are_not_shared_with_the_result(session):
    value = np.arange(3000, dtype=np.float32)
    c = gc.constant(value)
    found = session.run([c, gc.identity(c)])
    found[0][:] = -1
    assert found[1][5] == 5
    assert session.run(c)[5] == 5


DTYPES = (
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_goes_in_and_comes_out(session, dtype):
    x = gc.placeholder(dtype, [None])
    data = np.array([0, 1, 1, 0, 1], dtype)
    for fetch in (gc.identity(x), gc.reshape(x, [1, -1]), x[::-1]):
        found = session.run(fetch, {x: data})
        assert found.dtype == data.dtype
    first = session.run(x[1], {x: data})
    assert type(first) is data.dtype.type
    assert first == 1


# --- sessions -------------------------------------------------------------------------------------


def test_a_closed_session_refuses():
    s = gc.Session()
    c = gc.constant(1.0)
    call = s.make_callable(c)
    assert call() == 1.0
    s.close()
    s.close()
    for use in (lambda: s.run(c), call):
        with pytest.raises(RuntimeError, match="Attempted to use a closed Session"):
            use()
    with pytest.raises(RuntimeError), s:
        s.run(c)


def test_the_arguments_of_a_session():
    with pytest.raises(ValueError, match="mode must be one of"):
        gc.Session(mode="fast")
    with pytest.raises(ValueError, match="in this process"):
        gc.Session("grpc://localhost:1")
    assert gc.Session(config=object()).list_devices()


def test_default_sessions_nest():
    x = gc.constant(2.0)
    with pytest.raises(ValueError, match="No default session is registered"):
        x.eval()
    with gc.Session() as outer:
        assert gc.get_default_session() is outer
        with gc.Session().as_default() as inner:
            assert gc.get_default_session() is inner
            assert x.eval() == 2.0
        assert inner.run(x) == 2.0
        assert gc.get_default_session() is outer
    assert gc.get_default_session() is None


def test_a_session_makes_its_graph_the_default():
    other = Graph()
    with gc.Session(graph=other):
        assert gc.get_default_graph() is other
        y = gc.constant(1.0)
    assert y.graph is other


def test_an_interactive_session():
    s = gc.InteractiveSession()
    assert gc.constant(2.0).eval() == 2.0
    v = gc.Variable(3.0)
    v.initializer.run()
    assert v.eval() == 3.0
    s.close()
    with pytest.raises(ValueError, match="No default session"):
        v.eval()


def test_two_sessions_have_variables_of_their_own():
    v = gc.Variable(1.0)
    with gc.Session() as a, gc.Session() as b:
        a.run(v.initializer)
        b.run(v.initializer)
        a.run(v.assign(5.0))
        assert (a.run(v), b.run(v)) == (5.0, 1.0)


def test_the_graph_may_grow_between_runs(session):
    x = gc.placeholder(gc.float32)
    y = x + 1.0
    assert session.run(y, {x: 1.0}) == 2.0
    z = y * y
    assert session.run([y, z], {x: 1.0}) == [2.0, 4.0]


# --- make_callable --------------------------------------------------------------------------------


def test_a_callable_takes_the_values_in_order(session):
    x, y = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32)
    call = session.make_callable([x - y, {"s": y}], [x, y])
    for n in (1, 3):
        found, rest = call(np.arange(n), 1.0)
        assert found.tolist() == list(np.arange(n) - 1.0)
        assert rest == {"s": 1.0}
    with pytest.raises(ValueError, match="Expected 2 values"):
        call(1.0)
    with pytest.raises(ValueError, match="Cannot feed value of shape"):
        call(1.0, 1.0)


def test_a_callable_sees_a_variable_that_changed_its_shape(session):
    v = gc.Variable([1.0, 2.0], validate_shape=False)
    session.run(v.initializer)
    total = session.make_callable(gc.reduce_sum(v))
    add = session.make_callable(v.assign_add(v))
    assert total() == 3.0
    session.run(gc.assign(v, [1.0, 2.0, 3.0], validate_shape=False))
    assert total() == 6.0
    assert add().tolist() == [2.0, 4.0, 6.0]
    v.load(np.ones(5, np.float32), session)
    assert total() == 5.0


# --- errors ---------------------------------------------------------------------------------------


def test_a_missing_feed_names_the_placeholder_and_the_line(session):
    x = gc.placeholder(gc.float32, [None, 3], name="images")
    y = x * 2.0
    with pytest.raises(errors.InvalidArgumentError) as caught:
        session.run(y)
    message = str(caught.value)
    assert "You must feed a value for placeholder tensor 'images' with dtype float" in message
    assert "and shape [?,3]" in message
    assert f"{__file__}:" in message
    assert caught.value.op is x.op
    assert caught.value.error_code == 3
    with pytest.raises(errors.InvalidArgumentError, match="'images'"):
        session.run(x)


def test_an_uninitialized_variable(session):
    v = gc.Variable(1.0, name="weights")
    for fetch in (v, v + 1.0, v.read_value(), v.assign_add(1.0)):
        with pytest.raises(errors.FailedPreconditionError) as caught:
            session.run(fetch)
        assert "Attempting to use uninitialized value weights" in str(caught.value)
        assert f"{__file__}:" in str(caught.value)
        assert caught.value.error_code == 9
    session.run(v.initializer)
    assert session.run([v, v + 1.0]) == [1.0, 2.0]


def test_shapes_that_do_not_go_together(session):
    x, y = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32, [None])
    total = x + y
    with pytest.raises(errors.InvalidArgumentError) as caught:
        session.run(total, {x: np.zeros(2), y: np.zeros(3)})
    assert "[2]" in str(caught.value)
    assert "[3]" in str(caught.value)
    assert f"{__file__}:" in str(caught.value)
    assert session.run(total, {x: np.ones(4), y: np.ones(4)}).tolist() == [2.0] * 4
    with pytest.raises(errors.InvalidArgumentError, match=r"\[2\].*\[3\]"):
        session.run(total, {x: np.zeros(2), y: np.zeros(3)})


def test_an_error_of_a_run_names_the_users_line(session):
    x, i = gc.constant([1.0, 2.0]), gc.placeholder(gc.int32, [None])
    y = gc.gather(x, i) + 1.0
    with pytest.raises(errors.InvalidArgumentError) as caught:
        session.run(y, {i: [0, 5]})
    assert f"{__file__}:" in str(caught.value)
    assert caught.value.op.type == "GatherV2"
    assert session.run(y, {i: [1]}).tolist() == [3.0]


def test_what_fails_is_run_even_if_nobody_needs_its_value(session):
    """As in TensorFlow, an operation that a run asks for can make the run fail."""
    v = gc.Variable(1.0)
    session.run(v.initializer)
    i = gc.placeholder(gc.int32, [None])
    looked_up = gc.gather(gc.constant([1.0, 2.0]), i)
    with gc.control_dependencies([looked_up]):
        update = v.assign_add(1.0)
    for fetch in (update, looked_up.op, [gc.shape(looked_up), v.assign_add(5.0)]):
        with pytest.raises(errors.InvalidArgumentError):
            session.run(fetch, {i: [0, 2]})
        assert session.run(v) == 1.0
    session.run(update, {i: [1]})
    assert session.run(v) == 2.0


def test_a_run_inside_a_feed(session):
    """A feed's conversion may itself use the session."""
    x = gc.placeholder(gc.float32)

    class Lazy:
        def __array__(self, dtype=None, copy=None):
            return np.asarray(session.run(x * 2.0, {x: 3.0}), dtype)

    assert session.run(x + 1.0, {x: Lazy()}) == 7.0


def test_closing_while_another_thread_runs():
    v = gc.Variable(np.zeros(1000, np.float32))
    update = v.assign_add(np.ones(1000, np.float32))
    s = gc.Session()
    s.run(v.initializer)
    errors_seen = []

    def work():
        try:
            while True:
                s.run(update.op)
        except RuntimeError as e:
            errors_seen.append(e)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    s.close()
    for t in threads:
        t.join(10)
    assert len(errors_seen) == 2
