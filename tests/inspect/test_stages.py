"""Every stage of a compilation as text: what it must contain, and that it stays the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import FeedError, FetchError, ShapeError
from graphc.inspect import Stage, compile_stages, write_stages
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.passes.pipeline import default_pipeline
from graphc.runtime.jit import named_target

TARGET = "avx2"
# Variables of loops are numbered through the whole process.
NUMBERED = ("loops", "llvm", "assembly")


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as graph:
        yield graph


def network() -> tuple[Any, Any, Any]:
    """A dense layer with softmax, its loss and its training step."""
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    t = gc.placeholder(gc.int32, [None], name="t")
    w = gc.Variable(np.ones((3, 4), np.float32), name="w")
    logits = gc.matmul(x, w, name="logits")
    losses = gc.nn.sparse_softmax_cross_entropy_with_logits(labels=t, logits=logits)
    loss = gc.reduce_mean(losses, name="loss")
    return x, loss, gc.train.GradientDescentOptimizer(0.5).minimize(loss, name="step")


def stages_of(fetches: Any, feeds: Any = None, initialize: bool = True) -> list[Stage]:
    session = gc.Session()
    if initialize:
        session.run(gc.global_variables_initializer())
    return compile_stages(session, fetches, feeds, TARGET)


def text(stages: list[Stage], name: str) -> str:
    return next(s.text for s in stages if s.name == name)


def test_the_stages_and_their_order():
    _, loss, step = network()
    names = [s.name for s in stages_of([loss, step])]
    passes = [p.name for p in default_pipeline(named_target(TARGET).word)]
    assert names == ["extract", *passes, "fuse", "loops", "program", "llvm", "assembly"]


def test_what_each_stage_says():
    _, loss, step = network()
    stages = stages_of([loss, step])
    extracted = text(stages, "extract")
    assert re.search(r"^feed %x_0: f32\[s\d, 3\]  # x:0$", extracted, re.M)
    assert re.search(r"^variable %w\w*: f32\[3, 4\]  # w$", extracted, re.M)
    assert "SparseSoftmaxCrossEntropyWithLogits(" in extracted
    assert re.search(r"^update %\S+  # w$", extracted, re.M)
    assert re.search(r"^assume s\d == s\d$", extracted, re.M)
    decomposed = [s.text for s in stages if s.name == "decompose"][-1]
    assert "SparseSoftmaxCrossEntropyWithLogits(" not in decomposed
    assert "template %logits = MatMul(" in text(stages, "fuse")
    program = text(stages, "program")
    assert re.search(r"^slot \d+: variable f32\[12\] w", program, re.M)
    assert re.search(r"^call k0\(", program, re.M)
    llvm = text(stages, "llvm")
    assert "define i32 @run(ptr %ctx)" in llvm
    assert "define i64 @plan(" in llvm
    assert re.search(r"^run:", text(stages, "assembly"), re.M)


def test_the_loops_can_be_parsed_again():
    _, loss, step = network()
    loops = text(stages_of([loss, step]), "loops")
    kernels = re.split(r"^(?=kernel )", loops, flags=re.M)[1:]
    assert len(kernels) >= 3
    for kernel in kernels:
        assert format_kernel(parse_kernel(kernel)).strip() == kernel.strip()


def test_the_text_of_a_graph_stays_the_same(golden):
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    any_rank = gc.placeholder(gc.float64, [], name="scalar")
    w = gc.Variable(np.arange(6, dtype=np.float32).reshape(3, 2), name="scope/w")
    left, right = gc.split(gc.concat([x, x], 1), 2, axis=1, name="parts")
    big = gc.constant(np.zeros((10, 10), np.int8), name="big")
    flag = gc.logical_and(gc.constant([True, False]), [True, True], name="flag")
    y = gc.nn.leaky_relu(left, 0.3, name="leaky")
    fetches = {
        "y": gc.reduce_sum(y * right, [0], keepdims=True, name="sum"),
        "big": gc.cast(big, gc.float16, name="half"),
        "flag": flag,
        "scalar": gc.sqrt(any_rank, name="root"),
        "update": gc.assign_add(w, gc.ones_like(w), name="more"),
    }
    stages = stages_of(fetches)
    golden("extract", text(stages, "extract"))
    golden("dce", [s.text for s in stages if s.name == "dce"][-1])
    golden("fuse", text(stages, "fuse"))
    golden("program", text(stages, "program"))


def test_the_same_graph_gives_the_same_text():
    texts = []
    for _ in range(2):
        with gc.Graph().as_default():
            _, loss, step = network()
            stages = stages_of([loss, step])
            texts.append({s.name: s.text for s in stages if s.name not in NUMBERED})
    assert texts[0] == texts[1]


def test_shapes_to_compile_for():
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    y = gc.tanh(x, name="y")
    assert "feed %x_0: f32[s0, 3]" in text(stages_of(y), "extract")
    assert "feed %x_0: f32[8, 3]" in text(stages_of(y, {x: (8, 3)}), "extract")
    assert "feed %x_0: f32[s0, 3]" in text(stages_of(y, {"x:0": None}), "extract")
    assert "feed %y_0: f32[s0, 3]" in text(stages_of(y * 2.0, {y: None}), "extract")
    with pytest.raises(ShapeError, match="Dimension 1 in both shapes must be equal"):
        stages_of(y, {x: (8, 4)})
    z = gc.placeholder(gc.float32, name="z")
    with pytest.raises(FeedError, match=r"z:0 has a shape of unknown rank \(declared at .*\.py:"):
        stages_of(gc.tanh(z))
    assert "feed %z_0: f32[2, s0]" in text(stages_of(gc.tanh(z), {z: (2, None)}), "extract")


def test_nothing_is_run_and_nothing_changes():
    v = gc.Variable(1.0, name="v")
    session = gc.Session()
    session.run(v.initializer)
    compile_stages(session, v.assign_add(1.0), None, TARGET)
    assert session.run(v) == 1.0
    with pytest.raises(FetchError):
        compile_stages(session, "nothing:0")


def test_writing(tmp_path):
    stages = [Stage("extract", "a\n"), Stage("dce", "\u00fc\n")]
    paths = write_stages(stages, tmp_path / "new" / "folder")
    assert [p.name for p in paths] == ["00-extract.txt", "01-dce.txt"]
    assert paths[1].read_text(encoding="utf-8") == "\u00fc\n"


def test_texts_do_not_depend_on_what_was_compiled_before():
    def texts():
        with gc.Graph().as_default(), gc.Session() as session:
            x = gc.placeholder("float32", [None, 8], name="x")
            y = gc.matmul(x, gc.constant(np.ones((8, 5), np.float32)))
            return [(s.name, s.text) for s in compile_stages(session, y)]

    assert texts() == texts()
