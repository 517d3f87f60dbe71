"""Attention and its gradient over the parameters of a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dims import DimLike
from graphc.graph import Operation
from graphc.kernels.attention import Attention
from graphc.kernels.attention_gradient_problem import AttentionGradient, Statistics
from graphc.kernels.problem import accumulator
from graphc.loop import ir
from graphc.loop.ir import Expr, Stmt, Store, Var
from graphc.lower_operands import GroupOperands, Index, Reader
from graphc.ops.attention import LEAST_PART

Score = Callable[[Index, Expr, Expr, Expr], Expr]


def attention_of(lowering: GroupOperands, op: Operation) -> Attention:
    """The problem of ``Attention`` or ``AttentionWithStatistics``, all parameters declared."""
    reader, out = Reader(lowering, op, 0), op.outputs[0]
    query, key, value = (reader.sizes(k) for k in range(3))
    score = _score(reader, 3, len(query))
    buffer = _written(lowering, op)[0]

    def keep(b: Index, i: Expr, *values: Expr) -> list[Stmt]:
        buffer, sizes = lowering.buffer(op.outputs[1]), op.outputs[1].sizes or ()
        places = (lowering.flat(sizes, (*b, i, ir.const(k))) for k in range(2))
        return [Store(buffer, at, value) for at, value in zip(places, values, strict=True)]

    problem = Attention(
        batch=tuple(lowering.size(s) for s in query[:-2]), queries=lowering.size(query[-2]),
        keys=lowering.size(key[-1]), depth=lowering.size(query[-1]),
        width=lowering.size(value[-1]), score=score, read=op.inputs[0].dtype.base_dtype, out=buffer,
        place=lambda b, i, n: lowering.flat(out.sizes or (), (*b, i, n)),
        query=lambda b, i, d: reader.operand(0, (*b, i, d)),
        key=lambda b, d, j: reader.operand(1, (*b, d, j)),
        value=lambda b, j, n: reader.operand(2, (*b, j, n)),
        keep=keep if len(op.outputs) == 2 else None,
    )  # fmt: skip
    batch, at = tuple(Var("b") for _ in query[:-2]), Var("i")
    sum_ = Var("sum", problem.dtype)
    for read in (problem.query, problem.key, problem.value, problem.place):
        read(batch, at, at)
    score(batch, at, at, sum_)
    if problem.keep is not None:
        problem.keep(batch, at, sum_, sum_)
    lowering.memo.clear()
    return problem


def attention_gradient_of(lowering: GroupOperands, op: Operation) -> AttentionGradient:
    """The problem of ``AttentionGradient``, all parameters declared."""
    reader = Reader(lowering, op, 0)
    query, _, value = (reader.sizes(k) for k in range(3))
    score = _score(reader, 6, len(query))
    outs = _written(lowering, op)
    dtype = accumulator(outs[0].dtype)

    def statistics(b: Index, i: Expr) -> Statistics:
        places = ((4, ir.ZERO), (4, ir.ONE), (5, ir.ZERO))
        first, second, third = (
            ir.cast(reader.operand(k, (*b, i, at)), dtype) for k, at in places
        )  # fmt: skip
        return first, second, third

    def place(k: int) -> Callable[..., Expr]:
        sizes: tuple[DimLike, ...] = op.outputs[k].sizes or ()
        return lambda *at: lowering.flat(sizes, at)

    places = [place(k) for k in range(3)]
    problem = AttentionGradient(
        batch=tuple(lowering.size(s) for s in query[:-2]), queries=lowering.size(query[-2]),
        keys=lowering.size(value[-2]), depth=lowering.size(query[-1]),
        width=lowering.size(value[-1]), parts=op.attrs["parts"],
        least=LEAST_PART,
        query=lambda b, i, d: reader.operand(0, (*b, i, d)),
        key=lambda b, j, d: reader.operand(1, (*b, j, d)),
        value=lambda b, j, n: reader.operand(2, (*b, j, n)),
        grad=lambda b, i, n: reader.operand(3, (*b, i, n)),
        score=score, statistics=statistics, scale=op.attrs["scale"],
        outs=(outs[0], outs[1], outs[2]),
        for_query=lambda part, b, i, d: places[0](part, *b, i, d),
        for_key=lambda b, j, d: places[1](*b, j, d),
        for_value=lambda b, j, n: places[2](*b, j, n),
    )  # fmt: skip
    batch, at = tuple(Var("b") for _ in query[:-2]), Var("i")
    found: Any = Var("sum", dtype)
    for read in (problem.query, problem.key, problem.value, problem.grad):
        read(batch, at, at)
    for put in (problem.for_key, problem.for_value):
        put(batch, at, at)
    problem.for_query(at, batch, at, at)
    problem.weight(batch, at, at, found)
    problem.slope(batch, at, found, found)
    lowering.memo.clear()
    return problem


def _written(lowering: GroupOperands, op: Operation) -> list[ir.Buffer]:
    """The buffers of all results."""
    lowering.writes.update((lowering.lowering.storage(t), None) for t in op.outputs)
    return [lowering.buffer(t) for t in op.outputs]


def _score(reader: Reader, bias: int, rank: int) -> Score:
    """A product's element scaled, and the bias added: the operand of that number, if there is."""
    op = reader.op
    sizes = op.inputs[bias].sizes if len(op.inputs) > bias else None

    def score(b: Index, i: Expr, j: Expr, found: Expr) -> Expr:
        found = ir.mul(found, ir.const(op.attrs["scale"], found.dtype))
        if sizes is None:
            return found
        added = reader.operand(bias, (*b, i, j)[rank - len(sizes) :])
        return ir.add(found, ir.cast(added, found.dtype))

    return score
