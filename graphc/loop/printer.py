"""Loop IR to text: what a person reads, what golden tests hold, what the object cache is keyed by.

The text says everything that a kernel means (dtypes, scopes, the bits of every constant, error
sites) and nothing of the identity of its objects: a variable is printed by name, with a number
behind it where that name is taken by another variable in scope.

::

    kernel scale(x: f32[n], y: f32[n]; n) grain max(1, n // 4096):
      parallel i in n:
        let t: f32 = x[i] * 2.0f32
        y[i] = t + 1.0f32

A big expression that is used twice in a statement, or one too long for a line, stands before the
statement as ``%1 = ...``: an abbreviation of the text, never a variable.
"""

from __future__ import annotations

import functools
import json
import re
import struct
from dataclasses import replace

from graphc.dtypes import DType, bool_, float32, float64, int32, int64
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
)

PREDICATES = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"})
INFIX: dict[str, tuple[str, int]] = {
    "or": ("or", 1),
    "xor": ("xor", 2),
    "and": ("and", 3),
    "eq": ("==", 4),
    "ne": ("!=", 4),
    "lt": ("<", 4),
    "le": ("<=", 4),
    "gt": (">", 4),
    "ge": (">=", 4),
    "add": ("+", 5),
    "sub": ("-", 5),
    "mul": ("*", 6),
    "div": ("/", 6),
    "idiv": ("//", 6),
    "irem": ("%", 6),
}
ATOM = 9  # binds tighter than every infix operator
ASSIGN = {"add": "+=", "mul": "*=", "max": "max=", "min": "min=", "and": "and=", "or": "or="}
LOOP_WORD = {kind: "for" if kind is LoopKind.SERIAL else kind.value for kind in LoopKind}
KEYWORDS = frozenset(
    {"for", "if", "else", "let", "scope", "pass", "barrier", "stream", "kernel", "in", "grain"}
    | {"global", "shared", "local", "true", "false", "and", "or", "xor", "allreduce"}
    | {"async", "commit", "await", "warpproduct"}
    | {kind.value for kind in LoopKind}
)
_SPECIAL = re.compile(r"(?:inf|nan|nan_0x[0-9a-f]+)_(?:bf|[fiub])\d+\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_SHARED, _LONG = 24, 100  # characters from which a shared, or any, expression gets a line


def identifier(name: str) -> str:
    """``name`` with what is no letter, digit or underscore replaced; never a keyword."""
    if not _IDENTIFIER.match(name):
        name = re.sub(r"\W", "_", name, flags=re.ASCII)
        name = name if name and not name[0].isdigit() else f"_{name}"
    return f"{name}_" if name in KEYWORDS or _SPECIAL.match(name) else name


def default_dtype(fn: str, args: tuple[Expr, ...]) -> DType | None:
    """The dtype that ``fn`` of these arguments has when nothing else is said."""
    if fn in PREDICATES:
        return bool_
    if fn == "bitcast" or not args:
        return None
    if fn in ("pack2", "pack4", "pack16"):
        return float32 if fn == "pack2" else int32
    return args[1].dtype if fn == "select" and len(args) > 1 else args[0].dtype


@functools.lru_cache(maxsize=4096)
def _number(bits: bytes, dtype: DType) -> str:
    (value,) = struct.unpack("<d", bits)
    if value != value:
        plain = struct.pack("<d", float("nan")) == bits
        return f"nan_{dtype.code}" if plain else f"nan_0x{bits[::-1].hex()}_{dtype.code}"
    if value in (float("inf"), float("-inf")):
        return f"{'-' if value < 0 else ''}inf_{dtype.code}"
    if dtype is float64:
        return f"{value!r}f64"
    # The shortest text in the narrow type, provided that it reads back through a double.
    short = str(dtype.as_numpy_dtype(value))
    if Const(float(short), dtype).value != value:
        short = repr(value)
    return short + dtype.code


def const_text(node: Const) -> str:
    """A literal: its bits and dtype can be read back from the text."""
    dtype = node.dtype
    if dtype is int64:
        return str(node.value)
    if dtype is bool_:
        return "true" if node.value else "false"
    if dtype.is_floating:
        return _number(struct.pack("<d", node.value), dtype)
    return f"{int(node.value)}{dtype.code}"


class _Printer:
    def __init__(self) -> None:
        self.names: dict[Var | Buffer, str] = {}
        self.taken: set[str] = set()
        self.lines: list[str] = []
        self.shared = 0
        self.at: list[int] = []  # where each statement's lines begin

    # --- names ---

    def declare(self, thing: Var | Buffer) -> str:
        base = name = identifier(thing.name)
        number = 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        self.names[thing] = name
        return name

    def name(self, thing: Var | Buffer) -> str:
        return self.names.get(thing) or f"?{identifier(thing.name)}"

    # --- expressions ---

    def exprs(self, roots: tuple[Expr, ...], indent: str | None) -> list[str]:
        """The texts of the roots; abbreviations become lines, unless ``indent`` is None."""
        uses: dict[Expr, int] = {}
        stack: list[Expr] = []
        for root in roots:
            uses[root] = uses.get(root, 0) + 1
            if uses[root] == 1:
                stack.append(root)
                while stack:
                    node = stack.pop()
                    for child in node.operands:
                        if child in uses:
                            uses[child] += 1
                        else:
                            uses[child] = 1
                            stack.append(child)
        texts: dict[Expr, tuple[str, int]] = {}
        for root in roots:
            stack.append(root)
            while stack:
                node = stack[-1]
                if node in texts:
                    stack.pop()
                    continue
                # Pushed backwards, so that abbreviations are numbered from left to right.
                missing = [c for c in node.operands if c not in texts]
                if missing:
                    stack.extend(reversed(missing))
                    continue
                stack.pop()
                text = self.node(node, texts)
                if indent is not None and len(text[0]) > (_SHARED if uses[node] > 1 else _LONG):
                    self.shared += 1
                    self.lines.append(f"{indent}%{self.shared} = {text[0]}")
                    text = (f"%{self.shared}", ATOM)
                texts[node] = text
        return [texts[root][0] for root in roots]

    def node(self, node: Expr, texts: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
        if isinstance(node, Apply):
            return self.apply(node, texts)
        if isinstance(node, Const):
            return const_text(node), ATOM
        if isinstance(node, Var):
            return self.name(node), ATOM
        if isinstance(node, Load):
            return f"{self.name(node.buffer)}[{texts[node.index][0]}]", ATOM
        args = ", ".join([texts[c][0] for c in node.operands])
        if isinstance(node, Cast):
            return f"{node.dtype.code}({args})", ATOM
        if isinstance(node, Guard):
            return f"guard({args})", ATOM
        assert isinstance(node, Require)
        return f"require#{node.site}({args})", ATOM

    def apply(self, node: Apply, texts: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
        args = node.args
        plain = node.dtype is default_dtype(node.fn, args)
        infix = INFIX.get(node.fn)
        if infix is not None and plain and len(args) == 2:
            word, binds = infix
            left, left_binds = texts[args[0]]
            right, right_binds = texts[args[1]]
            # Comparisons do not chain: both sides of one bind tighter than it does.
            if left_binds < binds or (left_binds == binds == 4):
                left = f"({left})"
            if right_binds <= binds:
                right = f"({right})"
            return f"{left} {word} {right}", binds
        suffix = "" if plain else f".{node.dtype.code}"
        return f"{node.fn}{suffix}({', '.join([texts[a][0] for a in args])})", ATOM

    # --- statements ---

    def block(self, block: Block, indent: str) -> None:
        self.at.append(max(len(self.lines) - 1, 0))
        outer = self.taken
        self.taken = set(outer)
        for stmt in block.stmts:
            if not isinstance(stmt, Block):
                self.at.append(len(self.lines))
            self.stmt(stmt, indent)
        if not block.stmts:
            self.lines.append(f"{indent}pass")
        self.taken = outer

    def stmt(self, stmt: Stmt, indent: str) -> None:
        if isinstance(stmt, Store):
            index, value = self.exprs((stmt.index, stmt.value), indent)
            head = "stream " if stmt.streaming else ""
            self.lines.append(f"{indent}{head}{self.name(stmt.buffer)}[{index}] = {value}")
        elif isinstance(stmt, Reduce):
            index, value = self.exprs((stmt.index, stmt.value), indent)
            word = ASSIGN.get(stmt.op, f"?{stmt.op}=")
            self.lines.append(f"{indent}{self.name(stmt.buffer)}[{index}] {word} {value}")
        elif isinstance(stmt, For):
            self.loop(stmt, indent)
        elif isinstance(stmt, If):
            (cond,) = self.exprs((stmt.cond,), indent)
            self.lines.append(f"{indent}if {cond}:")
            self.block(stmt.then, indent + "  ")
            if stmt.otherwise is not None:
                self.lines.append(f"{indent}else:")
                self.block(stmt.otherwise, indent + "  ")
        elif isinstance(stmt, Let):
            (value,) = self.exprs((stmt.value,), indent)
            self.lines.append(f"{indent}let {self.typed(stmt.var)} = {value}")
        elif isinstance(stmt, Alloc):
            self.lines.append(f"{indent}{stmt.buffer.scope.value} {self.buffer(stmt.buffer)}")
        elif isinstance(stmt, Prefetch):
            (index,) = self.exprs((stmt.index,), indent)
            self.lines.append(f"{indent}prefetch {self.name(stmt.buffer)}[{index}]")
        elif isinstance(stmt, Barrier):
            self.lines.append(f"{indent}barrier")
        elif isinstance(stmt, AllReduce):
            (index,) = self.exprs((stmt.index,), indent)
            self.lines.append(f"{indent}allreduce {stmt.op} {self.name(stmt.buffer)}[{index}]")
        elif isinstance(stmt, (AsyncCopy, AsyncCommit, AsyncWait, WarpProduct)):
            self.lines.append(indent + self.warp(stmt, indent))
        else:
            assert isinstance(stmt, Block)
            self.lines.append(f"{indent}scope:")
            self.block(stmt, indent + "  ")

    def warp(self, stmt: Stmt, indent: str) -> str:
        if isinstance(stmt, AsyncCopy):
            index, value, cond = self.exprs((stmt.index, stmt.value, stmt.cond), indent)
            return f"async {stmt.count} {self.name(stmt.buffer)}[{index}] = {value} if {cond}"
        if isinstance(stmt, AsyncCommit):
            return "commit"
        if isinstance(stmt, AsyncWait):
            return f"await {stmt.pending}"
        assert isinstance(stmt, WarpProduct)
        left, right = self.exprs((stmt.left, stmt.right), indent)
        (m, n, k), (a, b), (c, d) = stmt.shape, stmt.left_steps, stmt.right_steps
        head = f"warpproduct {m} {n} {k} {self.name(stmt.total)}"
        return f"{head} += {left} by {a} {b}, {right} by {c} {d}"

    def loop(self, loop: For, indent: str) -> None:
        (extent,) = self.exprs((loop.extent,), indent)
        outer = self.taken
        self.taken = set(outer)
        head = f"{LOOP_WORD[loop.kind]} {self.typed(loop.var)}"
        self.lines.append(f"{indent}{head} in {extent}:")
        self.block(loop.body, indent + "  ")
        self.taken = outer

    def typed(self, var: Var) -> str:
        name = self.declare(var)
        return name if var.dtype is int64 else f"{name}: {var.dtype.code}"

    def buffer(self, buffer: Buffer) -> str:
        (size,) = self.exprs((buffer.size,), None)
        return f"{self.declare(buffer)}: {buffer.dtype.code}[{size}]"

    def kernel(self, kernel: Kernel) -> None:
        scalars = [self.typed(var) for var in kernel.scalars]
        params = []
        for param in kernel.params:
            scope = "" if param.scope is Scope.GLOBAL else f"{param.scope.value} "
            params.append(scope + self.buffer(param))
        (grain,) = self.exprs((kernel.grain,), None)
        name = kernel.name if _IDENTIFIER.match(kernel.name) else json.dumps(kernel.name)
        head = ", ".join(params) + ("; " + ", ".join(scalars) if scalars else "")
        tail = "" if grain == "1" else f" grain {grain}"
        self.lines.append(f"kernel {name}({head}){tail}:")
        self.block(kernel.body, "  ")


def format_kernel(kernel: Kernel) -> str:
    """The kernel as text, one statement a line; ``parser.parse_kernel`` reads it back."""
    printer = _Printer()
    printer.kernel(kernel)
    return "\n".join(printer.lines) + "\n"


class _Numbered(_Printer):
    """Names say only in which order things come."""

    def __init__(self) -> None:
        super().__init__()
        self.declared = 0

    def declare(self, thing: Var | Buffer) -> str:
        # Of two sibling scopes, both may declare one variable.
        name = self.names[thing] = f"n{self.declared}"
        self.declared += 1
        return name


def format_unnamed(kernel: Kernel) -> str:
    """A text that is the same for kernels that differ in names alone."""
    printer = _Numbered()
    printer.kernel(replace(kernel, name="k"))
    return "\n".join(printer.lines) + "\n"


class _Bare(_Printer):
    """Without a kernel around it: every name stands for itself."""

    def name(self, thing: Var | Buffer) -> str:
        return self.names.get(thing) or identifier(thing.name)


def format_stmt(stmt: Stmt) -> str:
    """A statement out of its context: variables from outside go by their own names."""
    printer = _Bare()
    printer.stmt(stmt, "")
    return "\n".join(printer.lines)


def format_expr(expr: Expr) -> str:
    """An expression out of its context, on one line."""
    return _Bare().exprs((expr,), None)[0]


def format_lines(kernel: Kernel) -> tuple[list[str], list[int]]:
    """The kernel's lines, and the line on which each statement begins.

    Statements are in the order of ``ir.walk_stmt(kernel.body)``; a Block has the line before it.
    """
    printer = _Printer()
    printer.kernel(kernel)
    at = []
    for line in printer.at:
        while printer.lines[line].lstrip().startswith("%"):
            line += 1
        at.append(line)
    return printer.lines, at
