"""Random graphs of loops and branches, one in another, for ``test_control_flow.py``.

Every value is a float64 scalar or a vector of one size, kept small by tanh, so that any of them
can be a loop variable, a result of a branch or a row of an array wherever another one can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

import graphc as gc
from graphc.graph import Graph, Tensor

SIZE, DEEPEST = 3, 3
FREE, SCALAR = gc.TensorShape([None]), gc.TensorShape([])


@dataclass
class Control:
    """A graph over ``x`` (a vector), ``n`` (a number of turns) and ``p`` (a predicate)."""

    graph: Graph
    x: Tensor
    n: Tensor
    p: Tensor
    fetches: list[Tensor] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    variable: Any = None

    def __repr__(self) -> str:
        return f"Control({'; '.join(self.steps)} -> {[t.name for t in self.fetches]})"


@dataclass
class Pool:
    """What can be used where something is declared; ``turns`` are numbers of turns around."""

    vectors: list[Tensor]
    scalars: list[Tensor]
    turns: list[Tensor]

    def inner(self) -> Pool:
        """For a body: what it adds is not for what is around."""
        return Pool(list(self.vectors), list(self.scalars), list(self.turns))


class Builder:
    """Draws statements and declares them."""

    def __init__(self, draw: Callable[..., Any], case: Control, left_out: Sequence[str]) -> None:
        self.draw = draw
        self.case = case
        self.left_out = left_out

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def note(self, depth: int, text: str) -> None:
        self.case.steps.append("." * depth + text)

    # --- statements -------------------------------------------------------------------------------

    def block(self, pool: Pool, depth: int, most: int) -> None:
        """A few statements, each of which adds to the pool."""
        for _ in range(self.number(1, most)):
            kinds = ["point", "point", "point", "reduce", "spread"]
            if pool.turns:
                kinds.append("element")
            if depth < DEEPEST:
                kinds += ["loop", "loop", "cond", "array", "switch", "growing", "update"]
            kind = self.pick([k for k in kinds if k not in self.left_out])
            self.note(depth, kind)
            getattr(self, kind)(pool, depth)

    def point(self, pool: Pool, depth: int) -> None:
        a, b = self.pick(pool.vectors[-5:]), self.pick(pool.vectors[-5:])
        makes = {
            "mul": lambda: gc.tanh(a * b), "sin": lambda: gc.sin(a) * 0.5,
            "add": lambda: gc.tanh(a + b + 0.1), "sub": lambda: a - b * 0.5,
            "turned": lambda: a[::-1],
            "scaled": lambda: a * gc.tanh(self.pick(pool.scalars[-3:])),
            "constant": lambda: gc.constant([0.3, -0.2, 0.5], gc.float64),
        }  # fmt: skip
        pool.vectors.append(makes[self.pick(sorted(makes))]())

    def reduce(self, pool: Pool, depth: int) -> None:
        a = self.pick(pool.vectors[-5:])
        made = gc.tanh(gc.reduce_sum(a)) if self.draw(st.booleans()) else gc.reduce_max(a)
        pool.scalars.append(made)

    def spread(self, pool: Pool, depth: int) -> None:
        a, s = self.pick(pool.vectors[-5:]), self.pick(pool.scalars[-3:])
        pool.vectors.append(gc.tanh(a + s))

    def element(self, pool: Pool, depth: int) -> None:
        a, i = self.pick(pool.vectors[-5:]), self.pick(pool.turns)
        pool.scalars.append(gc.gather(a, i % SIZE) if self.draw(st.booleans()) else a[i % SIZE])

    def update(self, pool: Pool, depth: int) -> None:
        """A variable changes, and what is taken from it waits for that."""
        v = self.case.variable
        with gc.control_dependencies([v.assign(gc.tanh(v * 0.5 + self.pick(pool.vectors[-5:])))]):
            pool.vectors.append(v * 1.0)

    def loop(self, pool: Pool, depth: int) -> None:
        """A while_loop over vectors and scalars of the pool."""
        vectors = [self.pick(pool.vectors[-6:]) for _ in range(self.number(1, 3))]
        scalars = [self.pick(pool.scalars[-3:]) for _ in range(self.number(0, 1))]
        count = len(vectors)
        limit, more = self.limit(pool), self.draw(st.booleans())

        def test(i: Tensor, *values: Tensor) -> Tensor:
            below = i < limit
            return gc.logical_and(below, gc.reduce_sum(values[0]) < 1.37) if more else below

        def body(i: Tensor, *values: Tensor) -> list[Tensor]:
            own = pool.inner()
            own.vectors += values[:count]
            own.scalars += values[count:]
            own.turns.append(i)
            self.block(own, depth + 1, 3)
            found = [self.pick(own.vectors[-4:]) for _ in vectors]
            return [i + 1, *found, *(self.pick(own.scalars[-3:]) for _ in scalars)]

        found = gc.while_loop(test, body, [gc.constant(0), *vectors, *scalars])
        pool.vectors += found[1 : 1 + count]
        pool.scalars += found[1 + count :]

    def limit(self, pool: Pool) -> Any:
        """A number of turns: known, fed, or that of a loop around."""
        options: list[Any] = [0, 1, 2, 4, self.case.n, self.case.n]
        options += [t % 3 for t in pool.turns[-1:]]
        return self.pick(options)

    def choose(self, pool: Pool, depth: int, count: int) -> list[Callable[[], Any]]:
        """Branches that give a vector and a scalar."""

        def branch() -> tuple[Tensor, Tensor]:
            own = pool.inner()
            if self.draw(st.booleans()):
                self.block(own, depth + 1, 3)
            return self.pick(own.vectors[-4:]), self.pick(own.scalars[-3:])

        return [branch] * count

    def cond(self, pool: Pool, depth: int) -> None:
        tests = [self.case.p, gc.reduce_sum(self.pick(pool.vectors[-4:])) > 0.173]
        tests += [gc.equal(t % 2, 0) for t in pool.turns[-1:]]
        a, s = gc.cond(self.pick(tests), *self.choose(pool, depth, 2))
        pool.vectors.append(a)
        pool.scalars.append(s)

    def switch(self, pool: Pool, depth: int) -> None:
        index = self.pick([self.case.n, *pool.turns]) % 4
        a, s = gc.switch_case(index, self.choose(pool, depth, 3))
        pool.vectors.append(a)
        pool.scalars.append(s)

    def array(self, pool: Pool, depth: int) -> None:
        """A loop that writes the rows of an array, and perhaps reads another one's."""
        limit, dynamic = self.limit(pool), self.draw(st.booleans())
        size = 0 if dynamic else limit
        shape = {"element_shape": [SIZE]} if self.draw(st.booleans()) else {}
        rows = gc.TensorArray(gc.float64, size=size, dynamic_size=dynamic, **shape)
        given = gc.TensorArray(gc.float64, size=2).unstack(gc.stack(
            [self.pick(pool.vectors[-4:]), self.pick(pool.vectors[-4:])]
        ))  # fmt: skip
        again = self.draw(st.booleans())

        def body(i: Tensor, a: Any, s: Tensor) -> list[Any]:
            own = pool.inner()
            own.vectors += [s, given.read(i % 2)]
            own.turns.append(i)
            self.block(own, depth + 1, 2)
            a = a.write(i, self.pick(own.vectors[-4:]))
            return [i + 1, a, a.read(i // 2) if again else self.pick(own.vectors[-4:])]

        start = self.pick(pool.vectors[-4:])
        _, rows, last = gc.while_loop(lambda i, *_: i < limit, body, [gc.constant(0), rows, start])
        pool.vectors += [gc.tanh(gc.reduce_sum(rows.stack(), 0)), last]

    def growing(self, pool: Pool, depth: int) -> None:
        """A loop whose vector gets longer, or shorter, every turn."""
        limit, longer = self.limit(pool), self.draw(st.booleans())

        def body(i: Tensor, x: Tensor, s: Tensor) -> list[Tensor]:
            own = pool.inner()
            own.scalars += [s, gc.tanh(gc.reduce_sum(x))]
            own.turns.append(i)
            self.block(own, depth + 1, 2)
            part = self.pick(own.vectors[-4:])
            following = gc.concat([x * 0.5, part], 0) if longer else x[1:] * 0.5
            return [i + 1, following, self.pick(own.scalars[-3:])]

        start = [gc.constant(0), self.pick(pool.vectors[-4:]), self.pick(pool.scalars[-3:])]
        invariants = [SCALAR, FREE, SCALAR]
        _, x, s = gc.while_loop(lambda i, *_: i < limit, body, start, shape_invariants=invariants)
        pool.scalars += [s, gc.tanh(gc.reduce_sum(x))]


@st.composite
def control(draw: Callable[..., Any], left_out: Sequence[str] = ()) -> Control:
    """A random graph, of all kinds of statements but some."""
    graph = Graph()
    with graph.as_default():
        known = draw(st.booleans())
        x = gc.placeholder(gc.float64, [SIZE] if known else [None])
        n, p = gc.placeholder(gc.int32, []), gc.placeholder(gc.bool, [])
        case = Control(graph, x, n, p)
        case.variable = gc.Variable(np.array([0.4, -0.6, 0.2]))
        whole = x + np.array([0.1, 0.0, -0.1])
        pool = Pool([whole, case.variable * 1.0], [gc.reduce_sum(x) * 0.25], [])
        builder = Builder(draw, case, left_out)
        builder.block(pool, 0, 5)
        chosen = dict.fromkeys([pool.vectors[-1], pool.scalars[-1]])
        chosen[builder.pick(pool.vectors)] = None
        case.fetches = list(chosen)
    return case
