"""Session: fetches and feeds in, values out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import dtypes, feeding, modes
from graphc.compiler import compile_graph
from graphc.errors import (
    FailedPreconditionError,
    FinalizedError,
    OpError,
)
from graphc.feeding import FetchTree, feed_array, feed_key
from graphc.graph import (
    Graph,
    Operation,
    Tensor,
    get_default_graph,
    pop_session,
    push_session,
    session_context,
)
from graphc.function import Function
from graphc.passes.extract import ValuesNeeded, VariableState, extract
from graphc.runtime import native
from graphc.runtime.executable import BadSize, Executable, GuardBroken, Mismatch


@dataclass
class Cell:
    """A variable's value in a session."""

    array: np.ndarray
    initialized: bool


def aligned_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array on a 64-byte boundary."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count].view(dtype).reshape(shape)


@dataclass
class RunPlan:
    """What one combination of fetches and feeds needs, found once and then reused.

    ``executables`` are by the feeds' ranks, specialised ones by full shapes; both also by the
    values of ``needed``, tensors that must be constants for the compiler (axes, permutations).
    """

    tree: FetchTree
    feeds: list[Tensor]
    computed: list[Tensor]
    targets: list[Operation]
    executables: dict[Any, Executable] = field(default_factory=dict)
    single: Executable | None = None
    initialized: tuple[tuple[str, bool], ...] = ()
    stores: list[Operation] = field(default_factory=list)
    needed: list[Tensor] = field(default_factory=list)


class Session:
    """Runs a graph.

    Args:
      target: accepted for TensorFlow scripts; must be empty.
      graph: the graph to run; the default graph if None.
      config: accepted for TensorFlow scripts.
      mode: ``"static"`` compiles a whole fetch into one program; ``"eager"`` runs the same
        compiled kernels one op at a time; ``"reference"`` runs the NumPy definitions.

    A session owns the values of the variables.  Many threads may use one session.
    """

    def __init__(
        self, target: str = "", graph: Graph | None = None, config: Any = None,
        mode: str = "static",
    ) -> None:  # fmt: skip
        self.graph = graph or get_default_graph()
        self._config = config
        self._mode = mode
        self._closed = False
        self._cells: dict[str, Cell] = {}
        self._plans: dict[Any, RunPlan] = {}
        self._lock = threading.RLock()
        self._native_lock = native.SessionLock()
        self._contexts: list[Any] = []
        self._eager: dict[Any, Any] = {}
        self.compilations = 0

    # --- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the variables; later runs are refused."""
        self._closed = True
        self._plans.clear()
        self._cells.clear()

    def __enter__(self) -> Session:
        graph, session = self.graph.as_default(), session_context(self)
        graph.__enter__()
        session.__enter__()
        self._contexts.append((graph, session))
        return self

    def __exit__(self, *exc: Any) -> None:
        graph, session = self._contexts.pop()
        session.__exit__(*exc)
        graph.__exit__(*exc)
        self.close()

    def as_default(self) -> Any:
        """A context in which this is the default session; leaving it does not close it."""
        return session_context(self)

    @property
    def sess_str(self) -> str:
        """The target that was asked for."""
        return ""

    def list_devices(self) -> list[Any]:
        """The devices that can run this session's graph."""
        return [feeding.Device("/job:localhost/replica:0/task:0/device:CPU:0", "CPU")]

    # --- running ------------------------------------------------------------------------------

    def run(
        self, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
    ) -> Any:
        """The values of ``fetches``.

        Args:
          fetches: a tensor, operation, variable, name, or any nesting of lists, tuples, dicts and
            namedtuples of them.
          feed_dict: values for tensors, by tensor or by name.
          options, run_metadata: accepted for TensorFlow scripts.
        Returns:
          The same nesting with arrays (NumPy scalars for rank 0) for tensors and None for
          operations.
        Raises:
          OpError: the run failed (``graphc.errors``); no variable was changed.
          ValueError, TypeError: bad fetches or feeds.
        """
        if self._closed:
            raise FinalizedError("Attempted to use a closed Session.")
        plan, values = self._prepare(fetches, feed_dict)
        return plan.tree.build(self._execute(plan, values))

    def make_callable(
        self, fetches: Any, feed_list: Sequence[Any] | None = None, accept_options: bool = False
    ) -> Callable[..., Any]:
        """A function of the values for ``feed_list`` that returns what ``run`` would."""
        feeds = [feeding.resolve_feed(self.graph, f) for f in feed_list or ()]
        plan = self._plan(fetches, tuple(feeds))

        def call(*values: Any, **_: Any) -> Any:
            if self._closed:
                raise FinalizedError("Attempted to use a closed Session.")
            if len(values) != len(feeds):
                raise feeding.wrong_count(len(feeds), len(values))
            return plan.tree.build(self._execute(plan, list(values)))

        return call

    def _prepare(self, fetches: Any, feed_dict: Any) -> tuple[RunPlan, list[Any]]:
        if not feed_dict:
            keys: tuple[Any, ...] = ()
            values: list[Any] = []
        else:
            keys, values = tuple(feed_dict), list(feed_dict.values())
        try:
            plan = self._plans.get((feed_key(fetches), keys))
        except TypeError:
            plan = None
        if plan is None:
            feeds, values = feeding.expand_feeds(self.graph, feed_dict or {})
            plan = self._plan(fetches, tuple(feeds))
            if list(feeds) == list(keys):
                self._plans[(feed_key(fetches), keys)] = plan
        return plan, values

    def _plan(self, fetches: Any, feeds: tuple[Tensor, ...]) -> RunPlan:
        key = (feed_key(fetches), feeds)
        found = self._plans.get(key)
        if found is None:
            tree = FetchTree(self.graph, fetches)
            fed = set(feeds)
            computed = [
                t for t in tree.tensors if t not in fed and t.dtype.base_dtype is not dtypes.string
            ]
            found = RunPlan(tree, list(feeds), computed, tree.operations)
            self._plans[key] = found
        return found

    def _execute(self, plan: RunPlan, values: list[Any]) -> dict[Tensor, Any]:
        if not plan.computed and not plan.targets:
            arrays = [feed_array(t, v) for t, v in zip(plan.feeds, values, strict=True)]
            return self._results(plan, arrays, ())
        if plan.single is not None:
            try:
                answer = plan.single.call(*values)
            except Mismatch:
                pass
            except GuardBroken:
                pass
            else:
                if plan.tree.simple:
                    return dict(zip(plan.computed, answer, strict=True))
                return self._results(plan, values, answer)
        arrays = [feed_array(t, v) for t, v in zip(plan.feeds, values, strict=True)]
        answer = self._run_arrays(plan, arrays)
        return self._results(plan, arrays, answer)

    def _results(
        self, plan: RunPlan, arrays: Sequence[Any], answer: Sequence[Any]
    ) -> dict[Tensor, Any]:
        values = dict(zip(plan.computed, answer, strict=False))
        for t, a in zip(plan.feeds, arrays, strict=True):
            values[t] = feed_array(t, a)
        for t in plan.tree.tensors:
            if t not in values:
                values[t] = feeding.host_value(self, t, values)
        return values

    def _run_arrays(self, plan: RunPlan, arrays: list[np.ndarray]) -> Sequence[Any]:
        numeric = [
            (t, a) for t, a in zip(plan.feeds, arrays, strict=True)
            if t.dtype.base_dtype is not dtypes.string
        ]  # fmt: skip
        return self._run_numeric(plan, [t for t, _ in numeric], [a for _, a in numeric])

    def _run_numeric(
        self, plan: RunPlan, feeds: list[Tensor], data: list[np.ndarray]
    ) -> Sequence[Any]:
        if self._mode != "static":
            return self._run_other(plan, feeds, data)
        shapes = tuple(a.shape for a in data)
        known: dict[Tensor, list[int]] = {}
        while True:
            try:
                known = self._values_of(plan, plan.needed, feeds, data)
                executable = self._executable(plan, feeds, shapes, known)
                break
            except ValuesNeeded as e:
                plan.needed += [t for t in e.tensors if t not in plan.needed]
        try:
            return self._call(plan, executable, feeds, data)
        except (GuardBroken, BadSize) as e:
            if isinstance(e, BadSize) and not executable.bound:
                raise
            tensors = [t for t, _ in executable.bound]
            known |= self._values_of(plan, tensors, feeds, data)
            executable = self._specialised(plan, feeds, shapes, known)
            return self._call(plan, executable, feeds, data)

    def _executable(
        self, plan: RunPlan, feeds: list[Tensor], shapes: tuple[tuple[int, ...], ...],
        known: dict[Tensor, list[int]],
    ) -> Executable:  # fmt: skip
        """The program for these shapes: a specialised one, else the general one of the ranks."""
        with self._lock:
            if plan.initialized and any(self._is_set(k) != v for k, v in plan.initialized):
                plan.executables.clear()
                plan.single = None
            values = tuple(tuple(v) for v in known.values())
            ranks = tuple(len(s) for s in shapes)
            found = plan.executables.get((shapes, values)) or plan.executables.get((ranks, values))
            if found is None:
                any_size = [(None,) * r for r in ranks]
                found = self._compile(plan, feeds, any_size, known, shapes)
                plan.executables[(ranks, values)] = found
            return found

    def _specialised(
        self, plan: RunPlan, feeds: list[Tensor], shapes: tuple[tuple[int, ...], ...],
        known: dict[Tensor, list[int]],
    ) -> Executable:  # fmt: skip
        """A program for exactly these shapes (and values that sizes depend on)."""
        with self._lock:
            executable = self._compile(plan, feeds, shapes, known)
            if not known:
                plan.executables[(shapes, ())] = executable
                plan.single = None
            return executable

    def _compile(
        self, plan: RunPlan, feeds: list[Tensor], shapes: Sequence[tuple[int | None, ...]],
        known: dict[Tensor, list[int]] | None = None, seen: Sequence[tuple[int, ...]] = (),
    ) -> Executable:  # fmt: skip
        declared = {}
        for t, shape in zip(feeds, shapes, strict=True):
            sizes = t.sizes or (None,) * len(shape)
            declared[t] = tuple(
                k if isinstance(k, int) else s for k, s in zip(sizes, shape, strict=True)
            )
        code = compile_graph(
            plan.computed, plan.targets, declared, self._variable_state, known=known,
            seen=dict(zip(feeds, seen, strict=False)),
        )  # fmt: skip
        consulted = code.program.function.consulted
        plan.initialized = tuple((k, self._is_set(k)) for k in sorted(consulted))
        self.compilations += 1
        arrays = {i.key: self._cell(i).array for i in code.program.inputs if i.kind == "variable"}
        executable = Executable(code, arrays, self._native_lock)
        outputs = code.program.function.outputs
        plan.stores = [o.source for o in outputs if o.kind == "store"]
        return executable

    def _values_of(
        self, owner: RunPlan, tensors: list[Tensor], feeds: list[Tensor], data: list[np.ndarray]
    ) -> dict[Tensor, list[int]]:
        """The values of the integer tensors that a program's shapes depend on."""
        if not tensors:
            return {}
        tensors = list(dict.fromkeys(tensors))
        fed = dict(zip(feeds, data, strict=True))
        plan = self._plan([t for t in tensors if t not in fed], tuple(owner.feeds))
        computed = {t: fed[t] for t in tensors if t in fed}
        if plan.computed:
            computed.update(zip(plan.computed, self._run_numeric(plan, feeds, data), strict=True))
        return {t: [int(v) for v in np.asarray(computed[t]).reshape(-1)] for t in tensors}

    def _call(
        self, plan: RunPlan, executable: Executable, feeds: list[Tensor], data: list[np.ndarray]
    ) -> Sequence[Any]:
        extra: list[np.ndarray] = []
        if executable.bound:
            values = self._values_of(plan, [t for t, _ in executable.bound], feeds, data)
            shape: list[int] = []
            for tensor, element in executable.bound:
                value = values[tensor][element]
                shape += [max(value, 0), max(-value, 0)]
            extra = [np.empty((*shape, 0), np.int8)]
        answer: Sequence[Any] = executable.call(*data, *extra)
        for key in executable.code.program.updated:
            self._cells[key].initialized = True
        if plan.stores:
            count = len(plan.computed)
            for op, value in zip(plan.stores, answer[count:], strict=True):
                self._cells[op.name] = Cell(np.array(value), True)
            answer = answer[:count]
            self._plans.clear()
        elif len(plan.executables) == 1 and not plan.initialized and not executable.bound:
            plan.single = executable
        return answer

    def _run_other(
        self, plan: RunPlan, feeds: list[Tensor], data: list[np.ndarray]
    ) -> Sequence[Any]:
        """Run op by op: eager or reference mode."""
        shapes = {t: a.shape for t, a in zip(feeds, data, strict=True)}
        with self._lock:
            fn = self._extract_known(plan, feeds, data, shapes)
            arrays = {t.name: a for t, a in zip(feeds, data, strict=True)}
            for i in fn.inputs:
                if i.kind == "variable":
                    arrays[i.key] = self._cell(i).array
            if self._mode == "reference":
                values = modes.run_reference(fn, arrays)
            else:
                values = modes.run_eager(fn, arrays, self._eager, self._native_lock)
            for output, value in zip(fn.outputs, values, strict=True):
                if output.kind != "fetch":
                    self._cells[output.key] = Cell(np.array(value), True)
        fetched = zip(fn.outputs, values, strict=True)
        return [v[()] if v.ndim == 0 else np.array(v) for o, v in fetched if o.kind == "fetch"]

    def _extract_known(
        self, plan: RunPlan, feeds: list[Tensor], data: list[np.ndarray], shapes: Any
    ) -> Function:
        """The function for these shapes and for the values that shapes depend on."""
        known: dict[Tensor, list[int]] = {}
        while True:
            try:
                fn = extract(plan.computed, plan.targets, shapes, self._variable_state, known)
                needed = [t for t, _ in fn.bound]
            except ValuesNeeded as e:
                needed = e.tensors
            if not needed:
                return fn
            known |= self._values_of(plan, needed, feeds, data)

    # --- variables ----------------------------------------------------------------------------

    def _variable_state(self, op: Operation) -> VariableState:
        cell = self._cells.get(op.name)
        sizes = op.outputs[0].sizes
        dtype = op.outputs[0].dtype.base_dtype
        if cell is not None:
            return VariableState(dtype, cell.array.shape, cell.initialized)
        known = None
        if sizes is not None and all(isinstance(s, int) for s in sizes):
            known = tuple(int(s) for s in sizes if isinstance(s, int))
        return VariableState(dtype, known, False)

    def _is_set(self, key: str) -> bool:
        cell = self._cells.get(key)
        return cell is not None and cell.initialized

    def _cell(self, item: Any) -> Cell:
        cell = self._cells.get(item.key)
        if cell is None:
            counter = item.key.endswith("^counter")
            shape = tuple(int(s) for s in item.tensor.sizes)
            array = aligned_array(shape, item.tensor.dtype.base_dtype.numpy)
            cell = self._cells[item.key] = Cell(array, counter)
        return cell

    def load_variable(self, op: Operation, value: Any) -> None:
        """Give a variable a value without running anything; a graph is not changed."""
        with self._lock:
            cell = self._cells.get(op.name)
            dtype = op.outputs[0].dtype.base_dtype
            array = np.asarray(value, dtype.numpy)
            if cell is None or cell.array.shape != array.shape:
                self._cells[op.name] = Cell(aligned_array(array.shape, dtype.numpy), True)
                self._plans.clear()
            with self._native_lock:
                self._cells[op.name].array[...] = array
            self._cells[op.name].initialized = True

    def read_variable(self, op: Operation) -> np.ndarray:
        """A copy of a variable's value.

        Raises:
          FailedPreconditionError: it has none yet.
        """
        cell = self._cells.get(op.name)
        if cell is None or not cell.initialized:
            raise FailedPreconditionError(
                op.node_def, op, f"Attempting to use uninitialized value {op.name}"
            )
        with self._native_lock:
            return cell.array.copy()


class InteractiveSession(Session):
    """A session that is the default one from its construction until it is closed."""

    def __init__(self, target: str = "", graph: Graph | None = None, config: Any = None) -> None:
        super().__init__(target, graph, config)
        push_session(self)

    def close(self) -> None:
        """Free the variables and stop being the default session."""
        pop_session(self)
        super().close()


__all__ = ["Cell", "InteractiveSession", "OpError", "Session"]
_ = Mapping
