"""Loops and branches are loaded as they were saved, and are used like declared ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_bodies import MODELS, loop

import graphc as gc
from graphc.__main__ import main
from graphc.formats import load, safetensors, save

MODES = ("static", "eager", "reference")


def bits(values: dict[str, Any]) -> dict[str, Any]:
    arrays = {k: np.asarray(v) for k, v in values.items() if v is not None}
    return {k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()}


def description(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(safetensors.read(path)[1]["graphc"])
    return found


def saved(name: str, path: Path, mode: str = "static") -> tuple[Any, Any, Any, Any]:
    ins, outs, feed = MODELS[name]()
    session = gc.Session(mode=mode)
    session.run(gc.global_variables_initializer())
    save(path, session, ins, outs)
    return session, ins, outs, feed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits(name, mode, tmp_path):
    session, ins, outs, feed = saved(name, tmp_path / "m", mode)
    model = load(tmp_path / "m", mode)
    save(tmp_path / "again", model.session, model.inputs, model.outputs)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    for _ in range(2):
        expected = session.run(outs, {ins[k]: v for k, v in feed.items()})
        assert bits(model.run(**feed)) == bits(expected)


@pytest.mark.parametrize("name", MODELS)
def test_regions_are_what_they_were(name, graph, tmp_path):
    saved(name, tmp_path / "m")
    model = load(tmp_path / "m")
    count = 0
    for op in model.graph.get_operations():
        old = graph.get_operation_by_name(op.name)
        assert (op.region is None) == (old.region is None)
        assert [t.shape.as_list() if t.shape.ndims is not None else None for t in op.outputs] == [
            t.shape.as_list() if t.shape.ndims is not None else None for t in old.outputs
        ]
        bodies = op.attrs.get("bodies", ())
        assert len(bodies) == len(old.attrs.get("bodies", ()))
        for a, b in zip(bodies, old.attrs.get("bodies", ()), strict=True):
            count += 1
            assert a.owner is op
            assert a.parent is op.region
            assert a.name == b.name
            assert [o.name for o in a.operations] == [o.name for o in b.operations]
            assert [t.name for t in a.params] == [t.name for t in b.params]
            assert [t.name for t in a.results] == [t.name for t in b.results]
        if bodies:
            assert type(op.attrs["saved"]) is list
            assert [t.name for t in op.attrs["saved"]] == [t.name for t in old.attrs["saved"]]
    assert count >= 2


def test_a_second_process_without_the_source(tmp_path):
    """What another process computes from the files alone, bit for bit."""
    expected = {}
    for name in MODELS:
        with gc.Graph().as_default():
            session, ins, outs, feed = saved(name, tmp_path / f"{name}.graphc")
            np.savez(tmp_path / f"{name}.in.npz", **feed)
            values = session.run(outs, {ins[k]: v for k, v in feed.items()})
            expected[name] = {k: v for k, v in values.items() if v is not None}
    script = (
        "import sys, numpy as np\n"
        "from graphc.formats import load\n"
        "for name in sys.argv[1:]:\n"
        "    feed = dict(np.load(name + '.in.npz'))\n"
        "    found = load(name + '.graphc').run(**feed)\n"
        "    np.savez(name + '.out.npz', **{k: v for k, v in found.items() if v is not None})\n"
    )
    root = Path(gc.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", script, *MODELS], cwd=tmp_path, env={"PYTHONPATH": str(root)},
        check=True, timeout=300,
    )  # fmt: skip
    for name, values in expected.items():
        with np.load(tmp_path / f"{name}.out.npz") as file:
            assert bits(dict(file)) == bits(values), name


# --- loaded graphs are used -----------------------------------------------------------------------


def test_gradients_through_a_loaded_loop(tmp_path):
    """The model is saved without gradients; they are declared when it has been loaded."""
    ins, outs, feed = loop()
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    with gc.Graph().as_default() as plain:
        session_plain = gc.Session(graph=plain)
        ins_plain, outs_plain, _ = loop()
        session_plain.run(gc.global_variables_initializer())
        save(tmp_path / "m", session_plain, ins_plain, {"loss": outs_plain["loss"]})
    model = load(tmp_path / "m")
    names = {op.name for op in model.graph.get_operations()}
    assert not any(n.startswith("gradients") for n in names)
    x, loss = model.inputs["x"], model.outputs["loss"]
    with model.graph.as_default():
        first, of_w = gc.gradients(loss, [x, model.variables[0]])
        second = gc.gradients(gc.reduce_sum(first * first), [x])[0]
    found = model.session.run(
        {"first": first, "of_w": of_w, "second": second},
        {model.inputs[k]: v for k, v in feed.items()},
    )
    expected = session.run({k: outs[k] for k in found}, {ins[k]: v for k, v in feed.items()})
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, err_msg=key)


def test_a_loaded_model_is_trained_further(tmp_path):
    x = gc.placeholder(gc.float32, [4, 2], name="x")
    w = gc.get_variable("w", initializer=np.full((2, 2), 0.3, np.float32))
    _, y = gc.while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, gc.tanh(gc.matmul(h, w))), (0, x))
    with gc.Session() as session:
        session.run(w.initializer)
        save(tmp_path / "m", session, {"x": x}, {"y": y})
    model = load(tmp_path / "m")
    with model.graph.as_default():
        loss = gc.reduce_mean(gc.square(model.outputs["y"] - 0.5))
        step = gc.train.MomentumOptimizer(0.2, 0.9).minimize(loss)
        fresh = set(gc.global_variables()) - set(model.variables)
        model.session.run(gc.variables_initializer(list(fresh)))
    feed = {model.inputs["x"]: np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2) ** 2}
    losses = [model.session.run([loss, step], feed)[0] for _ in range(40)]
    assert losses[-1] < losses[0] / 2
    # And what was trained is saved again, with what was declared since.
    save(tmp_path / "again", model.session, model.inputs, {"loss": loss, "train": step})
    again = load(tmp_path / "again")
    assert again.run(x=feed[model.inputs["x"]])["loss"] == model.session.run(loss, feed)


def test_further_loops_around_what_was_loaded(tmp_path):
    ins, outs, feed = loop()
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    save(tmp_path / "m", session, ins, {"y": outs["y"]})
    model = load(tmp_path / "m")
    y = model.outputs["y"]
    with model.graph.as_default():
        more = gc.while_loop(lambda i, _: i < 2, lambda i, s: (i + 1, s + y), (0, gc.zeros_like(y)))
    found = model.session.run(more[1], {model.inputs[k]: v for k, v in feed.items()})
    np.testing.assert_array_equal(found, model(**feed) * np.float32(2))


# --- what is saved --------------------------------------------------------------------------------


def test_variables_of_bodies_and_their_values(tmp_path):
    session, ins, outs, feed = saved("state", tmp_path / "m")
    session.run(outs["train"], {ins["x"]: feed["x"]})
    save(tmp_path / "m", session, ins, outs)
    model = load(tmp_path / "m")
    assert [v.op.name for v in model.variables] == ["steps", "scale"]
    found = model.session.run([v.value() for v in model.variables])
    assert found[0] == 10
    assert found[1] == session.run(outs["scale"])
    with pytest.raises(gc.errors.FailedPreconditionError, match="value s"):
        save(tmp_path / "m", gc.Session(), ins, outs)


def test_graphs_without_bodies_stay_version_1(tmp_path):
    x = gc.placeholder(gc.float32, [2], name="x")
    save(tmp_path / "plain", gc.Session(), x, gc.tanh(x, name="y"))
    assert description(tmp_path / "plain")["format_version"] == 1
    assert "regions" not in description(tmp_path / "plain")
    y = gc.cond(x[0] > 0.0, lambda: x, lambda: x * 2.0)
    save(tmp_path / "bodies", gc.Session(), x, {"y": y})
    told = description(tmp_path / "bodies")
    assert told["format_version"] == 2
    assert [r["name"] for r in told["regions"]] == ["branch", "branch"]


def test_what_is_inside_is_neither_input_nor_output(tmp_path):
    inner: list[Any] = []

    def branch() -> Any:
        inner.append(gc.tanh(x, name="inner"))
        return inner[0]

    x = gc.placeholder(gc.float32, [2], name="x")
    y = gc.cond(x[0] > 0.0, branch, lambda: x)
    match = r"cond/inner(:0)? \(declared at .*\) is inside 'branch'"
    with pytest.raises(ValueError, match="inputs: " + match):
        save(tmp_path / "m", gc.Session(), {"x": x, "i": inner[0]}, {"y": y})
    with pytest.raises(ValueError, match="outputs: " + match):
        save(tmp_path / "m", gc.Session(), {"x": x}, {"y": inner[0]})
    with pytest.raises(ValueError, match="outputs: " + match):
        save(tmp_path / "m", gc.Session(), {"x": x}, {"y": inner[0].op})
    assert not list(tmp_path.iterdir())


def test_placeholders_inside_cannot_be_fed(tmp_path):
    x = gc.placeholder(gc.float32, [2], name="x")
    y = gc.cond(x[0] > 0.0, lambda: gc.placeholder(gc.float32, [2], name="late"), lambda: x)
    with pytest.raises(ValueError, match=r"not among the inputs \['x'\]: cond/late"):
        save(tmp_path / "m", gc.Session(), x, {"y": y})


def test_placeholders_that_bodies_capture_are_inputs(tmp_path):
    x, z = (gc.placeholder(gc.float32, [2], name=n) for n in "xz")
    y = gc.cond(x[0] > 0.0, lambda: z * 2.0, lambda: x)
    with pytest.raises(ValueError, match=r"not among the inputs \['x'\]: z \(declared"):
        save(tmp_path / "m", gc.Session(), x, {"y": y})
    save(tmp_path / "m", gc.Session(), [x, z], {"y": y})
    model = load(tmp_path / "m")
    np.testing.assert_array_equal(model([1, 0], [3, 4]), [6, 8])
    with pytest.raises(ValueError, match="no value was given for the input 'z'"):
        model([1, 0])


def nested(depth: int, x: Any) -> Any:
    if depth == 0:
        return x + 1.0
    return gc.cond(x > 0.0, lambda: nested(depth - 1, x), lambda: x)


def test_the_depth_of_files_is_bounded(tmp_path):
    x = gc.placeholder(gc.float32, [], name="x")
    save(tmp_path / "m", gc.Session(), x, {"y": nested(100, x)})
    assert load(tmp_path / "m")(2) == 3
    with pytest.raises(ValueError, match="'branch' is nested 101 deep; files hold up to 100"):
        save(tmp_path / "m", gc.Session(), x, {"y": nested(101, x)})


def test_errors_in_loaded_bodies_name_the_line(tmp_path):
    x = gc.placeholder(gc.int32, [], name="x")
    y = gc.while_loop(lambda i: i < 3, lambda i: i + 1 + 6 // (i - x) * 0, [0])
    save(tmp_path / "m", gc.Session(), x, {"y": y})
    with pytest.raises(gc.errors.InvalidArgumentError, match=r"floordiv.*test_bodies.py:\d+"):
        load(tmp_path / "m")(1)


# --- one moment -----------------------------------------------------------------------------------


def test_variables_are_of_one_moment(tmp_path):
    """Another thread changes all of them in every run; a file never holds two of its runs."""
    count = 24
    variables = [gc.get_variable(f"v{k}", initializer=np.zeros(4096)) for k in range(count)]
    step = gc.group(*(v.assign_add(np.ones(4096)) for v in variables))
    outs = {v.op.name: v for v in variables}
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    session.run(step)
    done = threading.Event()

    def train() -> None:
        while not done.is_set():
            session.run(step)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        seen = set()
        for _ in range(20):
            save(tmp_path / "m", session, [], outs)
            values = safetensors.read(tmp_path / "m")[0]
            kinds = {float(e) for v in outs for e in np.unique(values[f"variable:{v}"])}
            assert len(kinds) == 1
            seen |= kinds
    finally:
        done.set()
        thread.join()
    assert len(seen) > 1, "nothing was trained meanwhile"


# --- the command line -----------------------------------------------------------------------------


def test_show_lists_what_bodies_hold(tmp_path, capsys):
    saved("state", tmp_path / "m")
    assert main(["show", str(tmp_path / "m")]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^ops \(\d+, \d+ of them in bodies\)$", text, re.MULTILINE)
    rows = text[text.index("\nbodies\n") :].splitlines()[2:]
    loop = r"  while/\w+ +While  {} +\d+ ops? +.*{}.*"
    assert re.fullmatch(loop.format("condition", "Less"), rows[0])
    assert re.fullmatch(loop.format("body", "RandomStandardNormal"), rows[1])
    choice = r"    while/cond/\w+ +Case   if {} +\d+ ops? +{}.*"
    assert re.fullmatch(choice.format("true", ".*RandomUniform"), rows[2])
    assert re.fullmatch(choice.format("false", "none"), rows[3])


@pytest.mark.parametrize("name", MODELS)
def test_dump_shows_every_stage(name, tmp_path, capsys):
    saved(name, tmp_path / "m")
    assert main(["dump", str(tmp_path / "m")]) == 0
    text = capsys.readouterr().out
    for stage in ("extract", "dce", "fuse", "loops", "program", "llvm", "assembly"):
        assert f"=== {stage}\n" in text


def test_run_on_the_command_line(tmp_path):
    session, ins, outs, feed = saved("loop", tmp_path / "m")
    np.savez(tmp_path / "in.npz", **feed)
    out = tmp_path / "out.npz"
    model, given = str(tmp_path / "m"), str(tmp_path / "in.npz")
    assert main(["run", model, "--feed", given, "--out", str(out)]) == 0
    expected = session.run(outs, {ins[k]: v for k, v in feed.items()})
    with np.load(out) as file:
        assert bits(dict(file)) == bits(expected)
