"""What reviews have found outside of the parts that they were of."""

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture(params=["static", "eager", "reference"])
def session(request):
    with gc.Session(mode=request.param) as s:
        yield s


@pytest.mark.parametrize(
    "make",
    [
        lambda x, n: gc.concat([x, gc.zeros([n - 3])], 0),
        lambda x, n: gc.concat([x, gc.fill([n - 3], 1.0)], 0),
        lambda x, n: gc.reduce_sum(gc.zeros([n - 3])),
        lambda x, n: gc.concat([x, gc.zeros([n - gc.shape(x)[0]])], 0),
    ],
)
def test_a_negative_size_of_what_has_no_memory_of_its_own(session, make):
    x, n = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
    y = make(x, n)
    session.run(y, {x: np.ones(3), n: 5})
    with pytest.raises(gc.errors.InvalidArgumentError, match=r"negative|>= 0"):
        session.run(y, {x: np.ones(3), n: 2})


def test_a_size_in_a_branch_that_is_not_taken_may_be_negative(session):
    n = gc.placeholder(gc.int32, [])
    y = gc.cond(n >= 3, lambda: gc.reduce_sum(gc.ones([n - 3])), lambda: gc.constant(-1.0))
    assert session.run(y, {n: 5}) == 2
    assert session.run(y, {n: 2}) == -1


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16, gc.float64])
def test_divide_by_a_number_of_python(session, dtype):
    x = gc.placeholder(dtype, [2])
    y = gc.divide(x, 0.5)
    assert y.dtype is dtype
    np.testing.assert_array_equal(session.run(y, {x: [1, 2]}), [2, 4])


@pytest.mark.parametrize("use_resource", [False, True])
def test_a_gradient_reads_a_variable_as_the_operation_did(session, use_resource):
    # The values are TensorFlow 1.15's.
    w = gc.get_variable("w", initializer=1.0, use_resource=use_resource)
    x = gc.constant(2.0)
    y = gc.sin(x) * w
    with gc.control_dependencies([y]):
        later = w.assign_add(1.5)
    with gc.control_dependencies([later]):
        z = gc.sin(y)
        again = gc.sin(z * w)
    first, second = gc.gradients(z, x)[0], gc.gradients(again, x)[0]
    session.run(w.initializer)
    found = session.run([first, second])
    inner, outer = np.sin(2.0), np.sin(np.sin(2.0))
    expected = np.cos(inner) * np.cos(2.0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.cos(2.5 * outer) * 2.5 * expected, rtol=1e-5)
