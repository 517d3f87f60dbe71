"""What op classes say of themselves beside their values: what can fail, what is not read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ops_support import cases, op_dtypes, pure_ops, row_id

import graphc as gc
from graphc.graph import Graph, Operation
from graphc.loop import ir
from graphc.loop.ir import ZERO, Expr, Var
from graphc.op import CompositeOp, ElementOp, Op, ReductionOp
from graphc.ops.base import call
from graphc.passes.trace import Tracer
from graphc.program import Copy
from graphc.session import Session

ROWS = [op for op in pure_ops() if isinstance(op, (ElementOp, ReductionOp))]


def declared(op: Op) -> Iterator[Operation]:
    """The op on every sample in every dtype, with known and with unknown sizes."""
    for dtype in op_dtypes(op):
        for case in cases(op, dtype):
            for known in ("shape", "rank"):
                yield case.declare(known).op


def definition_of(op: Operation, output: int) -> tuple[list[Expr], set[int]]:
    """The expressions that define an element of an output, and the operands that they read."""
    tracer = Tracer(op, output)
    out = op.outputs[output]
    assert out.sizes is not None
    index = tuple(ZERO if s == 1 else Var(f"i{k}") for k, s in enumerate(out.sizes))
    if isinstance(op.definition, ElementOp):
        parts = [op.definition.element(tracer, index)]
    else:
        assert isinstance(op.definition, ReductionOp)
        reduction = op.definition.reduction(tracer, index)
        inner = tuple(Var(f"r{k}") for k in range(len(reduction.extents)))
        body = reduction.body(inner)
        parts = [body, reduction.finish(Var("total", reduction.dtype or body.dtype))]
    read = {k for t, _ in tracer.reads for k, i in enumerate(op.inputs) if i is t}
    return parts, read


@pytest.mark.parametrize("definition", ROWS, ids=row_id)
def test_an_op_says_that_it_can_fail_where_its_definition_requires_something(definition: Op):
    for op in declared(definition):
        if any(t.sizes is None for t in op.outputs):
            continue
        parts = [p for k in range(len(op.outputs)) for p in definition_of(op, k)[0]]
        requires = any(isinstance(n, ir.Require) for p in parts for n in ir.walk_expr(p))
        assert requires == definition.can_fail(op), f"{op} {[t.sizes for t in op.inputs]}"
        assert definition.fallible or not requires


@pytest.mark.parametrize("definition", [op for op in ROWS if op.shape_operands], ids=row_id)
def test_a_shape_operand_is_not_read(definition: Op):
    for op in declared(definition):
        for k, out in enumerate(op.outputs):
            if out.sizes is not None:
                assert not definition_of(op, k)[1] & set(definition.shape_operands), str(op)


COMPOSITES = [op for op in pure_ops() if isinstance(op, CompositeOp) and op.shape_operands]


@pytest.mark.parametrize("definition", COMPOSITES, ids=row_id)
def test_the_parts_of_a_composite_use_only_the_shape_of_a_shape_operand(definition: CompositeOp):
    for dtype in op_dtypes(definition):
        for case in cases(definition, dtype):
            op = case.declare().op
            with op.graph.as_default():
                before = set(op.graph.get_operations())
                results = definition.decompose(op, op.inputs)
            for k in definition.shape_operands:
                assert op.inputs[k] not in results
                for part in set(op.graph.get_operations()) - before:
                    used = [i for i, t in enumerate(part.inputs) if t is op.inputs[k]]
                    assert set(used) <= set(part.definition.shape_operands), f"{part.name}"


@pytest.mark.parametrize(
    ("name", "dtype", "y", "fails"),
    [
        ("FloorDiv", "int32", [2, 0], True),
        ("FloorDiv", "int32", [2, -1], False),
        ("FloorMod", "int64", [3, 5], False),
        ("Div", "int32", [0, 1], True),
        ("TruncateMod", "float32", [0.0, 1.0], False),
        ("FloorDiv", "float64", [0.0, 1.0], False),
        ("Pow", "float32", [-1.0, 2.0], False),
        ("Pow", "int32", [2, 3], False),
        ("Pow", "int32", [2, -1], True),
        ("Pow", "uint8", [2, 1], False),
    ],
)
def test_divisions_and_powers_that_can_fail(name: str, dtype: str, y: list[float], fails: bool):
    with Graph().as_default():
        x = gc.placeholder(dtype, [2])
        known = call(name, x, gc.constant(np.array(y, dtype))).op
        unknown = call(name, x, gc.placeholder(dtype, [2])).op
    assert known.definition.can_fail(known) is fails
    floats = dtype.startswith("float") or dtype == "uint8"
    assert unknown.definition.can_fail(unknown) is not floats


def test_gathers_and_extrema_that_can_fail():
    with Graph().as_default():
        x, rows = gc.placeholder("float32", [4, None]), gc.placeholder("int32", [2])
        for out, fails in (
            (gc.gather(x, rows), True), (gc.gather(x, [0, 3]), False), (gc.gather(x, [4]), True),
            (gc.gather(x, [0], axis=1), True), (gc.argmax(x, 0), False), (gc.argmax(x, 1), True),
        ):  # fmt: skip
            assert out.op.definition.can_fail(out.op) is fails


def test_float_divisions_and_powers_do_not_keep_updates_from_their_place():
    with Graph().as_default() as graph, Session(graph=graph) as session:
        w = gc.Variable(np.ones((8, 4), np.float32))
        step = gc.train.get_or_create_global_step()
        x = gc.placeholder("float32", [None, 8])
        y = gc.matmul(x, w)
        loss = gc.reduce_mean(gc.pow(y / (1.0 + y * y), 2.0))
        rate = gc.train.exponential_decay(0.1, step, 3, 0.5)
        train = gc.train.MomentumOptimizer(rate, 0.9).minimize(loss, global_step=step)
        session.run(gc.global_variables_initializer())
        plan, values = session._prepare([train, loss, gc.argmax(w, 0)], {x: np.ones((2, 8))})
        session._execute(plan, values)
        (executable,) = plan.executables.values()
        steps = executable.code.program.steps
    big = [s for s in steps if isinstance(s, Copy) and s.commit]
    assert not [s for s in big if executable.code.program.slots[s.target].size == 32]
