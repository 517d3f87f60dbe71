"""Random graphs, built value by value.

Every value comes with a bound, so that no result depends on rounding: what jumps (comparisons,
roundings, casts to integers, positions of maxima) is only applied to *exact* values, multiples of
1/8 so small that every dtype computes them without rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

import graphc as gc
from graphc.graph import Graph, Tensor

SIZES = (1, 2, 3, 4, 5, 7, 16, 17, 33, 64, 65)
EXACT = 64.0
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTS = ("int32", "int64", "int8", "uint8", "int16")


@dataclass
class Value:
    """A tensor of the graph, its real shape and what is known of its elements."""

    tensor: Tensor
    shape: tuple[int, ...]
    dtype: str
    bound: float
    exact: bool

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")

    @property
    def is_int(self) -> bool:
        return "int" in self.dtype


@dataclass
class Case:
    """A graph with fetches and feeds."""

    graph: Graph
    feeds: dict[Tensor, np.ndarray] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    fetches: list[Tensor] = field(default_factory=list)
    updates: list[Any] = field(default_factory=list)
    variables: list[Any] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        feeds = ", ".join(f"{t.name}:{a.dtype}{list(a.shape)}" for t, a in self.feeds.items())
        return f"Case({'; '.join(self.trace)} | fed {feeds})"


Step = Callable[["Builder"], "Value | None"]


class Builder:
    """Draws one case."""

    def __init__(
        self, draw: Callable[..., Any], steps: Sequence[Step], max_ops: int = 9
    ) -> None:
        self.draw = draw
        self.steps = steps
        self.case = Case(Graph())
        seed = draw(st.integers(0, 2**16))
        self.rng = np.random.default_rng(seed)
        self.pool = [draw(st.sampled_from(SIZES)) for _ in range(3)]
        self.count = draw(st.integers(3, max_ops))

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    # --- sources --------------------------------------------------------------------------------

    def array(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if dtype == "bool":
            return self.rng.integers(0, 2, shape).astype(bool)
        low = 0 if dtype.startswith("u") else -16
        numbers = self.rng.integers(low, 17, shape)
        scale = 0.125 if dtype.startswith("float") else 1
        return (numbers * scale).astype(dtype)

    def source(self, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Value:
        if dtype is None:
            dtype = self.pick("float32", "float32", "float32", "float32", *FLOATS, *INTS, "bool")
        if shape is None:
            rank = self.pick(0, 1, 2, 2, 3)
            shape = tuple(self.pick(*self.pool, 1) for _ in range(rank))
        kind = self.pick("feed", "feed", "feed", "constant", "variable")
        data = self.array(shape, dtype)
        bound = 2.0 if dtype.startswith("float") else 16.0
        with self.case.graph.as_default():
            if kind == "constant":
                tensor = gc.constant(data)
            elif kind == "variable" and dtype != "bool":
                variable = gc.Variable(data)
                self.case.variables.append(variable)
                tensor = variable._to_tensor()
            else:
                style = self.pick("static", "any", "mixed", "rank")
                if style == "rank":
                    declared: Any = None
                else:
                    unknown = {"static": (False,), "any": (True,), "mixed": (True, False)}[style]
                    declared = [None if self.pick(*unknown) else n for n in shape]
                tensor = gc.placeholder(dtype, declared)
                self.case.feeds[tensor] = data
                kind = f"feed{declared}"
        self.case.trace.append(f"{tensor.name}={kind} {dtype}{list(shape)}")
        return self.add(tensor, shape, dtype, bound, True)

    def add(
        self, tensor: Tensor, shape: tuple[int, ...], dtype: str, bound: float, exact: bool
    ) -> Value:
        exact = exact and bound <= EXACT
        value = Value(tensor, tuple(shape), dtype, bound, exact)
        self.case.values.append(value)
        return value

    def operand(self, wanted: Callable[[Value], bool] = lambda v: True) -> Value | None:
        found = [v for v in self.case.values if wanted(v)]
        return None if not found else self.pick(*found[-6:])

    # --- the case -------------------------------------------------------------------------------

    def build(self) -> Case:
        self.source()
        if self.pick(True, False):
            self.source()
        for _ in range(self.count):
            step = self.pick(*self.steps)
            with self.case.graph.as_default():
                made = step(self)
            if made is not None:
                self.case.trace.append(f"{made.tensor.name}={step.__name__} {list(made.shape)}")
        self.choose_fetches()
        return self.case

    def choose_fetches(self) -> None:
        case = self.case
        last = case.values[-1]
        chosen = {last.tensor: None}
        for _ in range(self.pick(0, 0, 1, 2)):
            chosen[self.pick(*case.values).tensor] = None
        with case.graph.as_default():
            if last.dtype in ("float32", "float64") and self.pick(True, False):
                sources = [v.tensor for v in case.values if v.dtype == last.dtype][:3]
                grads = gc.gradients(gc.reduce_sum(last.tensor), sources)
                chosen.update({g: None for g in grads if g is not None})
                case.trace.append("gradients")
            for variable in case.variables:
                fits = [
                    v for v in case.values
                    if v.dtype == variable.dtype.base_dtype.name
                    and v.shape == tuple(variable.shape.as_list())
                ]  # fmt: skip
                kind = self.pick("none", "assign", "assign_add", "assign_sub")
                if fits and kind != "none":
                    new = self.pick(*fits).tensor
                    case.updates.append(getattr(variable, kind)(new).op)
                    case.trace.append(f"{variable.name}.{kind}({new.name})")
        case.fetches = list(chosen)
