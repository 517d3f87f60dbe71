"""What is called for fetches and feeds that are known: a builtin that calls a program directly.

``make_callable`` gives it to the user, ``Session.run`` keeps it.  It is *aimed* at an executable
while that one is right for the session's state; what it cannot do by itself it leaves to Python
(``native/direct.ll``): to ``Turns``, where a run is more than a call of native code, and from there
to what finds the executable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from graphc.errors import OpError
from graphc.runtime.executable import Changes, Executable
from graphc.runtime.library import runtime
from graphc.runtime.structs import DirectStruct, ptr

FORMS = {tuple: 0, list: 2}
SINGLE = 1


class Versions(Changes, Protocol):
    """Whose turn it is, and what has changed: a session's state."""

    layout: int
    turn: Any

    def note_change(self, keys: frozenset[str]) -> None:
        """Remember that these variables have new values."""


class Turns:
    """Calls an executable whose runs take turns, or whose fetches Python builds.

    Args:
      state: the session's.
      build: makes the fetches of an executable's answer; None where that takes more.
      slow: takes the values as one sequence, and is called for what is no plain success.
      failed: is told of an error of a run before it is raised, and may raise another one.
    """

    __slots__ = ("_build", "_failed", "_slow", "_state", "executable")

    def __init__(
        self, state: Versions, build: Callable[[tuple[Any, ...]], Any] | None,
        slow: Callable[..., Any], failed: Callable[[OpError], None],
    ) -> None:  # fmt: skip
        self._state = state
        self._build = build
        self._slow = slow
        self._failed = failed
        self.executable: Executable | None = None

    def aim(self, executable: Executable | None) -> None:
        """Call this executable from now on; one that calls Python takes more."""
        calls = executable is not None and executable.host is not None
        self.executable = None if self._build is None or calls else executable

    def __call__(self, *values: Any, **options: Any) -> Any:
        """The fetches."""
        executable = self.executable
        if executable is None or options:
            return self._slow(values, **options)
        state, answer = self._state, None
        try:
            if not executable.exclusive:
                if executable.layout == state.layout:
                    answer = executable.answer(values)
            else:
                with state.turn:
                    if executable.layout == state.layout:
                        if executable.preparation is not None:
                            executable.prepare(state)
                        if executable.changes:
                            # Before it: what fails late has changed them, too.
                            state.note_change(executable.updates)
                        answer = executable.answer(values)
        except OpError as e:
            self._failed(e)
            raise
        if type(answer) is not tuple or self._build is None:
            # It has changed nothing. The slow way finds another executable, or names the error.
            return self._slow(values)
        return self._build(answer)


class Direct:
    """Where a builtin goes.

    Args:
      turns: takes the same arguments, and is called for everything that is not a plain success:
        while there is no aim, with keyword arguments, for values that are not the arrays that the
        program takes, and to raise the errors of a run.
      form: ``SINGLE``, or the entry in ``FORMS`` of the kind of sequence to give; None for what
        Python must build.
      given: for each result the array to write it to, or None for a new one.
    """

    def __init__(
        self, turns: Turns, form: int | None, given: Sequence[np.ndarray | None] | None = None
    ) -> None:
        self.form = form
        self._turns = turns
        self._keep: list[Any] = [given]
        self._target: Any = None
        self._struct = DirectStruct(form=form or 0, fallback=id(turns))
        if given is not None:
            # A null pointer for each one that is None; id() is an object's address.
            addresses = (ptr * len(given))(*(None if a is None else id(a) for a in given))
            self._keep.append(addresses)
            self._struct.given = ctypes.addressof(addresses)

    def aim(self, executable: Executable | None) -> None:
        """Call this executable from now on, as far as a call of it is all there is to a run."""
        plain = executable is not None and self.form is not None and executable.is_plain
        self._turns.aim(None if plain else executable)
        # The builtin of the old one may be in use by another thread, which has a reference.
        self._struct.builtin = 0
        self._target = executable.function if executable is not None and plain else None
        if executable is not None and plain:
            self._struct.context = executable.context.address
            self._struct.builtin = id(self._target)

    def function(self) -> Callable[..., Any]:
        """The builtin, which keeps this alive."""
        code = runtime()
        made: Callable[..., Any] = code.new_builtin(
            ctypes.addressof(code.direct), ctypes.addressof(self._struct), self
        )
        return made
