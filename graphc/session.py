"""Session: fetches and feeds in, values out."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import feeding
from graphc.callables import Outs, builder_of, form_of
from graphc.config import traces
from graphc.cuda_runner import CudaRunner
from graphc.errors import (
    DTypeError,
    FinalizedError,
    GraphError,
    OpError,
    UnimplementedError,
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
from graphc.passes.extract import VariableState
from graphc.placement import Placement, named_device
from graphc.runner import Runner, RunPlan, is_numeric, make_plan
from graphc.runtime.cuda_arrays import DeviceArray, users_go_on
from graphc.runtime.cuda_cupy import cuda_names
from graphc.runtime.cuda_device import Device
from graphc.runtime.cuda_state import CudaState
from graphc.runtime.direct import Direct, Turns
from graphc.runtime.executable import BadSize, Executable, GuardBroken, Mismatch, Runnable
from graphc.runtime.state import State
from graphc.runtime.trace import Recording

PREFIX = "/job:localhost/replica:0/task:0/device:"
ON_DEVICE = "on device"
MODES = ("static", "eager", "reference")
# In keys, behind the fetches that are a sequence of this kind.
MARKS: dict[type, object] = {list: object(), tuple: object()}


class Session:
    """Runs a graph.

    Args:
      target: for TensorFlow scripts; must be empty.
      graph: the graph to run; the default graph if None.
      config: a ``ConfigProto``; ``allow_soft_placement`` and ``device_count`` of GPUs matter.
      mode: ``"static"`` compiles a whole fetch into one program; ``"eager"`` runs the same
        compiled kernels one op at a time; ``"reference"`` runs the NumPy definitions.
      device: where everything runs: ``"cpu"``; ``"cuda"``, the CUDA device that CuPy has chosen;
        ``"cuda:1"``, ``"/gpu:1"``. Without one the operations of the graph decide when the session
        is first used: one that ``with gc.device("/gpu:0")`` is around asks for that GPU.

    Raises:
      UnavailableError: there is no such device, or what it needs is not installed.

    A session owns the values of the variables.  Many threads may use one session.
    """

    def __init__(
        self, target: str = "", graph: Graph | None = None, config: Any = None,
        mode: str = "static", device: Any = None,
    ) -> None:  # fmt: skip
        if target:
            raise GraphError(f"a Session runs in this process: its target is '', not {target!r}")
        if mode not in MODES:
            raise GraphError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        self.graph = get_default_graph() if graph is None else graph
        self._config = config
        self._mode = mode
        self._closed = False
        self._plans: dict[Any, RunPlan] = {}
        self._directs: dict[Any, Direct] = {}
        self._calls: dict[Any, Callable[..., Any]] = {}
        self._placement: Placement | None = None
        self._placing = threading.RLock()
        self._looked_at = 0
        self._contexts: list[Any] = []
        self._begin(None if device is None else named_device(device))
        if device is None and mode == "static":
            # Until the session is first used, its graph may still ask for a device.
            self._placement = Placement(config)

    def _begin(self, device: Device | None) -> None:
        """Run on this device from now on; None for the CPU."""
        if device is None:
            self._state = State()
            self._runner = Runner(self._state, self._mode)
        elif self._mode != "static":
            raise GraphError(f"mode {self._mode!r} runs on device 'cpu' only")
        else:
            cuda = CudaState(device)
            self._state, self._runner = cuda, CudaRunner(cuda)
        self._device = device

    def _place(self) -> None:
        """Look at the operations declared since the last time: which device they ask for."""
        if self._placement is None:
            return
        with self._placing:
            operations = self.graph.get_operations()[self._looked_at :]
            if self._placement.settled:
                self._placement.check(operations)
            else:
                device = self._placement.device(operations)
                if device is not None:
                    self._begin(device)
            self._looked_at += len(operations)

    # --- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the variables; later runs are refused."""
        self._closed = True
        with self._state.lock:
            self._calls.clear()
            self._directs.clear()
        self._plans.clear()
        self._state.clear()

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
    def compilations(self) -> int:
        """How many programs have been compiled (or loaded from the cache) so far."""
        return self._runner.compilations

    @property
    def sess_str(self) -> str:
        """The target that was asked for."""
        return ""

    def list_devices(self) -> list[Any]:
        """The devices that can run this session's graph."""
        found = [feeding.Device(f"{PREFIX}CPU:0", "CPU")]
        if self._placement is not None:
            names = [name.partition(":")[2] for name in cuda_names()]
        else:
            names = [self._device.name.partition(":")[2]] if self._device is not None else []
        return found + [feeding.Device(f"{PREFIX}GPU:{number}", "GPU") for number in names]

    # --- running ------------------------------------------------------------------------------

    def run(
        self, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
    ) -> Any:
        """The values of ``fetches``.

        Args:
          fetches: a tensor, operation, variable, name, or any nesting of lists, tuples, dicts and
            namedtuples of them.
          feed_dict: values for tensors, by tensor or by name.
          options: ``RunOptions(trace=True)`` times every kernel of this run;
            ``fetch_on_device=True`` leaves the fetches on the device.
          run_metadata: a ``RunMetadata``, whose ``profile`` then tells of them.
        Returns:
          The same nesting with arrays (NumPy scalars for rank 0) for tensors and None for
          operations.
        Raises:
          OpError: the run failed (``graphc.errors``); no variable was changed.
          ValueError, TypeError: bad fetches or feeds.
        """
        # What is known is called at once: this costs most of what a small run does.
        key: tuple[Any, ...] | None = None
        if options is None and (feed_dict is None or type(feed_dict) is dict):
            mark = MARKS.get(type(fetches))
            key = (fetches,) if mark is None else (*fetches, mark)
            if feed_dict:
                key = (*key, *feed_dict)
            try:
                call = self._calls.get(key)
            except TypeError:
                key = None
            else:
                if call is not None:
                    return call(*feed_dict.values()) if feed_dict else call()
        if self._closed:
            raise FinalizedError("Attempted to use a closed Session.")
        if options is not None:
            stay = bool(getattr(options, "fetch_on_device", False))
            plan, values = self._prepare(fetches, feed_dict, stay)
            return self._built(plan, values, options, run_metadata)
        plan, values = self._prepare(fetches, feed_dict)
        found = self._built(plan, values)
        if key is not None and isinstance(plan.single, Executable):
            self._know(key, plan, fetches, feed_dict or {})
        return found

    def _built(
        self, plan: RunPlan, values: list[Any], options: Any = None, metadata: Any = None
    ) -> Any:
        """The fetches of a plan for these values."""
        if self._closed:
            raise FinalizedError("Attempted to use a closed Session.")
        try:
            if options is None:
                return plan.tree.build(self._execute(plan, values))
            return plan.tree.build(self._with(options, metadata, plan, values))
        except OpError as e:
            self._check_open(e)
            raise

    def _know(
        self, key: tuple[Any, ...], plan: RunPlan, fetches: Any, feeds: dict[Any, Any]
    ) -> None:
        """Call a plan's executable without a search the next time that a run has this key."""
        found = fetches if type(fetches) in MARKS else (fetches,)
        # Other kinds may be equal and yet ask for something else, as named tuples do.
        if not all(isinstance(f, (Tensor, Operation, str)) for f in found):
            return
        if list(feeds) != plan.feeds:
            return
        session = weakref.ref(self)  # or nothing would be freed before a collection of garbage

        def owner() -> Session:
            found = session()
            assert found is not None
            return found

        def call(values: Sequence[Any]) -> Any:
            found = owner()._built(plan, list(values))
            owner()._aim(owner()._directs.get(key), plan)
            return found

        build = builder_of(plan.tree, plan.computed)
        turns = Turns(self._state, build, call, lambda e: owner()._check_open(e))
        direct = Direct(turns, form_of(plan.tree, plan.computed))
        with self._state.lock:
            if not self._closed:
                self._state.watch(direct)
                self._aim(direct, plan)
                self._directs[key], self._calls[key] = direct, direct.function()

    def _aim(self, direct: Direct | None, plan: RunPlan) -> None:
        """Let a builtin call what was right for the last run."""
        single = plan.single
        if direct is not None and isinstance(single, Executable):
            with self._state.lock:  # the layout stays what it is meanwhile
                direct.aim(single if single.layout == self._state.layout else None)

    def make_callable(
        self,
        fetches: Any,
        feed_list: Sequence[Any] | None = None,
        accept_options: bool = False,
        out: Any = None,
        on_device: bool = False,
    ) -> Callable[..., Any]:
        """A function of the values for ``feed_list`` that returns what ``run`` would.

        Args:
          fetches: as for ``run``.
          feed_list: the tensors to feed, in the order of the function's arguments.
          accept_options: for TensorFlow scripts; the function takes ``options`` and
            ``run_metadata``, as ``run`` does, by their names.
          out: arrays that every call writes its results to and returns, in the structure of
            ``fetches``; None, as a whole or for one of them, for new arrays in every call. A call
            that fails may have written to them.
          on_device: whether the results stay on the session's device, as arrays of CuPy's; what is
            of unknown rank comes to the host all the same.
        Raises:
          GraphError, TypeError: bad fetches or feeds.
          InvalidArgumentError, TypeError: an array of ``out`` does not fit its tensor.
        """
        feeds = [feeding.resolve_feed(self.graph, f) for f in feed_list or ()]
        if on_device and out is not None:
            raise GraphError("results that stay on the device are not written to arrays: out")
        plan = self._plan(fetches, tuple(feeds), on_device)
        outs = None if out is None else Outs(plan.tree, out)

        def call(values: Sequence[Any], options: Any = None, run_metadata: Any = None) -> Any:
            if self._closed:
                raise FinalizedError("Attempted to use a closed Session.")
            if len(values) != len(feeds):
                raise feeding.wrong_count(len(feeds), len(values))
            try:
                if options is None:
                    found = self._execute(plan, list(values))
                else:
                    found = self._with(options, run_metadata, plan, list(values))
            except OpError as e:
                self._check_open(e)
                raise
            self._aim(direct, plan)
            return plan.tree.build(found if outs is None else outs.fill(found))

        given = None if outs is None else outs.direct(plan.computed)
        build = builder_of(plan.tree, plan.computed) if outs is None else None
        form = form_of(plan.tree, plan.computed) if outs is None or given is not None else None
        direct = Direct(Turns(self._state, build, call, self._check_open), form, given)
        self._state.watch(direct)
        return direct.function()

    def _with(
        self, options: Any, metadata: Any, plan: RunPlan, values: list[Any]
    ) -> dict[Tensor, Any]:
        """Run as the options say: with the clock read around every kernel, or as ever."""
        if not traces(options, metadata):
            return self._execute(plan, values)
        if self._mode != "static":
            raise UnimplementedError(
                None, None, f"only runs of mode 'static' can be traced, not of {self._mode!r}"
            )
        recording = Recording()
        found = self._execute(plan, values, recording)
        if metadata is not None:
            metadata.profile = metadata.step_stats = recording.profile
        return found

    def _check_open(self, cause: Exception) -> None:
        """What fails because another thread has closed the session fails for that reason."""
        if self._closed:
            raise FinalizedError("Attempted to use a closed Session.") from cause

    def _prepare(
        self, fetches: Any, feed_dict: Any, on_device: bool = False
    ) -> tuple[RunPlan, list[Any]]:
        if not feed_dict:
            keys: tuple[Any, ...] = ()
            values: list[Any] = []
        else:
            if not hasattr(feed_dict, "values"):
                raise DTypeError(f"feed_dict must be a dict, not {type(feed_dict).__name__}")
            keys, values = tuple(feed_dict), list(feed_dict.values())
        try:
            key = (feed_key(fetches), keys)
            plan = self._plans.get((*key, ON_DEVICE) if on_device else key)
        except TypeError:
            plan = None
        if plan is None:
            feeds, values = feeding.expand_feeds(self.graph, feed_dict or {})
            plan = self._plan(fetches, tuple(feeds), on_device)
            if list(feeds) == list(keys):
                self._plans[(*key, ON_DEVICE) if on_device else key] = plan
        return plan, values

    def _plan(self, fetches: Any, feeds: tuple[Tensor, ...], on_device: bool = False) -> RunPlan:
        key: Any = (feed_key(fetches), feeds)
        key = (*key, ON_DEVICE) if on_device else key
        found = self._plans.get(key)
        if found is None:
            self._place()
            if on_device and self._device is None:
                raise GraphError("fetches stay on a device where the session runs on one: not here")
            found = make_plan(FetchTree(self.graph, fetches), feeds)
            if on_device:
                # The results are no arrays yet that users can have.
                found.on_device, found.tree.simple = True, False
            self._plans[key] = found
        return found

    def _execute(
        self, plan: RunPlan, values: list[Any], recording: Recording | None = None,
        taken: bool = False,
    ) -> dict[Tensor, Any]:  # fmt: skip
        """The values of a plan's tensors; ``taken``: those on the device are ``DeviceArray``s."""
        if self._device is not None and not taken:
            return self._execute_there(self._device, plan, values, recording)
        single = plan.single
        if single is not None and recording is None:
            answer = self._try(single, values)
            if answer is not None:
                if plan.tree.simple:
                    return dict(zip(plan.computed, answer, strict=True))
                return self._results(plan, values, answer)
        arrays = [feed_array(t, v) for t, v in zip(plan.feeds, values, strict=True)]
        if not plan.computed and not plan.targets:
            return self._results(plan, arrays, ())
        pairs = zip(plan.feeds, arrays, strict=True)
        data = [a for t, a in pairs if is_numeric(t)]
        return self._results(plan, arrays, self._runner.run(plan, data, recording))

    def _execute_there(
        self, device: Device, plan: RunPlan, values: list[Any], recording: Recording | None
    ) -> dict[Tensor, Any]:
        """The values of a plan's tensors, where the session runs on a device."""
        shared = plan.on_device
        if not all(type(v) is np.ndarray for v in values):
            pairs = zip(plan.feeds, values, strict=True)
            values = [feeding.taken_where_it_is(device, t, v) for t, v in pairs]
            shared = shared or any(isinstance(v, DeviceArray) for v in values)
        if not shared:
            return self._execute(plan, values, recording, taken=True)
        with users_go_on(device, values):
            return self._execute(plan, values, recording, taken=True)

    def _try(self, executable: Runnable, values: list[Any]) -> Sequence[Any] | None:
        """The answer of the executable that was right last time; None if it is not this time."""
        state = self._state
        try:
            if executable.exclusive:
                with state.turn:
                    if executable.layout != state.layout:
                        return None
                    executable.prepare(state)
                    if executable.changes:
                        state.note_change(executable.updates)
                    return executable.call(*values)
            return executable.call(*values) if executable.layout == state.layout else None
        except (Mismatch, GuardBroken):
            return None
        except BadSize:
            if executable.bound:
                return None
            raise

    def _results(
        self, plan: RunPlan, arrays: Sequence[Any], answer: Sequence[Any]
    ) -> dict[Tensor, Any]:
        if plan.on_device and self._device is not None:
            given = self._device.given
            answer = [given(a) if isinstance(a, DeviceArray) else a for a in answer]
        values = dict(zip(plan.computed, answer, strict=True))
        if plan.tree.simple:
            return values
        for t, a in zip(plan.feeds, arrays, strict=True):
            values[t] = self._fed(plan, t, a)
        for t in plan.tree.tensors:
            if t not in values:
                values[t] = feeding.host_value(self._state.is_set, t, values)
        return values

    def _fed(self, plan: RunPlan, tensor: Tensor, value: Any) -> Any:
        """The value of a tensor that is fed and fetched."""
        array = feed_array(tensor, value)
        if not isinstance(array, DeviceArray):
            return array
        return array.owner if plan.on_device else np.asarray(array)

    # --- variables ----------------------------------------------------------------------------

    def _variable_state(self, op: Operation) -> VariableState:
        self._place()
        return self._state.variable_state(op)

    def load_variable(self, op: Operation, value: Any) -> None:
        """Give a variable a value without running anything; a graph is not changed."""
        self._place()
        self._state.load(op, value)

    def read_variable(self, op: Operation) -> np.ndarray:
        """A copy of a variable's value.

        Raises:
          FailedPreconditionError: it has none yet.
        """
        self._place()
        return self._state.read(op)

    def read_variables(self, ops: Sequence[Operation]) -> list[np.ndarray | None]:
        """Copies of the variables' values as they are between two runs; None for one without."""
        self._place()
        return self._state.read_all(ops)


class InteractiveSession(Session):
    """A session that is the default one from its construction until it is closed."""

    def __init__(self, target: str = "", graph: Graph | None = None, config: Any = None) -> None:
        super().__init__(target, graph, config)
        push_session(self)

    def close(self) -> None:
        """Free the variables and stop being the default session."""
        pop_session(self)
        super().close()

