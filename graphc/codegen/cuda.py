"""Kernels of the loop IR as CUDA C.

A kernel becomes one ``__global__`` function for each of its block loops.  The functions take the
addresses of the parameters, the scalars, and last the address of the status words (long long[3]):
the first is 0 or 1 + the site of a ``Require`` that failed, the others its details.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.cuda_expr import Expressions, Lines, bare
from graphc.codegen.cuda_ops import primitive
from graphc.codegen.cuda_text import PRELUDE, TYPES
from graphc.codegen.cuda_vector import print_vectors
from graphc.codegen.cuda_warp import WARP_PRELUDE, print_warp
from graphc.dtypes import float32, float64, int64
from graphc.errors import CompileError
from graphc.loop.interpret_values import Evaluator
from graphc.loop.ir import (
    Alloc,
    AllReduce,
    Apply,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    Barrier,
    Block,
    Buffer,
    Const,
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
    Var,
    WarpProduct,
    stored_buffers,
    substitute,
)

__all__ = ["Launch", "Printed", "print_kernel", "translation_unit"]

_WARP = 32


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch: the function, how many blocks of how many threads (x, y)."""

    function: str
    scalars: tuple[Var, ...]
    grid: Expr
    threads: tuple[int, int]

    def blocks(self, sizes: Mapping[Var, int]) -> int:
        """The number of blocks for the values of the kernel's scalars."""
        evaluator = Evaluator()
        evaluator.env.update(sizes)
        return int(evaluator.eval(self.grid))


@dataclass(frozen=True, eq=False)
class Printed:
    """A kernel's functions and the launches that run it, in order."""

    text: str
    launches: tuple[Launch, ...]


def print_kernel(kernel: Kernel, name: str | None = None) -> Printed:
    """The kernel as CUDA C, its functions called after ``name``.

    Raises:
      CompileError: the kernel is not scheduled for a GPU, or breaks a rule of the loop IR.
    """
    name = name or kernel.name
    launches = []
    texts = []
    try:
        found = list(launched(kernel.body, ()))
        for number, (lets, loop) in enumerate(found):
            function = name if len(found) == 1 else f"{name}_{number}"
            printer = _Printer(kernel, function)
            texts.append(printer.run(lets, loop))
            grid = loop.extent
            for let in reversed(lets):
                grid = substitute(grid, {let.var: let.value})
            launches.append(Launch(function, kernel.scalars, grid, printer.shape(loop)))
    except CompileError as error:
        raise CompileError(f"CUDA code generation, kernel {kernel.name!r}: {error}") from None
    return Printed("\n".join(texts), tuple(launches))


def translation_unit(kernels: Iterable[Printed]) -> str:
    """Printed kernels as one source text."""
    texts = [k.text for k in kernels]
    warps = any(word in text for text in texts for word in ("gc_product", "gc_copy_"))
    return "\n".join([PRELUDE, *([WARP_PRELUDE] if warps else []), *texts])


def launched(body: Block, lets: tuple[Let, ...]) -> Iterator[tuple[tuple[Let, ...], For]]:
    """The block loops of a kernel, with the Lets that stand before each."""
    for stmt in body.stmts:
        if isinstance(stmt, Let):
            lets = (*lets, stmt)
        elif isinstance(stmt, Block):
            yield from launched(stmt, lets)
        elif isinstance(stmt, For) and stmt.kind is LoopKind.BLOCK:
            yield lets, stmt
        else:
            raise CompileError("a grid kernel is Lets and block loops")


class _Printer:
    """Prints one launch."""

    def __init__(self, kernel: Kernel, function: str) -> None:
        self.kernel = kernel
        self.function = function
        self.out = Lines()
        self.exprs = Expressions(self.out)
        self.threads: list[For] = []
        self.shared: list[str] = []

    def shape(self, loop: For) -> tuple[int, int]:
        """Threads of a block along x and y."""
        extents = [1, 1]
        for place, found in enumerate(_thread_loops(loop.body)):
            if not isinstance(found.extent, Const):
                raise CompileError("a block has a constant number of threads")
            extents[place] = int(found.extent.value)
        threads = len(_thread_loops(loop.body))
        return (extents[0], 1) if threads < 2 else (extents[1], extents[0])

    def run(self, lets: tuple[Let, ...], loop: For) -> str:
        """The function."""
        written = stored_buffers(self.kernel)
        arguments = []
        for buffer in self.kernel.params:
            const = "" if buffer.name in written else "const "
            arguments.append(f"{const}{TYPES[buffer.dtype.code]}* {self.exprs.declare(buffer)}")
        arguments += [f"const long long {self.exprs.declare(v)}" for v in self.kernel.scalars]
        for let in lets:
            self.stmt(let)
        self.exprs.positive.add(loop.extent)  # or there is no block
        self.exprs.ranges.counter(loop.var, loop.extent)
        self.out.add(f"const {self.index(loop.var)} = blockIdx.x;")
        for stmt in loop.body.stmts:
            self.stmt(stmt)
        across, side = self.shape(loop)
        head = f'extern "C" __global__ void __launch_bounds__({across * side}) {self.function}('
        joined = ",\n    ".join((*arguments, "long long* status"))
        shared = [f"  {line}" for line in self.shared]
        return "\n".join([f"{head}\n    {joined}) {{", *shared, *self.out.lines, "}"]) + "\n"

    # --- statements -------------------------------------------------------------------------------

    def stmt(self, stmt: Stmt) -> None:
        """One statement."""
        if isinstance(stmt, Store):
            index, value = self.exprs.texts(stmt.index, stmt.value)
            self.out.add(f"{self.exprs.names[stmt.buffer]}[{bare(index)}] = {bare(value)};")
        elif isinstance(stmt, Reduce):
            self.reduce(stmt)
        elif isinstance(stmt, Let):
            self.let(stmt)
        elif isinstance(stmt, For):
            self.loop(stmt)
        elif isinstance(stmt, If):
            self.branch(stmt)
        elif isinstance(stmt, Alloc):
            self.alloc(stmt.buffer)
        elif isinstance(stmt, Prefetch):
            pass  # a GPU waits for memory with other warps
        elif isinstance(stmt, Barrier):
            self.out.add("__syncthreads();")
        elif isinstance(stmt, AllReduce):
            self.all_reduce(stmt)
        elif isinstance(stmt, (AsyncCopy, AsyncCommit, AsyncWait, WarpProduct)):
            print_warp(self.exprs, stmt, self.lane())
        else:
            assert isinstance(stmt, Block)
            self.block(stmt)

    def block(self, block: Block) -> None:
        """Statements; names are of the whole function, so that no scope is needed."""
        for stmt in block.stmts:
            self.stmt(stmt)

    def let(self, stmt: Let) -> None:
        """A variable."""
        (value,) = self.exprs.texts(stmt.value)
        if stmt.var.dtype is int64:
            if self.exprs.is_data(stmt.value):
                self.exprs.data.add(stmt.var)
            self.exprs.ranges.let(stmt.var, stmt.value)
            self.out.add(f"const {self.index(stmt.var)} = {bare(value)};")
            return
        ty = TYPES[stmt.var.dtype.code]
        self.out.add(f"const {ty} {self.exprs.declare(stmt.var)} = {bare(value)};")

    def index(self, var: Var) -> str:
        """The declaration of an index."""
        return self.exprs.declare_index(var, self.exprs.ranges.is_short(var))

    def alloc(self, buffer: Buffer) -> None:
        """A buffer of a thread, or of a block."""
        assert isinstance(buffer.size, Const)
        name = self.exprs.declare(buffer)
        text = f"{TYPES[buffer.dtype.code]} {name}[{buffer.size.value}];"
        if buffer.scope is Scope.SHARED:
            self.shared.append(f"__shared__ __align__(16) {text}")
        else:
            self.out.add(text)

    def reduce(self, stmt: Reduce) -> None:
        """Read, combine, write."""
        dtype, value = stmt.buffer.dtype, stmt.value
        product = isinstance(value, Apply) and value.fn == "mul"
        fused = product and stmt.op == "add" and dtype in (float32, float64)
        operands = value.operands if fused else (value,)
        index, *values = self.exprs.texts(stmt.index, *operands)
        place = f"{self.exprs.names[stmt.buffer]}[{bare(index)}]"
        fn = "fma" if len(values) == 2 else stmt.op
        old = (*values, place) if fn == "fma" else (place, *values)
        self.out.add(f"{place} = {bare(primitive(fn, dtype, old))};")

    def branch(self, stmt: If) -> None:
        """An If."""
        (cond,) = self.exprs.texts(stmt.cond)
        self.out.open(f"if ({bare(cond)})")
        self.block(stmt.then)
        if stmt.otherwise is not None:
            self.out.close("} else {")
            self.out.indent += "  "
            self.block(stmt.otherwise)
        self.out.close()

    def loop(self, stmt: For) -> None:
        """A loop, or the threads of a block."""
        if stmt.kind is LoopKind.THREAD:
            self.threads.append(stmt)
            place = "x" if not _thread_loops(stmt.body) else "y"
            self.exprs.ranges.counter(stmt.var, stmt.extent)
            self.out.add(f"const {self.index(stmt.var)} = threadIdx.{place};")
            self.block(stmt.body)
            self.threads.pop()
            return
        if stmt.kind is LoopKind.VECTORIZED:
            print_vectors(self.exprs, stmt, self.stmt)
            return
        if stmt.kind not in (LoopKind.SERIAL, LoopKind.UNROLLED):
            raise CompileError(f"a {stmt.kind.value} loop is for CPUs only")
        (extent,) = self.exprs.texts(stmt.extent)
        ranges = self.exprs.ranges
        short = ranges.is_at_most(stmt.extent)
        ranges.counter(stmt.var, stmt.extent)
        # A counter goes one beyond the last value.
        counter = self.exprs.declare_index(stmt.var, short)
        name = self.exprs.names[stmt.var]
        if stmt.kind is LoopKind.UNROLLED:
            self.out.add("#pragma unroll")
        elif any(isinstance(s, For) and s.kind is LoopKind.UNROLLED for s in stmt.body.stmts):
            self.out.add("#pragma unroll 1")  # the schedule has said how much is unrolled
        self.out.open(f"for ({counter} = 0; {name} < {extent}; ++{name})")
        self.block(stmt.body)
        self.out.close()

    # --- threads together -------------------------------------------------------------------------

    def all_reduce(self, stmt: AllReduce) -> None:
        """A butterfly in each warp; several warps leave their results in shared memory."""
        out, dtype = self.out, stmt.buffer.dtype
        loop = self.threads[-1]
        assert isinstance(loop.extent, Const)
        count, ty = int(loop.extent.value), TYPES[dtype.code]
        (index,) = self.exprs.texts(stmt.index)
        place = f"{self.exprs.names[stmt.buffer]}[{bare(index)}]"
        total, other = out.temporary(), out.temporary()
        out.add(f"{ty} {total} = {place};")
        width = min(count, _WARP)
        if width > 1:
            mask = "0xffffffffu" if width == _WARP else self.lanes(width)
            out.add("#pragma unroll")
            out.open(f"for (int lane = {width // 2}; lane > 0; lane >>= 1)")
            short = dtype.size < 4
            value = f"(int){total}" if short else total
            out.add(f"const {ty} {other} = ({ty})__shfl_xor_sync({mask}, {value}, lane);")
            out.add(f"{total} = {bare(primitive(stmt.op, dtype, (total, other)))};")
            out.close()
        if count > _WARP:
            self.across_warps(total, stmt, count // _WARP)
        out.add(f"{place} = {total};")

    def lane(self) -> str:
        """The number of the thread in its warp."""
        loop = self.threads[-1]
        x = self.exprs.names[loop.var]
        if len(self.threads) == 1:
            return f"{x} & {_WARP - 1}"
        assert isinstance(loop.extent, Const)
        y = self.exprs.names[self.threads[0].var]
        return f"({y} * {loop.extent.value} + {x}) & {_WARP - 1}"

    def lanes(self, width: int) -> str:
        """The mask of the threads of a warp that combine what they have."""
        x = self.exprs.names[self.threads[-1].var]
        y = self.exprs.names[self.threads[0].var] if len(self.threads) > 1 else "0"
        first = f"((({y} * {width} + {x}) & 31) & ~{width - 1})"
        return f"{(1 << width) - 1:#x}u << {first}"

    def across_warps(self, total: str, stmt: AllReduce, warps: int) -> None:
        """Every thread combines the results of all warps, in their order."""
        out, dtype = self.out, stmt.buffer.dtype
        sides = self.threads[0].extent if len(self.threads) > 1 else None
        side = int(sides.value) if isinstance(sides, Const) else 1
        name = out.name(f"warps_{dtype.code}")
        self.shared.append(f"__shared__ {TYPES[dtype.code]} {name}[{side * warps}];")
        x = self.exprs.names[self.threads[-1].var]
        row = f"{self.exprs.names[self.threads[0].var]} * {warps} + " if side > 1 else ""
        out.open(f"if (({x} & 31) == 0)")
        out.add(f"{name}[{row}({x} >> 5)] = {total};")
        out.close()
        out.add("__syncthreads();")
        out.add(f"{total} = {name}[{row}0];")
        out.add("#pragma unroll")
        out.open(f"for (int warp = 1; warp < {warps}; ++warp)")
        combined = primitive(stmt.op, dtype, (total, f"{name}[{row}warp]"))
        out.add(f"{total} = {bare(combined)};")
        out.close()
        out.add("__syncthreads();")


def _thread_loops(body: Block) -> list[For]:
    """The thread loops in a body, outermost first."""
    found = []
    for stmt in body.stmts:
        if isinstance(stmt, Block):
            found += _thread_loops(stmt)
        elif isinstance(stmt, For) and stmt.kind is LoopKind.THREAD:
            found += [stmt, *_thread_loops(stmt.body)]
    return found
