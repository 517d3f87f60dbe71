"""Sizes of loop variables that the body of a loop changes, or makes assumptions about."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dims import Dim, DimLike, Symbol, substitute, symbols_of
from graphc.errors import InvalidArgumentError
from graphc.function import Guard
from graphc.graph import Operation, Tensor, TensorType
from graphc.passes.assume import CompileEnv, RowsKnown


def changed_sizes(
    env: CompileEnv,
    op: Operation,
    types: Sequence[TensorType],
    results: Sequence[Tensor],
    symbols: Sequence[Symbol],
) -> list[tuple[int, int]]:
    """The sizes that the body of a loop changes, as (loop variable, dimension).

    Those that are ``symbols`` already may be others in every turn.
    """
    found = []
    for k, (type_, result) in enumerate(zip(types, results, strict=True)):
        if type_.sizes is None and result.sizes is None:
            # A TensorArray that nothing is written to.
            raise RowsKnown(env.pending[result], ())
        if type_.sizes is None or result.sizes is None or len(type_.sizes) != len(result.sizes):
            raise InvalidArgumentError(
                op.node_def, op,
                f"loop variable {k} has the shape {type_} before a turn and "
                f"{result.type} after it: its rank may not change",
            )  # fmt: skip
        for d, (a, b) in enumerate(zip(type_.sizes, result.sizes, strict=True)):
            own = not isinstance(a, int) and a.as_symbol in symbols
            before, after = env.canonical(a), env.canonical(b)
            if env.assumed_equal(before, after):
                continue
            if before != after and not own:
                found.append((k, d))
            elif before != after and not symbols_of(before) & set(symbols):
                raise InvalidArgumentError(
                    op.node_def, op,
                    f"loop variable {k} must have the size {before} in dimension {d}, as the "
                    f"body uses it, and the body gives it the size {after}",
                )  # fmt: skip
    return found


def settle(
    env: CompileEnv,
    op: Operation,
    types: Sequence[TensorType],
    starts: Sequence[Tensor],
    results: Sequence[Tensor],
    symbols: Sequence[Symbol],
) -> list[Symbol]:
    """The symbols of a loop that do change, each by itself.

    What the body needs to be one size, or to be as large as another loop variable, must be so from
    the beginning, and be so again after a turn; then it is so in every turn, and is checked once.

    Args:
      env: where the body's assumptions are.
      op: the loop, for errors.
      types, starts, results: the loop variables in a turn, before the first and after a turn.
      symbols: the sizes that may be others in every turn.
    """
    bound = [s for s in symbols if s in env.binding]
    if not bound:
        return list(symbols)
    first = _places(env, types, starts, symbols)
    after = _places(env, types, results, symbols)
    sizes = {s: env.canonical(Dim((((s,), 1),))) for s in bound}
    for symbol, size in sizes.items():
        found, needed = after[symbol], substitute(size, after)
        if not env.assumed_equal(found, needed):
            raise _other_size(op, needed, found)
        found, needed = first[symbol], substitute(size, first)
        if isinstance(found, int) and isinstance(needed, int) and found != needed:
            raise _other_size(op, needed, found)
    env.guards[:] = list(_without(env, set(bound)))
    for symbol, size in sizes.items():
        env.assume_equal(first[symbol], substitute(size, first))
    return [s for s in symbols if s not in env.binding]


def _places(
    env: CompileEnv,
    types: Sequence[TensorType],
    tensors: Sequence[Tensor],
    symbols: Sequence[Symbol],
) -> dict[Symbol, DimLike]:
    """What stands in the tensors where the types have the symbols."""
    found: dict[Symbol, DimLike] = {}
    for type_, tensor in zip(types, tensors, strict=True):
        for mine, size in zip(type_.sizes or (), tensor.sizes or (), strict=True):
            symbol = None if isinstance(mine, int) else mine.as_symbol
            if symbol is not None and symbol in symbols:
                found.setdefault(symbol, env.canonical(size))
    return found


def _without(env: CompileEnv, bound: set[Symbol]) -> list[Guard]:
    """The assumptions without these symbols."""
    found = []
    for guard in env.guards:
        if bound & (symbols_of(guard.left) | symbols_of(guard.right)):
            sides = env.canonical(guard.left), env.canonical(guard.right)
            guard = Guard(*sides, guard.reason)
            if guard.left == guard.right:
                continue
        found.append(guard)
    return found


def _other_size(op: Operation, needed: DimLike, found: DimLike) -> InvalidArgumentError:
    return InvalidArgumentError(
        op.node_def, op,
        f"a loop variable must have the size {needed} in every turn, as the body uses it, and has "
        f"the size {found}",
    )  # fmt: skip
