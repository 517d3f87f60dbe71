"""Expressions of the loop IR in LLVM text.

Each node is printed once where that is possible: a value is remembered in the scope of the
innermost variable it depends on; one that loads, in the current scope and until a store to what
it has loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.codegen.llvm_branch import Branches
from graphc.codegen.llvm_bytes import dot2, dp4a, madd16, pack4, side_by_side, widened
from graphc.codegen.llvm_cast import cast, resize
from graphc.codegen.llvm_compare import Comparisons
from graphc.codegen.llvm_facts import Facts, Knowledge
from graphc.codegen.llvm_index import Index, Indices
from graphc.codegen.llvm_memory import Memory, Storage
from graphc.codegen.llvm_ops import COMPARISONS, OPCODES, bitcast, invert, primitive
from graphc.codegen.llvm_text import TYPES, Emitter, Region, Val
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
)
from graphc.loop.scalar import FUNCTIONS

Value = Val | Index
_DEEP = 40
_DOTS = {"dp4a": dp4a, "dot2": dot2, "madd16": madd16}
Key = int | tuple[int, ...]


@dataclass(eq=False, slots=True)
class Scope:
    """Where remembered values hold.

    ``bound`` has the bits of the variables bound in it; ``base`` is the depth of the outermost
    scope in which the same instructions run for the same lanes.
    """

    region: Region
    mask: Val | None
    base: int
    bound: int = 0
    alive: bool = True


Entry = tuple[Value, Scope, int, frozenset[Buffer]]


class Expressions:
    """Prints expressions of one kernel."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self.indices = Indices(e)
        self.memory = Memory(e, self.indices)
        self.compare = Comparisons(e, self.indices, self.memory)
        self.branches = Branches(e)
        self.storage: dict[Buffer, Storage] = {}
        self.scopes = [Scope(e.region, None, 0)]
        self._env: dict[Var, Value] = {}
        self._fixed: list[tuple[int, int]] = []
        self._fixed_bits = 0
        self._tokens: dict[tuple[int, int, int], int] = {}
        self._knowledge = Knowledge(self.storage)
        self._facts = self._knowledge.facts
        self._memo: dict[Key, Entry] = {}
        self._printers: dict[type, Callable[[Any], Value]] = {
            Apply: self._apply,
            Const: self._const,
            Load: self._load,
            Cast: self._cast,
            Guard: self._guard,
            Require: self._require,
        }
        self._expanded: dict[int, Expr] = {}
        self._zeros: dict[DType, Const] = {}

    # --- scopes -------------------------------------------------------------------------------

    @property
    def mask(self) -> Val | None:
        """The lanes that are active here; None: all."""
        return self.scopes[-1].mask

    def enter(self, mask: Val | None = None) -> Scope:
        """A scope in the current region; ``mask`` narrows the active lanes."""
        top = self.scopes[-1]
        region = self.e.region
        if mask is None and top.region is region:
            scope = Scope(region, top.mask, top.base)
        else:
            scope = Scope(region, mask if mask is not None else top.mask, len(self.scopes))
        self.scopes.append(scope)
        return scope

    def leave(self) -> None:
        """End the innermost scope."""
        self.scopes.pop().alive = False

    def bind(self, var: Var, value: Value) -> None:
        """Give a variable its value in the innermost scope."""
        self._env[var] = value
        self.scopes[-1].bound |= self._knowledge.bit(var)

    def fix(self, var: Var, value: Index) -> None:
        """Give a variable a value that is part of what values are remembered by."""
        self._env[var] = value
        bit = self._knowledge.bit(var)
        lanes = self.indices.width if value.terms else 0
        token = self._tokens.setdefault((bit, value.const, lanes), len(self._tokens))
        self._fixed.append((bit, token))
        self._fixed_bits |= bit

    def release(self) -> None:
        """End what the last ``fix`` began."""
        self._fixed_bits &= ~self._fixed.pop()[0]

    def _stored(self, buffer: Buffer) -> Storage:
        found = self.storage.get(buffer)
        if found is None:
            raise CompileError(f"the buffer {buffer.name!r} is neither a parameter nor allocated")
        return found

    # --- values -------------------------------------------------------------------------------

    def value(self, node: Expr) -> Value:
        """The node as an operand: an Index for int64."""
        if node.__class__ is Var:
            return self._variable(node)
        facts = self._facts.get(id(node)) or self._knowledge.of(node)
        key = self._key(node, facts)
        entry = self._memo.get(key)
        if entry is not None and entry[1].alive and (not entry[3] or self._fresh(entry)):
            return entry[0]
        if facts.height > _DEEP:
            self._prepare(node)
        return self._print(node, key, facts)

    def _print(self, node: Expr, key: Key, facts: Facts) -> Value:
        result = self._printers[node.__class__](node)
        self._memo[key] = (result, self._home(result, facts), self.e.clock, facts.loads)
        return result

    def _variable(self, var: Expr) -> Value:
        found = self._env.get(var)  # type: ignore[call-overload]
        if found is None:
            raise CompileError(f"the variable {getattr(var, 'name', var)!r} is not in scope")
        return found  # type: ignore[no-any-return]

    def _key(self, node: Expr, facts: Facts) -> Key:
        """What a value is remembered by: the node, and the fixed variables in it."""
        variables = facts.variables
        if not variables & self._fixed_bits:
            return id(node)
        return (id(node), *[token for bit, token in self._fixed if bit & variables])

    def _fresh(self, entry: Entry) -> bool:
        """Whether nothing has been stored to what a value was loaded from."""
        return all(self.storage[buffer].stamp <= entry[2] for buffer in entry[3])

    def _home(self, value: Value, facts: Facts) -> Scope:
        """The outermost scope in which a value that was printed just now holds."""
        scopes = self.scopes
        at = len(scopes) - 1
        low = scopes[at].base if facts.effect else self.e.regions[value.level].scope
        variables = facts.variables & ~self._fixed_bits
        while at > low and not scopes[at].bound & variables:
            at -= 1
        return scopes[at]

    def operand(self, node: Expr) -> Val:
        """The node as an operand, a scalar where all lanes agree."""
        return self.plain(self.value(node))

    def index(self, node: Expr) -> Index:
        """An int64 node."""
        found = self.value(node)
        assert isinstance(found, Index)
        return found

    def plain(self, value: Value) -> Val:
        """The operand that a value stands for."""
        return value if isinstance(value, Val) else self.indices.value(value)

    def typed(self, value: Val, dtype: DType) -> Value:
        """An operand as the value of a node of a dtype."""
        return self.indices.of(value) if dtype is int64 else value

    def _prepare(self, root: Expr) -> None:
        """Print what is below a tall node first, without recursion."""
        todo: list[tuple[Expr, Key, Facts] | Expr] = list(_eager(root))
        todo.reverse()
        while todo:
            item = todo.pop()
            if isinstance(item, tuple):
                self._print(*item)
            elif item.__class__ is not Var:
                facts = self._facts.get(id(item)) or self._knowledge.of(item)
                key = self._key(item, facts)
                entry = self._memo.get(key)
                if entry is None or not entry[1].alive or not self._fresh(entry):
                    todo.append((item, key, facts))
                    todo.extend(reversed(_eager(item)))

    def _const(self, node: Const) -> Value:
        if node.dtype is int64:
            return Index({}, node.value)
        return self.e.const(node.value, node.dtype)

    def _load(self, node: Load) -> Value:
        return self.typed(self.load(node, None), node.dtype)

    def load(self, node: Load, other: Val | None) -> Val:
        """The element; ``other`` for lanes that are not active."""
        st = self._stored(node.buffer)
        place = self.memory.place(st, self.index(node.index))
        return self.memory.load(st, place, self.mask, other)

    def _cast(self, node: Cast) -> Value:
        value = self.value(node.value)
        src, dst = node.value.dtype, node.dtype
        if isinstance(value, Index) and dst.is_integer and value.varies and value.vec is None:
            return self._narrow_lanes(value, dst)
        return self.typed(cast(self.e, self.plain(value), src, dst), dst)

    def _narrow_lanes(self, value: Index, dst: DType) -> Value:
        """``base + stride * lane`` in a narrower type, without 64-bit lanes."""
        ty = TYPES[dst.code]
        if ty == "i64" or value.stride is None:
            return resize(self.e, self.plain(value), ty, signed=True)
        uniform, _ = value.split()
        base = resize(self.e, self.indices.total(uniform, value.const), ty, signed=True)
        half = 1 << (dst.size * 8 - 1)
        steps = [(i * value.stride + half) % (2 * half) - half for i in range(self.indices.width)]
        return self.e.binary("add", self.e.vector(steps, ty), base)

    # --- functions ----------------------------------------------------------------------------

    def _apply(self, node: Apply) -> Value:
        row = FUNCTIONS.get(node.fn)
        if row is None:
            raise CompileError(f"there is no scalar function {node.fn!r}")
        native = self._native(node)
        if native is not None:
            return native
        expand = row.expand
        if node.fn == "exp_negative" and self.e.target.has_avx512:
            expand = FUNCTIONS["exp"].expand  # there one instruction scales
        if expand is not None:
            expanded = self._expanded.get(id(node))
            if expanded is None:
                expanded = self._expanded[id(node)] = expand(*node.args)
            return self.value(expanded)
        values = [self.value(a) for a in node.args]
        dtype = node.args[-1].dtype
        opcode = OPCODES.get((node.fn, dtype.code))
        if opcode is not None:
            return self.e.binary(opcode, values[0], values[1])  # type: ignore[arg-type]
        if dtype is int64 and node.fn != "bitcast":
            return self._on_int64(node, values)
        vals = tuple([self.plain(v) for v in values])
        if node.fn == "bitcast":
            return self.typed(bitcast(self.e, vals[0], node.dtype), node.dtype)
        return primitive(self.e, node.fn, dtype, vals)

    def _native(self, node: Apply) -> Value | None:
        """A derived function where the target has an instruction for it."""
        if node.fn in _DOTS:
            a, b, c = (self.operand(x) for x in node.args)
            return _DOTS[node.fn](self.e, a, b, c)
        if node.fn not in ("pack2", "pack4", "pack16"):
            return None
        word = self._word(node.args) if self.mask is None else None
        if node.fn == "pack4":
            return word or pack4(self.e, [self.operand(x) for x in node.args])
        if word is None:
            return None
        if node.fn == "pack2":
            return self.e.convert("bitcast", word, "float")
        dtype = node.args[0].dtype
        return word if dtype.size == 2 else widened(self.e, word, not dtype.is_unsigned)

    def _word(self, args: tuple[Expr, ...]) -> Val | None:
        """What lies side by side in memory, two or four bytes, by one load."""
        loads = [x for x in args if isinstance(x, Load)]
        if len(loads) < len(args) or any(x.buffer is not loads[0].buffer for x in loads):
            return None
        st = self._stored(loads[0].buffer)
        places = [self.index(x.index) for x in loads]
        if st.private or not side_by_side(places):
            return None
        return self.memory.words(st, places[0], len(args) * args[0].dtype.size)

    def _on_int64(self, node: Apply, values: list[Value]) -> Value:
        fn = node.fn
        if fn == "select":
            cond, a, b = (self.plain(v) for v in values)
            if isinstance(cond.const, bool):
                return values[1] if cond.const else values[2]
            return self.indices.of(self.e.choose(cond, a, b))
        xs = [v for v in values if isinstance(v, Index)]
        if fn in ("add", "sub"):
            return self.indices.add(xs[0], xs[1], 1 if fn == "add" else -1)
        if fn == "mul":
            return self.indices.mul(xs[0], xs[1])
        if fn in COMPARISONS:
            return self.compare.of(fn, xs[0], xs[1])
        simple = self.indices.simplified(fn, xs)
        if simple is not None:
            return simple
        vals = tuple([self.plain(v) for v in values])
        return self.indices.of(primitive(self.e, fn, int64, vals))

    # --- conditions ---------------------------------------------------------------------------

    def masked(self, cond: Val) -> Val:
        """The lanes that are active here and where ``cond`` holds."""
        mask = self.mask
        if mask is None:
            return cond
        if isinstance(mask.const, tuple) and isinstance(cond.const, tuple):
            return self.e.mask([a and b for a, b in zip(mask.const, cond.const, strict=True)])
        return self.e.binary("and", mask, cond)

    def _guard(self, node: Guard) -> Value:
        cond = self.operand(node.cond)
        if isinstance(cond.const, bool):
            return self.value(node.value if cond.const else node.otherwise)
        effects = [self._knowledge.of(x).effect for x in (node.value, node.otherwise)]
        if not any(effects):
            a, b = self.operand(node.value), self.operand(node.otherwise)
            return self.typed(self.e.choose(cond, a, b), node.dtype)
        if not cond.n:
            return self._branch(cond, node.value, node.otherwise)
        other = self._where(invert(self.e, cond) if effects[1] else None, node.otherwise)
        self.enter(self.masked(cond))
        if isinstance(node.value, Load):
            result = self.load(node.value, other)
        else:
            result = self.e.choose(cond, self.operand(node.value), other)
        self.leave()
        return self.typed(result, node.dtype)

    def _where(self, cond: Val | None, node: Expr) -> Val:
        if cond is None:
            return self.operand(node)
        self.enter(self.masked(cond))
        result = self.operand(node)
        self.leave()
        return result

    def _branch(self, cond: Val, value: Expr, otherwise: Expr) -> Value:
        sides = []
        for node in (value, otherwise):
            region = self.e.open(self.e.label(), len(self.scopes), loop=False)
            self.enter()
            sides.append((region, self.operand(node)))
            self.leave()
            self.e.close()
        return self.typed(self.branches.join(cond, *sides), value.dtype)

    def _require(self, node: Require) -> Value:
        cond = self.operand(node.cond)
        if cond.const is True:
            return self.value(node.value)
        zero = self.e.const(0, node.dtype)
        if not cond.n:
            active = self.mask and self.memory.any(self.mask)
            self._report(invert(self.e, cond), active, node)
            if not self._knowledge.of(node.value).effect:
                result = self.e.choose(cond, self.operand(node.value), zero)
                return self.typed(result, node.dtype)
            return self._branch(cond, node.value, self._zero(node.dtype))
        failed = invert(self.e, cond)
        self._report(self.masked(failed), None, node)
        self.enter(self.masked(cond))
        result = self.operand(node.value)
        self.leave()
        return self.typed(self.e.choose(cond, result, zero), node.dtype)

    def _report(self, failed: Val, active: Val | None, node: Require) -> None:
        def details() -> list[Val]:
            self.enter()
            shown = [self.operand(d) for d in node.details]
            self.leave()
            return shown

        self.branches.report(failed, active, node, len(self.scopes), details)

    def _zero(self, dtype: DType) -> Const:
        """A literal that lives as long as what is remembered by its identity."""
        return self._zeros.setdefault(dtype, Const(0, dtype))


def _eager(node: Expr) -> tuple[Expr, ...]:
    """The operands that are evaluated whenever the node is."""
    if isinstance(node, (Guard, Require)):
        return (node.cond,)
    return node.operands
