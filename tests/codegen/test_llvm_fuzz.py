"""Random kernels, printed and run, against the interpreter."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import numpy as np
import pytest

from graphc.codegen import llvm
from graphc.dtypes import bool_, int32, int64
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import (
    Alloc,
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
    Reduce,
    Stmt,
    Store,
    Var,
    add,
    apply,
    const,
    index_div,
    index_mod,
    local,
    mul,
    select,
    sub,
)
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import compile_object, load_object, named_target

SIZE = 96
W = 8


class Maker:
    """Makes one random kernel; expressions are shared among statements and loops."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.x = Buffer("x", int32, const(SIZE))
        self.t = Buffer("t", int64, const(SIZE))
        self.y = Buffer("y", int32, const(SIZE))
        self.z = Buffer("z", int32, const(SIZE * W))
        self.n, self.m = Var("n"), Var("m")
        self.pool: list[tuple[Expr, frozenset[Var]]] = []
        self.scope: list[Var] = [self.n, self.m]
        self.locals: list[Buffer] = []
        self.lane: Var | None = None
        self.count = 0

    def kernel(self) -> Kernel:
        body = Block(tuple(self.stmts(0)))
        return Kernel("fuzz", (self.x, self.t, self.y, self.z), (self.n, self.m), body)

    def fresh(self, name: str, dtype: Any = int64) -> Var:
        self.count += 1
        return Var(f"{name}{self.count}", dtype)

    # --- expressions ---

    def index(self, depth: int) -> Expr:
        """Any int64 expression."""
        r = self.r
        kind = r.randrange(12) if depth else r.randrange(3)
        if kind == 0:
            return const(r.randrange(-9, 20))
        if kind < 3:
            ints = [v for v in self.scope if v.dtype is int64]
            return r.choice(ints)
        a = self.pooled(int64, depth - 1)
        if kind == 11:
            return Load(self.t, self.within(a))
        b = self.pooled(int64, depth - 1)
        if kind < 7:
            return r.choice([add, sub, mul])(a, b)
        if kind == 7:
            return r.choice([index_div, index_mod])(a, const(r.choice([1, 2, 3, 8, 24])))
        if kind == 8:
            return apply(r.choice(["idiv", "irem", "floordiv", "floormod", "min", "max"]), a, b)
        if kind == 9:
            return select(self.cond(depth - 1), a, b)
        return Guard(self.cond(depth - 1), a, b)

    def within(self, index: Expr) -> Expr:
        return apply("floormod", index, const(SIZE))

    def cond(self, depth: int) -> Expr:
        fn = self.r.choice(["lt", "le", "gt", "ge", "eq", "ne"])
        if self.r.random() < 0.7:
            made = apply(fn, self.pooled(int64, depth), self.pooled(int64, depth))
        else:
            made = apply(fn, self.pooled(int32, depth), self.pooled(int32, depth))
        if depth > 0 and self.r.random() < 0.3:
            return apply(self.r.choice(["and", "or", "xor"]), made, self.cond(depth - 1))
        return made

    def value(self, depth: int) -> Expr:
        """Any int32 expression."""
        r = self.r
        kind = r.randrange(10) if depth else r.randrange(3)
        if kind == 0:
            return Const(r.randrange(-5, 100), int32)
        if kind == 1:
            return Cast(self.pooled(int64, depth - 1 if depth else 0), int32)
        if kind in (2, 3):
            place = r.choice([self.x, self.y, self.z])
            index = self.within(self.pooled(int64, max(depth - 1, 0)))
            if r.random() < 0.5:  # what is stored to often
                index = apply("floormod", index, const(4 * W))
            load: Expr = Load(place, index)
            if r.random() < 0.4:
                load = Guard(self.cond(depth - 1 if depth else 0), load, Const(7, int32))
            return load
        if kind == 4 and self.locals:
            chosen = r.choice(self.locals)
            return Load(chosen, apply("floormod", self.pooled(int64, depth - 1), const(4)))
        a, b = self.pooled(int32, depth - 1), self.pooled(int32, depth - 1)
        if kind < 8:
            fn = r.choice(["add", "sub", "mul", "min", "max", "xor", "idiv", "floormod", "shl"])
            return apply(fn, a, b)
        if kind == 8:
            return select(self.cond(depth - 1), a, b)
        return Guard(self.cond(depth - 1), a, b)

    def pooled(self, dtype: Any, depth: int) -> Expr:
        """A new expression, or one that was made before and whose variables are in scope."""
        usable = [e for e, s in self.pool if e.dtype is dtype and s <= {*self.scope, *self.locals}]
        if usable and self.r.random() < 0.45:
            return self.r.choice(usable)
        if dtype is bool_:
            made = self.cond(depth)
        else:
            made = self.index(depth) if dtype is int64 else self.value(depth)
        self.pool.append((made, frozenset([*self.scope, *self.locals])))  # type: ignore[list-item]
        return made

    # --- statements ---

    def stmts(self, depth: int) -> list[Stmt]:
        scope, buffers = list(self.scope), list(self.locals)
        made = [s for _ in range(self.r.randrange(1, 4)) for s in self.stmt(depth)]
        self.scope, self.locals = scope, buffers
        return made

    def stmt(self, depth: int) -> list[Stmt]:
        r = self.r
        kind = r.randrange(10)
        if kind < 3 and depth < 3:
            return [self.loop(depth)]
        if kind == 3 and depth < 4:
            cond = self.pooled(bool_, 2)
            then = Block(tuple(self.stmts(depth + 1)))
            other = Block(tuple(self.stmts(depth + 1))) if r.random() < 0.5 else None
            return [If(cond, then, other)]
        if kind == 4:
            dtype = r.choice([int32, int64])
            value = self.pooled(dtype, 2)
            var = self.fresh("let", dtype)
            if dtype is int64:
                self.scope.append(var)
            return [Let(var, value)]
        if kind == 5 and len(self.locals) < 3:
            return self.alloc()
        return [self.store()]

    def alloc(self) -> list[Stmt]:
        self.count += 1
        buffer = local(f"own{self.count}", int32, 4)
        fill: list[Stmt] = [Alloc(buffer)]
        fill += [Store(buffer, const(i), self.pooled(int32, 1)) for i in range(4)]
        if self.lane is not None:  # outside, its lanes would meet
            self.locals.append(buffer)
        return fill

    def loop(self, depth: int) -> Stmt:
        r = self.r
        kinds = [LoopKind.SERIAL, LoopKind.UNROLLED]
        if self.lane is None:
            kinds += [LoopKind.VECTORIZED] * 3
        kind = r.choice(kinds)
        var = self.fresh("i")
        extent: Expr = const(W if kind is LoopKind.VECTORIZED else r.randrange(1, 4))
        if kind is LoopKind.SERIAL and r.random() < 0.5:
            extent = apply("min", apply("max", r.choice([self.n, self.m]), 0), const(4))
        scope, lane = list(self.scope), self.lane
        self.scope.append(var)
        if kind is LoopKind.VECTORIZED:
            self.lane = var
        body = Block(tuple(self.stmts(depth + 1)))
        self.scope, self.lane = scope, lane
        return For(var, extent, kind, body)

    def store(self) -> Stmt:
        """To places where lanes never meet: z has W of each element, y is for scalar code."""
        r = self.r
        value = self.pooled(int32, 3)
        if self.lane is None:
            index = self.within(self.pooled(int64, 2))
            target = r.choice([self.x, self.y])
            if r.random() < 0.3:
                return Reduce(target, index, r.choice(["add", "max", "min"]), value)
            return Store(target, index, value)
        if self.locals and r.random() < 0.3:
            return Store(r.choice(self.locals), const(r.randrange(4)), value)
        base = const(r.randrange(4)) * W
        index = r.choice([base + self.lane, base + (W - 1) - self.lane])
        if r.random() < 0.3:
            return Reduce(self.z, index, r.choice(["add", "max", "min"]), value)
        return Store(self.z, index, value)


def run(kernel: Kernel, name: str, arrays: list[np.ndarray[Any, Any]], scalars: list[int]) -> None:
    target = named_target(name)
    code = load_object(compile_object(llvm.print_kernel(kernel, target), target))
    status = np.zeros(8, np.int64)
    slots = [a.ctypes.data for a in arrays] + scalars + [status.ctypes.data]
    table = np.array(slots, np.int64)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    kind(code.address(kernel.name))(table.ctypes.data, 0, 0)


def compare(seed: int, targets: tuple[str, ...]) -> None:
    kernel = verify_kernel(Maker(seed).kernel())
    rng = np.random.default_rng(seed)
    start = [
        rng.integers(-50, 50, SIZE).astype(np.int32),
        rng.integers(-9, 99, SIZE),
        np.zeros(SIZE, np.int32),
        np.zeros(SIZE * W, np.int32),
    ]
    for scalars in ([2, 3], [0, -1]):
        expected = [a.copy() for a in start]
        run_kernel(kernel, expected, scalars)
        for name in targets:
            found = [a.copy() for a in start]
            run(kernel, name, found, scalars)
            for f, e, which in zip(found, expected, "xtyz", strict=True):
                shown = f"seed {seed}, {name}, {which}, n, m = {scalars}\n{format_kernel(kernel)}"
                np.testing.assert_array_equal(f, e, err_msg=shown)


@pytest.mark.parametrize("chunk", range(4))
def test_random_kernels(chunk: int) -> None:
    if not named_target("avx2").is_host:
        pytest.skip("this machine does not run avx2 code")
    for seed in range(chunk * 15, chunk * 15 + 15):
        compare(seed, ("avx2",))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(20))
def test_many_random_kernels(chunk: int) -> None:
    targets = tuple(t for t in ("avx512", "avx2", "generic") if named_target(t).is_host)
    for seed in range(1000 + chunk * 50, 1050 + chunk * 50):
        compare(seed, targets)
