"""What the compiler assumes of symbolic sizes while it infers types anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.dims import Dim, DimLike, Symbol, substitute, symbols_of
from graphc.errors import CompileError
from graphc.function import Guard
from graphc.graph import Tensor
from graphc.op import ShapeEnv


class ValuesNeeded(Exception):
    """The values of some tensors must be known to compile: extract again with them."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__([t.name for t in tensors])
        self.tensors = tensors


class RanksNeeded(Exception):
    """A rank depends on a size: extract again with the sizes of integer vectors."""


class CompileEnv(ShapeEnv):
    """Inference while compiling: equalities that are needed become guards."""

    def __init__(self) -> None:
        self.binding: dict[Symbol, DimLike] = {}
        self.guards: list[Guard] = []
        self.bound: list[tuple[Tensor, int]] = []
        self.carriers: list[DimLike] = []
        self.values: dict[Tensor, tuple[DimLike, ...]] = {}
        self.user: dict[Tensor, Tensor] = {}
        self.known: Mapping[Tensor, Sequence[int]] = {}
        self.count = 0

    def new_symbol(self, positive: bool = True) -> Dim:
        """A symbol with the next canonical name."""
        self.count += 1
        return Dim.symbol(f"s{self.count - 1}", positive)

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
        self.guards.append(Guard(a, b))
        for x, y in ((a, b), (b, a)):
            symbol = x.as_symbol if isinstance(x, Dim) else None
            if symbol is not None and symbol not in symbols_of(y):
                single = {symbol: y}
                self.binding = {k: substitute(v, single) for k, v in self.binding.items()}
                self.binding[symbol] = y
                return y
        return b if isinstance(b, int) else a

    def broadcast_unknown(self, a: DimLike, b: DimLike) -> DimLike:
        """Sizes that broadcast together, neither 1, must be equal."""
        return self.assume_equal(a, b)

    def value_symbols(self, tensor: Tensor, count: int) -> tuple[DimLike, ...]:
        """Sizes that stand for the elements of a tensor that only a run can tell."""
        source = self.user.get(tensor)
        if source is None:
            raise CompileError(f"a size depends on {tensor.name}, which no pass may introduce")
        if source in self.known:
            return tuple(int(v) for v in self.known[source])
        if tensor not in self.values:
            found = []
            for i in range(count):
                up, down = self.new_symbol(), self.new_symbol()
                self.carriers += [up, down]
                self.bound.append((source, i))
                found.append(up - down)
            self.values[tensor] = tuple(found)
        return tuple(self.canonical(v) for v in self.values[tensor])
