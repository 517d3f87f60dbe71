"""Fusion: the kernels of typical graphs, by text and by number, and that nothing is done twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pass_support import extracted, program_of

import graphc as gc
from graphc import nn
from graphc.graph import Graph
from graphc.loop.ir import Apply, For, walk_expr, walk_stmt
from graphc.loop.ir import stmt_exprs as exprs
from graphc.ops.contraction_functions import matmul
from graphc.passes.fuse import Fuser
from graphc.passes.pipeline import default_pipeline, run_passes
from graphc.passes.plan import format_plan
from graphc.program import Copy, Program, build_program, format_program
from graphc.runtime import jit


def x(*shape: Any, dtype: str = "float32") -> Any:
    return gc.placeholder(dtype, shape or [None, 32], name="x")


def variable(*shape: int) -> gc.Variable:
    return gc.Variable(np.ones(shape, np.float32))


def softmax() -> Any:
    return nn.softmax(x())


def layer_norm() -> Any:
    return nn.layer_normalization(x(), variable(32), variable(32))


def dense() -> Any:
    return nn.relu(matmul(x(), variable(32, 8)) + variable(8))


def gelu() -> Any:
    v = x()
    return v * 0.5 * (1.0 + gc.erf(v * np.float32(0.7071)))


def trained(optimizer: Any) -> Any:
    loss = gc.reduce_mean(gc.square(nn.relu(matmul(x(), variable(32, 8)))))
    return [loss, optimizer.minimize(loss)]


def sgd() -> Any:
    return trained(gc.train.GradientDescentOptimizer(0.1))


def momentum() -> Any:
    return trained(gc.train.MomentumOptimizer(0.1, 0.9))


def adam() -> Any:
    return trained(gc.train.AdamOptimizer(0.1))


def adam_of_a_vector() -> Any:
    """The gradient is elementwise, so that the update is a kernel by itself."""
    v = variable(1000)
    return [gc.train.AdamOptimizer(0.1).minimize(gc.reduce_sum(gc.sin(v) * gc.exp(v)))]


def cross_entropy() -> Any:
    labels = gc.placeholder("int32", [None], name="labels")
    logits = matmul(x(), variable(32, 10))
    loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = gc.reduce_mean(loss)
    return [loss, gc.train.GradientDescentOptimizer(0.1).minimize(loss)]


def batch_norm() -> Any:
    v = x(None, 8, 8, 4)
    mean, variance = nn.moments(v, [0, 1, 2])
    return nn.batch_normalization(v, mean, variance, variable(4), variable(4), 1e-3)


def attention() -> Any:
    # Of so few keys that the scores are stored.
    q, k, v = x(None, 4, 64, 16), x(None, 4, 64, 16), x(None, 4, 64, 16)
    return matmul(nn.softmax(matmul(q, k, transpose_b=True) * 0.25), v)


def expensive_twice() -> Any:
    e = gc.exp(gc.tanh(x()))
    return [e * 2.0, gc.transpose(e), gc.reduce_sum(e, 0)]


def views() -> Any:
    return gc.reduce_sum(gc.reshape(gc.exp(gc.reshape(x(6, 4), [24])), [4, 6]), 1)


GRAPHS = {
    f.__name__: f
    for f in (
        softmax, layer_norm, dense, gelu, sgd, momentum, adam, adam_of_a_vector, cross_entropy,
        batch_norm, attention, expensive_twice, views,
    )
}  # fmt: skip
# (kernels, temporary buffers, copies)
COUNTS = {
    "softmax": (1, 0, 0), "layer_norm": (1, 0, 0), "dense": (1, 0, 0), "gelu": (1, 0, 0),
    "sgd": (3, 2, 0), "momentum": (3, 2, 0), "adam": (4, 3, 0), "adam_of_a_vector": (2, 1, 0),
    "cross_entropy": (4, 5, 0), "batch_norm": (3, 4, 0), "attention": (3, 2, 0),
    "expensive_twice": (3, 1, 0), "views": (2, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_plans(name, golden):
    program = program_of(GRAPHS[name])
    golden(f"plan_{name}", format_plan(program.plan) + "\n" + format_program(program))


@pytest.mark.parametrize("name", GRAPHS)
def test_counts(name):
    program = program_of(GRAPHS[name])
    temporaries = sum(s.kind == "temp" for s in program.slots)
    copies = sum(isinstance(s, Copy) for s in program.steps)
    assert (len(program.kernels), temporaries, copies) == COUNTS[name], format_plan(program.plan)


def applications(program: Program, fn: str) -> int:
    """In how many places the kernels, before they are scheduled, compute a scalar function."""
    found = 0
    program.kernels[0]._lowering.scheduled = False
    for low in program.kernels:
        if low._group.template is None:
            kernel = type(low)(low._lowering, low._group, low.name).kernel
            nodes = {n for s in walk_stmt(kernel.body) for n in walk_expr(*exprs(s))}
            found += sum(isinstance(n, Apply) and n.fn == fn for n in nodes)
    return found


def test_what_is_expensive_is_computed_once():
    program = program_of(expensive_twice)
    assert applications(program, "tanh") == 1
    assert applications(program, "exp") == 1


@pytest.mark.parametrize("build", [softmax, cross_entropy, attention])
def test_a_row_keeps_what_is_expensive_for_its_next_pass(build):
    """The exponentials stay in the buffer of the output until that is written itself."""
    assert applications(program_of(build), "exp_negative") == 1


def test_what_is_computed_for_a_row_is_not_computed_for_its_elements():
    program = program_of(layer_norm)
    program.kernels[0]._lowering.scheduled = False
    low = program.kernels[0]
    kernel = type(low)(low._lowering, low._group, low.name).kernel
    (rows,) = kernel.body.stmts
    nests = [s for s in rows.body.stmts if isinstance(s, For)]
    assert len(nests) == 3
    inside = {n for nest in nests for s in walk_stmt(nest) for n in walk_expr(*exprs(s))}
    assert not any(isinstance(n, Apply) and n.fn == "rsqrt" for n in inside)


def test_what_a_buffer_held_before_is_not_borrowed():
    """The new value of the variable is computed in place: its buffer holds the old one."""

    def build() -> Any:
        v = gc.Variable(np.ones((6, 40), np.float32))
        e = gc.exp(v * 0.5)
        return [v.assign(e / gc.reduce_sum(e, 1, keepdims=True) + v)]

    with Graph().as_default(), gc.Session() as static, gc.Session(mode="reference") as reference:
        fetch = build()
        start = gc.global_variables_initializer()
        for session in (static, reference):
            session.run(start)
        for _ in range(3):
            a, b = static.run(fetch), reference.run(fetch)
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_what_is_cheap_is_computed_again_rather_than_stored():
    def build() -> Any:
        v = x() + 1.0
        return [gc.transpose(v), gc.reduce_sum(v, 0)]

    assert sum(s.kind == "temp" for s in program_of(build).slots) == 0


def test_a_broadcast_chain_is_not_repeated_for_every_element():
    def build() -> Any:
        row = gc.exp(gc.tanh(gc.placeholder("float32", [None], name="row")))
        return x(None, None) * row

    program = program_of(build)
    assert len(program.kernels) == 2
    assert applications(program, "exp") == 1


def test_only_the_shape_of_an_operand_is_needed():
    """Gradients look at the shapes of values that nothing needs: those are not computed."""

    def build() -> Any:
        v = x()
        (grad,) = gc.gradients(gc.reduce_sum(gc.exp(v) * 3.0), [v])
        return grad

    program = program_of(build)
    assert len(program.kernels) == 1
    assert applications(program, "exp") == 1


def test_updates_are_done_in_place():
    for build in (sgd, momentum, adam_of_a_vector):
        program = program_of(build)
        written = {n for s in program.steps if not isinstance(s, Copy) for n in s.slots}
        updated = {s.number for s in program.slots if s.kind == "variable"}
        assert updated <= written


def test_temporaries_share_blocks():
    def build() -> Any:
        v = x(None, 64)
        for _ in range(8):
            v = gc.tanh(matmul(v, variable(64, 64)))
        return v

    program = program_of(build)
    assert sum(s.kind == "temp" for s in program.slots) == 7
    assert len(program.blocks) == 2


def test_fusing_a_large_graph_visits_few_pairs():
    """The work grows about as the graph does: counted, as time would depend on the machine."""

    def layers(count: int) -> Any:
        v = x(None, 64)
        for _ in range(count):
            z = matmul(v, variable(64, 64)) + variable(64)
            mean = gc.reduce_mean(z, 1, keepdims=True)
            v = gc.tanh((z - mean) * gc.rsqrt(gc.reduce_mean(gc.square(z - mean), 1, True))) + v
        loss = gc.reduce_mean(gc.square(v))
        return [loss, gc.train.GradientDescentOptimizer(0.1).minimize(loss)]

    tried = []
    for count in (4, 8):
        fn = run_passes(extracted(lambda n=count: layers(n)), default_pipeline())
        fuser = Fuser(fn)
        merges = 0
        merge = fuser.grouper.merge

        def counted(first: Any, second: Any, merge: Any = merge) -> Any:
            nonlocal merges
            merges += 1
            return merge(first, second)

        fuser.grouper.merge = counted
        fuser.run()
        tried.append(merges)
    assert tried[1] < 3 * tried[0]


def test_the_program_of_a_graph_is_the_same_every_time():
    texts = set()
    for _ in range(3):
        fn = run_passes(extracted(adam), default_pipeline())
        texts.add(format_program(build_program(fn, jit.named_target("avx512"))))
    assert len(texts) == 1
