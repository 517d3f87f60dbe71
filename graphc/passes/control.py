"""Loops and branches made smaller: what is dead, invariant or constant leaves them.

* A loop variable that the body gives back unchanged is a value from around.
* Loop variables, saved values and results of branches that nobody needs are dropped.
* Work that is the same in every turn is done once, before the loop.
* Products that a loop only adds up are one product, behind it (:mod:`graphc.passes.control_sums`).
* A branch that is known to be taken takes the place of the choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.dims import Symbol, symbols_of
from graphc.function import Function, Late, Output, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.ops.control import branch_number, loop_symbols
from graphc.passes.basic import DeadCode, symbols_in
from graphc.passes.control_invariant import copy_into, hoist
from graphc.passes.control_needs import (
    always,
    needed_inputs,
    needed_operations,
    operands_of,
    sizes_assumed,
    symbols_of_all,
    symbols_of_tensors,
)
from graphc.passes.control_sums import Product, products_added, stack_type, summed
from graphc.passes.sizes import resolved


@dataclass(frozen=True)
class Control:
    """Simplifies operations with bodies; see the module's text."""

    name: str = "control"

    def run(self, fn: Function) -> Function:
        """The function with smaller loops and branches."""
        if not any("bodies" in op.attrs for op in fn.operations):
            return fn
        used = set(fn.results())
        sizes = sizes_assumed(fn) | symbols_of_tensors(used)
        smaller: dict[Operation, _Loop | _Choice] = {}
        # What only a dead part of a loop uses is not used: the readers come first.
        for op in reversed(fn.operations):
            if "bodies" in op.attrs:
                kind = _Loop if op.type == "While" else _Choice
                made = smaller[op] = kind(op, used, sizes)
                used |= made.needed()
                sizes |= made.sizes_needed()
            else:
                used.update(op.inputs)
                sizes |= symbols_in(op)
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            if op in smaller:
                smaller[op].rewrite(rebuilder)
            else:
                rebuilder.copy(op)
        return resolved(rebuilder.finish())


class _Loop:
    """The rewriting of one While.

    Args:
      op: the loop.
      used: the tensors of the function around that anything needs.
      sizes: the sizes that anything after the loop has, or of which something is assumed.
    """

    def __init__(self, op: Operation, used: set[Tensor], sizes: set[Symbol]) -> None:
        self.op = op
        self.sizes = sizes
        self.test, self.body = op.attrs["bodies"]
        self.count = n = len(self.body.carried)
        self.updates = [o for o in self.body.outputs if o.kind == "update"]
        self.saved = [o for o in self.body.outputs if o.kind == "result"]
        self.used = {t for t in op.outputs if t in used}
        self.wanted = [self.is_used(op.outputs[n + 1 + j]) for j in range(len(self.saved))]
        self.still = {k for k in range(n) if self.unchanged(k)}
        live = self.live()
        self.kept = [k for k in range(n) if k in live and k not in self.still]
        self.sums = {k: found for k in self.kept if (found := self.products_added(k))}
        self.kept = [k for k in self.kept if k not in self.sums]
        self.operands_of_sums = [
            t for products in self.sums.values() for p in products for t in p.operands
        ]

    def products_added(self, k: int) -> list[Product]:
        """The products whose sum is all that loop variable ``k`` is for."""
        param = self.body.carried[k]
        if self.own_sizes(k) or k in self.tested():
            return []
        return products_added(self.body, param, self.updates[k].tensor)

    def roots(self) -> list[Tensor]:
        """What is left of the body's outputs."""
        found = [self.updates[k].tensor for k in self.kept]
        found += [o.tensor for o, w in zip(self.saved, self.wanted, strict=True) if w]
        found += [o.tensor for o in self.body.outputs if o.kind == "check"]
        return found + self.operands_of_sums

    def needed(self) -> set[Tensor]:
        """The operands that what is left of the loop needs."""
        op = self.op
        found = operands_of(op, self.body, self.roots())
        found |= operands_of(op, self.test, [o.tensor for o in self.test.outputs])
        found |= {op.inputs[k] for k in (*self.kept, *self.sums)}
        return found | {op.inputs[k] for k in self.still if self.is_used(op.outputs[k])}

    def rewrite(self, rebuilder: Rebuilder) -> None:
        """Put the smaller loop into the new function."""
        op, kept = self.op, self.kept
        self.rebuilder = rebuilder
        # One that is not needed may not be there any more.
        self.operands = [rebuilder.map.get(t, t) for t in op.inputs]
        for k in self.still:
            rebuilder.map[op.outputs[k]] = self.operands[k]
        test = self.function(self.test, kept, list(self.test.outputs))
        outputs = [replace(self.updates[k], key=str(i)) for i, k in enumerate(kept)]
        outputs += [o for o, w in zip(self.saved, self.wanted, strict=True) if w]
        outputs += [Output("result", t, op, "") for t in self.operands_of_sums]
        outputs += [o for o in self.body.outputs if o.kind == "check"]
        body = self.function(self.body, kept, outputs)
        body, hoisted = hoist(rebuilder, body, self.operands)
        self.add(test, body, kept, hoisted)

    def is_used(self, tensor: Tensor) -> bool:
        """Whether anything needs an output, or a size that it tells."""
        return tensor in self.used

    def unchanged(self, k: int) -> bool:
        """Whether the body gives loop variable ``k`` back as it came in."""
        param = self.body.carried[k]
        own = set(loop_symbols(self.op.attrs["symbols"])[0])
        sizes = {s for size in param.sizes or () for s in symbols_of(size)}
        return self.updates[k].tensor is param and not sizes & own

    def live(self) -> set[int]:
        """The loop variables that something depends on, by their elements or by their sizes."""
        place = {t: k for k, t in enumerate(self.body.carried)}
        sizes = self.sizes_tested()
        own, last, _ = loop_symbols(self.op.attrs["symbols"])
        sizes |= {s for s in own if not self.sizes.isdisjoint({s, *symbols_of(last[s])})}
        live = self.tested() | {k for k in range(self.count) if self.is_used(self.op.outputs[k])}
        while True:
            before = len(live)
            roots = [self.updates[k].tensor for k in live]
            roots += [o.tensor for o, w in zip(self.saved, self.wanted, strict=True) if w]
            operations = needed_operations(self.body, [*roots, *always(self.body)])
            live |= {place[t] for op in operations for t in op.outputs if t in place}
            sizes |= symbols_of_all(operations)
            live |= {k for k in range(self.count) if not sizes.isdisjoint(self.own_sizes(k))}
            if len(live) == before:
                return live

    def sizes_needed(self) -> set[Symbol]:
        """The sizes that what is left of the loop has."""
        operations = needed_operations(self.body, [*self.roots(), *always(self.body)])
        found = symbols_of_all(operations) | self.sizes_tested()
        return found | symbols_of_tensors(t for t in self.op.outputs if t in self.used)

    def sizes_tested(self) -> set[Symbol]:
        """The sizes that the condition has."""
        roots = [*(o.tensor for o in self.test.outputs), *always(self.test)]
        return symbols_of_all(needed_operations(self.test, roots))

    def tested(self) -> set[int]:
        """The loop variables that the condition depends on."""
        seen = {i.tensor: int(i.key) for i in self.test.inputs if int(i.key) < self.count}
        roots = [o.tensor for o in self.test.outputs] + always(self.test)
        return {seen[t] for t in needed_inputs(self.test, roots) if t in seen}

    def own_sizes(self, k: int) -> set[Symbol]:
        """The sizes of the loop that are those of loop variable ``k``."""
        own = set(loop_symbols(self.op.attrs["symbols"])[0])
        return own & symbols_of_tensors([self.body.carried[k]])

    def function(
        self, fn: Function, kept: Sequence[int], outputs: Sequence[Output]
    ) -> Function:
        """A body with the loop variables that are kept; the others come from around."""
        inputs = []
        for i in fn.inputs:
            number = int(i.key)
            if number in kept:
                inputs.append(replace(i, key=f"carry{kept.index(number)}"))
            else:
                inputs.append(replace(i, kind="capture"))
        needed = needed_inputs(fn, [*(o.tensor for o in outputs), *always(fn)])
        inputs = [i for i in inputs if i.key.startswith("carry") or i.tensor in needed]
        return DeadCode().run(replace(fn, inputs=inputs, outputs=list(outputs)))

    def add(
        self, test: Function, body: Function, kept: Sequence[int], hoisted: Sequence[Tensor]
    ) -> None:
        """The new operation; what it captures is numbered anew."""
        op, rebuilder = self.op, self.rebuilder
        first = [self.operands[k] for k in kept]
        known = [*self.operands, *hoisted]
        captured: list[int] = []
        bodies = []
        for fn in (test, body):
            inputs = []
            for i in fn.inputs:
                if i.key.startswith("carry"):
                    inputs.append(replace(i, key=i.key[5:]))
                    continue
                number = int(i.key)
                if number not in captured:
                    captured.append(number)
                inputs.append(replace(i, key=str(len(first) + captured.index(number))))
            bodies.append(replace(fn, inputs=inputs))
        own, last, turns = loop_symbols(op.attrs["symbols"])
        symbols = [s for s in own if any(self.has(k, s) for k in kept)]
        symbols += [x for s in symbols for x in symbols_of(last[s])]
        attrs = op.attrs | {"bodies": tuple(bodies), "symbols": (*symbols, turns)}
        operands = first + [known[k] for k in captured]
        n = self.count
        outs = [op.outputs[k] for k in kept] + [op.outputs[n]]
        outs += [op.outputs[n + 1 + j] for j, w in enumerate(self.wanted) if w]
        new = replace_operation(rebuilder, op, operands, attrs, outs)
        if self.sums:
            assert turns is not None
            stacks = iter([new.add_output(stack_type(t, turns)) for t in self.operands_of_sums])
            found = rebuilder.declared(op, lambda: self.totals(stacks))
            rebuilder.map.update(zip((op.outputs[k] for k in self.sums), found, strict=True))

    def totals(self, stacks: Iterator[Tensor]) -> list[Tensor]:
        """The sums, by products behind the loop."""
        found = []
        for k, products in self.sums.items():
            pairs = [(next(stacks), next(stacks)) for _ in products]
            found.append(summed(self.operands[k], pairs))
        return found

    def has(self, k: int, symbol: Symbol) -> bool:
        """Whether loop variable ``k`` has a size."""
        sizes = self.body.carried[k].sizes or ()
        return any(not isinstance(s, int) and s.as_symbol is symbol for s in sizes)


def replace_operation(
    rebuilder: Rebuilder,
    op: Operation,
    operands: Sequence[Tensor],
    attrs: dict[str, object],
    outputs: Sequence[Tensor],
) -> Operation:
    """The operation with other operands and attributes, and some of its outputs."""
    graph = rebuilder.graph
    name = op.name if op.name not in graph._ops else graph.unique_name(op.name)
    types = [t.type for t in outputs]
    new = graph.add_operation(op.definition, operands, attrs, types, name, op.location)
    if op.name in rebuilder.old.origin:
        rebuilder.origin[name] = rebuilder.old.origin[op.name]
    for a, b in zip(outputs, new.outputs, strict=True):
        rebuilder.map[a] = b
        if rebuilder.old.env is not None:
            rebuilder.old.env.stands_for(b, a)
    return new


# --- branches -------------------------------------------------------------------------------------


class _Choice:
    """The rewriting of one Case; see :class:`_Loop`."""

    def __init__(self, op: Operation, used: set[Tensor], sizes: set[Symbol]) -> None:
        del sizes  # All that it tells are kept.
        self.op = op
        self.kept = [k for k, t in enumerate(op.outputs) if t in used or op.attrs["symbols"]]

    def roots(self, body: Function) -> list[Output]:
        """The outputs of a branch that are left."""
        results = [o for o in body.outputs if o.kind == "result"]
        return [results[k] for k in self.kept] + [o for o in body.outputs if o.kind == "check"]

    def needed(self) -> set[Tensor]:
        """The operands that what is left of the choice needs."""
        found = {self.op.inputs[0]}
        for body in self.op.attrs["bodies"]:
            found |= operands_of(self.op, body, [o.tensor for o in self.roots(body)])
        return found

    def sizes_needed(self) -> set[Symbol]:
        """The sizes that the choice has."""
        return symbols_in(self.op)

    def smaller(self, body: Function) -> Function:
        """A branch with the results that are needed."""
        outputs = self.roots(body)
        needed = needed_inputs(body, [*(o.tensor for o in outputs), *always(body)])
        inputs = [i for i in body.inputs if i.tensor in needed]
        return DeadCode().run(replace(body, inputs=inputs, outputs=outputs))

    def rewrite(self, rebuilder: Rebuilder) -> None:
        """Put a Case with the results that are needed; or the branch that is known to be taken."""
        op = self.op
        operands = [rebuilder.map.get(t, t) for t in op.inputs]
        bodies = op.attrs["bodies"]
        outputs = [op.outputs[k] for k in self.kept]
        taken = known_branch(operands[0], len(bodies))
        if taken is not None and not op.attrs["symbols"]:
            inline(rebuilder, self.smaller(bodies[taken]), outputs, operands)
            return
        made = [self.smaller(body) for body in bodies]
        # What no branch reads any more may be gone.
        read = sorted({0} | {int(i.key) for body in made for i in body.inputs})
        numbers = {str(k): str(n) for n, k in enumerate(read)}
        made = [
            replace(body, inputs=[replace(i, key=numbers[i.key]) for i in body.inputs])
            for body in made
        ]
        attrs = op.attrs | {"bodies": tuple(made)}
        replace_operation(rebuilder, op, [operands[k] for k in read], attrs, outputs)


def known_branch(selector: Tensor, count: int) -> int | None:
    """The number of the branch that a constant chooses."""
    if selector.op.type != "Const":
        return None
    return branch_number(selector.op.attrs["value"], count)


def inline(
    rebuilder: Rebuilder, body: Function, outputs: Sequence[Tensor], operands: Sequence[Tensor]
) -> None:
    """The operations of a branch in the place of the choice, which gave ``outputs``."""
    place = {i.tensor: operands[int(i.key)] for i in body.inputs}
    for inner in body.operations:
        if inner.type != "Placeholder":
            copy_into(rebuilder, body, inner, place)
    results = [o.tensor for o in body.outputs if o.kind == "result"]
    for a, b in zip(outputs, results, strict=True):
        rebuilder.map[a] = place[b]
    for check in body.outputs:
        if check.kind == "check":
            rebuilder.checks.append(replace(check, tensor=place[check.tensor]))
    for late in body.late:
        rebuilder.late.append(Late(late.symbol, place[late.tensor], late.element, None))
