"""Executable: a program's native code, and its call with a session's state."""

from __future__ import annotations

import abc
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphc.codegen import llvm
from graphc.dims import Dim, DimLike, Symbol
from graphc.errors import CompileError, InvalidArgumentError, OpError, ResourceExhaustedError
from graphc.function import Function
from graphc.program import Program, program_key
from graphc.runtime import cache, jit, native
from graphc.runtime.driver import ARENA, GUARD_BROKEN, PlanPrinter, cells, driver
from graphc.runtime.host import HostCaller
from graphc.runtime.profile import Profile
from graphc.runtime.trace import Tracer, making_tracer

COMPILATIONS = {"programs": 0, "objects": 0}
PREPARATIONS = {"runs": 0}


@functools.cache
def compiler_version() -> str:
    """Changes whenever the code that prints or compiles kernels does."""
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def source_files() -> list[Path]:
    """The package's sources; the templates are behind a link in a checkout."""
    package = Path(__file__).parent.parent
    folders = os.walk(package, followlinks=True)
    paths = (Path(folder, name) for folder, _, names in folders for name in names)
    return sorted(p for p in paths if p.suffix in (".py", ".ll"))


@dataclass
class Code:
    """Loaded native code of one program; sessions share it."""

    program: Program
    results: list[int]
    hosts: list[int]
    dims: int
    plan: int
    run: int
    loaded: Any
    prepare: Code | None = None


def llvm_text(program: Program, target: Any) -> str:
    """The LLVM text of the whole program."""
    plans, text, layout = driver(program)
    kernels = [llvm.print_kernel(k, target) for k in plans]
    kernels += [llvm.print_kernel(k, target) for k in program.loops]
    kernels += [llvm.print_kernel(k, target, inlined=True) for k in layout.inlined.values()]
    return llvm.module(kernels) + text


def load(program: Program, target: Any) -> Code:
    """Compile the program, or load it from the cache: no kernel is built for that."""

    def build() -> bytes:
        COMPILATIONS["objects"] += 1
        return jit.compile_object(llvm_text(program, target), target)

    COMPILATIONS["programs"] += 1
    key = program_key(program)
    data = cache.default_cache().fetch(key, target.description, compiler_version(), build)
    return _loaded(program, data)


def compiled(program: Program, target: Any) -> Code:
    """Compile a program that nobody will ask for again."""
    return _loaded(program, jit.compile_object(llvm_text(program, target), target))


def _loaded(program: Program, data: bytes) -> Code:
    loaded = jit.load_object(data, native.symbols(), exports=("plan", "run"))
    planner = PlanPrinter(program)
    planner.head()
    return Code(
        program, planner.layout.results, planner.layout.hosts, planner.size_bound(),
        loaded.address("plan"), loaded.address("run"), loaded,
    )  # fmt: skip


class GuardBroken(Exception):
    """A run's shapes break an assumption: compile for these shapes."""


class BadSize(InvalidArgumentError):
    """A size that was computed in the run is negative or too large."""


class Mismatch(Exception):
    """Argument ``index`` is not the array that the program takes."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class Runnable(abc.ABC):
    """One program bound to one session's variables, on some device.

    Attributes:
      bound: the user's tensors whose elements are sizes.
      flat: the numbers of the fetches of unknown rank, whose sizes come behind the fetches.
      stores: variables that take values of another shape; they come after the fetches.
      fresh: variables that a run gives a value, until the session has noted it.
      changes: whether a run changes any variable.
      exclusive: whether it must have the session's turn: it changes variables, or needs what was
        prepared to be of the same moment as those that it reads.
      is_plain: whether a call of native code is all there is to a run.
      layout: the number of the arrangement of variables that it is bound to.
    """

    exclusive = True
    is_plain = False

    def __init__(self, program: Program, layout: int) -> None:
        self.program = program
        self.layout = layout
        self.feeds = [i.source for i in program.inputs if i.kind == "feed"]
        self.bound = [s.source for s in program.function.late if s.source is not None]
        self.flat = flat_fetches(program.function)
        self.stores = [o.source for o in program.function.outputs if o.kind == "store"]
        self.fresh = tuple(program.updated)
        self.changes = bool(self.stores or self.fresh)
        self.updates = frozenset((*program.updated, *(s.name for s in self.stores)))

    @abc.abstractmethod
    def call(self, *feeds: Any) -> tuple[Any, ...]:
        """Run the program on C-contiguous arrays of the declared dtypes, in the order of inputs.

        Raises:
          Mismatch, GuardBroken: see there.
          OpError: the run failed; no variable was changed.
        """

    @abc.abstractmethod
    def prepare(self, state: Changes) -> None:
        """Before a call: bring up to date what depends on variables that have changed since."""

    @abc.abstractmethod
    def traced(self, feeds: Sequence[Any]) -> tuple[Any, Profile]:
        """What :meth:`call` gives, and how long the steps took."""

    def guard_error(self) -> OpError:
        """The error of a run whose sizes do not go together where only the run tells them."""
        guards = [g for segment in self.program.segments[1:] for g in segment.guards]
        needs = dict.fromkeys(f"{g.reason or 'the run'} needs {g}" for g in guards)
        return InvalidArgumentError(
            None, None,
            "sizes that the run has computed do not go together: "
            f"{'; '.join(needs) or 'it needs others'}; no variable was changed",
        )  # fmt: skip

    def site_error(self, site: int, details: Sequence[int]) -> OpError:
        """The error of a condition that did not hold, naming the operation."""
        found = self.program.sites[site]
        return InvalidArgumentError(found.op.node_def, found.op, found.text(details))


class Executable(Runnable):
    """Native code of a program, for the CPU."""

    def __init__(
        self, code: Code, variables: dict[str, np.ndarray], lock: Any, layout: int = 0
    ) -> None:
        super().__init__(code.program, layout)
        self.code = code
        program = code.program
        feeds = [i for i in program.inputs if i.kind == "feed"]
        numbers = {s: k for k, s in enumerate(program.symbols)}
        slots = {id(s.source): s.number for s in program.slots if s.kind == "input"}
        inputs = [
            native.Input(
                slots[id(i)], i.tensor.dtype.base_dtype.numpy,
                tuple(_code(s, numbers) for s in i.raw),
            )
            for i in feeds
        ]  # fmt: skip
        outputs = []
        numbers_of = [s.number for s in program.slots if s.kind == "output"]
        for number, result, first in zip(
            numbers_of, program.results, code.results, strict=True
        ):
            rank = len(result.sizes)
            outputs.append(
                native.Output(
                    number, result.dtype.numpy, rank, first, scalar=rank == 0, late=result.late
                )
            )
        signature = native.Signature(
            inputs, outputs, len(program.symbols), code.dims,
            len(program.slots), ARENA if program.blocks else -1,
            late=len(program.all_symbols) - len(program.symbols), cells=cells(program)[1],
        )  # fmt: skip
        self.constants: list[np.ndarray] = []
        self.context = native.CallContext(signature, code.plan, code.run, lock=lock, keep=code)
        self.preparation: Preparation | None = None
        self.bind(variables)
        if code.prepare is not None:
            if code.prepare.program.inputs:
                self.preparation = Preparation(code.prepare, variables, lock)
            else:
                # Made of constants alone, it stays as it is, and needs no lock of the session.
                preparation = Preparation(code.prepare, variables, None)
                preparation.compute()
                self._take(preparation)
        # Python may run others inside of a run, which take their turn: so does what calls it.
        self.exclusive = self.changes or self.preparation is not None or bool(program.hosts)
        self.host: HostCaller | None = None
        self._tracer: Tracer | None = None
        if program.hosts:
            self.host = HostCaller(program, code.hosts, self.context)
            self.context.set_host(self.host)
        self.is_plain = not (self.exclusive or self.flat or program.hosts)
        self.function = self.context.function()

    def bind(self, variables: dict[str, np.ndarray]) -> None:
        """Point the slots of constants and variables at their arrays."""
        for slot in self.code.program.slots:
            if slot.kind == "variable" and slot.source.kind == "prepared":
                continue
            if slot.kind == "const":
                array = np.ascontiguousarray(slot.source)
                self.constants.append(array)
                self.context.buffers[slot.number] = array.ctypes.data
            elif slot.kind == "variable":
                array = variables[slot.source.key]
                self.constants.append(array)
                self.context.buffers[slot.number] = array.ctypes.data

    def call(self, *feeds: Any) -> tuple[Any, ...]:
        """Run the program.

        Raises:
          Mismatch, GuardBroken: see there.
          OpError: the run failed; no variable was changed.
        """
        if self.host is not None:
            self.host.called = False
        answer = self.answer(feeds)
        if type(answer) is tuple:
            return answer
        self.explain(answer)
        raise CompileError(f"a call answered {answer!r}")

    def answer(self, feeds: Sequence[Any]) -> Any:
        """What native code answers: a tuple, or what ``explain`` takes, nothing having changed.

        Raises:
          ResourceExhaustedError: there is no memory for a fetch.
        """
        try:
            return self.function(*feeds)
        except (MemoryError, ValueError) as e:
            trace = e.__traceback__
            if trace is not None and trace.tb_next is not None:
                raise  # of a handler of signals; NumPy, asked for an array, has no frame
            changed = "no variable was changed"
            if self.changes and any(r.late for r in self.program.results):
                changed = "variables may have been changed"
            raise ResourceExhaustedError(
                None, None, f"OOM when allocating a fetch: {e}; {changed}"
            ) from None

    def traced(self, feeds: Sequence[Any]) -> tuple[Any, Profile]:
        """A call, and how long the steps took."""
        return self.tracer().call(self, feeds)

    def tracer(self) -> Tracer:
        """What traces runs; its code is made when it is first asked for."""
        with making_tracer():
            if self._tracer is None:
                target = jit.host_target()
                self._tracer = Tracer(self.code, self.context, target, compiler_version())
            return self._tracer

    def prepare(self, state: Changes) -> None:
        """Before a call: compute anew what was prepared of variables that have changed since."""
        if self.preparation is not None:
            self.preparation.refresh(state, self._take)

    def _take(self, preparation: Preparation) -> None:
        """Point the slots of what is prepared at their arrays."""
        self._prepared = preparation.arrays
        for slot in self.code.program.slots:
            if slot.kind == "variable" and slot.source.kind == "prepared":
                array = self._prepared[slot.source.key]
                self.context.buffers[slot.number] = array.ctypes.data

    def explain(self, answer: Any) -> None:
        """Turn the answer of a call that did not succeed into an exception."""
        if isinstance(answer, int):
            raise Mismatch(-answer - 1)
        failure = native.Failure.decode(answer)
        # Another program for these sizes would call Python once more.
        final = self.host is not None and self.host.called
        if failure.code == GUARD_BROKEN:
            raise self.guard_error() if final else GuardBroken
        error = self.error(failure)
        if final and isinstance(error, BadSize):
            raise InvalidArgumentError(None, None, error.message)
        raise error

    def error(self, failure: native.Failure) -> OpError:
        """The error of a failed run, naming the operation."""
        program = self.code.program
        if failure.code == native.FailureCode.OUT_OF_MEMORY:
            largest = max(program.slots, key=_static_bytes, default=None)
            name = largest.name if largest is not None else "?"
            return ResourceExhaustedError(
                None, None,
                f"OOM when allocating {failure.status[0]} bytes; the largest buffer is {name}; no "
                "variable was changed",
            )  # fmt: skip
        if failure.code == native.FailureCode.OVERFLOW:
            return BadSize(None, None, "a computed size is negative or too large")
        if failure.code == native.FailureCode.REENTRANT:
            return InvalidArgumentError(None, None, "a run was started inside a run")
        return self.site_error(failure.status[0] - 1, failure.status[1:])


class Changes(Protocol):
    """What tells which variables have changed."""

    version: int

    def changed_since(self, version: int, keys: frozenset[str]) -> bool:
        """Whether some of these variables have changed after a version."""


class Preparation:
    """What a program needs that depends on variables alone, as of the session's last change.

    Attributes:
      arrays: the values, by key.
    """

    def __init__(self, code: Code, variables: dict[str, np.ndarray], lock: Any) -> None:
        program = code.program
        self.arrays: dict[str, np.ndarray] = {}
        self.outputs = [o.key for o in program.function.outputs]
        self.keys = frozenset(i.key for i in program.inputs)
        self.executable = Executable(code, variables, lock)
        self.version = -1

    def refresh(self, state: Changes, take: Callable[[Preparation], None]) -> None:
        """Compute the arrays anew if a variable has changed; ``take`` is told of new ones."""
        version = state.version
        if self.version == version:
            return
        if self.version < 0 or state.changed_since(self.version, self.keys):
            self.version = -1  # until they are taken, whatever comes between
            self.compute()
            take(self)
        self.version = version

    def compute(self) -> None:
        """Compute the arrays."""
        # The old ones first: there need not be room for both.
        self.arrays.clear()
        values = self.executable.call()
        self.arrays.update(zip(self.outputs, map(np.asarray, values), strict=True))
        PREPARATIONS["runs"] += 1


def flat_fetches(fn: Function) -> list[int]:
    """The numbers of the fetches that come as elements in a row, with their sizes apart."""
    return [int(o.key) for o in fn.outputs if o.kind == "sizes"]


def reshaped(values: Sequence[Any], flat: Sequence[int], count: int) -> list[Any]:
    """The fetches (``count`` of them) of an answer, each in its shape."""
    found = list(values[:count])
    for k, sizes in zip(flat, values[count:], strict=False):
        array = np.asarray(found[k]).reshape(sizes)
        found[k] = array[()] if array.ndim == 0 else array
    return found


def _static_bytes(slot: Any) -> int:
    return slot.size * slot.dtype.size if isinstance(slot.size, int) else 0


def _code(size: DimLike, numbers: dict[Symbol, int]) -> int:
    if isinstance(size, Dim):
        symbol = size.as_symbol
        if symbol is None:
            raise CompileError(f"an input's size must be a number or a symbol, not {size}")
        return -(numbers[symbol] + 1)
    return size
