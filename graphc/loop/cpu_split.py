"""Loops cut in pieces where a test of their position changes its answer.

Elements of joined or padded tensors come from another place from some position on.  A vector that
tests it loads from every place, masked; in a loop for each range there is nothing left to test.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from graphc.dtypes import int64
from graphc.loop.affine import coefficients, known
from graphc.loop.cpu_cost import body_cost
from graphc.loop.ir import (
    FALSE,
    TRUE,
    Apply,
    Block,
    Const,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    LoopKind,
    Require,
    Stmt,
    Var,
    add,
    block,
    const,
    logical_and,
    logical_or,
    stmt_exprs,
    walk_expr,
    walk_stmt,
)
from graphc.loop.transform import Rewriter

MOST_RANGES = 8
"""A loop is cut in no more pieces."""
MOST_WORK = 256
"""The arithmetic and accesses in all copies of its body are no more."""
_FORMS = {"lt": (1, 0), "le": (1, -1), "gt": (-1, 0), "ge": (-1, -1)}


def split_at_tests(kernel: Kernel) -> Kernel:
    """The kernel with serial loops cut where tests of their variables change their answers."""
    body = _block(kernel.body)
    fixed = _answers(_tests(body, None), 0, 1)
    return replace(kernel, body=_Answered({}, fixed=fixed).block(body) if fixed else body)


def _block(old: Block) -> Block:
    return Block(tuple(new for s in old.stmts for new in _stmt(s)))


def _stmt(stmt: Stmt) -> list[Stmt]:
    if isinstance(stmt, Block):
        return [_block(stmt)]
    if isinstance(stmt, If):
        otherwise = None if stmt.otherwise is None else _block(stmt.otherwise)
        return [replace(stmt, then=_block(stmt.then), otherwise=otherwise)]
    if isinstance(stmt, For):
        loop = replace(stmt, body=_block(stmt.body))
        return _ranges(loop) if loop.kind is LoopKind.SERIAL else [loop]
    return [stmt]


class _Test:
    """A comparison that holds where ``slope * var + offset + spread`` is below zero.

    ``least`` and ``most`` are the limits of ``offset + spread``: the spread is what the variables
    of the loops inside add.
    """

    def __init__(self, node: Expr, slope: int, least: int, most: int) -> None:
        self.node = node
        self.slope, self.least, self.most = slope, least, most

    def cuts(self) -> tuple[int, int]:
        """Where it begins to hold, or no longer holds, for all or for any of the loops inside."""
        if self.slope == 0:
            return 0, 0
        if self.slope > 0:
            return -(self.most // self.slope), -(self.least // self.slope)
        return self.least // -self.slope + 1, self.most // -self.slope + 1

    def answer(self, start: int, end: int) -> bool | None:
        """Whether it holds in all of a range, or in none of it; None: that varies."""
        ends = (self.slope * start, self.slope * (end - 1))
        if max(ends) + self.most < 0:
            return True
        return False if min(ends) + self.least >= 0 else None


def _tests(body: Block, loop: For | None) -> list[_Test]:
    """The comparisons in a loop's body with its variable and those of constant loops inside.

    Without a loop: the comparisons with the variables of constant loops alone.
    """
    sizes: dict[Var, int | None] = {}
    for s in walk_stmt(body):
        if isinstance(s, For):
            # One variable may be that of several loops, one after the other.
            size, other = known(s.extent), sizes.get(s.var, 0)
            sizes[s.var] = None if size is None or other is None else max(size, other)
    if loop is not None:
        sizes[loop.var] = known(loop.extent)
    last = {v: max(size - 1, 0) for v, size in sizes.items() if size is not None}
    exprs = [e for s in walk_stmt(body) for e in stmt_exprs(s)]
    found = []
    for node in walk_expr(*exprs):
        if not isinstance(node, Apply) or node.fn not in _FORMS or node.args[0].dtype is not int64:
            continue
        if loop is None or loop.var in node.variables:
            test = _linear_test(node, None if loop is None else loop.var, last)
            found += [] if test is None else [test]
    return found


def _linear_test(node: Apply, var: Var | None, last: dict[Var, int]) -> _Test | None:
    first, second = (_linear(side, last) for side in node.args)
    if first is None or second is None:
        return None
    (left, a), (right, b) = first, second
    sign, shift = _FORMS[node.fn]
    slope, least, most = 0, sign * (a - b) + shift, sign * (a - b) + shift
    for v in node.variables:
        each = sign * (left.get(v, 0) - right.get(v, 0))
        if v is var:
            slope = each
        else:
            least, most = least + min(each * last[v], 0), most + max(each * last[v], 0)
    return _Test(node, slope, least, most)


def _linear(side: Expr, last: dict[Var, int]) -> tuple[dict[Var, int], int] | None:
    """The slopes of a sum and its offset; None where they are not known, or it may wrap around."""
    if not last.keys() >= side.variables:
        return None
    parts = coefficients(side, side.variables)
    offset = None if parts is None else known(parts[1])
    if parts is None or offset is None:
        return None
    slopes = {v: size for v, part in parts[0].items() if (size := known(part)) is not None}
    largest = abs(offset) + sum(abs(each) * last[v] for v, each in slopes.items())
    return (slopes, offset) if len(slopes) == len(parts[0]) and largest <= int64.max else None


def _ranges(loop: For) -> list[Stmt]:
    """The loop, or one for each range of its variable in which tests have one answer."""
    extent = known(loop.extent)
    tests = _tests(loop.body, loop) if extent is not None and extent > 1 else []
    if not tests or extent is None:
        return [loop]
    cuts = {0, extent, *(cut for t in tests for cut in t.cuts() if 0 < cut < extent)}
    places = sorted(cuts)
    ranges = list(itertools.pairwise(places))
    if not 1 < len(ranges) <= MOST_RANGES or len(ranges) * body_cost(loop.body) > MOST_WORK:
        return [loop]
    return [_range(loop, tests, start, end) for start, end in ranges]


def _answers(tests: Sequence[_Test], start: int, end: int) -> dict[Expr, Expr]:
    """What the tests that have one answer in a range are there."""
    answers = {t.node: t.answer(start, end) for t in tests}
    return {node: TRUE if holds else FALSE for node, holds in answers.items() if holds is not None}


def _range(loop: For, tests: list[_Test], start: int, end: int) -> Stmt:
    fixed = _answers(tests, start, end)
    if end - start == 1:
        return _Answered({loop.var: const(start)}, fixed=fixed).block(loop.body)
    var = Var(loop.var.name)
    body = _Answered({loop.var: add(var, start)}, fixed=fixed).block(loop.body)
    return For(var, const(end - start), loop.kind, body)


class _Answered(Rewriter):
    """Copies in which nothing depends on what is known to hold, or not to."""

    def _node(self, node: Expr) -> Expr:
        new = super()._node(node)
        if isinstance(new, Guard) and isinstance(new.cond, Const):
            return new.value if new.cond.value else new.otherwise
        if isinstance(new, Require) and isinstance(new.cond, Const) and new.cond.value:
            return new.value
        if isinstance(new, Apply) and new.fn == "select" and isinstance(new.args[0], Const):
            return new.args[1] if new.args[0].value else new.args[2]
        if isinstance(new, Apply) and new.fn == "and":
            return logical_and(*new.args)
        if isinstance(new, Apply) and new.fn == "or":
            return logical_or(*new.args)
        if isinstance(new, Apply) and new.fn == "not" and isinstance(new.args[0], Const):
            return FALSE if new.args[0].value else TRUE
        return new

    def block(self, old: Block) -> Block:
        """The copy of a block, without what is empty."""
        return block(*(self.stmt(s) for s in old.stmts))

    def stmt(self, stmt: Stmt) -> Stmt:
        """The copy of a statement, or of what is left of it."""
        new = super().stmt(stmt)
        if isinstance(new, If) and isinstance(new.cond, Const):
            return new.then if new.cond.value else new.otherwise or Block(())
        return new
