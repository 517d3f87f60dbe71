"""Sizes that turn out to be known: of constants, and those that are learnt twice."""

from __future__ import annotations

from graphc.dims import Dim, DimLike, Symbol, substitute
from graphc.function import Function, Rebuilder
from graphc.graph import Tensor, TensorType

Binding = dict[Symbol, DimLike]


def resolved(fn: Function) -> Function:
    """The function without late sizes that need not be learnt in a run.

    What computes a size may have become a constant, or the same tensor as what computes another.
    """
    learnt: Binding = {}
    first: dict[tuple[Tensor, int], Symbol] = {}
    for late in fn.late:
        op = late.tensor.op
        if op.type == "Const":
            learnt[late.symbol] = int(op.attrs["value"].reshape(-1)[late.element])
            continue
        same = first.setdefault((late.tensor, late.element), late.symbol)
        if same is not late.symbol:
            learnt[late.symbol] = Dim((((same,), 1),))
    if not learnt:
        return fn
    if fn.env is not None:
        fn.env.learn(learnt)
    return retyped(fn, learnt)


def retyped(fn: Function, learnt: Binding) -> Function:
    """The function with symbols replaced in every type, those of bodies too."""
    rebuilder = Rebuilder(fn)
    for op in fn.operations:
        attrs = dict(op.attrs)
        if "bodies" in attrs:
            attrs["bodies"] = tuple(retyped(body, learnt) for body in attrs["bodies"])
        if attrs.get("row") is not None:
            attrs["row"] = tuple(substitute(s, learnt) for s in attrs["row"])
        new = rebuilder.copy(op, attrs=attrs)
        for t in new.outputs:
            if t.sizes is not None:
                t._type = TensorType(t.dtype, tuple(substitute(s, learnt) for s in t.sizes))
    found = rebuilder.finish()
    found.late = [s for s in found.late if s.symbol not in learnt]
    return found
