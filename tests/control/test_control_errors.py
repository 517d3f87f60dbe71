"""What loops and branches refuse: TensorFlow's classes and words, and the user's own line."""

from __future__ import annotations

import inspect
import re

import pytest

import graphc as gc

SCALAR = gc.TensorShape([])


def loop(body, start, cond=None, **options):
    return gc.while_loop(cond or (lambda i, *_: i < 3), body, start, **options)


def same(*values):
    return values if len(values) > 1 else values[0]


WHILE = {
    "no cond": (lambda: loop(same, [0], cond=1), TypeError, "cond must be callable."),
    "no body": (lambda: loop(1, [0]), TypeError, "body must be callable."),
    "no variables": (lambda: loop(same, []), ValueError, "No loop variables provided"),
    "parallel": (
        lambda: loop(same, [0], parallel_iterations=0), TypeError,
        "parallel_iterations must be a positive integer.",
    ),
    "int cond": (
        lambda: loop(same, [0], cond=lambda i: i), TypeError,
        "Input 'input' of 'LoopCond' Op has type int32 that does not match expected type of bool",
    ),
    "vector cond": (
        lambda: loop(same, [0], cond=lambda i: i < [3, 4]), ValueError,
        "Shape must be rank 0 but is rank 1",
    ),
    "limit": (
        lambda: loop(same, [0], maximum_iterations=[3]), ValueError,
        r"maximum_iterations must be a scalar, saw shape: \(1,\)",
    ),
    "shape": (
        lambda: loop(lambda i, x: (i + 1, gc.concat([x, x], 0)), [0, gc.constant([1.0])]),
        ValueError,
        (
            r"Input tensor 'Const:0' enters the loop with shape \(1,\), but has shape \(2,\) after "
            r"one iteration. To allow the shape to vary across iterations, use the "
            r"`shape_invariants` argument of tf.while_loop to specify a less-specific shape."
        ),
    ),
    "invariant": (
        lambda: loop(
            lambda i, x: (i + 1, gc.zeros([2, 2])), [0, gc.zeros([2, 3])],
            shape_invariants=[SCALAR, gc.TensorShape([None, 3])],
        ),
        ValueError, r"enters the loop with shape \(2, 3\), but has shape \(2, 2\) after one",
    ),
    "start": (
        lambda: loop(
            same, [0, gc.constant([1.0])], shape_invariants=[SCALAR, gc.TensorShape([2])]
        ),
        ValueError,
        (
            r"The shape invariant specified for Const:0 is not compatible with the initial shape "
            r"of the loop variable. It enters the loop with shape \(1,\), but the specified shape "
            r"invariant is \(2,\)."
        ),
    ),
    "invariants": (
        lambda: loop(same, [0, 1.0], shape_invariants=[SCALAR]), ValueError, "structures? "
    ),
    "dtype": (
        lambda: loop(lambda i, x: (i + 1, gc.cast(x, gc.int32)), [0, 1.0]), TypeError,
        "enters the loop with dtype float32, but has dtype int32 after one iteration",
    ),
    "python dtype": (lambda: loop(lambda i: 1.5, [0]), TypeError, "has dtype float32 after one"),
    "fewer": (
        lambda: loop(lambda i, x: i + 1, [0, 1.0]), ValueError,
        "don't have the same nested structure",
    ),
    "more": (
        lambda: loop(lambda i: (i, i), [0]), ValueError, "don't have the same nested structure"
    ),
    "nesting": (
        lambda: loop(lambda i, x: ((i, x), x), [0, 1.0]), ValueError,
        "don't have the same nested structure",
    ),
    "none": (lambda: loop(lambda i: None, [0]), ValueError, "None"),
    "operation": (lambda: loop(lambda i: gc.no_op(), [0]), TypeError, "not an operation"),
    "arguments": (lambda: loop(lambda i: i, [0, 1]), TypeError, "takes 1 positional argument"),
    "a tensor": (lambda: loop(same, gc.constant(0)), TypeError, "as a Python `bool` is not"),
}  # fmt: skip


def one():
    return gc.constant(1)


COND = {
    "no true_fn": (lambda p: gc.cond(p, None, one), TypeError, r"cond\(\): true_fn argument req"),
    "no false_fn": (lambda p: gc.cond(p, one), TypeError, r"cond\(\): false_fn argument required"),
    "a tensor": (lambda p: gc.cond(p, one(), one), TypeError, "true_fn must be callable."),
    "both": (
        lambda p: gc.cond(p, one, one, fn2=one), TypeError,
        r"cond\(\): false_fn and fn2 may not be set simultaneously.",
    ),
    "python bool": (lambda p: gc.cond(True, one, one), TypeError, "must not be a Python bool"),
    "int": (
        lambda p: gc.cond(one(), one, one), TypeError,
        "Input 'pred' of 'Switch' Op has type int32 that does not match expected type of bool.",
    ),
    "vector": (
        lambda p: gc.cond(gc.constant([True]), one, one), ValueError,
        r"Shape must be rank 0 but is rank 1 for 'cond/Switch' \(op: 'Switch'\) with input shapes",
    ),
    "none": (lambda p: gc.cond(p, lambda: None, one), ValueError, "true_fn must have a return"),
    "none too": (lambda p: gc.cond(p, one, lambda: None), ValueError, "false_fn must have a retu"),
    "dtype": (
        lambda p: gc.cond(p, one, lambda: 1.0), ValueError,
        "Outputs of true_fn and false_fn must have the same type: int32, float32",
    ),
    "count": (lambda p: gc.cond(p, one, lambda: (1, 2)), ValueError, "same nested structure"),
    "kind": (lambda p: gc.cond(p, lambda: (1, 2), lambda: [1, 2]), TypeError, "sequence type"),
    "nothing": (lambda p: gc.cond(p, lambda: (), lambda: ()), ValueError, "at least one result"),
    "case of 3": (lambda p: gc.case(3), TypeError, "fns must be a list, tuple, or dict"),
    "case of no pair": (
        lambda p: gc.case([(p,)]), TypeError, "Each entry in pred_fn_pairs must be a 2-tuple"
    ),
    "case of a bool": (
        lambda p: gc.case([(True, one)]), TypeError, "pred must be a Tensor, got: True"
    ),
    "case of an int": (
        lambda p: gc.case([(one(), one)]), TypeError, "pred must be Tensor of type bool: Const"
    ),
    "case of no function": (
        lambda p: gc.case([(p, 3)]), TypeError, "fn for pred p:0 must be callable."
    ),
    "case of nothing": (lambda p: gc.case([]), ValueError, "at least one item in pred_fn_pairs"),
    "case default": (lambda p: gc.case([(p, one)], default=3), TypeError, "must be callable"),
    "switch of nothing": (
        lambda p: gc.switch_case(one(), []), ValueError, "at least one item in branch_fns"
    ),
    "switch of 3": (
        lambda p: gc.switch_case(one(), 3), TypeError, "branch_fns must be a list, tuple, or dict"
    ),
    "switch keys": (
        lambda p: gc.switch_case(one(), {0: one, 2: one}), ValueError,
        r"branch indices \(keys\) must form contiguous range of \[0 to 2\) but found {0,2}",
    ),
    "switch names": (
        lambda p: gc.switch_case(one(), {"a": one}), TypeError,
        "key must be a Python `int`, got <class 'str'>",
    ),
    "switch of no function": (
        lambda p: gc.switch_case(one(), [one, 1]), TypeError, "must be a 2-tuple"
    ),
    "switch by int64": (
        lambda p: gc.switch_case(gc.constant(1, gc.int64), [one]), TypeError,
        "Input 'branch_index' of 'Case' Op has type int64 that does not match expected type of int",
    ),
    "switch dtype": (
        lambda p: gc.switch_case(one(), [one, lambda: 1.0]), ValueError,
        r"Outputs of branches\[0\] and branches\[1\] must have the same type: int32, float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHILE)
def test_loops_that_are_refused(name):
    make, error, text = WHILE[name]
    with pytest.raises(error, match=text):
        make()
    # The graph is as usable as before.
    assert gc.Session().run(loop(lambda i: i + 1, [0])) == 3


@pytest.mark.parametrize("name", COND)
def test_branches_that_are_refused(name):
    make, error, text = COND[name]
    p = gc.placeholder_with_default(True, [], name="p")
    with pytest.raises(error, match=text):
        make(p)
    assert gc.Session().run(gc.cond(p, one, one)) == 1


# --- what is inside stays inside ------------------------------------------------------------------


@pytest.fixture
def inner():
    """A tensor of a loop's body, and the loop's result."""
    found = []

    def body(i):
        found.append(i * 2)
        return i + 1

    return found, loop(body, [0])


def test_a_tensor_of_a_body_is_not_used_outside(inner):
    (tensor,), _ = inner
    for use in (lambda: tensor + 1, lambda: gc.identity(tensor)):
        with pytest.raises(ValueError, match=r"'while/mul:0' .*inside 'while' and cannot be used"):
            use()
    with (
        pytest.raises(ValueError, match=r"'while/mul' .*cannot be waited for outside"),
        gc.control_dependencies([tensor]),
    ):
        gc.constant(1)


def test_a_tensor_of_a_branch_is_not_used_in_another():
    found = []

    def first():
        found.append(one() * 2)
        return found[0]

    p = gc.placeholder(gc.bool, [])
    with pytest.raises(ValueError, match=r"'cond/mul:0' .*cannot be used outside"):
        gc.cond(p, first, lambda: found[0] + 1)
    with pytest.raises(ValueError, match="cannot be used outside"):
        gc.cond(p, one, lambda: gc.identity(found[0]))


def test_a_tensor_of_a_body_is_neither_fetched_nor_fed(inner):
    (tensor,), result = inner
    with gc.Session() as session:
        for fetch in (tensor, tensor.op, "while/mul:0"):
            with pytest.raises(ValueError, match=r"'while/mul' has been marked as not fetchable"):
                session.run(fetch)
        with pytest.raises(ValueError, match=r"while/mul:0.* may not be fed"):
            session.run(result, {tensor: 3})
        assert session.run(result) == 3


def test_a_placeholder_in_a_body_cannot_be_fed():
    found = []

    def body(i):
        found.append(gc.placeholder(gc.int32, []))
        return i + found[0]

    result = loop(body, [0])
    with gc.Session() as session:
        with pytest.raises(gc.errors.InvalidArgumentError, match="must feed a value for placehold"):
            session.run(result)
        with pytest.raises(ValueError, match="may not be fed"):
            session.run(result, {found[0]: 1})


# --- runs that fail -------------------------------------------------------------------------------


def line() -> int:
    return inspect.currentframe().f_back.f_lineno


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("kind", ["gather", "division", "read", "write"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_error_names_the_operation_and_the_line_in_the_body(mode, kind, nested):
    x = gc.constant([1, 2, 3])
    k = gc.placeholder(gc.int32, [])
    array = gc.TensorArray(gc.int32, size=3).unstack(x)
    where = []

    def body(i, s):
        if kind == "gather":
            where.append(line() + 1)
            return i + 1, s + gc.gather(x, i, name="bad")
        if kind == "division":
            where.append(line() + 1)
            return i + 1, s + gc.floordiv(6, 3 - i, name="bad")
        if kind == "read":
            where.append(line() + 1)
            return i + 1, s + array.read(i, name="bad")
        where.append(line() + 1)
        return i + 1, s + array.write(i, 0, name="bad").read(0)

    def outer(i, s):
        inner = lambda: gc.while_loop(lambda j, _: j < k, body, [0, s])[1]  # noqa: E731
        return i + 1, gc.cond(i > 0, inner, lambda: s)

    if nested:
        result = gc.while_loop(lambda i, _: i < 2, outer, [0, 0])[1]
    else:
        result = gc.while_loop(lambda i, _: i < k, body, [0, 0])[1]
    with gc.Session(mode=mode) as session:
        session.run(result, {k: 3})
        with pytest.raises(gc.errors.InvalidArgumentError) as e:
            session.run(result, {k: 4})
        assert "bad" in e.value.op.name
        assert f"{__file__}:{where[0]}" in str(e.value)
        session.run(result, {k: 3})


FREE = [SCALAR, gc.TensorShape([None])]
SIZES = {
    "another one after a turn": (
        lambda x: loop(
            lambda i, y: (i + 1, gc.concat([y + x, x], 0)), [0, x], shape_invariants=FREE
        ),
        "while/add_1",
    ),
    "one grows and one does not": (
        lambda x: loop(
            lambda i, y, z: (i + 1, gc.concat([y + z, y[:1]], 0), z[1:]), [0, x, x],
            shape_invariants=[*FREE, FREE[1]],
        ),
        "while/add_1",
    ),
}  # fmt: skip


WORDS = "Dimensions must be equal|could not be broadcast|do not go together"


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_do_not_go_together(name, mode):
    make, text = SIZES[name]
    result = make(gc.constant([1.0, 2.0]))
    with (
        gc.Session(mode=mode) as session,
        pytest.raises(gc.errors.InvalidArgumentError, match=text) as e,
    ):
        session.run(result)
    assert re.search(WORDS, str(e.value))
    assert __file__ in str(e.value)


def test_a_branch_of_a_size_that_does_not_fit_fails_when_it_is_taken():
    p = gc.placeholder(gc.bool, [])
    y = gc.cond(p, lambda: gc.ones([2]), lambda: gc.ones([3])) + gc.constant([1.0, 2.0, 3.0])
    with gc.Session() as session:
        assert session.run(y, {p: False}).tolist() == [2, 3, 4]
        with pytest.raises(gc.errors.InvalidArgumentError, match="do not go together"):
            session.run(y, {p: True})
        assert session.run(y, {p: False}).tolist() == [2, 3, 4]
