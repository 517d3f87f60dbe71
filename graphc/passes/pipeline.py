"""The passes, in order, and the manager that runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from graphc.dims import Symbol
from graphc.errors import CompileError, GraphcError, VerifyError
from graphc.function import Function, Rebuilder, format_function
from graphc.passes.added import JoinProducts
from graphc.passes.attention import FuseAttention
from graphc.passes.attention_gradient import ITERATIONS
from graphc.passes.basic import CommonSubexpressions, DeadCode, Decompose, ShapesOfInputs
from graphc.passes.control import Control
from graphc.passes.narrow import NarrowProducts
from graphc.passes.panels import Panels
from graphc.passes.prepare import Prepare
from graphc.passes.products import MergeProducts
from graphc.passes.simplify import Fold, Simplify
from graphc.passes.verify import verify_function
from graphc.passes.winograd import Winograd
from graphc.passes.words import Words


class Pass(Protocol):
    """A named, frozen object that takes a valid function to a valid function.

    One with ``outermost`` set is not for the bodies of loops and branches.
    """

    @property
    def name(self) -> str:
        """What it is called in dumps, timings and errors."""

    def run(self, fn: Function) -> Function:
        """The rewritten function; the argument, which is left as it was, if nothing changes."""


def default_pipeline(
    word: int = 1, lanes: int = 16, iterations: int = ITERATIONS, *, short_attention: bool = False,
    hints: Mapping[Symbol, int] = MappingProxyType({}), winograd: Pass | None = None,
) -> list[Pass]:  # fmt: skip
    """The graph passes, top to bottom.

    Args:
      word: the CPU has dot products of so many bytes, or none.
      lanes: float32 in a vector.
      iterations: into how many the gradient of attention is divided at least; 1 for a GPU, which
        divides it by itself.
      short_attention: attention of 16-bit floats is one kernel, too.
      hints: sizes that a run decides, as they were first seen.
      winograd: what replaces convolutions of 3x3 taps; by default as a CPU gains by it.
    """
    return [
        DeadCode(),
        Simplify(),
        # What simpler operations have replaced, and nobody needs, would count as a reader.
        DeadCode(),
        FuseAttention(iterations, short_attention, hints),
        DeadCode(),
        Decompose(),
        Fold(),
        Simplify(),
        ShapesOfInputs(),
        CommonSubexpressions(),
        Control(),
        DeadCode(),
        # Loops are rid by now of what nobody needs.
        NarrowProducts(),
        JoinProducts(),
        DeadCode(),
        CommonSubexpressions(),
        MergeProducts(),
        winograd or Winograd(),
        Panels(2 * lanes),
        *([Words(word, 2 * lanes)] if word > 1 else []),
        # What loops have to have prepared leaves them.
        Control(),
        CommonSubexpressions(),
        DeadCode(),
        Prepare(),
        DeadCode(),
    ]


@dataclass
class Trace:
    """What the manager saw: seconds per pass, and the text after it when dumping."""

    seconds: dict[str, float] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)


def verifying() -> bool:
    """Whether ``GRAPHC_VERIFY`` asks for every graph, kernel and program to be verified."""
    return os.environ.get("GRAPHC_VERIFY", "0") not in ("", "0")


def dump_directory() -> Path | None:
    """Where ``GRAPHC_DUMP`` asks for the text after every pass, or None."""
    folder = os.environ.get("GRAPHC_DUMP")
    return Path(folder) if folder else None


def run_passes(fn: Function, passes: Sequence[Pass], trace: Trace | None = None) -> Function:
    """Run the passes in order; a failure is blamed on the pass by name."""
    trace = trace or Trace()
    folder, verify = dump_directory(), verifying()
    dump(folder, trace, "extract", fn)
    if verify:
        verify_after("extract", fn)
    for p in passes:
        start, before = time.perf_counter(), fn
        try:
            fn = run_nested(p, fn)
        except GraphcError:
            raise
        except Exception as e:
            raise CompileError(f"pass {p.name!r} failed: {type(e).__name__}: {e}") from e
        trace.seconds[p.name] = trace.seconds.get(p.name, 0.0) + time.perf_counter() - start
        dump(folder, trace, p.name, fn)
        # A pass leaves what it is given as it is: the same function keeps the rules still.
        if verify and fn is not before:
            verify_after(p.name, fn)
    return fn


def run_nested(p: Pass, fn: Function) -> Function:
    """Run a pass on the bodies in a function, innermost first, then on the function."""
    if getattr(p, "outermost", False):
        return p.run(fn)
    changed = {}
    for op in fn.operations:
        old = op.attrs.get("bodies", ())
        if not old:
            continue
        new = tuple(run_nested(p, body) for body in old)
        if any(a is not b for a, b in zip(old, new, strict=True)):
            changed[op] = op.attrs | {"bodies": new}
    if changed:
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            rebuilder.copy(op, attrs=changed.get(op))
        fn = rebuilder.finish()
    return p.run(fn)


def verify_after(name: str, fn: Function) -> None:
    """Verify a function; a complaint names the pass that made it."""
    try:
        verify_function(fn)
    except VerifyError as e:
        raise VerifyError(f"after pass {name!r}: {e}") from e


def dump(folder: Path | None, trace: Trace, name: str, fn: Function) -> None:
    """Keep the text of the function after a pass, and write it where it was asked for."""
    if folder is None:
        return
    text = format_function(fn)
    trace.texts.append((name, text))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{len(trace.texts) - 1:02}-{name}.txt").write_text(text, encoding="utf-8")
