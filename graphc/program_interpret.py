"""The program's living definition: its steps in NumPy, over buffers planned as they are.

Temporaries live in an arena of blocks that hold NaN bytes until they are written and again as
soon as they are dead, so that a plan that lets two tensors into one block, or reads one too early
or too late, gives a wrong answer here as it would in native code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, DimLike, Symbol, substitute
from graphc.dtypes import DType
from graphc.errors import FeedError, GraphcError, InvalidArgumentError
from graphc.interpret import interpret
from graphc.loop.interpret import RequireFailed, run_kernel
from graphc.ops.control import branch_number
from graphc.ops.host import host_values
from graphc.program import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Extend,
    Grow,
    Host,
    Loop,
    Program,
    Reserve,
    Rotate,
    Slot,
    Step,
    walk,
)
from graphc.program_arena import lifetimes
from graphc.program_steps import check_fixed

POISON = 0xFF  # a NaN in every floating type, -1 in integers


class GuardFailed(GraphcError, RuntimeError):
    """The sizes of a run break an assumption of the program."""


def run_program(
    program: Program,
    inputs: Mapping[str, Any],
    variables: Mapping[str, np.ndarray] | None = None,
    *,
    fast: bool = True,
) -> list[np.ndarray]:
    """Run a program.

    Args:
      program: what is run.
      inputs: arrays by the keys of the program's feeds.
      variables: the variables' buffers by key; updates are written into them.
      fast: whether kernels that were made for these very sizes are used, as the driver does.
    Returns:
      The results, in order.
    Raises:
      GuardFailed: the sizes break an assumption; nothing was done.
      InvalidArgumentError: the run failed; no variable was changed, if the program is right.
      KernelFault: a kernel does what no kernel may.
    """
    machine = _Machine(program, inputs, variables or {})
    machine.check_guards(0)
    machine.fast = fast and all(
        machine.binding.get(s, v) == v for s, v in program.hints.items()
    )
    machine.run(program.steps)
    return [
        machine.array(machine.published.get(r.slot, r.slot)).reshape(
            [machine.size(s) for s in r.sizes]
        )
        for r in program.results
    ]


def prepared_values(
    program: Program, variables: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a program needs prepared, by key."""
    fn = program.function.prepared
    if fn is None:
        return {}
    given = {i.tensor: variables[i.key] for i in fn.inputs}
    values = interpret([o.tensor for o in fn.outputs], given)
    return {o.key: np.ascontiguousarray(v) for o, v in zip(fn.outputs, values, strict=True)}


class _Machine:
    """The memory of one run."""

    def __init__(
        self, program: Program, inputs: Mapping[str, Any], variables: Mapping[str, np.ndarray]
    ) -> None:
        self.program = program
        self.fast = False
        self.binding: dict[Symbol, DimLike] = {}
        self.given: dict[int, np.ndarray] = {}
        variables = {**variables, **prepared_values(program, variables)}
        for i in program.inputs:
            source = inputs if i.kind == "feed" else variables
            if i.key not in source:
                raise FeedError(f"no value was given for the {i.kind} {i.key!r}")
            array = np.asarray(source[i.key])
            dtype = i.tensor.dtype.base_dtype.numpy
            if i.kind == "feed":
                array = np.array(array, dtype, order="C")
            elif array.dtype != dtype or not array.flags.c_contiguous:
                raise FeedError(f"the buffer of the variable {i.key!r} must be {dtype}, contiguous")
            self.bind(i.key, i.raw, array)
            self.given[id(i)] = array
        late = {r.slot for r in program.results if r.late}
        self.arrays = {
            s.number: self.storage(s)
            for s in program.slots
            if s.kind not in ("temp", "grown", "row") and s.number not in late
        }
        self.published: dict[int, int] = {}
        self.blocks: dict[int, np.ndarray] = {}
        self.make_room(0)
        self.number = {id(step): n for n, step in enumerate(walk(program.steps))}
        lives = lifetimes(program.steps, program.slots)
        self.first = by_step({slot: first for slot, (first, _) in lives.items()})
        self.last = by_step({slot: self.death(*life) for slot, life in lives.items()})

    def bind(self, key: str, raw: tuple[DimLike, ...], array: np.ndarray) -> None:
        """Take the values of symbols from the shape of an input."""
        if array.ndim != len(raw):
            raise FeedError(f"{key!r} has rank {array.ndim}, expected {len(raw)}")
        for size, value in zip(raw, array.shape, strict=True):
            symbol = size.as_symbol if isinstance(size, Dim) else None
            known = size if symbol is None else self.binding.setdefault(symbol, value)
            if known != value:
                raise FeedError(f"{key!r} has shape {array.shape}, expected {raw}")

    def size(self, size: DimLike) -> int:
        """The value of a size in this run."""
        value = substitute(size, self.binding)
        if not isinstance(value, int):
            raise FeedError(f"the size {value} is bound by no input")
        if value < 0:
            raise InvalidArgumentError(None, None, "a computed size is negative or too large")
        return value

    def storage(self, slot: Slot) -> np.ndarray:
        """The array of a slot outside of the arena."""
        if slot.kind == "const":
            return np.ascontiguousarray(slot.source).reshape(-1)
        if slot.kind == "output":
            return poisoned(self.size(slot.size), slot.dtype)
        return self.given[id(slot.source)].reshape(-1)

    def death(self, first: int, last: int) -> int:
        """The step after which a temporary is dead: the loop itself, if it comes from before it."""
        for step in walk(self.program.steps):
            if isinstance(step, Loop):
                start = self.number[id(step)]
                inner = [self.number[id(s)] for s in walk([*step.test, *step.body])]
                if first <= start < last <= max(inner, default=start):
                    return start
        return last

    def make_room(self, segment: int) -> None:
        """The blocks of a segment, whose sizes are known from now on."""
        for number, (size, bytes_) in enumerate(self.program.blocks):
            if self.program.segment_of(size) == segment:
                self.blocks[number] = np.full(self.size(size) * bytes_, POISON, np.uint8)

    def begin(self, n: int) -> None:
        """Poison the temporaries that a step is the first to use."""
        for number in self.first.get(n, ()):
            self.array(number).view(np.uint8)[...] = POISON

    def end(self, n: int) -> None:
        """Poison the temporaries that nobody needs after a step."""
        for number in self.last.get(n, ()):
            self.array(number).view(np.uint8)[...] = POISON

    def array(self, number: int) -> np.ndarray:
        """The elements of a slot."""
        slot = self.program.slots[number]
        if slot.kind == "row":
            stack, turns = slot.source
            size = self.size(slot.size)
            first = int(self.array(turns)[0]) * size
            return self.arrays[stack][first : first + size]
        if slot.kind == "grown":
            # Between the growth and the end of the turn it has its next size already.
            return self.arrays[number]
        if slot.kind != "temp":
            return self.arrays[number]
        count = self.size(slot.size) * slot.dtype.size
        block = self.blocks[slot.block]
        if count > len(block):
            raise FeedError(f"slot {number} needs {count} bytes, its block has {len(block)}")
        return block[:count].view(slot.dtype.numpy)

    def check_guards(self, segment: int) -> None:
        """The assumptions about a segment's sizes must hold."""
        for guard in self.program.segments[segment].guards:
            left, right = (substitute(g, self.binding) for g in (guard.left, guard.right))
            if left != right:
                raise GuardFailed(f"{guard}: {left} and {right}")

    # --- steps ------------------------------------------------------------------------------------

    def run(self, steps: Sequence[Step]) -> None:
        """Steps in order."""
        for step in steps:
            n = self.number[id(step)]
            self.begin(n)
            self.step(step)
            self.end(n)

    def step(self, step: Step) -> None:
        """One step."""
        if isinstance(step, Copy):
            # A loop variable of changing size has its next size, which is not bound yet.
            grown = self.program.slots[step.target].kind == "grown"
            target = self.arrays[step.target] if grown else self.array(step.target)
            target[...] = self.array(step.source)
        elif isinstance(step, Call):
            self.call(step)
        elif isinstance(step, Bind):
            self.bind_segment(step)
        elif isinstance(step, Grow):
            slot = self.program.slots[step.slot]
            self.arrays[step.slot] = poisoned(self.size(step.size), slot.dtype)
        elif isinstance(step, Extend):
            old = self.arrays[step.slot][: self.size(step.before)]
            more = np.zeros(self.size(step.size) - len(old), old.dtype)
            self.arrays[step.slot] = np.concatenate([old, more])
        elif isinstance(step, Rotate):
            moved = [self.arrays[k] for k in step.slots]
            self.arrays.update(zip(step.slots, [*moved[1:], moved[0]], strict=True))
        elif isinstance(step, Reserve):
            row = self.program.slots[step.row]
            count = int(self.array(step.count)[0]) * self.size(row.size)
            rest = poisoned(self.size(row.size), row.dtype)
            self.arrays[step.target] = np.concatenate([self.arrays[step.target][:count], rest])
        elif isinstance(step, Append):
            self.append(step)
        elif isinstance(step, Loop):
            self.loop(step)
        elif isinstance(step, Branch):
            self.branch(step)
        elif isinstance(step, Host):
            self.host(step)
        else:
            self.published[step.output] = step.source

    def bind_segment(self, step: Bind) -> None:
        """Learn sizes in the course of the run."""
        segment = self.program.segments[step.segment]
        values = [
            int(self.array(s[0])[s[1]]) if isinstance(s, tuple) else self.size(s)
            for s in step.sources
        ]
        self.binding.update(zip(segment.symbols, values, strict=True))
        self.check_guards(step.segment)
        self.make_room(step.segment)

    def host(self, step: Host) -> None:
        """Let Python compute; results of sizes that nobody knew before take the room they need."""
        call = self.program.hosts[step.number]
        given = [
            self.array(n).reshape([self.size(s) for s in sizes]).copy()
            for n, sizes in zip(step.inputs, call.inputs, strict=True)
        ]
        results = host_values(call.op, given)
        check_fixed(call, results, self.size)
        for number, value in zip(step.outputs, results, strict=True):
            if self.program.slots[number].kind == "grown":
                self.arrays[number] = value.reshape(-1).copy()
            else:
                self.array(number)[...] = value.reshape(-1)

    def append(self, step: Append) -> None:
        """Put a turn's values behind those of the turns before."""
        turns = int(self.array(step.count)[0])
        row = self.array(step.source)
        before = self.arrays.get(step.target, row[:0])[: turns * len(row)]
        self.arrays[step.target] = np.concatenate([before, row])

    def loop(self, step: Loop) -> None:
        """Test and body in turn."""
        turns = self.array(step.turns)
        turns[0] = 0
        for inner in walk([*step.test, *step.body]):
            if isinstance(inner, (Append, Reserve)):
                slot = self.program.slots[inner.target]
                self.arrays[inner.target] = poisoned(0, slot.dtype)
        while True:
            self.run(step.test)
            if not self.array(step.flag)[0]:
                return
            self.run(step.body)
            turns[0] += 1

    def branch(self, step: Branch) -> None:
        """One of the cases."""
        number = branch_number(self.array(step.selector)[0], len(step.cases))
        self.run(step.cases[number])

    def call(self, step: Call) -> None:
        """Run a kernel; a failed condition becomes the error of its operation."""
        low = step.lowered
        arrays = [self.array(number) for number in step.slots]
        try:
            if self.fast and low.fast is not None:
                run_kernel(low.fast, arrays)
            else:
                scalars = [self.size(Dim((((s,), 1),))) for s in low.symbols]
                run_kernel(low.kernel, arrays, scalars)
        except RequireFailed as e:
            site = self.program.sites[e.site]
            raise InvalidArgumentError(site.op.node_def, site.op, site.text(e.details)) from None


def poisoned(count: int, dtype: DType) -> np.ndarray:
    """An array of NaN bytes."""
    return np.full(count * dtype.size, POISON, np.uint8).view(dtype.numpy)


def by_step(steps: Mapping[int, int]) -> dict[int, list[int]]:
    """The slots of each step."""
    found: dict[int, list[int]] = {}
    for number, step in steps.items():
        found.setdefault(step, []).append(number)
    return found
