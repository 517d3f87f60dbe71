"""The graph's living definition: operation by operation, by the NumPy references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import FetchError, GraphError
from graphc.graph import Operation, Tensor
from graphc.op import SpecialOp, evaluate_reference

Special = Callable[[Operation, list[np.ndarray]], "tuple[np.ndarray, ...] | None"]


def interpret(
    fetches: Sequence[Tensor | Operation],
    feeds: Mapping[Tensor, Any] | None = None,
    special: Special | None = None,
) -> list[Any]:
    """The values of the fetches, computed one operation at a time.

    Args:
      fetches: tensors and operations; an operation is run and gives None.
      feeds: the values of tensors that are not computed.
      special: called for every :class:`~graphc.op.SpecialOp` (variables, random numbers) with its
        inputs; returns its outputs, or None to have its reference computed.
    Returns:
      One array per tensor, None per operation, in the order of the fetches.
    """
    return Interpreter(feeds, special).run(fetches)


class Interpreter:
    """One run: every operation is computed at most once, control inputs before it.

    Attributes:
      values: what has been fed or computed, by tensor.
      done: the operations that have run.
    """

    def __init__(
        self, feeds: Mapping[Tensor, Any] | None = None, special: Special | None = None
    ) -> None:
        self.special = special
        self.values: dict[Tensor, np.ndarray] = {}
        self.done: set[Operation] = set()
        for tensor, value in (feeds or {}).items():
            self.values[tensor] = np.asarray(value, dtype=tensor.dtype.base_dtype.numpy)

    def run(self, fetches: Sequence[Tensor | Operation]) -> list[Any]:
        """The values of the fetches; None for operations."""
        for fetch in fetches:
            if not isinstance(fetch, (Tensor, Operation)):
                raise FetchError(f"cannot interpret {fetch!r}: not a Tensor or an Operation")
            if isinstance(fetch, Operation) or fetch not in self.values:
                self._compute(fetch.op if isinstance(fetch, Tensor) else fetch)
        return [self.values[f] if isinstance(f, Tensor) else None for f in fetches]

    def _compute(self, op: Operation) -> None:
        """Run ``op`` and everything before it, without recursion: graphs are deep."""
        stack = [op]
        while stack:
            top = stack[-1]
            waiting = [] if top in self.done else self._waiting(top)
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if top not in self.done:
                self._execute(top)

    def _waiting(self, op: Operation) -> list[Operation]:
        before = [t.op for t in op.inputs if t not in self.values]
        return [o for o in (*op.control_inputs, *before) if o not in self.done]

    def _execute(self, op: Operation) -> None:
        inputs = [self.values[t] for t in op.inputs]
        outputs: tuple[np.ndarray, ...] | None = None
        if self.special is not None and isinstance(op.definition, SpecialOp):
            outputs = self.special(op, inputs)
        if outputs is None:
            outputs = evaluate_reference(op, inputs)
        if len(outputs) != len(op.outputs):
            raise GraphError(f"'{op.name}' gave {len(outputs)} values for {len(op.outputs)}")
        self.done.add(op)
        for tensor, value in zip(op.outputs, outputs, strict=True):
            # A fed output keeps what it was fed.
            self.values.setdefault(tensor, np.asarray(value))
