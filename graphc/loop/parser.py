"""Text to loop IR: reads what ``printer.py`` writes.

Printing what was parsed gives the text again. Tests and people write kernels this way; it is no
input language of the compiler, and a wrong text gets a ``CompileError`` with its line.
"""

from __future__ import annotations

import json
import re
import struct
from typing import NoReturn

from graphc import dtypes
from graphc.dtypes import DType, bool_, int64
from graphc.errors import CompileError
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
from graphc.loop.printer import ASSIGN, INFIX, LOOP_WORD, default_dtype

_CODES = {t.code: t for t in dtypes.ALL}
_CODE = r"(?:bf16|f16|f32|f64|[iu](?:8|16|32|64)|b1)"
_TOKEN = re.compile(
    rf"\s*(?:(?P<special>(?:inf|nan_0x[0-9a-f]+|nan)_(?:bf16|f16|f32|f64))(?!\w)"
    rf"|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?P<code>{_CODE})?(?!\w)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<shared>%\d+)"
    r"|(?P<op><=|>=|==|!=|//|[-+*/%<>()\[\],#.:;]))",
    re.ASCII,
)
_INFIX = {word: (fn, binds) for fn, (word, binds) in INFIX.items()}
_ASSIGN = {word: op for op, word in ASSIGN.items()}
_LOOPS = {word: kind for kind, word in LOOP_WORD.items()}
_STORE = re.compile(r"(stream )?([A-Za-z_]\w*)\[(.*?)\] (=|\+=|\*=|max=|min=|and=|or=) (.*)")
_ASYNC = re.compile(r"async (\d+) (\w+)\[(.*?)\] = (.*) if (.*)")
_WARP = re.compile(
    r"warpproduct (\d+) (\d+) (\d+) (\w+) \+= (.*) by (\d+) (\d+), (.*) by (\d+) (\d+)"
)
_Scope = dict[str, "Var | Buffer"]


class _Tokens:
    """One line's tokens and the expressions made of them."""

    def __init__(self, text: str, parser: _Parser) -> None:
        self.text = text
        self.parser = parser
        self.items: list[tuple[str, re.Match[str]]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                parser.fail(f"cannot read {text[at:]!r}")
            self.items.append((match[0].strip(), match))
            at = match.end()
        self.pos = 0

    def peek(self, ahead: int = 0) -> str:
        at = self.pos + ahead
        return self.items[at][0] if at < len(self.items) else ""

    def take(self, expected: str | None = None) -> str:
        word = self.peek()
        if not word or (expected is not None and word != expected):
            self.parser.fail(f"expected {expected or 'more'!r}, found {word or 'the end'!r}")
        self.pos += 1
        return word

    def end(self) -> None:
        if self.peek():
            self.parser.fail(f"unexpected {self.peek()!r}")

    def expr(self, binds: int = 0) -> Expr:
        left = self.primary()
        while True:
            fn, level = _INFIX.get(self.peek(), ("", 0))
            if level <= binds:
                return left
            self.pos += 1
            args = (left, self.expr(level))
            left = Apply(fn, args, default_dtype(fn, args) or int64)

    def primary(self) -> Expr:
        word = self.take()
        if word == "(":
            inner = self.expr()
            self.take(")")
            return inner
        match = self.items[self.pos - 1][1]
        if word == "-":
            self.take()
            return self.literal(self.items[self.pos - 1][1], "-")
        if match["special"] or match["number"]:
            return self.literal(match, "")
        if match["shared"]:
            return self.parser.abbreviation(word)
        if word in ("true", "false"):
            return Const(word == "true", bool_)
        if match["name"] is None:
            self.parser.fail(f"unexpected {word!r}")
        if self.peek() == "[":
            self.take()
            index = self.expr()
            self.take("]")
            return Load(self.parser.buffer(word), index)
        if self.peek() in ("(", "#", "."):
            return self.call(word)
        return self.parser.variable(word)

    def literal(self, match: re.Match[str], sign: str) -> Expr:
        if match["special"]:
            value, _, code = match["special"].rpartition("_")
            dtype = _CODES[code]
            if value.startswith("nan_0x"):
                (number,) = struct.unpack(">d", bytes.fromhex(value[6:]))
                return Const(number, dtype)
            return Const(float(sign + value), dtype)
        if not match["number"]:
            self.parser.fail(f"{match[0].strip()!r} is no number")
        dtype = _CODES[match["code"]] if match["code"] else int64
        text = sign + match["number"]
        return Const(float(text) if dtype.is_floating else int(text), dtype)

    def call(self, name: str) -> Expr:
        site = 0
        dtype: DType | None = None
        if self.peek() == "#":
            self.take()
            site = int(self.take())
        elif self.peek() == ".":
            self.take()
            dtype = _CODES[self.take()]
        self.take("(")
        args: list[Expr] = []
        while self.peek() != ")":
            args.append(self.expr())
            if self.peek() != ")":
                self.take(",")
        self.take(")")
        if name in _CODES:
            return Cast(args[0], _CODES[name])
        if name == "guard":
            return Guard(args[0], args[1], args[2])
        if name == "require":
            return Require(args[0], args[1], site, tuple(args[2:]))
        return Apply(name, tuple(args), dtype or default_dtype(name, tuple(args)) or int64)


class _Parser:
    def __init__(self, text: str) -> None:
        self.lines = [line for line in text.splitlines() if line.strip()]
        self.at = 0
        self.scope: _Scope = {}
        self.shared: dict[str, Expr] = {}

    def fail(self, message: str) -> NoReturn:
        line = self.lines[min(self.at, len(self.lines) - 1)] if self.lines else ""
        raise CompileError(f"loop IR text, line {self.at + 1}: {message}\n  {line.strip()}")

    # --- names ---

    def abbreviation(self, word: str) -> Expr:
        if word not in self.shared:
            self.fail(f"{word} is not defined above")
        return self.shared[word]

    def variable(self, name: str) -> Var:
        found = self.scope.get(name)
        if not isinstance(found, Var):
            self.fail(f"no variable {name!r} in scope")
        return found

    def buffer(self, name: str) -> Buffer:
        found = self.scope.get(name)
        if not isinstance(found, Buffer):
            self.fail(f"no buffer {name!r} in scope")
        return found

    def expr(self, text: str) -> Expr:
        tokens = _Tokens(text, self)
        value = tokens.expr()
        tokens.end()
        return value

    # --- statements ---

    def block(self, indent: int) -> Block:
        outer = self.scope
        self.scope = dict(outer)
        stmts: list[Stmt] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            depth = len(line) - len(line.lstrip())
            if depth < indent:
                break
            if depth > indent:
                self.fail("unexpected indentation")
            stmt = self.stmt(line.strip(), indent)
            if stmt is not None:
                stmts.append(stmt)
        self.scope = outer
        return Block(tuple(stmts))

    def stmt(self, line: str, indent: int) -> Stmt | None:
        word = line.split(" ", 1)[0]
        if word in _LOOPS:
            return self.loop(_LOOPS[word], line[len(word) :], indent)
        if word == "if":
            return self.branch(line, indent)
        if line == "scope:":
            self.at += 1
            return self.block(indent + 2)
        made = self.simple(word, line)
        self.at += 1
        return made

    def simple(self, word: str, line: str) -> Stmt | None:
        if line == "pass":
            return None
        if line == "barrier":
            return Barrier()
        if word == "allreduce":
            return self.all_reduce(line)
        if word == "prefetch":
            return self.prefetch(line)
        if word in ("async", "commit", "await", "warpproduct"):
            return self.warp(line)
        if word.startswith("%"):
            self.shared[word] = self.expr(line.partition(" = ")[2])
            return None
        if word == "let":
            head, _, text = line[4:].partition(" = ")
            value = self.expr(text)
            return Let(self.declare(head), value)
        if word in ("local", "shared", "global"):
            return Alloc(self.declare_buffer(line))
        match = _STORE.fullmatch(line)
        if match is None:
            self.fail("no such statement")
        stream, name, index, assign, value_text = match.groups()
        target, at, value = self.buffer(name), self.expr(index), self.expr(value_text)
        if assign == "=":
            return Store(target, at, value, bool(stream))
        return Reduce(target, at, _ASSIGN[assign], value)

    def all_reduce(self, line: str) -> AllReduce:
        match = re.fullmatch(r"allreduce (\w+) (\w+)\[(.*)\]", line)
        if match is None:
            self.fail("expected 'allreduce OP BUFFER[INDEX]'")
        op, name, index = match.groups()
        return AllReduce(self.buffer(name), self.expr(index), op)

    def prefetch(self, line: str) -> Prefetch:
        match = re.fullmatch(r"prefetch (\w+)\[(.*)\]", line)
        if match is None:
            self.fail("expected 'prefetch BUFFER[INDEX]'")
        return Prefetch(self.buffer(match[1]), self.expr(match[2]))

    def element(self, text: str) -> Load:
        value = self.expr(text)
        if not isinstance(value, Load):
            self.fail(f"{text!r} is no element of a buffer")
        return value

    def warp(self, line: str) -> Stmt:
        if line == "commit":
            return AsyncCommit()
        wait, copy, product = (
            re.fullmatch(r"await (\d+)", line), _ASYNC.fullmatch(line), _WARP.fullmatch(line)
        )  # fmt: skip
        if wait is not None:
            return AsyncWait(int(wait[1]))
        if copy is not None:
            count, name, index, value, cond = copy.groups()
            place = self.expr(index)
            return AsyncCopy(
                self.buffer(name), place, self.element(value), self.expr(cond), int(count)
            )
        if product is None:
            self.fail("no such statement")
        m, n, k, name, left, a, b, right, c, d = product.groups()
        return WarpProduct(
            self.buffer(name), self.element(left), self.element(right), (int(a), int(b)),
            (int(c), int(d)), (int(m), int(n), int(k)),
        )  # fmt: skip

    def loop(self, kind: LoopKind, rest: str, indent: int) -> For:
        head, found, extent_text = rest.strip().removesuffix(":").partition(" in ")
        if not found:
            self.fail("expected 'in'")
        extent = self.expr(extent_text)
        outer = self.scope
        self.scope = dict(outer)
        var = self.declare(head)
        self.at += 1
        body = self.block(indent + 2)
        self.scope = outer
        return For(var, extent, kind, body)

    def branch(self, line: str, indent: int) -> If:
        cond = self.expr(line[3:].removesuffix(":"))
        self.at += 1
        then = self.block(indent + 2)
        if self.at < len(self.lines) and self.lines[self.at] == " " * indent + "else:":
            self.at += 1
            return If(cond, then, self.block(indent + 2))
        return If(cond, then)

    def declare(self, text: str) -> Var:
        name, _, code = text.strip().partition(": ")
        if code and code not in _CODES:
            self.fail(f"no dtype {code!r}")
        var = Var(name, _CODES[code] if code else int64)
        self.scope[name] = var
        return var

    def declare_buffer(self, text: str) -> Buffer:
        match = re.fullmatch(rf"(?:(local|shared|global) )?(\w+): ({_CODE})\[(.*)\]", text.strip())
        if match is None:
            self.fail(f"no buffer declaration: {text.strip()!r}")
        scope = Scope(match[1] or "global")
        buffer = Buffer(match[2], _CODES[match[3]], self.expr(match[4]), scope)
        self.scope[match[2]] = buffer
        return buffer

    def kernel(self) -> Kernel:
        line = self.lines[0] if self.lines else ""
        match = re.fullmatch(r"kernel (\w+|\".*?\")\((.*?)\)(?: grain (.*))?:", line, re.ASCII)
        if match is None:
            self.fail("expected 'kernel NAME(PARAMS; SCALARS):'")
        # A size is written over scalars that are declared behind it.
        params, _, scalars = match[2].partition("; ")
        variables = tuple(self.declare(part) for part in scalars.split(", ") if part)
        buffers = tuple(self.declare_buffer(part) for part in _split(params))
        grain = self.expr(match[3] or "1")
        name = json.loads(match[1]) if match[1].startswith('"') else match[1]
        self.at = 1
        body = self.block(2)
        if self.at < len(self.lines):
            self.fail("unexpected indentation")
        return Kernel(name, buffers, variables, body, grain)


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [p for p in (*parts, text[start:]) if p.strip()]


def parse_kernel(text: str) -> Kernel:
    """The kernel that ``text`` says.

    Raises:
      CompileError: the text is no kernel; the message has the line.
    """
    return _Parser(text).kernel()
