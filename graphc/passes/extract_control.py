"""Extraction of loops and branches: every region becomes a function of its own.

What a body reads from around becomes an explicit operand of its owner.  Variables (and the counters
of random ops) that a body changes become loop variables and results: state is values there too.

The sizes of loop variables are found by trying: if the body gives a loop variable back with another
size than it came in with, that size becomes a symbol of the loop, which every turn binds anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.build import complete_attrs
from graphc.dims import DimLike, Symbol, symbols_of
from graphc.errors import InvalidArgumentError
from graphc.function import Function, Input, Output
from graphc.graph import Operation, Region, Tensor, TensorType
from graphc.op import InferContext, value_sizes
from graphc.ops.control import is_control
from graphc.passes.assume import CompileEnv
from graphc.passes.extract_graph import late_of, refine
from graphc.passes.extract_host import needs_rank
from graphc.passes.extract_ragged import RaggedExtractor, Stacks, shape_changes, vector_of
from graphc.passes.extract_regions import (
    Effects,
    region_operations,
    saved_outputs,
)
from graphc.passes.extract_sizes import changed_sizes, settle
from graphc.passes.extractor import VariableState, counter_key

COPIED = 64
"""Constants of so many elements at most are copied into bodies, where they can be folded."""


class ControlExtractor(RaggedExtractor):
    """Extraction that knows operations with bodies.

    Attributes:
      region: what is extracted; None for the top level.
      counted: the counters of random operations that have run here.
    """

    def __init__(
        self,
        feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
        variable_state: Callable[[Operation], VariableState],
        env: CompileEnv,
        region: Region | None = None,
    ) -> None:
        super().__init__(feeds, variable_state, env)
        self.region = region
        self.counted: dict[str, Tensor] = {}

    def assigns(self, op: Operation) -> bool:
        """An assignment, or something that owns one."""
        if not is_control(op):
            return super().assigns(op)
        found = self.assigning.get(op)
        if found is None:
            effects = Effects(op.attrs["bodies"], self.env.needed)
            found = self.assigning[op] = bool(effects.variables)
        return found

    def visit(self, op: Operation) -> None:
        """Copy one operation; one with bodies, with them."""
        if op.type == "CountFrom":
            self.note_ancestors(op)
            counter = self.map[op.outputs[0]] = self.counter(op)
            self.advance(op, counter)
            return
        if op.type == "RandomCounter":
            self.map[op.outputs[0]] = self.first_counter(op.attrs["of"][0].op)
            return
        if not is_control(op):
            super().visit(op)
            return
        self.note_ancestors(op)
        if all(t in self.map for t in op.outputs):
            return
        if op.type == "While":
            self.loop(op)
        else:
            self.choice(op)

    def state_before(self, op: Operation, effects: Effects) -> list[Tensor]:
        """The values of variables and counters before ``op``."""
        found = []
        for variable in effects.variables:
            chain = self.chains.get(variable)
            found.append(chain[-1][1] if chain else self.variable_before(variable))
        return found + [self.counter(c) for c in effects.counters]

    def state_after(self, op: Operation, effects: Effects, values: Sequence[Tensor]) -> None:
        """Note the values of variables and counters after ``op``."""
        rest = iter(values)
        for variable in effects.variables:
            self.chains.setdefault(variable, []).append((op, next(rest)))
        for counter in effects.counters:
            self.count(counter, next(rest))

    def add_control(
        self,
        op: Operation,
        bodies: Sequence[Function],
        inputs: Sequence[Tensor],
        symbols: Sequence[Symbol],
    ) -> Operation:
        """The operation in the function's graph."""
        attrs = complete_attrs(
            op.definition, {"bodies": tuple(bodies), "symbols": tuple(symbols)}
        )
        ctx = InferContext(op.definition, op.name, inputs, attrs, self.env)
        types = list(op.definition.infer(ctx))
        for k, user in enumerate(op.outputs[: len(op.attrs["bodies"][-1].results)]):
            types[k] = refine(types[k], user, self.env)
        name = op.name if op.name not in self.graph._ops else self.graph.unique_name(op.name)
        new = self.graph.add_operation(op.definition, inputs, attrs, types, name, op.location)
        self.origin[name] = op
        return new

    # --- counters -----------------------------------------------------------------------------

    def counter(self, op: Operation) -> Tensor:
        """How often a random op has run before; of a CountFrom, since it began to count."""
        found = self.counted.get(counter_key(op))
        if found is not None:
            return found
        return self.first_counter(op)

    def first_counter(self, op: Operation) -> Tensor:
        """The counter at the beginning of the run, the turn or the branch."""
        if op.type == "CountFrom" and op.inputs[0].op.region is self.region:
            return self.operand(op.inputs[0], op)
        return self.counter_before(op)

    def counter_before(self, op: Operation) -> Tensor:
        """The counter that comes from around."""
        return super().counter(op)

    def count(self, op: Operation, after: Tensor) -> None:
        """How often it has run afterwards."""
        self.counted[counter_key(op)] = after
        if self.region is None and op.type != "CountFrom":
            super().count(op, after)

    # --- loops --------------------------------------------------------------------------------

    def loop(self, op: Operation) -> None:
        """A While: its condition and its body, for the sizes that the loop variables have."""
        test, step = op.attrs["bodies"]
        count = len(step.params)
        starts = [self.operand(t, op) for t in op.inputs[:count]]
        self.env.user.update(zip(starts, op.inputs[:count], strict=True))
        for k, user in enumerate(op.inputs[:count]):
            if user in self.env.ragged:
                for region in (test, step):
                    self.env.ragged[region.params[k]] = self.env.ragged[user]
        effects = Effects((test, step), self.env.needed)
        flags = self.tested(op, starts, effects)
        starts += [*self.state_before(op, effects), *flags]
        types = [TensorType(t.dtype.base_dtype, t.sizes) for t in starts]
        symbols: list[Symbol] = []
        state = self.env.snapshot()
        while True:
            body = BodyExtractor(self, step, op, effects)
            body.carry(types, starts)
            body.run()
            results = body.next_values()
            if flags:
                flags = body.tested(op, results[:count], effects)
                results = [*results[:count], *body.next_state(), *flags]
            changed = changed_sizes(self.env, op, types, results, symbols)
            if not changed:
                break
            self.env.restore(state)
            for k, d in changed:
                size = self.env.new_symbol()
                symbol = size.as_symbol
                assert symbol is not None
                symbols.append(symbol)
                sizes = list(types[k].sizes or ())
                sizes[d] = size
                types[k] = TensorType(types[k].dtype, tuple(sizes))
            state = self.env.snapshot()
        body.outputs = [Output("update", t, op, str(k)) for k, t in enumerate(results)]
        cond = BodyExtractor(self, test, op, effects)
        cond.read_only(types, starts)
        if not flags:
            cond.run()
        flag = cond.inputs[-1].tensor if flags else cond.operand(test.results[0], None)
        cond.outputs = [Output("result", flag, op, "0")]
        symbols = settle(self.env, op, types, starts, results, symbols)
        stacks = Stacks(self, op, body, symbols, body.own_sizes(symbols))
        stacks.save(saved_outputs(op, self.env.used))
        body.outputs += stacks.outputs()
        # What they are after the last turn may be assumed to be something; in between it may not.
        for _ in (*symbols, None):
            symbol = self.env.new_symbol().as_symbol
            assert symbol is not None
            symbols.append(symbol)
        captured = self.merged((cond, body), [*starts, *(start for *_, start in stacks.vectors)])
        new = self.add_control(
            op, (cond.function(captured), body.function(captured)), captured, symbols
        )
        self.after_loop(op, new.outputs, len(starts), stacks)
        self.state_after(op, effects, new.outputs[count : len(starts)])
        for a, b in zip(starts, new.outputs, strict=False):
            if a in self.env.pending:
                self.env.pending[b] = self.env.pending[a]

    def tested(
        self, op: Operation, values: Sequence[Tensor], effects: Effects
    ) -> list[Tensor]:
        """The condition of a loop for these loop variables, if testing it has an effect.

        Such a condition is a loop variable: it is tested once before the loop, and at the end of
        every turn, where its effects are a part of the turn's.
        """
        test = op.attrs["bodies"][0]
        own = Effects((test,), self.env.needed)
        if not (own.variables or own.counters):
            return []
        inner = BodyExtractor(self, test, op, effects)
        inner.capture_state(self.state_before(op, effects))
        for param, value in zip(test.params, values, strict=True):
            inner.map[param] = inner.captured(value)
            inner.env.user[inner.map[param]] = param
        inner.run()
        results = [inner.operand(test.results[0], None), *inner.next_state()]
        inner.outputs = [Output("result", t, op, str(k)) for k, t in enumerate(results)]
        only = self.emit("Const", op, [], {"value": np.array(0, np.int32)})
        captured = self.merged([inner], [only])
        body = inner.function(captured)
        flag, *state = self.emit_all("Case", op, captured, {"bodies": (body,)})
        self.state_after(op, effects, state)
        return [flag]

    def after_loop(
        self, op: Operation, outputs: Sequence[Tensor], carried: int, stacks: Stacks
    ) -> None:
        """Note what the loop gives; what is ragged stays so around it."""
        step = op.attrs["bodies"][1]
        for k, (param, result) in enumerate(zip(step.params, step.results, strict=True)):
            self.map[op.outputs[k]] = outputs[k]
            info = self.env.ragged.get(param)
            if self.env.ragged.get(result) is not info:
                raise shape_changes(op, result if info is None else op.inputs[k])
            if info is not None:
                self.env.ragged[op.outputs[k]] = info
        turns = carried + len(stacks.vectors)
        self.map[op.outputs[len(step.params)]] = outputs[turns]
        for k, (out, *_) in enumerate(stacks.vectors):
            self.map[out] = vector_of(self, outputs[carried + k])
        for k, (out, _) in enumerate(stacks.rows):
            self.map[out] = outputs[turns + 1 + k]

    def merged(
        self, bodies: Sequence[BodyExtractor], first: Sequence[Tensor]
    ) -> list[Tensor]:
        """The operands of the owner: ``first``, then what the bodies capture."""
        found = list(first)
        for body in bodies:
            found += [t for t in body.captures if t not in found[len(first) :]]
        return found

    # --- branches -----------------------------------------------------------------------------

    def choice(self, op: Operation) -> None:
        """A Case: its branches, which agree on the types of what they give."""
        regions = op.attrs["bodies"]
        effects = Effects(regions, self.env.needed)
        selector = self.operand(op.inputs[0], op)
        saved = saved_outputs(op, self.env.used)
        state = self.state_before(op, effects)
        made = []
        for region in regions:
            branch = BodyExtractor(self, region, op, effects)
            branch.capture_state(state)
            branch.run()
            made.append(branch)
        given = []
        for t, _ in saved:
            owner = made[regions.index(t.op.region)]
            given.append((owner, owner.operand(t, None)))
        for branch in made:
            results = [branch.operand(t, None) for t in branch.region.results]
            results += [t if b is branch else branch.zeros_like(t, b) for b, t in given]
            results += branch.next_state()
            branch.outputs = [Output("result", t, op, str(k)) for k, t in enumerate(results)]
        symbols = self.choice_symbols(op, made)
        captured = self.merged(made, [selector])
        functions = [b.function(captured) for b in made]
        new = self.add_control(op, functions, captured, symbols)
        outputs = [*op.outputs[: len(regions[0].results)], *(out for _, out in saved)]
        self.map.update(zip(outputs, new.outputs, strict=False))
        for out, *results in zip(op.outputs, *(r.results for r in regions), strict=False):
            self.same_parts(op, out, *results)
        self.state_after(op, effects, new.outputs[len(outputs) :])

    def same_parts(self, op: Operation, out: Tensor, *given: Tensor) -> None:
        """What is ragged in one branch must be so, and alike, in all of them."""
        found = {self.env.ragged.get(t) for t in given}
        if len(found) > 1:
            raise shape_changes(op, next(t for t in given if t in self.env.ragged))
        if found != {None}:
            self.env.ragged[out] = found.pop()

    def choice_symbols(self, op: Operation, branches: Sequence[BodyExtractor]) -> list[Symbol]:
        """Symbols for the sizes in which the branches differ, in order."""
        found = []
        for outputs in zip(*(b.outputs for b in branches), strict=True):
            shapes = [o.tensor.sizes or () for o in outputs]
            if len({len(s) for s in shapes}) > 1:
                listed = ", ".join(str(o.tensor.type) for o in outputs)
                raise InvalidArgumentError(
                    op.node_def, op, f"the branches give tensors of different ranks: {listed}"
                )
            for options in zip(*shapes, strict=True):
                if len({self.env.canonical(s) for s in options}) > 1:
                    symbol = self.env.new_symbol().as_symbol
                    assert symbol is not None
                    found.append(symbol)
        return found


class BodyExtractor(ControlExtractor):
    """Extraction of a region: the function ``parent`` is around it."""

    region: Region

    def __init__(
        self, parent: ControlExtractor, region: Region, owner: Operation, effects: Effects
    ) -> None:
        super().__init__(parent.feeds, parent.variable_state, parent.env, region)
        self.parent = parent
        self.owner = owner
        self.effects = effects
        self.captures: dict[Tensor, Tensor] = {}
        self.copies: dict[Tensor, Tensor] = {}
        self.state: dict[str, Tensor] = {}
        self.outputs: list[Output] = []
        self.consulted = parent.consulted

    def takes_any_rank(self, reader: Operation | None) -> bool:
        """As elsewhere; what a body gives back must have a rank."""
        return reader is not None and super().takes_any_rank(reader)

    # --- what comes in ------------------------------------------------------------------------

    def carry(self, types: Sequence[TensorType], starts: Sequence[Tensor]) -> None:
        """Loop variables of these types, then the state."""
        self._take(types, starts, "carry")

    def read_only(self, types: Sequence[TensorType], starts: Sequence[Tensor]) -> None:
        """The loop variables as the condition sees them."""
        self._take(types, starts, "capture")

    def _take(self, types: Sequence[TensorType], starts: Sequence[Tensor], kind: str) -> None:
        count = len(self.region.params)
        names = [p.op.name for p in self.region.params]
        names += [v.name for v in (*self.effects.variables, *self.effects.counters)]
        state = slice(count, len(names))
        if len(types) > len(names):
            names.append(self.owner.name)  # a condition that has effects
        for k, (type_, start, name) in enumerate(zip(types, starts, names, strict=True)):
            tensor = self.placeholder(name, type_, self.owner)
            if start in self.env.pending:
                self.env.pending[tensor] = self.env.pending[start]
            self.inputs.append(Input(kind, tensor, None, str(k), type_.sizes or ()))  # type: ignore[arg-type]
            if k < count:
                self.map[self.region.params[k]] = tensor
                self.env.user[tensor] = self.region.params[k]
        self._state([i.tensor for i in self.inputs[state]])

    def capture_state(self, values: Sequence[Tensor]) -> None:
        """The state as a branch finds it."""
        self._state([self.captured(t) for t in values])

    def _state(self, tensors: Sequence[Tensor]) -> None:
        keys = [v.name for v in self.effects.variables]
        keys += [counter_key(c) for c in self.effects.counters]
        self.state = dict(zip(keys, tensors, strict=True))

    def captured(self, outer: Tensor) -> Tensor:
        """The tensor of the body that stands for one of the function around."""
        found = self.captures.get(outer)
        if found is not None:
            return found
        if outer in self.env.flat:
            raise needs_rank(self.owner, self.env.user.get(outer, outer))
        if outer.op.type == "Const" and outer.op.attrs["value"].size <= COPIED:
            if outer not in self.copies:
                value = outer.op.attrs["value"]
                self.copies[outer] = self.emit("Const", self.owner, [], {"value": value})
            return self.copies[outer]
        found = self.placeholder(outer.op.name, outer.type, self.owner)
        known = value_sizes(outer)
        if known is not None:
            found._value_sizes = (known,)
        self.env.captured[found] = outer
        if outer in self.env.pending:
            self.env.pending[found] = self.env.pending[outer]
        self.captures[outer] = found
        return found

    def operand(self, tensor: Tensor, reader: Operation | None) -> Tensor:
        """The function's tensor for an operand; what is around is captured."""
        if tensor in self.map or tensor in self.constants or tensor in self.env.known:
            return super().operand(tensor, reader)
        variable = self.variable_of(tensor)
        if variable is not None and variable.name in self.state:
            return self.read(variable, reader)
        if self.region.encloses(tensor.op.region):
            return super().operand(tensor, reader)
        outer = self.parent.operand(tensor, self.owner)
        self.env.user.setdefault(outer, tensor)
        found = self.captured(outer)
        if outer.op.type != "Const":
            self.map[tensor] = found
        return found

    def variable_before(self, variable: Operation, unchecked: bool = False) -> Tensor:
        """The variable's value before this turn, or before this branch."""
        found = self.state.get(variable.name)
        if found is not None:
            return found
        return self.captured(self.parent.read(variable, self.owner))

    def counter_before(self, op: Operation) -> Tensor:
        """The counter that comes from around."""
        found = self.state.get(counter_key(op))
        if found is None:
            raise InvalidArgumentError(op.node_def, op, f"'{op.name}' is not where it is counted")
        return found

    def zeros_like(self, tensor: Tensor, branch: BodyExtractor) -> Tensor:
        """Zeros like a tensor of another branch; of a size that this branch decides, none."""
        own = branch.own_sizes(())
        known = (self.env.canonical(s) for s in tensor.sizes or ())
        sizes = tuple(s if symbols_of(s).isdisjoint(own) else 0 for s in known)
        only = self.emit("Const", self.owner, [], {"value": np.array(1, np.int32)})
        attrs = {"dtype": tensor.dtype.base_dtype, "row": sizes}
        rows = self.emit("EmptyRows", self.owner, [only], attrs)
        zero = self.emit("Const", self.owner, [], {"value": np.array(0, np.int32)})
        return self.emit("TakeRow", self.owner, [rows, zero], {"checked": False})

    # --- what goes on -------------------------------------------------------------------------

    def run(self) -> None:
        """Copy what is needed of the region."""
        for op in region_operations(self.region, self.env.needed):
            if op.type != "Parameter":
                self.visit(op)

    def next_state(self) -> list[Tensor]:
        """Variables and counters as the body leaves them."""
        found = []
        for variable in self.effects.variables:
            chain = self.chains.get(variable)
            found.append(chain[-1][1] if chain else self.state[variable.name])
        for counter in self.effects.counters:
            key = counter_key(counter)
            found.append(self.counted.get(key, self.state[key]))
        return found

    def next_values(self) -> list[Tensor]:
        """The loop variables and the state for the next turn."""
        return [self.operand(t, None) for t in self.region.results] + self.next_state()

    def own_sizes(self, symbols: Sequence[Symbol]) -> set[Symbol]:
        """The sizes that a turn decides: ``symbols``, those of loop variables, and others."""
        found = {s for op in self.graph.get_operations() for s in op.attrs.get("symbols", ())}
        found |= {s.symbol for s in late_of(self.graph, self.env)}
        return found | set(symbols)

    def function(self, operands: Sequence[Tensor]) -> Function:
        """The finished function; captures are numbered by the owner's operands."""
        place = {t: k for k, t in reversed(list(enumerate(operands)))}
        first = len(self.inputs) if self.inputs else 1
        for outer, inner in self.captures.items():
            number = operands.index(outer, first) if outer in operands[first:] else place[outer]
            self.inputs.append(
                Input("capture", inner, None, str(number), inner.sizes or ())
            )
        outputs = self.outputs + self.checks(self.outputs)
        return Function(
            self.graph, self.inputs, outputs, [], late_of(self.graph, self.env), self.origin,
            self.env, frozenset(),
        )  # fmt: skip
