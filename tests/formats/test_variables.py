"""Variables come back as variables: values, initializers, training, collections."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import errors
from graphc.formats import load, save


def linear() -> tuple[Any, Any, Any, Any]:
    """Placeholders and a loss of a linear model with two variables."""
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    t = gc.placeholder(gc.float32, [None], name="t")
    w = gc.Variable(np.array([0.5, -1.0, 2.0], np.float32), name="w")
    b = gc.Variable(0.25, name="b")
    y = gc.add(gc.reduce_sum(x * w, 1), b, name="y")
    return x, t, y, gc.reduce_mean(gc.square(y - t), name="loss")


FEEDS = {"x": np.arange(12.0).reshape(4, 3) / 7, "t": np.array([1.0, 0.0, 2.0, -1.0])}


def feeds(model_or_graph: Any) -> dict[str, Any]:
    return {f"{k}:0": v for k, v in FEEDS.items()}


def test_training_goes_on_after_loading(tmp_path):
    x, t, _, loss = linear()
    step = gc.train.GradientDescentOptimizer(0.1).minimize(loss)
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    session.run(step, feeds(session))
    save(tmp_path / "m", session, [x, t], loss)
    model = load(tmp_path / "m")
    with model.graph.as_default():
        assert [v.op.name for v in gc.trainable_variables()] == ["w", "b"]
        again = gc.train.GradientDescentOptimizer(0.1).minimize(model.outputs["loss"])
    for _ in range(3):
        session.run(step, feeds(session))
        model.session.run(again, feeds(model))
    for name in ("w:0", "b:0"):
        found, expected = model.session.run(name), session.run(name)
        assert found.tobytes() == expected.tobytes()


def test_gradients_of_a_loaded_model(tmp_path):
    x, t, _, loss = linear()
    expected = gc.gradients(loss, gc.trainable_variables())
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    save(tmp_path / "m", session, [x, t], loss)
    model = load(tmp_path / "m")
    with model.graph.as_default():
        found = gc.gradients(model.outputs["loss"], model.variables)
    values = model.session.run(found, feeds(model))
    for a, b in zip(values, session.run(expected, feeds(session)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_step_is_an_output(tmp_path):
    x, t, _, loss = linear()
    step = gc.train.AdamOptimizer(0.1).minimize(loss)
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    session.run(step, feeds(session))
    save(tmp_path / "m", session, [x, t], {"loss": loss, "step": step})
    model = load(tmp_path / "m")
    assert len(model.variables) > 2
    for _ in range(3):
        session.run(step, feeds(session))
        assert model(**FEEDS)["step"] is None
    assert model.session.run("w:0").tobytes() == session.run("w:0").tobytes()
    save(tmp_path / "again", model.session, model.inputs, model.outputs)
    assert load(tmp_path / "again")(**FEEDS)["loss"] == model(**FEEDS)["loss"]


def test_initializers_and_assignments_work(tmp_path):
    x, _, y, _ = linear()
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    session.run(gc.get_default_graph().get_tensor_by_name("w:0").op.graph.get_collection(
        gc.GraphKeys.GLOBAL_VARIABLES)[0].assign([1.0, 1.0, 1.0]))  # fmt: skip
    save(tmp_path / "m", session, x, y)
    model = load(tmp_path / "m")
    w, b = model.variables
    np.testing.assert_array_equal(model.session.run(w), [1, 1, 1])
    model.session.run(w.initializer)
    np.testing.assert_array_equal(model.session.run(w), [0.5, -1, 2])
    np.testing.assert_array_equal(model.session.run(w.assign_add([1.0, 1.0, 1.0])), [1.5, 0, 3])
    w.load([9, 9, 9], model.session)
    np.testing.assert_array_equal(model.session.run(w.value()), [9, 9, 9])
    with model.graph.as_default():
        model.session.run(gc.global_variables_initializer())
    np.testing.assert_array_equal(model.session.run(w), [0.5, -1, 2])
    assert model.session.run(b.initialized_value()) == 0.25


def test_initial_values_that_depend_on_each_other(tmp_path):
    a = gc.Variable(gc.random_normal([3], seed=7), name="a")
    b = gc.Variable(a.initialized_value() * 2.0, name="b")
    c = gc.Variable(b * 3.0, name="c")
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    values = session.run([a, b, c])
    save(tmp_path / "m", session, [], {"c": c})
    model = load(tmp_path / "m")
    assert [v.op.name for v in model.variables] == ["a", "b", "c"]
    for found, expected in zip(model.session.run(model.variables), values, strict=True):
        np.testing.assert_array_equal(found, expected)
    fresh = gc.Session(graph=model.graph)
    with model.graph.as_default():
        fresh.run(gc.global_variables_initializer())
    for found, expected in zip(fresh.run(model.variables), values, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_trainable_flags_and_collections(tmp_path):
    step = gc.Variable(3, trainable=False, name="step")
    w = gc.Variable([1.0, 2.0], name="w", collections=["mine", gc.GraphKeys.LOCAL_VARIABLES])
    y = gc.multiply(w, 2.0, name="y")
    other = gc.add(w, 1.0, name="other")
    gc.add_to_collection("losses", y)
    gc.add_to_collection("losses", other)
    gc.add_to_collection("things", y.op)
    gc.add_to_collection("things", "a string")
    session = gc.Session()
    session.run([w.initializer, step.initializer])
    save(tmp_path / "m", session, [], {"y": y, "step": step})
    model = load(tmp_path / "m")
    graph, by_name = model.graph, {v.op.name: v for v in model.variables}
    assert [by_name[n].trainable for n in ("step", "w")] == [False, True]
    assert graph.get_collection(gc.GraphKeys.GLOBAL_VARIABLES) == [by_name["step"]]
    assert graph.get_collection(gc.GraphKeys.TRAINABLE_VARIABLES) == [by_name["w"]]
    assert graph.get_collection(gc.GraphKeys.LOCAL_VARIABLES) == [by_name["w"]]
    assert graph.get_collection("mine") == [by_name["w"]]
    assert graph.get_collection("losses") == [model.outputs["y"]]
    assert graph.get_collection("things") == [model.outputs["y"].op]
    assert model.session.run("step:0") == 3


def test_only_what_the_outputs_need_is_saved(tmp_path):
    x, _, y, _ = linear()
    gc.Variable(np.zeros(1000), name="unused")
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    save(tmp_path / "m", session, x, y)
    assert [v.op.name for v in load(tmp_path / "m").variables] == ["w", "b"]


def test_a_variable_that_is_needed_must_have_a_value(tmp_path):
    x, _, y, _ = linear()
    with pytest.raises(errors.FailedPreconditionError, match="uninitialized value w"):
        save(tmp_path / "m", gc.Session(), x, y)
    assert not (tmp_path / "m").exists()


def test_a_variable_behind_an_input_may_have_none(tmp_path):
    v = gc.Variable([1.0, 2.0], name="v")
    middle = gc.tanh(v, name="middle")
    save(tmp_path / "m", gc.Session(), middle, gc.add(middle, 1.0, name="y"))
    model = load(tmp_path / "m")
    np.testing.assert_array_equal(model(middle=[1, 2]), [2, 3])
    with pytest.raises(errors.FailedPreconditionError):
        model()
    model.session.run(v.initializer.name)
    np.testing.assert_allclose(model(), np.tanh([1, 2]) + 1, rtol=1e-6)


def test_a_report_of_uninitialized_variables(tmp_path):
    a, _ = gc.Variable(1.0, name="a"), gc.Variable(2.0, name="b")
    session = gc.Session()
    session.run(a.initializer)
    save(tmp_path / "m", session, [], {"report": gc.report_uninitialized_variables()})
    model = load(tmp_path / "m")
    assert model().tolist() == [b"b"]
    model.session.run("b/Assign")
    assert model().tolist() == []


def test_a_variable_of_any_shape(tmp_path):
    v = gc.Variable(np.zeros((2, 2), np.float32), validate_shape=False, name="v")
    session = gc.Session()
    session.run(v.initializer)
    session.run(gc.assign(v, np.arange(5.0, dtype=np.float32), validate_shape=False))
    save(tmp_path / "m", session, [], {"v": gc.identity(v)})
    np.testing.assert_array_equal(load(tmp_path / "m")(), np.arange(5))


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16, gc.float64, gc.int8, gc.bool])
def test_variables_of_other_dtypes(dtype, tmp_path):
    value = np.array([0, 1, 2]).astype(dtype.as_numpy_dtype)
    v = gc.Variable(value, dtype=dtype, name="v")
    session = gc.Session()
    session.run(v.initializer)
    save(tmp_path / "m", session, [], {"v": v})
    found = load(tmp_path / "m")()
    assert (found.dtype, found.tobytes()) == (value.dtype, value.tobytes())


def test_random_ops_start_again(tmp_path):
    x = gc.random_uniform([4], seed=3, name="x")
    session = gc.Session()
    first, second = session.run(x), session.run(x)
    save(tmp_path / "m", session, [], x)
    model = load(tmp_path / "m")
    np.testing.assert_array_equal(model(), first)
    np.testing.assert_array_equal(model(), second)


def test_the_modes_agree(tmp_path):
    x, _, y, _ = linear()
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    save(tmp_path / "m", session, x, y)
    found = [load(tmp_path / "m", mode)(FEEDS["x"]) for mode in ("static", "eager", "reference")]
    for value in found[1:]:
        np.testing.assert_allclose(value, found[0], rtol=1e-6)


def test_a_process_that_never_saw_the_source(tmp_path):
    x, _, y, _ = linear()
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    save(tmp_path / "m.graphc", session, x, y)
    np.save(tmp_path / "x.npy", FEEDS["x"].astype(np.float32))
    script = (
        "import sys, numpy as np; from graphc.formats import load\n"
        "np.save(sys.argv[3], load(sys.argv[1])(np.load(sys.argv[2])))"
    )
    paths = [str(tmp_path / n) for n in ("m.graphc", "x.npy", "y.npy")]
    root = Path(gc.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, *paths], check=True, cwd=root)
    expected = session.run(y, {x: np.load(paths[1])})
    assert np.load(paths[2]).tobytes() == expected.tobytes()
