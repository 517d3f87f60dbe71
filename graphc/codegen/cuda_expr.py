"""Expressions of the loop IR in CUDA C.

A statement's expressions are printed one after the other: a node that is used more than once, or
whose text is long, becomes a constant of its own, others stand where they are used.  Between two
statements nothing is remembered: the compiler of CUDA C sees what is the same.
"""

from __future__ import annotations

from graphc.codegen.cuda_ops import cast, primitive
from graphc.codegen.cuda_range import Ranges
from graphc.codegen.cuda_text import TYPES, literal
from graphc.dtypes import DType, int64
from graphc.errors import CompileError
from graphc.loop.ir import (
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    Guard,
    Load,
    Require,
    Var,
    walk_expr,
)
from graphc.loop.printer import identifier
from graphc.loop.scalar import FUNCTIONS

_LONG = 60  # characters of a text that is not repeated inside another
_INDEX = {"add": "+", "sub": "-", "mul": "*"}
_WORDS = """
    auto bool break case char class const continue default delete do double else enum extern
    false float for goto if inline int long namespace new operator private register return
    short signed sizeof static status struct switch template this true typedef union unsigned
    using void volatile while
"""
_RESERVED = frozenset(_WORDS.split())
Texts = dict[Expr, str]


class Lines:
    """Indented lines, and names that are used once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.indent = "  "
        self.taken: set[str] = set()
        self.count = 0

    def add(self, line: str) -> None:
        """One more line."""
        self.lines.append(self.indent + line)

    def open(self, head: str) -> None:
        """A line after which the indentation grows."""
        self.add(head + " {")
        self.indent += "  "

    def close(self, tail: str = "}") -> None:
        """A line before which it shrinks."""
        self.indent = self.indent[:-2]
        self.add(tail)

    def name(self, wanted: str) -> str:
        """A name like the one that is wanted, used nowhere else in the function."""
        base = found = identifier(wanted)
        number = 0
        while found in self.taken or found in _RESERVED or found.startswith("gc_"):
            number += 1
            found = f"{base}_{number}"
        self.taken.add(found)
        return found

    def temporary(self) -> str:
        """A name for a part of an expression."""
        self.count += 1
        return self.name(f"t{self.count}")


class Expressions:
    """Prints the expressions of one function.

    Attributes:
      names: of the variables and buffers in scope.
      data: variables whose values come from memory: arithmetic with them wraps around.
      positive: variables that are at least 1.
      vectors: loads whose values are in registers already, with their texts.
      ranges: what is known of the values of variables.
      short: variables of 32 bits.
    """

    def __init__(self, out: Lines) -> None:
        self.out = out
        self.names: dict[Var | Buffer, str] = {}
        self.data: set[Var] = set()
        self.positive: set[Expr] = set()
        self.vectors: dict[Expr, str] = {}
        self.ranges = Ranges()
        self.short: set[Var] = set()
        self._expanded: dict[int, tuple[Expr, Expr]] = {}

    def declare(self, thing: Var | Buffer) -> str:
        """A name for a variable or a buffer from here on."""
        found = self.names[thing] = self.out.name(thing.name)
        return found

    def declare_index(self, var: Var, short: bool) -> str:
        """A declaration of an int64 variable whose range is settled, of 32 bits if these do."""
        self.short.discard(var)
        if short:
            self.short.add(var)
        return f"{'int' if short else 'long long'} {self.declare(var)}"

    def texts(self, *roots: Expr) -> list[str]:
        """The texts of the expressions of one statement; lines before it as they need."""
        uses: dict[Expr, int] = {}
        stack = list(roots)
        for root in roots:
            uses[root] = uses.get(root, 0) + 1
        seen: set[Expr] = set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            for child in self._below(node):
                uses[child] = uses.get(child, 0) + 1
                stack.append(child)
        memo: Texts = {}
        return [self._text(root, memo, uses) for root in roots]

    def is_data(self, root: Expr) -> bool:
        """Whether a value is more than arithmetic of loop variables and sizes."""
        return any(
            isinstance(n, (Load, Cast)) or n in self.data or getattr(n, "fn", "") == "bitcast"
            for n in walk_expr(root)
        )

    def _below(self, node: Expr) -> tuple[Expr, ...]:
        if isinstance(node, Apply):
            row = FUNCTIONS.get(node.fn)
            if row is None:
                raise CompileError(f"there is no scalar function {node.fn!r}")
            if row.expand is not None:
                found = self._expanded.get(id(node))
                if found is None:
                    found = self._expanded[id(node)] = (node, row.expand(*node.args))
                return (found[1],)
        return () if node in self.vectors else node.operands

    def _text(self, root: Expr, memo: Texts, uses: dict[Expr, int]) -> str:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in memo:
                stack.pop()
                continue
            missing = [c for c in self._eager(node) if c not in memo]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            memo[node] = self._named(node, self._node(node, memo, uses), uses)
        return memo[root]

    def _eager(self, node: Expr) -> tuple[Expr, ...]:
        """The operands that are evaluated whenever the node is."""
        if isinstance(node, Guard):
            return (node.cond, node.otherwise)
        if isinstance(node, Require):
            return (node.cond,)
        return self._below(node)

    def _named(self, node: Expr, text: str, uses: dict[Expr, int]) -> str:
        plain = isinstance(node, (Var, Const)) or text.isidentifier()
        if plain or (uses.get(node, 1) == 1 and len(text) <= _LONG):
            return text
        name = self.out.temporary()
        short = node.dtype is int64 and isinstance(node, Apply) and self.ranges.is_short(node)
        ty = "int" if short else TYPES[node.dtype.code]
        self.out.add(f"const {ty} {name} = {bare(text)};")
        return name

    def _node(self, node: Expr, memo: Texts, uses: dict[Expr, int]) -> str:
        if isinstance(node, Const):
            return literal(node)
        if isinstance(node, Var):
            return self._name(node)
        if node in self.vectors:
            return self.vectors[node]
        if isinstance(node, Load):
            return f"{self._name(node.buffer)}[{bare(memo[node.index])}]"
        if isinstance(node, Cast):
            return cast(memo[node.value], node.value.dtype, node.dtype)
        if isinstance(node, Guard):
            return self._guard(node, memo, uses)
        if isinstance(node, Require):
            return self._require(node, memo, uses)
        assert isinstance(node, Apply)
        return self._apply(node, memo)

    def _name(self, thing: Var | Buffer) -> str:
        found = self.names.get(thing)
        if found is None:
            raise CompileError(f"{thing.name!r} is not in scope")
        return found

    def _apply(self, node: Apply, memo: Texts) -> str:
        below = self._below(node)
        if below != node.args:
            return memo[below[0]]
        args = [memo[a] for a in node.args]
        if node.fn == "bitcast" and node.args[0].dtype is int64:
            return f"gc_bits<{TYPES[node.dtype.code]}>((long long){args[0]})"
        if node.fn == "bitcast":
            return f"gc_bits<{TYPES[node.dtype.code]}>({bare(args[0])})"
        if node.dtype is int64 and node.args[-1].dtype is int64:
            index = self._index(node, args)
            if index is not None:
                return index
        return primitive(node.fn, node.args[-1].dtype, args)

    def _index(self, node: Apply, args: list[str]) -> str | None:
        """Arithmetic of indices, which never overflow and are divided by sizes."""
        divisor = node.args[-1]
        constant = isinstance(divisor, Const) and divisor.value > 0
        if node.fn in ("idiv", "irem") and (constant or divisor in self.positive):
            return f"({args[0]} {'/' if node.fn == 'idiv' else '%'} {args[1]})"
        if node.fn in _INDEX and not self.is_data(node):
            # Where 32 bits may not hold the result, one operand at least has 64.
            wide = not self.ranges.is_short(node) and not any(map(self._is_wide, node.args))
            first = f"(long long){args[0]}" if wide else args[0]
            return f"({first} {_INDEX[node.fn]} {args[1]})"
        return None

    def _is_wide(self, node: Expr) -> bool:
        """Whether the text of an int64 expression surely has 64 bits."""
        if isinstance(node, Var):
            return node not in self.short
        if isinstance(node, Apply) and node.fn in _INDEX and not self.is_data(node):
            return not self.ranges.is_short(node)
        return isinstance(node, Load)

    # --- conditions -------------------------------------------------------------------------------

    def _guard(self, node: Guard, memo: Texts, uses: dict[Expr, int]) -> str:
        if node.value in memo:
            return f"({memo[node.cond]} ? {memo[node.value]} : {memo[node.otherwise]})"
        name = self._result(node.dtype)
        self.out.open(f"if ({bare(memo[node.cond])})")
        value = self._text(node.value, dict(memo), uses)
        self.out.add(f"{name} = {bare(value)};")
        self.out.close("} else {")
        self.out.add(f"  {name} = {bare(memo[node.otherwise])};")
        self.out.add("}")
        return name

    def _require(self, node: Require, memo: Texts, uses: dict[Expr, int]) -> str:
        name = self._result(node.dtype)
        self.out.open(f"if ({bare(memo[node.cond])})")
        self.out.add(f"{name} = {bare(self._text(node.value, dict(memo), uses))};")
        self.out.close("} else {")
        self.out.indent += "  "
        inside = dict(memo)
        details = [bare(self._text(d, inside, uses)) for d in node.details]
        shown = ", ".join((*details, "0", "0")[:2])
        self.out.add(f"gc_fail(status, {node.site + 1}, {shown});")
        self.out.add(f"{name} = 0;")
        self.out.close()
        return name

    def _result(self, dtype: DType) -> str:
        name = self.out.temporary()
        self.out.add(f"{TYPES[dtype.code]} {name};")
        return name


def bare(text: str) -> str:
    """A text without the parentheses around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and at < len(text) - 1:
            return text
    return text[1:-1]
