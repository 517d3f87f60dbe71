"""Programs on a CUDA device."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, Symbol
from graphc.errors import InvalidArgumentError, ResourceExhaustedError
from graphc.lower_host import FEW
from graphc.program import Call, Copy, Program, walk
from graphc.runtime.cuda_arrays import DeviceArray
from graphc.runtime.cuda_device import CaptureError, Device, Memory
from graphc.runtime.cuda_kernels import Kernels
from graphc.runtime.cuda_memory import out_of_memory
from graphc.runtime.cuda_recorded import Rehearsal
from graphc.runtime.cuda_replay import Replay, places_of, still
from graphc.runtime.cuda_run import Failed, Run
from graphc.runtime.cuda_state import CudaState
from graphc.runtime.cuda_trace import DeviceTimer
from graphc.runtime.executable import BadSize, Changes, GuardBroken, Mismatch, Runnable
from graphc.runtime.profile import Profile

__all__ = ["CudaExecutable"]

MOST_REPLAYS = 8
"""Of one program, for how many sizes its runs are kept recorded, memory and all."""
MOST_SEEN = 256


class CudaExecutable(Runnable):
    """One program, compiled for a device, over the variables that a session has there.

    Args:
      program: what it runs.
      state: the variables.
      on_device: whether the fetches stay on the device.

    Attributes:
      changing: the number of the first step that changes a variable.
      capturable: whether runs may be recorded and replayed.
      deciders: the slots of small feeds that runs are decided by: a recording is for theirs alone.
    """

    def __init__(self, program: Program, state: CudaState, on_device: bool = False) -> None:
        super().__init__(program, state.layout)
        self.state = state
        self.device: Device = state.device
        self.on_device = on_device
        self.timer: DeviceTimer | None = None
        self.inputs = [i for i in program.inputs if i.kind == "feed"]
        self.numbers = {id(s.source): s.number for s in program.slots if s.kind == "input"}
        self.variables = [s for s in program.slots if s.kind == "variable"]
        self.changing = changing_step(program)
        # What Python computes cannot be recorded; what gives a variable another shape runs seldom.
        self.capturable = not self.stores and not program.hosts
        self.deciders: frozenset[int] = frozenset()
        self._replays: dict[Any, Replay] = {}
        self._seen: dict[Any, tuple[int, ...]] = {}
        self._wasted = 0
        self._places = -1
        self._last: Replay | None = None
        try:
            self.kernels = Kernels(program, self.device)
            with self.device.active():
                self.constants = self._constants()
        except MemoryError as error:
            reason = str(error)
        else:
            state.watch_memory(self)
            return
        raise out_of_memory(program, self.device, reason, {}, state)

    def _constants(self) -> dict[int, Memory]:
        found = {}
        for slot in self.program.slots:
            if slot.kind == "const":
                array = np.ascontiguousarray(slot.source)
                found[slot.number] = self.device.allocate(array.nbytes)
                self.device.write(found[slot.number].address, array)
        return found

    # --- calls --------------------------------------------------------------------------------

    def call(self, *feeds: Any) -> tuple[Any, ...]:
        """Run the program; one upload for each feed, one download for each fetch."""
        replay = self._repeated(feeds)
        binding = self.bind(feeds) if replay is None else replay.sizes
        with self.device.active(), Running(self.state.native_lock):
            outcome = self._attempt(feeds, binding, replay)
            if isinstance(outcome, ResourceExhaustedError) and not self.program.hosts:
                # What is kept to be quick is less than a run that fails.
                replay = None
                self.state.spare()
                outcome = self._attempt(feeds, binding)
        # Raised here, errors keep nothing alive of what the run had in memory.
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _attempt(
        self, feeds: Sequence[Any], binding: dict[Symbol, int], replay: Replay | None = None
    ) -> tuple[Any, ...] | Exception:
        """The results of a run, or why there are none."""
        try:
            if replay is None:
                replay = self._last = self._replay(feeds, binding)
            return self._run(feeds, binding) if replay is None else replay.run(feeds)
        except MemoryError as error:
            return out_of_memory(self.program, self.device, str(error), binding, self.state)
        except Failed as failure:
            return self.site_error(failure.site, failure.details)
        except (GuardBroken, BadSize) as error:
            return self.final(error).with_traceback(None)

    def _run(self, feeds: Sequence[Any], binding: dict[Symbol, int]) -> tuple[Any, ...]:
        """Step by step."""
        given = self.given_variables()
        for i, feed in zip(self.inputs, feeds, strict=True):
            given[self.numbers[id(i)]] = self._given(feed)
        run = Run(self, binding, given, self._known(feeds))
        if self.timer is not None:
            self.timer.sizes = run.binding
        run.reserve()
        run.begin()
        run.check()
        run.ready()
        taken = self.taken(run)
        with uninterrupted():
            self.state.run_has_changed(self.program.updated)
            run.finish()
        return taken.results()

    def taken(self, run: Run) -> Taken:
        """Room for the fetches of a run whose sizes are known."""
        return Taken(self, run)

    def given_variables(self) -> dict[int, Memory]:
        """Where the variables are, by slot."""
        return {s.number: self.state.memory(s.source) for s in self.variables}

    def _given(self, feed: Any) -> Memory:
        if isinstance(feed, DeviceArray):
            return feed
        memory = self.device.allocate(feed.nbytes)
        self.state.staging.put(memory.address, feed)
        return memory

    def _known(self, feeds: Sequence[Any]) -> dict[int, np.ndarray]:
        """The feeds of few integers, as flat arrays by slot: the host may decide by them."""
        return {
            self.numbers[id(i)]: feed.reshape(-1).copy()
            for i, feed in zip(self.inputs, feeds, strict=True)
            if isinstance(feed, np.ndarray) and feed.dtype.kind in "iub" and feed.size <= FEW
        }

    # --- replays ------------------------------------------------------------------------------

    def _repeated(self, feeds: Sequence[Any]) -> Replay | None:
        """The replay of the last run, if it is right for these feeds and the present variables."""
        last, state = self._last, self.state
        if last is None or self.timer is not None:
            return None
        right = self._places == state.places and not state.behind and last.fits(feeds)
        return last if right else None

    def _replay(self, feeds: Sequence[Any], binding: Mapping[Symbol, int]) -> Replay | None:
        """What runs of these sizes were recorded as: those of the second one are, to be ready.

        An array on the device is read where it is as long as it is always in the same place.
        """
        if not self.capturable or self.timer is not None:
            return None
        known = {n: v for n, v in self._known(feeds).items() if n in self.deciders}
        places = places_of(feeds)
        key = (*binding.values(), *((n, value.tobytes()) for n, value in known.items()))
        if key not in self._seen:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen[key] = places
            return None
        if self._places != self.state.places or self.state.behind:
            self.given_variables()
        if self._places != self.state.places:
            self._replays.clear()
            self._places = self.state.places
        found = self._replays.pop(key, None)
        if found is None or still(found.fixed, places) != found.fixed:
            found = None
            fixed = self._seen[key] = still(self._seen[key], places)
            if len(self._replays) >= MOST_REPLAYS and not self._make_room():
                return None
            try:
                found = Replay(self, binding, feeds, fixed, self.given_variables(), known)
            except CaptureError:
                self.capturable = self._find_deciders(binding, feeds)
                return None
            except MemoryError:
                # What has no room beside the others would push them out again and again.
                self.capturable = False
                raise
        self._replays[key] = found
        return found

    def _make_room(self) -> bool:
        """Give up the recording that was not used for longest, if that has been worth it so far."""
        if self._wasted >= MOST_REPLAYS:
            return False
        oldest = next(iter(self._replays))
        self._wasted += self._replays.pop(oldest).runs < 2
        self._seen.pop(oldest, None)
        return True

    def _find_deciders(self, binding: Mapping[Symbol, int], feeds: Sequence[Any]) -> bool:
        """Whether runs can be recorded for more small feeds than those that are known to decide."""
        variables = self.given_variables()
        try:
            found = Rehearsal(self, binding, variables, self._known(feeds)).known.decided
        except CaptureError:
            return False
        if found <= self.deciders:
            return False
        self.deciders |= found
        return True

    def spare(self) -> None:
        """Give up the memory of recorded runs; those that go on are recorded again."""
        self._last = None
        self._replays.clear()
        self._seen.clear()

    # --- the rest -----------------------------------------------------------------------------

    def traced(self, feeds: Sequence[Any]) -> tuple[Any, Profile]:
        """A call, and how long its steps took on the device."""
        timer = self.timer = DeviceTimer(self.program, self.device)
        try:
            answer = self.call(*feeds)
        finally:
            self.timer = None
        with self.device.active():
            return answer, timer.profile()

    def prepare(self, state: Changes) -> None:
        """Nothing is prepared for a device: what depends on variables is computed in every run."""

    def final(self, error: GuardBroken | BadSize) -> Exception:
        """What a run that broke an assumption raises: none that calls Python is begun anew."""
        if not self.program.hosts:
            return error
        if isinstance(error, BadSize):
            return InvalidArgumentError(None, None, error.message)
        return self.guard_error()

    def bind(self, feeds: tuple[Any, ...]) -> dict[Symbol, int]:
        """The sizes that the feeds tell.

        Raises:
          Mismatch: a feed is not the array that the program takes.
        """
        binding: dict[Symbol, int] = {}
        for k, (i, feed) in enumerate(zip(self.inputs, feeds, strict=True)):
            plain = isinstance(feed, DeviceArray) or (
                isinstance(feed, np.ndarray) and feed.flags.c_contiguous
            )
            dtype = i.tensor.dtype.base_dtype.numpy
            if not plain or feed.dtype != dtype or feed.ndim != len(i.raw):
                raise Mismatch(k)
            for size, value in zip(i.raw, feed.shape, strict=True):
                symbol = size.as_symbol if isinstance(size, Dim) else None
                known = size if symbol is None else binding.setdefault(symbol, value)
                if known != value:
                    raise Mismatch(k)
        return binding


class Running:
    """The session's lock, as native code holds it: Python that a run calls must not run another.

    Raises:
      InvalidArgumentError: this thread is inside of a run of the session.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        try:
            self._lock.__enter__()
            return
        except RuntimeError:
            pass
        raise InvalidArgumentError(None, None, "a run was started inside a run")

    def __exit__(self, *exc: Any) -> None:
        self._lock.__exit__(*exc)


class Taken:
    """Where the fetches of a run go; there is room for them before a variable changes.

    Raises:
      ResourceExhaustedError: the host has no memory for them.
      MemoryError: the device has none.
    """

    def __init__(self, owner: CudaExecutable, run: Run) -> None:
        self.device = owner.device
        self.run = run
        self.flat = set(owner.flat)
        try:
            self.rooms = run.rooms()
        except (MemoryError, ValueError) as error:
            raise ResourceExhaustedError(
                None, None,
                f"OOM when allocating a fetch: {error}; no variable was changed",
            ) from None  # fmt: skip
        count = len(owner.program.results) if owner.on_device else 0
        kinds = [o.kind for o in owner.program.function.outputs if o.kind in _GOING_OUT]
        self.stays: dict[int, Memory] = {
            k: self.device.allocate(self.rooms[k].nbytes)
            for k in range(count)
            if kinds[k] == "fetch" and k not in self.flat
        }

    def results(self) -> tuple[Any, ...]:
        """The fetches, when the run is done."""
        return tuple(
            self.result(k, self.run.place(r)) for k, r in enumerate(self.run.program.results)
        )

    def result(self, number: int, address: int) -> Any:
        """One fetch, which is at an address."""
        room = self.rooms[number]
        memory = self.stays.get(number)
        if memory is not None:
            self.device.copy(memory.address, address, room.nbytes)
            return DeviceArray(memory.address, room.shape, room.dtype, memory, self.device)
        if room.nbytes:
            self.device.read(address, room)
        return room if room.ndim else room[()]


_GOING_OUT = ("fetch", "sizes", "store")


def changing_step(program: Program) -> int:
    """The number of the first step that writes to a variable; behind the last if there is none."""
    variables = {s.number for s in program.slots if s.kind == "variable"}
    for number, outer in enumerate(program.steps):
        for step in walk([outer]):
            if isinstance(step, Call):
                pairs = zip(step.lowered.buffers, step.slots, strict=True)
                written = {n for t, n in pairs if t in step.lowered.writes}
            else:
                written = {step.target} if isinstance(step, Copy) else set()
            if written & variables:
                return number
    return len(program.steps)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until this is done, so that all variables change or none does."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    caught: list[Any] = []
    signal.signal(signal.SIGINT, lambda *at: caught.append(at))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            before(*caught[0])
