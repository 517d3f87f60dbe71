"""The rules of the loop IR, checked: what every printer and interpreter may rely on.

A complaint shows the whole kernel with the message below the line at fault::

    kernel k(x: f32[n]; n):
      for i in n:
        x[i] = x[j]
        ^ the variable '?j' is not in scope here
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import graphc.loop.scalar_math  # noqa: F401  registers the derived functions
from graphc.dtypes import DType, bool_, int64
from graphc.errors import VerifyError
from graphc.loop.ir import (
    REDUCE_OPS,
    SHARED_BYTES,
    Alloc,
    AllReduce,
    Apply,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    Barrier,
    Block,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    Reduce,
    Require,
    Scope,
    Stmt,
    Store,
    Var,
    WarpProduct,
    walk_expr,
    walk_stmt,
)
from graphc.loop.printer import default_dtype, format_expr, format_lines
from graphc.loop.scalar import FUNCTIONS
from graphc.loop.verify_warp import copy_fault, product_fault

_KIND = {"float": "f", "int": "i", "uint": "u", "bool": "b"}
_IN_VECTOR = (LoopKind.SERIAL, LoopKind.UNROLLED)
_GRID = (LoopKind.BLOCK, LoopKind.THREAD)
_WARP = 32
_MOST_THREADS = 1024
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)


class _Fault(Exception):
    """What is wrong; who catches it knows where."""


def verify_kernel(kernel: Kernel) -> Kernel:
    """The kernel itself, when it keeps the rules.

    Raises:
      VerifyError: it does not; the message has the printed kernel and points at the statement.
    """
    verifier = _Verifier(kernel)
    try:
        verifier.signature()
        verifier.body()
    except _Fault as fault:
        raise VerifyError(_report(kernel, verifier.count, str(fault))) from None
    return kernel


def _report(kernel: Kernel, count: int, message: str) -> str:
    head = f"kernel {kernel.name!r}: {message}"
    try:
        lines, at = format_lines(kernel)
    except (AttributeError, TypeError, ValueError) as error:
        return f"{head}\n(the kernel cannot be printed: {error})"
    line = at[count] if 0 <= count < len(at) else 0
    text = lines[line]
    indent = " " * (len(text) - len(text.lstrip()))
    return "\n".join([head, *lines[: line + 1], f"{indent}^ {message}", *lines[line + 1 :]])


def _expect(value: Expr, dtype: DType, what: str) -> None:
    if value.dtype is not dtype:
        raise _Fault(f"{what} must be {dtype.code}, got {value.dtype.code}: {format_expr(value)}")


def check_node(node: Expr) -> None:
    """The typing rule of one expression node, given that its operands are right."""
    if isinstance(node, Apply):
        _check_apply(node)
    elif isinstance(node, Load):
        _expect(node.index, int64, f"the index of {node.buffer.name!r}")
    elif isinstance(node, Guard):
        _expect(node.cond, bool_, "the condition of a guard")
        _expect(node.otherwise, node.value.dtype, "the other value of a guard")
    elif isinstance(node, Require):
        _expect(node.cond, bool_, "the condition of a require")
        if len(node.details) > 2:
            raise _Fault(f"require#{node.site} has {len(node.details)} details; two are shown")
        for detail in node.details:
            _expect(detail, int64, f"a detail of require#{node.site}")
    elif isinstance(node, (Const, Cast)) and node.dtype.kind == "string":
        raise _Fault("kernels have no strings")


def _check_apply(node: Apply) -> None:
    row = FUNCTIONS.get(node.fn)
    if row is None:
        raise _Fault(f"no scalar function {node.fn!r}")
    args = node.args
    if len(args) != row.arity:
        raise _Fault(f"{node.fn} takes {row.arity} arguments, got {len(args)}")
    if node.fn == "select":
        _expect(args[0], bool_, "the condition of a select")
        args = args[1:]
    codes = ", ".join(a.dtype.code for a in args)
    if any(a.dtype is not args[0].dtype for a in args):
        raise _Fault(f"{node.fn} needs arguments of one dtype, got {codes}: {format_expr(node)}")
    if _KIND.get(args[0].dtype.kind, "?") not in row.kinds:
        raise _Fault(f"{node.fn} is not defined for {args[0].dtype.code}: {format_expr(node)}")
    if row.codes and args[0].dtype.code not in row.codes:
        known = " or ".join(row.codes)
        raise _Fault(f"{node.fn} is of {known}, not of {args[0].dtype.code}: {format_expr(node)}")
    if node.fn == "bitcast":
        if node.dtype.size != args[0].dtype.size:
            raise _Fault(f"bitcast from {codes} to {node.dtype.code}: the sizes differ")
    elif node.dtype is not default_dtype(node.fn, node.args):
        raise _Fault(f"{node.fn} of {codes} cannot be {node.dtype.code}: {format_expr(node)}")


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.count = -1  # the statement being checked, in program order
        self.scope: set[Var | Buffer] = set()
        self.loops: list[For] = []
        # What differs from lane to lane of the vectorized loop around.
        self.varying: set[Var | Buffer] = set()
        # The thread variables that a value depends on, and those that decide what runs here.
        self.threads: dict[Var | Buffer, frozenset[Var]] = {}
        self.deciding: frozenset[Var] = frozenset()
        self.shared_bytes = 0  # of the launch around
        self.grid = any(
            isinstance(s, For) and s.kind is LoopKind.THREAD for s in walk_stmt(kernel.body)
        )

    # --- the kernel ---

    def signature(self) -> None:
        kernel = self.kernel
        for var in kernel.scalars:
            self.declare(var)
            if var.dtype is not int64:
                raise _Fault(f"the scalar {var.name!r} must be i64, got {var.dtype.code}")
        names = [p.name for p in kernel.params]
        for param in kernel.params:
            if names.count(param.name) > 1 or not _NAME.match(param.name):
                raise _Fault(f"parameters need names of their own, got {param.name!r}")
            if param.scope is not Scope.GLOBAL:
                raise _Fault(f"the parameter {param.name!r} must be global")
            self.constant_over_scalars(param.size, f"the size of {param.name!r}")
        self.constant_over_scalars(kernel.grain, "the grain")
        for param in kernel.params:
            self.declare(param)

    def constant_over_scalars(self, expr: Expr, what: str) -> None:
        _expect(expr, int64, what)
        self.exprs(expr)
        if any(isinstance(node, (Load, Require)) for node in walk_expr(expr)):
            raise _Fault(f"{what} may depend on the scalars alone")

    def body(self) -> None:
        self.block(self.kernel.body)

    # --- scopes and expressions ---

    def declare(self, thing: Var | Buffer) -> None:
        if thing in self.scope:
            raise _Fault(f"{thing.name!r} is already in scope")
        self.scope.add(thing)

    def exprs(self, *roots: Expr) -> None:
        for node in walk_expr(*roots):
            if isinstance(node, Var):
                if node not in self.scope:
                    raise _Fault(f"the variable {format_expr(node)!r} is not in scope here")
            elif isinstance(node, Load) and node.buffer not in self.scope:
                raise _Fault(f"the buffer {node.buffer.name!r} is not in scope here")
            check_node(node)

    def varies(self, *roots: Expr) -> bool:
        """Whether the value may differ from lane to lane."""
        return bool(self.varying) and any(
            node in self.varying or (isinstance(node, Load) and node.buffer in self.varying)
            for node in walk_expr(*roots)
        )

    def inside(self, kinds: Iterable[LoopKind]) -> bool:
        return any(loop.kind in kinds for loop in self.loops)

    # --- statements ---

    def block(self, block: Block) -> None:
        self.count += 1
        outer = set(self.scope)
        for at, stmt in enumerate(block.stmts):
            if isinstance(stmt, Block):
                self.block(stmt)
                continue
            self.count += 1
            if isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL:
                last = at == len(block.stmts) - 1
                lets = all(isinstance(s, Let) for s in block.stmts[:-1])
                if block is not self.kernel.body or not last or not lets:
                    raise _Fault("a parallel loop must be the kernel's only statement beside Lets")
            self.stmt(stmt)
        self.scope = outer

    def stmt(self, stmt: Stmt) -> None:
        if isinstance(stmt, (Store, Reduce)):
            self.write(stmt)
        elif isinstance(stmt, For):
            self.loop(stmt)
        elif isinstance(stmt, If):
            _expect(stmt.cond, bool_, "the condition")
            self.exprs(stmt.cond)
            outer = self.deciding
            self.deciding = outer | self.by_thread(stmt.cond)
            self.block(stmt.then)
            if stmt.otherwise is not None:
                self.block(stmt.otherwise)
            self.deciding = outer
        elif isinstance(stmt, Let):
            self.exprs(stmt.value)
            _expect(stmt.value, stmt.var.dtype, f"the value of {stmt.var.name!r}")
            self.declare(stmt.var)
            self.threads[stmt.var] = self.by_thread(stmt.value)
            if self.varies(stmt.value):
                self.varying.add(stmt.var)
        elif isinstance(stmt, Alloc):
            self.alloc(stmt.buffer)
        elif isinstance(stmt, Prefetch):
            self.prefetch(stmt)
        elif isinstance(stmt, Barrier):
            if not self.inside((LoopKind.THREAD,)) or self.inside((LoopKind.VECTORIZED,)):
                raise _Fault("a barrier stands inside a thread loop and no vectorized loop")
            self.together(self.thread_loops())
        elif isinstance(stmt, AllReduce):
            self.all_reduce(stmt)
        elif isinstance(stmt, (AsyncCopy, AsyncCommit, AsyncWait, WarpProduct)):
            self.warp(stmt)
        else:
            raise _Fault(f"no statement: {stmt!r}")

    def write(self, stmt: Store | Reduce) -> None:
        buffer = stmt.buffer
        if buffer not in self.scope:
            raise _Fault(f"the buffer {buffer.name!r} is not in scope here")
        self.exprs(stmt.index, stmt.value)
        _expect(stmt.index, int64, f"the index of {buffer.name!r}")
        _expect(stmt.value, buffer.dtype, f"the value stored to {buffer.name!r}")
        if isinstance(stmt, Reduce):
            self.reduction(stmt.op, buffer)
        elif buffer not in self.varying and not self.varies(stmt.index) and self.varies(stmt.value):
            raise _Fault(f"every lane stores its own value to one element of {buffer.name!r}")

    def prefetch(self, stmt: Prefetch) -> None:
        if stmt.buffer not in self.scope or stmt.buffer.scope is not Scope.GLOBAL:
            raise _Fault(f"a prefetch is of a parameter in scope, not {stmt.buffer.name!r}")
        self.exprs(stmt.index)
        _expect(stmt.index, int64, f"the index of {stmt.buffer.name!r}")

    # --- threads ---

    def thread_loops(self) -> list[For]:
        """The thread loops around, outermost first."""
        return [loop for loop in self.loops if loop.kind is LoopKind.THREAD]

    def by_thread(self, *roots: Expr) -> frozenset[Var]:
        """The thread variables that a value may depend on."""
        found: frozenset[Var] = frozenset()
        for node in walk_expr(*roots):
            if isinstance(node, Var):
                found |= self.threads.get(node, frozenset())
            elif isinstance(node, Load) and node.buffer.scope is Scope.LOCAL:
                found |= {loop.var for loop in self.thread_loops()}
        return found

    def together(self, loops: Iterable[For]) -> None:
        """Refuse a statement that threads wait in and that not all of them may reach."""
        apart = [loop.var.name for loop in loops if loop.var in self.deciding]
        if apart:
            raise _Fault(f"whether a thread comes here depends on {', '.join(apart)}")

    def all_reduce(self, stmt: AllReduce) -> None:
        loops = self.thread_loops()
        if not loops or self.inside((LoopKind.VECTORIZED,)):
            raise _Fault("an allreduce stands inside a thread loop and no vectorized loop")
        if stmt.buffer not in self.scope or stmt.buffer.scope is not Scope.LOCAL:
            raise _Fault(f"an allreduce is of a local buffer in scope, not {stmt.buffer.name!r}")
        self.reduction(stmt.op, stmt.buffer)
        self.exprs(stmt.index)
        _expect(stmt.index, int64, f"the index of {stmt.buffer.name!r}")
        extent = loops[-1].extent
        count = extent.value if isinstance(extent, Const) else 0
        if count > _WARP and count % _WARP == 0:
            self.together(loops)
        elif count in (1, 2, 4, 8, 16, _WARP):
            self.together(loops[-1:])
        else:
            raise _Fault(f"an allreduce is over a power of two or whole warps, not {count} threads")

    def warp(self, stmt: AsyncCopy | AsyncCommit | AsyncWait | WarpProduct) -> None:
        loops = self.thread_loops()
        if not loops or self.inside((LoopKind.VECTORIZED,)):
            raise _Fault("copies and products stand inside a thread loop and no vectorized loop")
        fault = None
        if isinstance(stmt, AsyncCopy):
            self.exprs(stmt.index, stmt.value, stmt.cond)
            _expect(stmt.cond, bool_, "the condition")
            _expect(stmt.index, int64, f"the index of {stmt.buffer.name!r}")
            fault = copy_fault(stmt, self.scope)
        elif isinstance(stmt, WarpProduct):
            self.exprs(stmt.left, stmt.right)
            self.together(loops)
            fault = product_fault(stmt, self.scope, loops)
        elif isinstance(stmt, AsyncWait) and stmt.pending < 0:
            fault = "a number of groups is not negative"
        if fault is not None:
            raise _Fault(fault)

    def reduction(self, op: str, buffer: Buffer) -> None:
        if op not in REDUCE_OPS:
            raise _Fault(f"no reduction {op!r}: there are {', '.join(REDUCE_OPS)}")
        if (op in ("and", "or")) is not (buffer.dtype is bool_):
            raise _Fault(f"the reduction {op} is not defined for {buffer.dtype.code}")

    def loop(self, loop: For) -> None:
        _expect(loop.extent, int64, "the extent")
        _expect(loop.var, int64, "the loop variable")
        self.exprs(loop.extent)
        self.nesting(loop)
        outer_scope = set(self.scope)
        outer_varying = set(self.varying)
        self.declare(loop.var)
        if loop.kind is LoopKind.VECTORIZED:
            self.varying.add(loop.var)
        outer_deciding = self.deciding
        self.deciding = outer_deciding | self.by_thread(loop.extent)
        if loop.kind is LoopKind.THREAD:
            self.threads[loop.var] = frozenset((loop.var,))
        self.loops.append(loop)
        self.block(loop.body)
        self.loops.pop()
        self.scope, self.varying = outer_scope, outer_varying
        self.deciding = outer_deciding

    def nesting(self, loop: For) -> None:
        kind = loop.kind
        fixed = isinstance(loop.extent, Const) and loop.extent.value >= 1
        if kind in (LoopKind.VECTORIZED, LoopKind.UNROLLED) and not fixed:
            raise _Fault(f"the extent of a {kind.value} loop must be a constant of at least 1")
        if self.inside((LoopKind.VECTORIZED,)):
            if kind not in _IN_VECTOR:
                raise _Fault(f"a {kind.value} loop inside a vectorized loop")
            if self.varies(loop.extent):
                raise _Fault("the extent differs from lane to lane")
        if kind is LoopKind.BLOCK:
            self.shared_bytes = 0
        if kind is LoopKind.BLOCK and any(o.kind is not LoopKind.BLOCK for o in self.loops):
            raise _Fault("a block loop stands inside block loops only")
        if kind is LoopKind.THREAD:
            if any(o.kind not in _GRID for o in self.loops):
                raise _Fault("a thread loop stands inside block and thread loops only")
            around = self.thread_loops()
            extents = [known.extent for known in (*around, loop)]
            total = 1
            for extent in extents:
                total *= extent.value if isinstance(extent, Const) else 0
            if len(extents) > 2 or not 1 <= total <= _MOST_THREADS:
                raise _Fault(f"a block has 1 to {_MOST_THREADS} threads, in one or two loops")

    def alloc(self, buffer: Buffer) -> None:
        if buffer.scope is Scope.GLOBAL:
            raise _Fault("a kernel allocates shared and local buffers, no global ones")
        if not isinstance(buffer.size, Const) or buffer.size.dtype is not int64:
            raise _Fault(f"the size of {buffer.name!r} must be constant")
        if buffer.size.value < 1:
            raise _Fault(f"the size of {buffer.name!r} must be at least 1")
        threads = self.inside((LoopKind.THREAD,))
        if buffer.scope is Scope.SHARED:
            if threads or not self.inside((LoopKind.BLOCK,)):
                raise _Fault("a shared buffer is allocated in block loops, outside thread loops")
            self.shared_bytes += buffer.size.value * buffer.dtype.size
            if self.shared_bytes > SHARED_BYTES:
                raise _Fault(f"a block shares {SHARED_BYTES} bytes at most")
        elif self.grid and not threads:
            raise _Fault("a local buffer of a grid kernel is allocated inside its thread loops")
        self.declare(buffer)
        if self.inside((LoopKind.VECTORIZED,)):
            self.varying.add(buffer)
