"""Runner: finds or makes the executable for a run's shapes, and calls it.

One *general* executable accepts any size.  Where a run breaks an assumption that it makes (two
sizes are equal, none is 1, a computed size is not negative), an executable is compiled for the
pattern of ones among the run's sizes, and where that is not enough, for exactly its sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import dtypes, modes
from graphc.compiler import compile_graph
from graphc.errors import CompileError, FinalizedError, InvalidArgumentError
from graphc.feeding import FetchTree, selectors
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.passes.assume import RanksNeeded, ValuesNeeded
from graphc.passes.extract import extract
from graphc.program import Program
from graphc.runtime.executable import (
    BadSize,
    Executable,
    GuardBroken,
    Runnable,
    flat_fetches,
    reshaped,
)
from graphc.runtime.state import State
from graphc.runtime.trace import Recording

MOST_SPECIALISED = 256

Shapes = tuple[tuple[int, ...], ...]
Values = dict[Tensor, list[int]]
Declared = dict[Tensor, tuple[Any, ...]]


@dataclass
class RunPlan:
    """What one combination of fetches and feeds needs, found once and then reused.

    Attributes:
      tree: the fetches.
      feeds: the fed tensors, in the order of the values; ``numeric`` those that are no strings.
      computed, targets: the tensors and operations that a program must compute and run.
      keep: False for a run that must leave every variable and counter as it was.
      executables: by the sizes that they are compiled for (a rank for any size), whether they
        stretch, and the values of ``needed``, tensors that must be constants for the compiler
        (axes, permutations).
      functions: what the other modes run, by shapes and values.
      single: the executable to try first.
      stated: how much of the shapes must be compiled in, because ranks depend on them: 0 nothing,
        1 the sizes of integer vectors, 2 everything.
      stretch: whether sizes that a run decides have turned out to be 1 where they are broadcast.
      initialized: the variables whose being initialized decides what is computed.
      layout: the state's layout that the executables are bound to.
      on_device: whether the fetches stay on the session's device.
    """

    tree: FetchTree
    feeds: list[Tensor]
    computed: list[Tensor]
    targets: list[Operation]
    keep: bool = True
    executables: dict[Any, Runnable] = field(default_factory=dict)
    functions: dict[Any, Function] = field(default_factory=dict)
    single: Runnable | None = None
    initialized: tuple[tuple[str, bool], ...] = ()
    needed: list[Tensor] = field(default_factory=list)
    layout: int = -1
    stated: int = 0
    stretch: bool = False
    on_device: bool = False

    def __post_init__(self) -> None:
        self.numeric = [t for t in self.feeds if is_numeric(t)]

    def forget(self, state: State) -> None:
        """Drop what was made for an earlier state of the variables."""
        self.executables.clear()
        self.functions.clear()
        self.single = None
        self.initialized = ()
        self.layout = state.layout


def is_numeric(tensor: Tensor) -> bool:
    """Whether programs compute it: anything but strings."""
    return tensor.dtype.base_dtype is not dtypes.string


def make_plan(tree: FetchTree, feeds: Sequence[Tensor], keep: bool = True) -> RunPlan:
    """The plan for these fetches and feeds."""
    computed = [t for t in tree.tensors if t not in feeds and is_numeric(t)]
    tree.simple = len(computed) == len(tree.tensors)
    computed += [t for t in selectors(tree.tensors) if t not in feeds and t not in computed]
    return RunPlan(tree, list(feeds), computed, tree.operations, keep)


class Moved(Exception):
    """Another thread has moved a variable to another array since the executable was made."""


class Runner:
    """Runs plans over one session's state."""

    def __init__(self, state: State, mode: str) -> None:
        self.state = state
        self.mode = mode
        self.compilations = 0
        self.kernels: dict[Any, Any] = {}
        self._value_plans: dict[Any, RunPlan] = {}

    def run(
        self, plan: RunPlan, data: list[np.ndarray], recording: Recording | None = None
    ) -> Sequence[Any]:
        """The values of ``plan.computed`` for arrays in the order of ``plan.numeric``."""
        if self.mode != "static":
            return self._run_other(plan, data)
        while True:
            try:
                return self._run_static(plan, data, recording)
            except Moved:
                pass

    # --- static mode --------------------------------------------------------------------------

    def _run_static(
        self, plan: RunPlan, data: list[np.ndarray], recording: Recording | None
    ) -> Sequence[Any]:
        shapes = tuple(a.shape for a in data)
        known: Values = {}
        while True:
            try:
                known = self._values_of(plan, plan.needed, data)
                executable = self._executable(plan, shapes, known)
                break
            except ValuesNeeded as e:
                plan.needed += [t for t in e.tensors if t not in plan.needed]
            except RanksNeeded:
                if plan.stated == 2:
                    raise CompileError("a rank is not known for known shapes") from None
                plan.stated += 1
        try:
            return self._call(plan, executable, data, recording)
        except (GuardBroken, BadSize) as e:
            if isinstance(e, BadSize) and not executable.bound:
                raise
            stretched = self._stretched(plan, executable, shapes, known)
            if stretched is not None:
                try:
                    answer = self._call(plan, stretched, data, recording)
                except (GuardBroken, BadSize):
                    pass
                else:
                    plan.stretch = True
                    return answer
            try:
                return self._run_specialised(plan, executable, shapes, known, data, recording)
            except OverflowError:
                raise BadSize(None, None, "a computed size is too large") from None

    def _current(self, plan: RunPlan) -> None:
        """Forget what was compiled for another state of the variables."""
        moved = plan.layout != self.state.layout
        if moved or any(self.state.is_set(k) != v for k, v in plan.initialized):
            plan.forget(self.state)

    def _executable(self, plan: RunPlan, shapes: Shapes, known: Values) -> Runnable:
        """The executable to try first: a specialised one, else the general one of the ranks."""
        with self.state.lock:
            self._current(plan)
            values = tuple(tuple(v) for v in known.values())
            for key in (shapes, ones_only(shapes)):
                found = plan.executables.get((key, values, plan.stretch))
                if found is not None:
                    return found
            return self._made(plan, general_sizes(plan, shapes), shapes, known)

    def _made(
        self, plan: RunPlan, sizes: Any, shapes: Shapes, known: Values, stretch: bool = False
    ) -> Runnable:
        """The executable for these sizes (None: any) and values, compiled if it is missing.

        With ``stretch``, sizes that a run decides may be 1, whatever earlier runs have shown.
        """
        with self.state.lock:
            self._current(plan)
            stretch = stretch or plan.stretch
            key = (sizes, tuple(tuple(v) for v in known.values()), stretch)
            found = plan.executables.get(key)
            if found is None:
                found = self._compile(plan, sizes, shapes, known, stretch)
                if len(plan.executables) > MOST_SPECIALISED:
                    plan.executables.clear()
                plan.executables[key] = found
            return found

    def _run_specialised(
        self, plan: RunPlan, tried: Runnable, shapes: Shapes, known: Values,
        data: list[np.ndarray], recording: Recording | None,
    ) -> Sequence[Any]:  # fmt: skip
        """Run with an executable that is compiled for the shapes of this run."""
        ones = ones_only(shapes)
        if not tried.bound and any(1 in s for s in shapes):
            executable = self._made(plan, ones, shapes, known)
            try:
                return self._call(plan, executable, data, recording)
            except (GuardBroken, BadSize):
                pass
        known = known | self._values_of(plan, tried.bound, data)
        executable = self._made(plan, shapes, shapes, known)
        try:
            return self._call(plan, executable, data, recording)
        except GuardBroken:
            raise executable.guard_error() from None

    def _stretched(
        self, plan: RunPlan, tried: Runnable, shapes: Shapes, known: Values
    ) -> Runnable | None:
        """The executable for which sizes that a run decides may be 1, where that may help."""
        if plan.stretch or not tried.program.function.env.met:
            return None
        try:
            return self._made(plan, general_sizes(plan, shapes), shapes, known, stretch=True)
        except InvalidArgumentError:
            return None

    def _compile(
        self, plan: RunPlan, sizes: Sequence[Sequence[int | None]], seen: Shapes, known: Values,
        stretch: bool,
    ) -> Runnable:  # fmt: skip
        declared: Declared = {}
        for t, shape in zip(plan.numeric, sizes, strict=True):
            stated = t.sizes or (None,) * len(shape)
            declared[t] = tuple(
                k if isinstance(k, int) else s for k, s in zip(stated, shape, strict=True)
            )
        shapes = dict(zip(plan.numeric, seen, strict=True))
        program, bind = self._build(plan, declared, known, shapes, stretch)
        fn = program.function
        if fn.env.met and program.hosts and not stretch:
            # A run that has called Python cannot be begun anew.
            plan.stretch = True
            return self._made(plan, sizes, seen, known)
        plan.initialized = tuple((k, self.state.is_set(k)) for k in sorted(fn.consulted))
        self.compilations += 1
        plan.layout = self.state.layout
        return bind()

    def _build(
        self, plan: RunPlan, declared: Declared, known: Values,
        seen: Mapping[Tensor, Sequence[int]], stretch: bool,
    ) -> tuple[Program, Callable[[], Runnable]]:  # fmt: skip
        """The program for these sizes, and what binds it to the session's variables."""
        code = compile_graph(
            plan.computed, plan.targets, declared, self.state.variable_state, known=known,
            seen=seen, keep=plan.keep, stretch=stretch,
        )  # fmt: skip

        def bind() -> Executable:
            variables = [i for i in code.program.inputs if i.kind == "variable"]
            arrays = {i.key: self.state.cell(i).array for i in variables}
            return Executable(code, arrays, self.state.native_lock, self.state.layout)

        return code.program, bind

    def _values_of(
        self, plan: RunPlan, tensors: list[Tensor], data: list[np.ndarray]
    ) -> Values:
        """The values of the integer tensors that a program's shapes depend on.

        They are computed beforehand, by a run of their own that changes no variable.
        """
        if not tensors:
            return {}
        tensors = list(dict.fromkeys(tensors))
        found: dict[Tensor, Any] = dict(zip(plan.numeric, data, strict=True))
        wanted = [t for t in tensors if t not in found]
        if wanted:
            other = self._values_plan(wanted, plan)
            found.update(zip(other.computed, self.run(other, data), strict=True))
        return {t: [int(v) for v in np.asarray(found[t]).reshape(-1)] for t in tensors}

    def _values_plan(self, tensors: list[Tensor], owner: RunPlan) -> RunPlan:
        """The plan of a run that computes what sizes depend on and changes nothing."""
        key = (tuple(tensors), tuple(owner.feeds))
        with self.state.lock:
            found = self._value_plans.get(key)
            if found is None:
                tree = FetchTree(tensors[0].graph, tensors)
                found = self._value_plans[key] = make_plan(tree, owner.feeds, keep=False)
            return found

    def _call(
        self, plan: RunPlan, executable: Runnable, data: list[np.ndarray],
        recording: Recording | None,
    ) -> Sequence[Any]:  # fmt: skip
        if not executable.exclusive:
            return self._called(plan, executable, data, recording)
        with self.state.turn:
            if executable.layout != self.state.layout:
                raise Moved
            return self._called(plan, executable, data, recording)

    def _called(
        self, plan: RunPlan, executable: Runnable, arguments: list[np.ndarray],
        recording: Recording | None,
    ) -> Sequence[Any]:  # fmt: skip
        answer: Sequence[Any]
        executable.prepare(self.state)
        if executable.changes:
            # Before it: what fails late has changed them, too.
            self.state.note_change(executable.updates)
        if recording is None:
            answer = executable.call(*arguments)
        else:
            answer = recording.call(executable, arguments)
        self.commit(executable)
        if executable.stores or executable.flat:
            count = len(plan.computed)
            stored = answer[count + len(executable.flat) :]
            for op, value in zip(executable.stores, stored, strict=True):
                self.state.store(op.name, np.asarray(value))
            return reshaped(answer, executable.flat, count)
        simple = not plan.initialized and not plan.needed
        if simple and len(plan.numeric) == len(plan.feeds):
            plan.single = executable
        return answer

    def commit(self, executable: Runnable) -> None:
        """Note that the variables that a run has updated are initialized."""
        for key in executable.fresh:
            cell = self.state.cells.get(key)
            if cell is None:
                raise FinalizedError("The Session was closed during the run.")
            cell.initialized = True
        executable.fresh = ()

    # --- the other modes ------------------------------------------------------------------------

    def _run_other(self, plan: RunPlan, data: list[np.ndarray]) -> Sequence[Any]:
        """Run op by op: eager or reference mode."""
        with self.state.turn:
            fn = self._function(plan, data)
            arrays = {t.name: a for t, a in zip(plan.numeric, data, strict=True)}
            for i in fn.inputs:
                if i.kind == "variable":
                    arrays[i.key] = self.state.cell(i).array
            if self.mode == "reference":
                values = modes.run_reference(fn, arrays)
            else:
                values = modes.run_eager(fn, arrays, self.kernels, self.state.native_lock)
            fetched = []
            changed = []
            for output, value in zip(fn.outputs, values, strict=True):
                # A copy: the value may be a variable's array, or what another output is.
                if output.kind in ("fetch", "sizes"):
                    fetched.append(value[()].copy() if value.ndim == 0 else np.array(value))
                elif output.kind in ("update", "store"):
                    changed.append((output.key, np.array(value)))
            for key, value in changed:
                self.state.store(key, value)
        return reshaped(fetched, flat_fetches(fn), len(plan.computed))

    def _function(self, plan: RunPlan, data: list[np.ndarray]) -> Function:
        """The function for these shapes and for the values that shapes depend on."""
        shapes = tuple(a.shape for a in data)
        while True:
            known = self._values_of(plan, plan.needed, data)
            key = (shapes, tuple(tuple(v) for v in known.values()))
            with self.state.lock:
                self._current(plan)
                found = plan.functions.get(key)
                if found is not None:
                    return found
                try:
                    declared = dict(zip(plan.numeric, shapes, strict=True))
                    fn = extract(
                        plan.computed, plan.targets, declared, self.state.variable_state, known,
                        plan.keep, stretch=True,
                    )  # fmt: skip
                    needed = [s.source for s in fn.late if s.source is not None]
                except ValuesNeeded as e:
                    needed = e.tensors
                if not needed:
                    if len(plan.functions) > MOST_SPECIALISED:
                        plan.functions.clear()
                    fn = modes.prepared(fn, self.mode)
                    consulted = sorted(fn.consulted)
                    plan.initialized = tuple((k, self.state.is_set(k)) for k in consulted)
                    plan.layout = self.state.layout
                    plan.functions[key] = fn
                    return fn
                plan.needed += [t for t in needed if t not in plan.needed]


def general_sizes(plan: RunPlan, shapes: Shapes) -> tuple[tuple[int | None, ...], ...]:
    """Sizes that accept every shape of these ranks, but for what the plan must state."""
    return tuple(
        s if plan.stated == 2 or (plan.stated and len(s) == 1 and t.dtype.is_integer)
        else (None,) * len(s)
        for t, s in zip(plan.numeric, shapes, strict=True)
    )  # fmt: skip


def ones_only(shapes: Shapes) -> tuple[tuple[int | None, ...], ...]:
    """The ones among the sizes, None for every other size."""
    return tuple(tuple(1 if n == 1 else None for n in s) for s in shapes)
