"""Kernels of the loop IR as LLVM text for a CPU.

``print_kernel`` gives a function ``void name(ptr args, i64 begin, i64 end)``.  ``args`` is a table
of 8-byte slots: the addresses of the parameters, the scalars, and last the address of the status
words (i64[8]): the first is 0 or 1 + the site of the ``Require`` that failed, the next its details.
``begin`` and ``end`` are the iterations of the outermost PARALLEL loop that the call runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from graphc.codegen.llvm_expr import Expressions
from graphc.codegen.llvm_index import LANE, Index
from graphc.codegen.llvm_memory import Storage
from graphc.codegen.llvm_ops import fma, invert, primitive
from graphc.codegen.llvm_reduce import Reduction
from graphc.codegen.llvm_text import Emitter, Target, Val
from graphc.errors import CompileError
from graphc.loop.ir import (
    Alloc,
    Apply,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Prefetch,
    Reduce,
    Scope,
    Stmt,
    Store,
    stored_buffers,
)

__all__ = ["Target", "module", "print_kernel"]

_METADATA = '!0 = !{}\n!1 = !{!"branch_weights", i32 1, i32 1048575}\n!2 = !{i32 1}\n'


def print_kernel(kernel: Kernel, target: Target, *, inlined: bool = False) -> str:
    """The kernel as LLVM text: one function and what it needs.

    One that is ``inlined`` has another name, and promises nothing about what it reads: where it
    is called in a loop, others write that between two calls.

    Raises:
      CompileError: the kernel has what only a GPU runs, or breaks a rule of the loop IR.
    """
    try:
        return _Printer(kernel, target, inlined).run()
    except CompileError as error:
        raise CompileError(f"LLVM code generation, kernel {kernel.name!r}: {error}") from None


def inlined_name(name: str) -> str:
    """The name that a kernel has as a function to be inlined."""
    return f"{name}.inlined"


def module(texts: Iterable[str]) -> str:
    """Printed kernels as one module."""
    declares: dict[str, None] = {}
    functions = []
    for text in texts:
        head, _, rest = text.partition("\n\n")
        declares.update(dict.fromkeys(line for line in head.splitlines() if line))
        functions.append(rest.removesuffix(_METADATA))
    return "\n".join(declares) + "\n\n" + "".join(functions) + _METADATA


def _symbol(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_.][\w.]*", name, re.ASCII) else f'"{name}"'


class _Printer:
    def __init__(self, kernel: Kernel, target: Target, inlined: bool) -> None:
        self.kernel = kernel
        self.inlined = inlined
        self.e = Emitter(target)
        self.exprs = Expressions(self.e)
        self.indices = self.exprs.indices
        self.memory = self.exprs.memory
        self.reduction = Reduction(self.memory)
        self.storage = self.exprs.storage
        self.stored: dict[For, list[Buffer]] = {}

    def run(self) -> str:
        self._arguments()
        self._note_stores(self.kernel.body)
        for stmt in self.kernel.body.stmts:
            if isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL:
                begin, end = Val("%begin", "i64"), Val("%end", "i64")
                self._loop(stmt, begin, self.indices.of(end))
            else:
                self._stmt(stmt)
        if self.memory.streamed:
            # Such stores are not ordered with those that tell other threads of them.
            self.e.line("fence seq_cst")
        declares = "\n".join(self.e.declares.values()) or "; no declarations"
        name, head, attributes = self.kernel.name, "define void", "nounwind"
        if self.inlined:
            name, head = inlined_name(name), "define internal void"
            attributes = f"alwaysinline {attributes}"
        lines = [
            declares,
            "",
            f"{head} @{_symbol(name)}(ptr noalias %args, i64 %begin, i64 %end) {attributes} {{",
            "entry:",
            *("  " + a for a in self.e.allocas),
            *self.e.region.lines,
            "  ret void",
            *self.e.cold,
            "}",
        ]
        return "\n".join(lines) + "\n" + _METADATA

    def _arguments(self) -> None:
        stored = stored_buffers(self.kernel)
        slot = 0
        for buffer in self.kernel.params:
            name = self._slot("ptr", f"%p{slot}", slot)
            constant = not self.inlined and buffer.name not in stored
            self.storage[buffer] = Storage(name, buffer.dtype, constant)
            slot += 1
        for var in self.kernel.scalars:
            name = self._slot("i64", f"%p{slot}", slot)
            self.exprs.bind(var, self.indices.atom(name, 0))
            slot += 1
        self.exprs.branches.status = self._slot("ptr", "%status", slot)

    def _slot(self, ty: str, name: str, slot: int) -> str:
        self.e.line(f"{name}.a = getelementptr i64, ptr %args, i64 {slot}")
        promise = "" if self.inlined else ", !invariant.load !0"
        self.e.line(f"{name} = load {ty}, ptr {name}.a, align 8{promise}")
        return name

    def _note_stores(self, stmt: Stmt) -> list[Buffer]:
        """Collect, for each loop, what its body stores to."""
        found: dict[Buffer, None] = {}
        inner: tuple[Stmt, ...] = ()
        if isinstance(stmt, (Store, Reduce)):
            found[stmt.buffer] = None
        elif isinstance(stmt, Block):
            inner = stmt.stmts
        elif isinstance(stmt, For):
            inner = (stmt.body,)
        elif isinstance(stmt, If):
            inner = (stmt.then, *([stmt.otherwise] if stmt.otherwise else []))
        for s in inner:
            found.update(dict.fromkeys(self._note_stores(s)))
        if isinstance(stmt, For):
            self.stored[stmt] = list(found)
        return list(found)

    # --- statements ---------------------------------------------------------------------------

    def _stmt(self, stmt: Stmt) -> None:
        if isinstance(stmt, Store):
            self._store(stmt)
        elif isinstance(stmt, Reduce):
            self._reduce(stmt)
        elif isinstance(stmt, For):
            self._for(stmt)
        elif isinstance(stmt, Let):
            self.exprs.bind(stmt.var, self.exprs.value(stmt.value))
        elif isinstance(stmt, Block):
            self._block(stmt)
        elif isinstance(stmt, If):
            self._if(stmt)
        elif isinstance(stmt, Alloc):
            self._alloc(stmt.buffer)
        elif isinstance(stmt, Prefetch):
            self.memory.prefetch(self.storage[stmt.buffer], self.exprs.index(stmt.index))
        else:
            raise CompileError(f"a {type(stmt).__name__} is for GPUs only")

    def _block(self, block: Block) -> None:
        self.exprs.enter()
        for stmt in block.stmts:
            self._stmt(stmt)
        self.exprs.leave()

    def _alloc(self, buffer: Buffer) -> None:
        if buffer.scope is not Scope.LOCAL:
            raise CompileError(f"buffer {buffer.name!r} is {buffer.scope.value}, not local")
        size = self.exprs.index(buffer.size).number
        if size is None:
            raise CompileError(f"the size of the local buffer {buffer.name!r} is not constant")
        private = self.indices.width
        known = self.storage.get(buffer)
        if known is not None and known.private == private:  # in an unrolled loop
            self.e.clock += 1
            known.stamp = self.e.clock
            return
        name = f"%a{len(self.e.allocas)}"
        st = Storage(name, buffer.dtype, local=True, size=size, private=private)
        count = max(size, 1) * max(private, 1)
        self.e.allocas.append(f"{name} = alloca [{count} x {st.ty}], align 64")
        self.storage[buffer] = st

    def _store(self, stmt: Store) -> None:
        st = self.storage[stmt.buffer]
        place = self.memory.place(st, self.exprs.index(stmt.index))
        value = self.exprs.operand(stmt.value)
        self.memory.store(st, place, value, self.exprs.mask, stmt.streaming)

    def _reduce(self, stmt: Reduce) -> None:
        st = self.storage[stmt.buffer]
        place = self.memory.place(st, self.exprs.index(stmt.index))
        mask = self.exprs.mask
        if self.reduction.combines_lanes(st, place):
            value = self.exprs.operand(stmt.value)
            self.reduction.horizontal(st, place, stmt.op, value, mask)
        elif self.reduction.may_collide(st, place):
            value = self.exprs.operand(stmt.value)
            self.reduction.lane_by_lane(st, place, stmt.op, value, mask)
        else:
            factors = self._product(stmt)
            old = self.memory.load(st, place, mask)
            if factors is not None:
                a, b = (self.exprs.operand(f) for f in factors)
                new = fma(self.e, a, b, old)
            else:
                value = self.exprs.operand(stmt.value)
                new = primitive(self.e, stmt.op, st.dtype, (old, value))
            self.memory.store(st, place, new, mask)

    def _product(self, stmt: Reduce) -> tuple[Expr, ...] | None:
        """The factors, when a product is added and one instruction does both."""
        value = stmt.value
        if stmt.op != "add" or not isinstance(value, Apply) or value.fn != "mul":
            return None
        fused = self.e.target.has_fma and value.dtype.code in ("f32", "f64")
        return value.args if fused else None

    # --- branches -----------------------------------------------------------------------------

    def _if(self, stmt: If) -> None:
        cond = self.exprs.operand(stmt.cond)
        sides = (stmt.then, *([stmt.otherwise] if stmt.otherwise is not None else []))
        if isinstance(cond.const, bool):
            for side, taken in zip(sides, (True, False), strict=False):
                if taken is cond.const:
                    self._block(side)
        elif cond.n:
            for i, side in enumerate(sides):
                where = cond if i == 0 else invert(self.e, cond)
                self.exprs.enter(self.exprs.masked(where))
                self._block(side)
                self.exprs.leave()
        else:
            regions = []
            for side in sides:
                regions.append(self.e.open(self.e.label(), len(self.exprs.scopes), loop=False))
                self._block(side)
                self.e.close()
            self.exprs.branches.place(cond, *regions, end=self.e.label())

    # --- loops --------------------------------------------------------------------------------

    def _for(self, stmt: For) -> None:
        kind = stmt.kind
        extent = self.exprs.index(stmt.extent)
        if kind is LoopKind.VECTORIZED:
            self._vector(stmt, extent)
        elif kind is LoopKind.UNROLLED and extent.number is not None:
            for i in range(extent.number):
                self._fixed(stmt, Index({}, i))
        elif kind in (LoopKind.SERIAL, LoopKind.UNROLLED):
            if extent.number == 1:
                self._fixed(stmt, Index({}))
            elif extent.number is None or extent.number > 0:
                self._loop(stmt, self.e.number(0, "i64"), extent)
        elif kind is LoopKind.PARALLEL:
            raise CompileError("a parallel loop must be the outermost statement")
        else:
            raise CompileError(f"a {kind.value} loop is for GPUs only")

    def _fixed(self, stmt: For, value: Index) -> None:
        self.exprs.fix(stmt.var, value)
        self._block(stmt.body)
        self.exprs.release()

    def _vector(self, stmt: For, extent: Index) -> None:
        width = extent.number
        if width is None:
            raise CompileError(f"the extent of the vectorized loop {stmt.var.name!r} varies")
        if self.indices.width:
            raise CompileError(f"the vectorized loop {stmt.var.name!r} is inside another one")
        if width == 1:
            return self._fixed(stmt, Index({}))
        self.indices.width = max(width, 0)
        if width > 0:
            self._fixed(stmt, Index({(LANE,): 1}))
        self.indices.width = 0
        return None

    def _loop(self, stmt: For, begin: Val, extent: Index) -> None:
        """``do { body } while (++var < extent)``, unless there is no iteration at all."""
        if self.indices.width and extent.varies:
            raise CompileError(f"the extent of {stmt.var.name!r} depends on the lane")
        e = self.e
        end = self.indices.value(extent)
        self.e.clock += 1
        for buffer in self.stored[stmt]:
            if buffer in self.storage:
                self.storage[buffer].stamp = e.clock
        body = e.open(e.label(), len(self.exprs.scopes), loop=True)
        var = f"%i{body.first[1:]}"
        low, high = self._limits(stmt, extent)
        self.exprs.enter()
        self.exprs.bind(stmt.var, self.indices.atom(var, body.depth, low, high))
        self._block(stmt.body)
        self.exprs.leave()
        e.line(f"{var}.next = add nuw nsw i64 {var}, 1")
        e.line(f"{var}.more = icmp slt i64 {var}.next, {end.text}")
        e.close()
        exit = e.label()
        if extent.number is None or begin.const is None:
            some = e.compare("icmp slt", begin, end)
            e.line(f"br i1 {some.text}, label %{body.first}, label %{exit}")
        else:
            e.line(f"br label %{body.first}")
        before = e.region.label
        e.region.lines += [
            f"{body.first}:",
            f"  {var} = phi i64 [ {begin.text}, %{before} ], [ {var}.next, %{body.label} ]",
            *body.lines,
            f"  br i1 {var}.more, label %{body.first}, label %{exit}",
        ]
        e.start(exit)

    def _limits(self, stmt: For, extent: Index) -> tuple[int, int]:
        """What is known of the loop variable."""
        if stmt.kind is LoopKind.PARALLEL:
            extent = self.exprs.index(stmt.extent)
        return 0, max(self.indices.bounds(extent)[1] - 1, 0)
