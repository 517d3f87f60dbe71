"""Contractions that a library of BLAS can compute: operands that are matrices in memory.

A product is one where both operands are plain loads and every index is a sum of strides.  What is
fused behind becomes a kernel of its own, which goes over the result that the library has left in
one of the outputs, or aside.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from graphc.dtypes import SHORT_FLOATS, DType, bfloat16, float16, float32, float64, int8, int32
from graphc.kernels import emit
from graphc.kernels.problem import Contraction, Indices
from graphc.loop import ir
from graphc.loop.affine import coefficients, equal, known
from graphc.loop.gpu import GpuTarget, schedule_gpu
from graphc.loop.interpret_values import Evaluator
from graphc.loop.ir import Buffer, Cast, Expr, Kernel, Let, Load, Stmt, Store, Var

__all__ = ["Gemm", "LibraryProduct", "Matrix", "library_product"]

Compute = Literal["f32", "tf32", "f64", "i32"]
COMPUTES: dict[tuple[DType, DType], Compute] = {
    (float32, float32): "f32", (float64, float64): "f64", (int8, int32): "i32",
    (float16, float16): "f32", (float16, float32): "f32",
    (bfloat16, bfloat16): "f32", (bfloat16, float32): "f32",
}  # fmt: skip
"""What is counted with, by the dtypes of both operands and of the result."""
LEAST = 1 << 21
"""Operations from which on a product is worth being measured: smaller ones are mostly launch."""
_MOST = 1 << 31  # BLAS counts with 32 bits
_BYTES_ALIGNMENT = 4  # of matrices of bytes, and of their leading dimensions


@dataclass(frozen=True)
class Matrix:
    """A matrix as BLAS sees it: columns that lie ``leading`` elements apart, or rows if transposed.

    Attributes:
      param: which of the kernel's parameters it lies in, from element ``offset`` on.
      stride: elements from one matrix of a batch to the next.
    """

    param: int
    dtype: DType
    offset: int
    transposed: bool
    leading: int
    stride: int


@dataclass(frozen=True)
class Gemm:
    """``c = a @ b`` for ``count`` matrices: ``c`` is m x n, sums have k terms; never transposed."""

    m: int
    n: int
    k: int
    count: int
    a: Matrix
    b: Matrix
    c: Matrix
    compute: Compute

    def __str__(self) -> str:
        parts = [f"{self.count}x{self.m}x{self.n}x{self.k} {self.compute}"]
        for x in (self.a, self.b, self.c):
            turned = " transposed" if x.transposed else ""
            parts.append(f"{x.dtype.name} {x.param}+{x.offset} {x.leading} {x.stride}{turned}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Place:
    """Where the elements of an operand are: a load's index as a sum of strides.

    ``strides`` are those of the indices of its three kinds: of the batch, of rows, of columns.
    """

    buffer: Buffer
    offset: Expr
    strides: tuple[Indices, Indices, Indices]


@dataclass(frozen=True)
class Strided:
    """An operand as a matrix, over the kernel's scalars: strides of batch, rows and columns."""

    param: int
    dtype: DType
    offset: Expr
    strides: tuple[Expr, Expr, Expr]


@dataclass(frozen=True)
class LibraryProduct:
    """A contraction that a library can compute, over the scalars of its kernel.

    Attributes:
      extents: how many products there are, rows, columns, terms of the sums.
      epilogue: what goes over the result behind the library; None where nothing has to.
      aside: what the epilogue takes the product from behind its other parameters, if in none of
        these there is room for it.
      least: operations from which on the library is asked.
      always: whether it is taken wherever it can be, unmeasured.
    """

    scalars: tuple[Var, ...]
    extents: tuple[Expr, Expr, Expr, Expr]
    left: Strided
    right: Strided
    out: Strided
    compute: Compute
    epilogue: Kernel | None
    aside: Buffer | None
    least: int
    always: bool

    def space(self, sizes: Sequence[int]) -> int:
        """The bytes that the product needs aside."""
        if self.aside is None:
            return 0
        evaluator = Evaluator()
        evaluator.env.update(zip(self.scalars, sizes, strict=True))
        return int(evaluator.eval(self.aside.size)) * self.aside.dtype.size

    def gemm(self, sizes: Sequence[int]) -> Gemm | None:
        """The product for values of the scalars; None where it is none for BLAS, or small."""
        evaluator = Evaluator()
        evaluator.env.update(zip(self.scalars, sizes, strict=True))

        def number(expr: Expr) -> int:
            return int(evaluator.eval(expr))

        count, m, n, k = (number(e) for e in self.extents)
        if not m * n * k * count or 2 * m * n * k * count < self.least:
            return None
        found = {}
        for name, operand in (("left", self.left), ("right", self.right), ("out", self.out)):
            found[name] = number(operand.offset), *(number(s) for s in operand.strides)

        def matrix(name: str, operand: Strided, rows: int, columns: int, turn: bool) -> _Found:
            offset, batch, row, column = found[name]
            if turn:
                row, column = column, row
            return _matrix(operand, offset, batch if count > 1 else 0, rows, columns, row, column)

        # What lies by rows is the transposed product by columns, its operands exchanged.
        for exchanged in (True, False):
            first, second = (self.right, self.left) if exchanged else (self.left, self.right)
            names = ("right", "left") if exchanged else ("left", "right")
            rows, columns = (n, m) if exchanged else (m, n)
            a = matrix(names[0], first, rows, k, exchanged)
            b = matrix(names[1], second, k, columns, exchanged)
            c = matrix("out", self.out, rows, columns, exchanged)
            if a is None or b is None or c is None or c.transposed:
                continue
            gemm = Gemm(rows, columns, k, count, a, b, c, self.compute)
            if _fits(gemm):
                return gemm
        return None


_Found = Matrix | None


def _matrix(
    operand: Strided, offset: int, batch: int, rows: int, columns: int, row: int, column: int
) -> _Found:
    """An operand as BLAS can take it: one of the strides is 1, and the other one no overlap."""
    for transposed in (False, True):
        if transposed:
            rows, columns, row, column = columns, rows, column, row
        leading = column if columns > 1 else max(rows, 1)
        if (row == 1 or rows == 1) and leading >= rows:
            return Matrix(operand.param, operand.dtype, offset, transposed, leading, batch)
    return None


def _fits(gemm: Gemm) -> bool:
    """Whether the numbers are such that BLAS takes them."""
    matrices = (gemm.a, gemm.b, gemm.c)
    sizes = (gemm.m, gemm.n, gemm.k, gemm.count, *(x.leading for x in matrices))
    if max(sizes) >= _MOST or min(x.stride for x in matrices) < 0:
        return False
    return all(
        number % _BYTES_ALIGNMENT == 0
        for x in matrices
        if x.dtype is int8
        for number in (x.offset, x.leading, x.stride)
    )


def library_product(
    name: str, params: tuple[Buffer, ...], scalars: tuple[Var, ...], problem: Contraction,
    dtype: DType, target: GpuTarget,
) -> LibraryProduct | None:  # fmt: skip
    """The contraction as a product for a library, if it is one.

    Args:
      name: of the kernel for what is fused behind.
      params, scalars: those of the contraction's kernel, and of this one.
      problem: the contraction.
      dtype: that of its results, before what is fused behind.
      target: the GPU.
    """
    if target.cublas == "never":
        return None
    always = target.cublas == "always"
    least = 0 if always else LEAST
    work = [known(e) for e in (*problem.batch, *problem.m, problem.n, *problem.k)]
    if None not in work and 2 * _product(work) < max(least, 1):
        return None
    batch, rows, terms = (
        tuple(emit.fresh(p) for _ in dims)
        for p, dims in (("b", problem.batch), ("m", problem.m), ("k", problem.k))
    )
    column = emit.fresh("n")
    acc = Var("acc", problem.acc)
    left = _operand(problem.lhs(batch, rows, terms), (batch, rows, terms))
    right = _operand(problem.rhs(batch, terms, column), (batch, terms, (column,)))
    if left is None or right is None or left.buffer.dtype is not right.buffer.dtype:
        return None
    compute = COMPUTES.get((left.buffer.dtype, dtype))
    stmts = problem.epilogue(batch, rows, column, acc)
    if compute is None or not all(isinstance(s, (Let, Store)) for s in stmts):
        return None
    if compute == "f32" and left.buffer.dtype is float32 and target.tf32:
        compute = "tf32"
    aside, plain = None, False
    stored = _stored(stmts, acc, dtype)
    if stored is None:
        total = emit.product((*problem.batch, *problem.m, problem.n))
        held = aside = Buffer("aside", dtype, total)
        index = _flat(problem, (*batch, *rows, column))
        params = (*params, aside)
    else:
        (held, index), plain = (stored[0].buffer, stored[0].index), stored[1]
    out = _place(held, index, (batch, rows, (column,)))
    if out is None or held in (left.buffer, right.buffer):
        return None
    found = _matrices(problem, params, (left, right, out))
    if found is None:
        return None
    extents, matrices = found
    rest = None if plain else _epilogue(name, params, scalars, problem, held, target)
    return LibraryProduct(scalars, extents, *matrices, compute, rest, aside, least, always)


def _flat(problem: Contraction, at: Indices) -> Expr:
    """The row-major place of a result."""
    total: Expr = ir.ZERO
    for extent, index in zip((*problem.batch, *problem.m, problem.n), at, strict=True):
        total = ir.add(ir.mul(total, extent), index)
    return total


def _product(numbers: Sequence[int | None]) -> int:
    total = 1
    for number in numbers:
        total *= number or 0
    return total


def _operand(value: Expr, groups: Sequence[Indices]) -> Place | None:
    """Where an operand lies that is a load; one of 16 bits may be widened to be counted with."""
    if isinstance(value, Cast) and value.dtype is float32 and value.value.dtype in SHORT_FLOATS:
        value = value.value
    return _place(value.buffer, value.index, groups) if isinstance(value, Load) else None


def _place(buffer: Buffer, index: Expr, groups: Sequence[Indices]) -> Place | None:
    """An index as a sum of strides that the host knows."""
    variables = [v for group in groups for v in group if isinstance(v, Var)]
    found = coefficients(index, variables)
    if found is None:
        return None
    by_variable, offset = found
    numbers = (offset, *by_variable.values())
    if any(isinstance(e, (Load, ir.Guard, ir.Require)) for e in ir.walk_expr(*numbers)):
        return None
    batch, first, second = (
        tuple(by_variable[v] for v in group if isinstance(v, Var)) for group in groups
    )
    return Place(buffer, offset, (batch, first, second))


def _stored(stmts: Sequence[Stmt], acc: Var, dtype: DType) -> tuple[Store, bool] | None:
    """The store whose place can hold the product until what is fused behind goes over it.

    The flag says that nothing is: the product itself is all that is stored.
    """
    stores = [s for s in stmts if isinstance(s, Store)]
    own = [s for s in stores if s.value is acc or _cast_of(s.value, acc)]
    if len(stmts) == 1 and own and own[0].buffer.dtype is dtype:
        return own[0], True
    roots = [e for s in stmts for e in ir.stmt_exprs(s)]
    read = {e.buffer for e in ir.walk_expr(*roots) if isinstance(e, Load)}
    for s in (*own, *stores):
        alone = sum(other.buffer is s.buffer for other in stores) == 1
        if s.buffer.dtype is dtype and s.buffer not in read and alone:
            return s, False
    return None


def _cast_of(value: Expr, acc: Var) -> bool:
    return isinstance(value, Cast) and value.value is acc


def _matrices(
    problem: Contraction, params: tuple[Buffer, ...], places: tuple[Place, Place, Place]
) -> tuple[tuple[Expr, Expr, Expr, Expr], tuple[Strided, Strided, Strided]] | None:
    """The extents of products of matrices, and the matrices; None if they are no such products.

    Several dimensions are one where they lie in each other alike in both operands that have them.
    """
    left, right, out = (p.strides for p in places)
    batch, m = problem.batch, problem.m
    rows = None
    if batch and all(emit.is_const(s, 0) for s in right[0]):
        # The right matrix is the same for all: those on the left are one with more rows.
        rows = _merged((*batch, *m), [(*left[0], *left[1]), (*out[0], *out[1])])
        if rows is not None:
            batch, left, right, out = (), ((), *left[1:]), ((), *right[1:]), ((), *out[1:])
    counted = _merged(batch, [left[0], right[0], out[0]])
    rows = rows or _merged(m, [left[1], out[1]])
    terms = _merged(problem.k, [left[2], right[1]])
    if counted is None or rows is None or terms is None:
        return None
    count, (bl, br, bo) = counted
    height, (ml, mo) = rows
    depth, (kl, kr) = terms
    strides = ((bl, ml, kl), (br, kr, right[2][0]), (bo, mo, out[2][0]))
    a, b, c = (
        Strided(params.index(p.buffer), p.buffer.dtype, p.offset, s)
        for p, s in zip(places, strides, strict=True)
    )
    return (count, height, problem.n, depth), (a, b, c)


def _merged(
    extents: Indices, strides: Sequence[Indices]
) -> tuple[Expr, tuple[Expr, ...]] | None:
    """Dimensions as one: its extent, and its stride for each of the operands."""
    kept = [k for k, extent in enumerate(extents) if not emit.is_const(extent, 1)]
    if not kept:
        return ir.ONE, tuple(ir.ZERO for _ in strides)
    for outer, inner in itertools.pairwise(kept):
        if not all(equal(s[outer], ir.mul(s[inner], extents[inner])) for s in strides):
            return None
    return emit.product(extents[k] for k in kept), tuple(s[kept[-1]] for s in strides)


def _epilogue(
    name: str, params: tuple[Buffer, ...], scalars: tuple[Var, ...], problem: Contraction,
    held: Buffer, target: GpuTarget,
) -> Kernel:  # fmt: skip
    """What is fused behind, over products that are held in a buffer."""
    batches, rows = len(problem.batch), len(problem.m)
    acc = problem.acc

    def element(at: Indices) -> list[Stmt]:
        place = at[:batches], at[batches : batches + rows], at[-1]
        stmts = problem.epilogue(*place, Var("acc", acc))
        places = [s.index for s in stmts if isinstance(s, Store) and s.buffer is held]
        index = places[0] if places else _flat(problem, at)
        out: list[Stmt] = []
        # Read before anything is stored over it.
        value = emit.let(out, "product", Load(held, index))
        return [*out, *problem.epilogue(*place, ir.cast(value, acc))]

    body = emit.nest((*problem.batch, *problem.m, problem.n), element)
    kernel = Kernel(name, params, scalars, ir.block(*body))
    return replace(schedule_gpu(kernel, target), name=name)
