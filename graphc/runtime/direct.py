"""The function that ``make_callable`` gives to the user: a builtin that calls a program directly.

It is *aimed* at an executable while that one is right for the session's state; what it cannot do by
itself it leaves to a function in Python (``native/direct.ll``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.runtime.executable import Executable
from graphc.runtime.library import runtime
from graphc.runtime.structs import DirectStruct, ptr

FORMS = {tuple: 0, list: 2}
SINGLE = 1


class Direct:
    """Where a builtin goes.

    Args:
      fallback: takes the same arguments, and is called for everything that is not a plain success:
        while there is no aim, with keyword arguments, for values that are not the arrays that the
        program takes, and to raise the errors of a run.
      form: ``SINGLE``, or the entry in ``FORMS`` of the kind of sequence to give; None for what
        Python must build: it is never aimed then.
      given: for each result the array to write it to, or None for a new one.
    """

    def __init__(
        self,
        fallback: Callable[..., Any],
        form: int | None,
        given: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        self.form = form
        self._keep: list[Any] = [fallback, given]
        self._target: Any = None
        self._struct = DirectStruct(form=form or 0, fallback=id(fallback))
        if given is not None:
            # A null pointer for each one that is None; id() is an object's address.
            addresses = (ptr * len(given))(*(None if a is None else id(a) for a in given))
            self._keep.append(addresses)
            self._struct.given = ctypes.addressof(addresses)

    def aim(self, executable: Executable | None) -> None:
        """Call this executable from now on, if a call of it is all there is to a run."""
        if executable is not None and (self.form is None or not executable.is_plain):
            return
        # The builtin of the old one may be in use by another thread, which has a reference.
        self._struct.builtin = 0
        self._target = executable and executable.function
        if executable is not None:
            self._struct.context = executable.context.address
            self._struct.builtin = id(self._target)

    def function(self) -> Callable[..., Any]:
        """The builtin, which keeps this alive."""
        code = runtime()
        made: Callable[..., Any] = code.new_builtin(
            ctypes.addressof(code.direct), ctypes.addressof(self._struct), self
        )
        return made
