"""What the compiler assumes of symbolic sizes while it infers types anew."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from graphc.dims import Dim, DimLike, Symbol, substitute, symbols_of
from graphc.errors import CompileError
from graphc.function import Guard, Late
from graphc.graph import Graph, Operation, Tensor
from graphc.op import ShapeEnv


class ValuesNeeded(Exception):
    """The values of some tensors must be known to compile: extract again with them."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__([t.name for t in tensors])
        self.tensors = tensors


class RanksNeeded(Exception):
    """A rank depends on a size: extract again with the sizes of integer vectors."""


class RowsKnown(Exception):
    """What is written to a TensorArray tells the shape of its elements: extract again with it."""

    def __init__(self, op: Operation, row: tuple[DimLike, ...]) -> None:
        super().__init__(op.name)
        self.op = op
        self.row = row


class CompileEnv(ShapeEnv):
    """Inference while compiling: equalities that are needed become guards.

    Attributes:
      binding: what stands for a symbol since it was found equal to it.
      late: sizes that a run learns from elements of tensors.
      learnt: those of them that the passes have found, with what they are.
      values: those sizes by the tensor.
      user: the user's tensor for one of a function.
      captured: for a tensor that stands in a body for one of the function around, that one.
      graphs: every graph whose types mention symbols of this environment.
      known: values of the user's tensors to compile for.
      rows: the shapes of the elements of TensorArrays, where only what is written tells them.
      flat: for a host step's result of unknown rank (its elements in a row), its sizes.
      feeding: whether new symbols are sizes of feeds; of later ones, ``ages`` tells the order.
      ragged: for a user's tensor whose vector of parts stands for it, how they lie in it.
      needed, used: the user's operations and tensors that the run needs.
      hosted: the user's operations whose values depend on host steps that may run only once.
      reader: the user's operation whose types are inferred.
      stretch: whether late sizes may be 1 where they are broadcast; ``met``, whether some are.
    """

    def __init__(self) -> None:
        self.binding: dict[Symbol, DimLike] = {}
        self.guards: list[Guard] = []
        self.late: list[Late] = []
        self.learnt: dict[Symbol, DimLike] = {}
        self.captured: dict[Tensor, Tensor] = {}
        self.graphs: list[Graph] = []
        self.pending: dict[Tensor, Operation] = {}
        self.rows: Mapping[Operation, tuple[DimLike, ...]] = {}
        self.values: dict[Tensor, tuple[DimLike, ...]] = {}
        self.user: dict[Tensor, Tensor] = {}
        self.known: Mapping[Tensor, Sequence[int]] = {}
        self.flat: dict[Tensor, Tensor] = {}
        self.ragged: dict[Tensor, Any] = {}
        self.needed: Container[Operation] = ()
        self.used: Container[Tensor] = ()
        self.hosted: set[Operation] = set()
        self.reader: Operation | None = None
        self.stretch = False
        self.met = False
        self.ages: dict[Symbol, int] = {}
        self.feeding = True
        self.count = 0

    def new_symbol(self, positive: bool = True) -> Dim:
        """A symbol with the next canonical name."""
        self.count += 1
        size = Dim.symbol(f"s{self.count - 1}", positive)
        if not self.feeding:
            symbol = size.as_symbol
            assert symbol is not None
            self.ages[symbol] = self.count
        return size

    def canonical(self, size: DimLike) -> DimLike:
        """The size with all assumptions applied."""
        if isinstance(size, int) or not self.binding:
            return size
        return substitute(size, self.binding)

    def assume_equal(self, a: DimLike, b: DimLike) -> DimLike:
        """Record that two sizes are equal; eliminate a symbol where that is possible."""
        a, b = self.canonical(a), self.canonical(b)
        if a == b:
            return a
        self.guards.append(Guard(a, b, self.reason()))
        for x, y in ((a, b), (b, a)):
            symbol = x.as_symbol if isinstance(x, Dim) else None
            if symbol is not None and symbol not in symbols_of(y) and self.follows(symbol, y):
                single = {symbol: y}
                self.binding = {k: substitute(v, single) for k, v in self.binding.items()}
                self.binding[symbol] = y
                return y
        return b if isinstance(b, int) else a

    def reason(self) -> str:
        """Which of the user's operations needs what is assumed now."""
        op = self.reader
        return "" if op is None else f"'{op.name}' ({op.type}, declared at {op.location})"

    def follows(self, symbol: Symbol, size: DimLike) -> bool:
        """Whether a run knows the size when it learns the symbol: the sizes of feeds come first."""
        age = self.ages.get(symbol, 0)
        return all(self.ages.get(s, 0) <= age for s in symbols_of(size))

    def assumed_equal(self, a: DimLike, b: DimLike) -> bool:
        """Whether two sizes are equal by what has been assumed."""
        a, b = self.canonical(a), self.canonical(b)
        if a == b:
            return True
        pairs = ((self.canonical(g.left), self.canonical(g.right)) for g in self.guards)
        return any((x, y) in ((a, b), (b, a)) for x, y in pairs)

    def broadcast_unknown(self, a: DimLike, b: DimLike) -> DimLike:
        """Sizes that broadcast together, neither 1, must be equal."""
        self.met = self.met or self.is_late(a, b)
        return self.assume_equal(a, b)

    def is_late(self, *sizes: DimLike) -> bool:
        """Whether only a run tells some of these sizes, and not by its feeds."""
        return any(s in self.ages for size in sizes for s in symbols_of(size))

    def value_symbols(self, tensor: Tensor, count: int) -> tuple[DimLike, ...]:
        """Sizes that stand for the elements of a tensor that only a run can tell."""
        while tensor in self.captured:
            tensor = self.captured[tensor]
        source = self.user.get(tensor)
        if source is not None and source in self.known:
            return tuple(int(v) for v in self.known[source])
        if tensor not in self.values:
            if source is None:
                raise CompileError(f"a size depends on {tensor.name}, which no pass may introduce")
            found = []
            # What comes from a host step cannot be computed beforehand: that would run it twice.
            beforehand = source.op.region is None and source.op not in self.hosted
            outer = source if beforehand else None
            for i in range(count):
                size = self.new_symbol(positive=False)
                symbol = size.as_symbol
                assert symbol is not None
                self.late.append(Late(symbol, tensor, i, outer))
                found.append(size)
            self.values[tensor] = tuple(found)
        return tuple(self.canonical(v) for v in self.values[tensor])

    def guards_runs(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the user declared all of them outside loops and branches."""
        found = [self.user.get(t) for t in tensors if t not in self.captured]
        return len(found) == len(tensors) and all(
            t is not None and t.op.region is None for t in found
        )

    def learn(self, found: Mapping[Symbol, DimLike]) -> None:
        """Sizes that no run needs to learn any more."""
        self.learnt.update(found)
        self.binding = {k: substitute(v, found) for k, v in self.binding.items()} | dict(found)

    def stands_for(self, new: Tensor, old: Tensor) -> None:
        """A pass has put ``new`` in the place of ``old``."""
        if old in self.values:
            self.values[new] = self.values[old]
        if old in self.user:
            self.user[new] = self.user[old]
        if old in self.captured:
            self.captured[new] = self.captured[old]

    def snapshot(self) -> tuple[object, ...]:
        """What :meth:`restore` takes to forget everything assumed from now on."""
        return (
            dict(self.binding), list(self.guards), list(self.late), dict(self.captured),
            list(self.graphs), dict(self.values), dict(self.user), dict(self.pending),
            dict(self.ragged),
        )  # fmt: skip

    def restore(self, state: tuple[object, ...]) -> None:
        """Forget what was assumed since the snapshot."""
        (
            self.binding, self.guards, self.late, self.captured, self.graphs, self.values,
            self.user, self.pending, self.ragged,
        ) = state  # type: ignore[assignment]  # fmt: skip
