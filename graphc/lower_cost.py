"""What a kernel has to do, for given sizes: operations, and bytes between memory and the core.

Counted on the naive loops, before any schedule: what the group computes, not how.  A function like
``exp`` counts for the additions that it costs; of a buffer no more counts than it is long, however
often its elements are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphc.dims import Symbol
from graphc.loop import ir
from graphc.loop.ir import Buffer, Const, Expr, Load, Scope, Stmt, Var
from graphc.loop.scalar import FUNCTIONS
from graphc.lower_loops import LoopLowering
from graphc.lower_operands import Lowering, Reader
from graphc.lower_template import TemplateLowering
from graphc.op import ContractionOp
from graphc.passes.plan import Group


@dataclass(frozen=True)
class Cost:
    """Of one call of a kernel; ``width`` is the bytes of an element that it computes with."""

    operations: float
    bytes: float
    width: int = 4


@dataclass
class _Counter:
    """Adds up what statements do."""

    operations: float = 0.0
    reads: dict[Buffer, float] = field(default_factory=dict)
    writes: dict[Buffer, float] = field(default_factory=dict)

    def stmts(self, stmts: Iterable[Stmt], times: float) -> None:
        """Statements that are done so many times."""
        for stmt in stmts:
            self.stmt(stmt, times)

    def stmt(self, stmt: Stmt, times: float) -> None:
        """A statement that is done so many times."""
        if isinstance(stmt, ir.Block):
            self.stmts(stmt.stmts, times)
        elif isinstance(stmt, ir.For):
            extent = stmt.extent.value if isinstance(stmt.extent, Const) else 1
            self.stmts(stmt.body.stmts, times * extent)
        elif isinstance(stmt, ir.If):
            self.stmts(stmt.then.stmts, times)
            self.stmts(stmt.otherwise.stmts if stmt.otherwise else (), times)
        elif isinstance(stmt, ir.Let):
            self.values((stmt.value,), times)
        elif isinstance(stmt, (ir.Store, ir.Reduce)):
            self.values((stmt.value,), times)
            if isinstance(stmt, ir.Reduce):
                self.operations += times
            if stmt.buffer.scope is Scope.GLOBAL:
                self.writes[stmt.buffer] = self.writes.get(stmt.buffer, 0) + times

    def values(self, roots: Iterable[Expr], times: float) -> None:
        """Values that are computed so many times; what computes an index does not count."""
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Load):
                # What the kernel has written itself is still in the cache.
                if node.buffer.scope is Scope.GLOBAL and node.buffer not in self.writes:
                    self.reads[node.buffer] = self.reads.get(node.buffer, 0) + times
            elif isinstance(node, ir.Apply):
                self.operations += times * FUNCTIONS[node.fn].cost
                stack.extend(node.args)
            elif isinstance(node, ir.Cast):
                stack.append(node.value)
            elif isinstance(node, ir.Guard):
                stack += (node.value, node.otherwise)
            elif isinstance(node, ir.Require):
                stack.append(node.value)

    def moved(self) -> float:
        """Bytes read and written."""
        total = 0.0
        for counts in (self.reads, self.writes):
            for buffer, count in counts.items():
                size = buffer.size.value if isinstance(buffer.size, Const) else count
                total += min(size, count) * buffer.dtype.size
        return total


def kernel_cost(lowering: Lowering, group: Group, sizes: Mapping[Symbol, int]) -> Cost:
    """What one call of a group's kernel does where the symbols have these values."""
    counter = _Counter()
    hints = dict(sizes)
    op = group.template
    tensors = group.outputs or group.tensors
    width = tensors[0].dtype.base_dtype.size
    if op is None:
        loops = LoopLowering(lowering, group, "cost", hints)
        counter.stmts(loops.loops().stmts, 1.0)
    elif isinstance(op.definition, ContractionOp):
        width = op.inputs[0].dtype.base_dtype.size
        contraction(TemplateLowering(lowering, group, "cost", hints), counter)
    else:
        template = TemplateLowering(lowering, group, "cost", hints)
        counter.stmts(template.prepare()().body.stmts, 1.0)
    return Cost(counter.operations, counter.moved(), width)


def contraction(lowering: TemplateLowering, counter: _Counter) -> None:
    """A sum of products with its prologue, computed once per element, and its epilogue."""
    op = lowering.group.template
    assert op is not None
    assert isinstance(op.definition, ContractionOp)
    form = op.definition.contraction(Reader(lowering, op, 0))
    problem = lowering.problem(op, form)
    b = tuple(Var("b") for _ in form.batch)
    m, k = tuple(Var("m") for _ in form.m), tuple(Var("k") for _ in form.k)
    n = Var("n")
    batch, rows, depth = (count(s) for s in (problem.batch, problem.m, problem.k))
    columns = count((problem.n,))
    counter.operations += 2.0 * batch * rows * columns * depth
    counter.values((form.lhs(b, m, k),), batch * rows * depth)
    counter.values((form.rhs(b, k, n),), batch * depth * columns)
    epilogue = problem.epilogue(b, m, n, Var("acc", problem.acc))
    counter.stmts(epilogue, batch * rows * columns)


def count(sizes: Iterable[Expr]) -> float:
    """The product of sizes; one that is not known counts as 1."""
    total = 1.0
    for size in sizes:
        total *= size.value if isinstance(size, Const) else 1
    return total
