"""From the user's graph to a pure function: what the fetches need, with the state made explicit.

* Only operations that the fetches depend on (by data or by control) are copied; fed tensors cut
  the graph off.
* Variables become values.  Assignments to one variable form a chain in the order of declaration
  (which respects control dependencies).  An operation that reads a variable sees the last
  assignment that it depends on, else the value before the run.  The last link of the chain is the
  variable's update.  ``v/read`` and the handle are aliases: the operation that consumes them is
  the reader.  A fetch of the variable itself gives its value after the run.
* Random ops read a hidden counter of their own and advance it.
* Types are inferred again from the feeds' shapes; what inference must assume of the symbols is
  recorded as guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.dims import DimLike, symbols_of
from graphc.errors import InvalidArgumentError
from graphc.function import Function, Output
from graphc.graph import Operation, Tensor
from graphc.passes.assume import CompileEnv, RowsKnown
from graphc.passes.extract_control import ControlExtractor
from graphc.passes.extract_graph import canonicalize, late_of, reachable
from graphc.passes.extract_ragged import shape_changes
from graphc.passes.extract_regions import needed_by
from graphc.passes.extractor import VariableState

__all__ = ["VariableState", "extract", "reachable"]


def extract(
    fetches: Sequence[Tensor],
    targets: Sequence[Operation],
    feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
    variable_state: Callable[[Operation], VariableState],
    known: Mapping[Tensor, Sequence[int]] | None = None,
    keep: bool = True,
    stretch: bool = False,
) -> Function:
    """The pure function that computes ``fetches`` and runs ``targets``.

    Args:
      fetches: tensors whose values are wanted.
      targets: operations to run for their effect.
      feeds: for each fed tensor the sizes to compile for; None where any size is to be accepted.
      variable_state: what is known of a variable.
      known: values of integer tensors to compile for, where sizes depend on them.
      keep: False leaves every variable and counter as it was.
      stretch: whether sizes that a run decides may be 1 where they are broadcast.
    Raises:
      OpError: a missing feed, an uninitialized variable, shapes that do not go together.
    """
    rows: dict[Operation, tuple[DimLike, ...]] = {}
    while True:
        env = CompileEnv()
        env.known, env.rows, env.stretch = known or {}, rows, stretch
        try:
            extractor = ControlExtractor(feeds, variable_state, env)
            return extracted(extractor, fetches, targets, keep)
        except RowsKnown as e:
            stated = {s for i in extractor.inputs for size in i.raw for s in symbols_of(size)}
            if any(symbols_of(size) - stated for size in e.row):
                raise InvalidArgumentError(
                    e.op.node_def, e.op, "the shape of the TensorArray's elements is not known "
                    "before they are computed: state it as element_shape",
                ) from None  # fmt: skip
            rows = rows | {e.op: e.row}
        except InvalidArgumentError as e:
            if stretch or not env.met:
                raise
            # Sizes that do not go together as they are may do so if one of them turns out to be 1.
            try:
                return extract(fetches, targets, feeds, variable_state, known, keep, stretch=True)
            except InvalidArgumentError:
                raise e from None


def shapes_of(fetches: Sequence[Output], env: CompileEnv) -> list[Output]:
    """The sizes of fetches of unknown rank, as further outputs."""
    return [
        Output("sizes", env.flat[o.tensor], o.source, f"{k}")
        for k, o in enumerate(fetches)
        if o.tensor in env.flat
    ]


def extracted(
    extractor: ControlExtractor,
    fetches: Sequence[Tensor],
    targets: Sequence[Operation],
    keep: bool,
) -> Function:
    """One extraction from beginning to end."""
    extractor.feed_inputs()
    extractor.env.feeding = False
    env = extractor.env
    env.needed, env.used = needed_by([*fetches, *targets], extractor.feeds)
    for op in sorted(env.needed, key=lambda op: op.serial):
        if op.region is None:
            extractor.visit(op)
    for t in fetches:
        if t in extractor.env.ragged:
            raise shape_changes(t.op, t)
    outputs = [Output("fetch", extractor.operand(t, None), t, t.name) for t in fetches]
    for output in outputs:
        array = extractor.env.pending.get(output.tensor)
        if array is not None:
            raise InvalidArgumentError(
                array.node_def, array, "the TensorArray is read before anything is written to it"
            )
    outputs += shapes_of(outputs, extractor.env)
    if keep:
        outputs += [extractor.update(v, chain[-1][1]) for v, chain in extractor.chains.items()]
        outputs += extractor.counters.values()
    outputs += extractor.checks(outputs)
    canonicalize(env)
    return Function(
        extractor.graph, extractor.inputs, outputs, env.guards, late_of(extractor.graph, env),
        extractor.origin, env, frozenset(extractor.consulted),
    )  # fmt: skip
