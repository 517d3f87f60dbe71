"""Variable scopes: names, sharing, defaults; as TensorFlow 1.15 has them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


def w(shape=(2, 2)):
    return gc.get_variable("w", shape)


def message(fn) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fn()
    return str(caught.value)


# --- names --------------------------------------------------------------------------------------


def test_variables_are_named_after_variable_scopes_and_ops_after_name_scopes():
    with gc.variable_scope("vs") as vs:
        g1 = gc.get_variable("g", [2])
        o1 = g1 + 1
        with gc.variable_scope("in"):
            g2 = gc.get_variable("g", [2])
    with gc.variable_scope("vs", reuse=True):
        g3 = gc.get_variable("g", [2])
        o3 = g3 + 1
    with gc.variable_scope(vs, reuse=True):
        o4 = gc.get_variable("g", [2]) + 1
    assert (g1.name, g2.name) == ("vs/g:0", "vs/in/g:0")
    assert g3 is g1
    assert (o1.name, o3.name, o4.name) == ("vs/add:0", "vs_1/add:0", "vs_2/add:0")
    assert (vs.name, vs.original_name_scope) == ("vs", "vs/")


def test_name_scopes_do_not_name_variables():
    with gc.name_scope("s"):
        assert gc.get_variable("g", [2]).name == "g:0"


def test_the_operations_of_a_variable(graph):
    with gc.variable_scope("vs"):
        gc.get_variable("g", [2])
    names = [op.name for op in graph.get_operations()]
    start = "vs/g/Initializer/random_uniform"
    assert names == [
        f"{start}/shape", f"{start}/min", f"{start}/max", f"{start}/RandomUniform", f"{start}/sub",
        f"{start}/mul", start, "vs/g", "vs/g/Assign", "vs/g/read",
    ]  # fmt: skip


def test_default_names_are_made_unique():
    found = []
    for _ in range(2):
        with gc.variable_scope(None, default_name="dd") as scope:
            found.append((scope.name, w().name))
    assert found == [("dd", "dd/w:0"), ("dd_1", "dd_1/w:0")]


def test_default_names_count_anew_inside_a_scope_that_is_opened_again():
    for _ in range(2):
        with gc.variable_scope("a"), gc.variable_scope(None, "in") as scope:
            assert scope.name == "a/in"


def test_a_scope_object_is_entered_by_its_full_name():
    with gc.variable_scope("a") as a:
        pass
    with gc.variable_scope("b"), gc.variable_scope(a) as again:
        assert again.name == "a"
        assert w().name == "a/w:0"
        assert (gc.constant(1.0)).name == "b/a/Const:0"
    assert gc.get_variable_scope().name == ""


def test_without_a_name_scope_of_its_own():
    with gc.name_scope("s"), gc.variable_scope("a", auxiliary_name_scope=False):
        assert gc.constant(1.0).name == "s/Const:0"
        assert w().name == "a/w:0"


def test_a_scope_can_be_entered_twice():
    scope = gc.variable_scope("a", reuse=gc.AUTO_REUSE)
    with scope:
        first = w()
    with scope:
        assert w() is first


def test_values_choose_the_graph():
    other = gc.Graph()
    with other.as_default():
        x = gc.constant(1.0)
    with gc.variable_scope("a", values=[x]):
        assert w().graph is other


def test_every_thread_has_its_own_current_scope(graph):
    names = []

    def work():
        with graph.as_default():
            names.append(gc.get_variable_scope().name)

    with gc.variable_scope("a"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert names == [""]
        assert gc.get_variable_scope().name == "a"


# --- sharing ------------------------------------------------------------------------------------


def test_reuse_finds_the_variable():
    with gc.variable_scope("a"):
        first = w()
    with gc.variable_scope("a", reuse=True):
        assert w() is first
        with gc.variable_scope("in") as inside:
            assert inside.reuse is True
    with gc.variable_scope("b", reuse=gc.AUTO_REUSE):
        assert w() is w()
    with gc.variable_scope("c") as scope:
        second = w()
        scope.reuse_variables()
        assert w() is second
    assert gc.get_variable_scope().reuse is False


def test_a_variable_is_not_created_twice():
    with gc.variable_scope("a"):
        first = w()
        text = message(w)
    assert text.startswith(
        "Variable a/w already exists, disallowed. Did you mean to set reuse=True or "
        "reuse=tf.AUTO_REUSE in VarScope? Originally defined at:"
    )
    assert f'File "{__file__}", line {first.op.location.line}, in w' in text


def test_a_variable_that_does_not_exist_is_not_found():
    with gc.variable_scope("a", reuse=True):
        text = message(lambda: gc.get_variable("new", [1]))
    assert text == (
        "Variable a/new does not exist, or was not created with tf.get_variable(). Did you mean to "
        "set reuse=tf.AUTO_REUSE in VarScope?"
    )


def test_a_shared_variable_keeps_its_shape_and_dtype():
    with gc.variable_scope("a"):
        w()
    with gc.variable_scope("a", reuse=True):
        assert message(lambda: w([3])) == (
            "Trying to share variable a/w, but specified shape (3,) and found shape (2, 2)."
        )
        assert message(lambda: gc.get_variable("w", [2, 2], gc.int32)) == (
            "Trying to share variable a/w, but specified dtype int32 and found dtype float32_ref."
        )


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: gc.variable_scope(None), TypeError, "If default_name is None then name_or_scope"),
        (lambda: gc.variable_scope(3), TypeError, "VariableScope: name_or_scope must be a string"),
        (lambda: gc.variable_scope("a", reuse="yes"), ValueError, "The reuse parameter must be"),
        (lambda: gc.variable_scope(None, "a", reuse=True), ValueError, "reuse=True cannot be used"),
        (
            lambda: gc.variable_scope("a", auxiliary_name_scope=None),
            TypeError,
            "The auxiliary_name_scope must be `True` or `False`",
        ),
        (
            lambda: gc.get_variable("only"),
            ValueError,
            "The initializer passed is not valid. It should be a callable with no arguments and",
        ),
        (
            lambda: gc.get_variable("v", [1], initializer=gc.constant([1.0])),
            ValueError,
            "If initializer is a constant, do not specify shape.",
        ),
        (
            lambda: gc.get_variable("v", dtype=gc.int32, initializer=1.5),
            ValueError,
            "Initializer type '<dtype: 'float32'>' and explicit dtype '<dtype: 'int32'>' don't",
        ),
        (
            lambda: gc.get_variable("v", [4], partitioner=lambda **_: [2]),
            ValueError,
            "Variable v: graphc has no partitioned variables",
        ),
        (
            lambda: gc.get_variable("v", [4], custom_getter=3),
            ValueError,
            "Passed a custom_getter which is not callable: 3",
        ),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(text)


# --- defaults -----------------------------------------------------------------------------------


def test_defaults_are_inherited_and_overridden():
    four = gc.constant_initializer(4.0)
    with gc.variable_scope("e", initializer=four, dtype=gc.float64) as e:
        with gc.variable_scope("in"):
            inherited = gc.get_variable("v", [2])
        own = gc.get_variable("i", [1], gc.float32, gc.zeros_initializer())
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        assert session.run(inherited).tolist() == [4.0, 4.0]
        assert session.run(own).tolist() == [0.0]
    assert inherited.dtype == gc.float64.as_ref
    assert own.dtype == gc.float32.as_ref
    with gc.variable_scope(e):
        assert gc.get_variable_scope().initializer is four


def test_the_default_initializer_depends_on_the_dtype(graph):
    gc.get_variable("f", [2], gc.float64)
    gc.get_variable("i", [2], gc.int32)
    gc.get_variable("b", [2], gc.bool)
    names = [op.name for op in graph.get_operations()]
    assert "f/Initializer/random_uniform" in names
    assert "i/Initializer/zeros" in names
    assert "b/Initializer/zeros" in names


def test_initializers_may_be_values_functions_and_classes(graph):
    values = gc.get_variable("v", initializer=np.array([1.0, 2.0], np.float32))
    function = gc.get_variable("f", initializer=lambda: gc.constant([3, 4]))
    cls = gc.get_variable("c", [2], initializer=gc.ones_initializer)
    given = gc.get_variable(
        "g", [2], initializer=lambda shape, dtype, partition_info: gc.fill(shape, 5.0)
    )
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        got = [x.tolist() for x in session.run([values, function, cls, given])]
    assert got == [[1.0, 2.0], [3, 4], [1.0, 1.0], [5.0, 5.0]]
    assert function.dtype == gc.int32.as_ref


def test_regularizers_add_losses():
    with gc.variable_scope("e", regularizer=gc.reduce_sum):
        w()
        gc.get_variable("i", [1])
        gc.get_variable("none", [1], regularizer=gc.no_regularizer)
    losses = gc.get_collection("regularization_losses")
    assert [t.name for t in losses] == ["e/w/Regularizer/Sum:0", "e/i/Regularizer/Sum:0"]


def test_collections_of_a_scope():
    with gc.variable_scope("e") as e:
        w()
    gc.get_variable("other", [1])
    assert [v.name for v in e.global_variables()] == ["e/w:0"]
    assert [v.name for v in e.trainable_variables()] == ["e/w:0"]
    assert e.local_variables() == []
    assert [v.name for v in gc.get_collection("variables", scope="e")] == ["e/w:0"]


def test_local_variables():
    v = gc.get_local_variable("v", [2])
    assert gc.local_variables() == [v]
    assert gc.global_variables() == gc.trainable_variables() == []
    assert gc.get_local_variable("x", shape=[2], collections=["mine"]).name == "x:0"
    assert len(gc.get_collection("mine")) == 1


def test_constraints_and_trainable_reach_the_variable():
    v = gc.get_variable("v", [2], constraint=abs, trainable=False)
    assert v.constraint is abs
    assert not v.trainable


def test_custom_getters_stack_from_the_inside_out():
    calls = []

    def getter_called(tag):
        def custom_getter(getter, name, *args, **kwargs):
            calls.append((tag, name, kwargs["shape"]))
            return getter(f"{name}_{tag}", *args, **kwargs)

        return custom_getter

    with (
        gc.variable_scope("a", custom_getter=getter_called("outer")),
        gc.variable_scope("b", custom_getter=getter_called("inner")),
    ):
        v = gc.get_variable("v", [2])
    assert calls == [("inner", "a/b/v", [2]), ("outer", "a/b/v_inner", [2])]
    assert v.name == "a/b/v_inner_outer:0"


def test_a_custom_getter_may_return_something_else():
    def doubled(getter, *args, **kwargs):
        return getter(*args, **kwargs) * 2.0

    with gc.variable_scope("a", custom_getter=doubled):
        v = gc.get_variable("v", [2], initializer=gc.ones_initializer())
    assert isinstance(v, gc.Tensor)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        assert session.run(v).tolist() == [2.0, 2.0]


def test_the_setters_of_a_scope():
    with gc.variable_scope("a") as scope:
        scope.set_dtype(gc.float64)
        scope.set_initializer(gc.ones_initializer())
        scope.set_regularizer(gc.no_regularizer)
        scope.set_use_resource(True)
        scope.set_caching_device(None)
        scope.set_partitioner(None)
        scope.set_custom_getter(None)
        assert w().dtype == gc.float64.as_ref
        assert scope.use_resource is True
