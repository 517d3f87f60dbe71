"""What a user may ask of the compiler, for what is compiled in a ``with`` statement."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from graphc.errors import GraphError

CublasUse = Literal["auto", "never", "always"]


@dataclass(frozen=True)
class CompileOptions:
    """What is asked of a compilation.

    Attributes:
      autotune: whether contractions are timed with other tiles than the estimated ones.
      autotune_seconds: the most that this may take for one program.
      tf32: whether a GPU's products of float32 may count with 10 bits behind the point.
      cublas: whether a GPU's products may be those of cuBLAS.
    """

    autotune: bool = False
    autotune_seconds: float = 10.0
    tf32: bool = False
    cublas: CublasUse = "auto"


NONE = CompileOptions()
_current = contextvars.ContextVar("compile_options", default=NONE)


def current_options() -> CompileOptions:
    """What is asked of compilations here and now."""
    return _current.get()


@contextlib.contextmanager
def compile_options(
    *, autotune: bool = False, autotune_seconds: float = 10.0, tf32: bool = False,
    cublas: CublasUse = "auto",
) -> Iterator[CompileOptions]:  # fmt: skip
    """Options for what this thread compiles in a ``with`` statement.

    A session compiles at the first run of some fetches, or of new shapes that need it; what it has
    compiled already stays as it is.

    Args:
      autotune: time matrix products and convolutions with some other tile sizes than the estimated
        ones, on scratch operands of the sizes of the first run, and take the fastest.  What is
        found is kept beside the compiled code, so that no other process measures it again.
        Results differ by rounding at most.
      autotune_seconds: about the most that this may take for one program; what is left keeps the
        estimate until another compilation finds the time.
      tf32: on a GPU, matrix products and convolutions of float32 may round their operands to 10
        bits behind the point (TF32), which its tensor cores multiply many times as fast; sums have
        all bits.  A CPU always counts with all of them.
      cublas: on a GPU, whether matrix products may be those of cuBLAS: ``"auto"`` measures both in
        the first run of some sizes and keeps the faster one, also beside the compiled code;
        ``"never"`` takes graphc's own, ``"always"`` cuBLAS wherever it can compute a product.
        Results differ by rounding at most: for the same bits everywhere, say which.
    Raises:
      ValueError: ``autotune_seconds`` is negative, or ``cublas`` is none of these.

    Example::

        with gc.compile_options(autotune=True):
            session.run(train_step, feeds)
    """
    if not autotune_seconds >= 0:
        raise GraphError(f"autotune_seconds must not be negative, but is {autotune_seconds}")
    if cublas not in get_args(CublasUse):
        raise GraphError(f"cublas must be 'auto', 'never' or 'always', not {cublas!r}")
    token = _current.set(CompileOptions(autotune, autotune_seconds, tf32, cublas))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
