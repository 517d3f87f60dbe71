"""Declaring regions and the operations that own them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from graphc import dims
from graphc.build import complete_attrs, constant, create, single
from graphc.dims import DimLike
from graphc.errors import GraphError
from graphc.graph import (
    Operation,
    Region,
    Tensor,
    TensorType,
    get_default_graph,
)
from graphc.op import InferContext, get_op

MAX_NESTING = 500
"""How deep loops and branches may be nested; compiling takes time in its square."""
_FRAMES = 30


def _make_room(depth: int) -> None:
    """Let Python's stack hold what walks through regions nested so deep.

    The user's own functions, the passes and the interpreters call themselves for every level.
    """
    needed = 1000 + _FRAMES * depth
    if depth > _FRAMES and sys.getrecursionlimit() < needed:
        sys.setrecursionlimit(needed)


@contextlib.contextmanager
def region(name: str) -> Iterator[Region]:
    """A new region of the default graph; operations declared inside belong to it.

    Raises:
      GraphError: regions are nested too deep.
    """
    graph = get_default_graph()
    made = Region(graph, name, graph.region)
    if made.depth > MAX_NESTING:
        raise GraphError(
            f"a loop or branch in '{graph.get_name_scope()}' would be nested {made.depth} deep: "
            f"at most {MAX_NESTING} loops and branches can lie in one another"
        )
    _make_room(made.depth)
    with graph.within(made):
        yield made


def parameter(into: Region, type_: TensorType, name: str) -> Tensor:
    """A tensor that stands for a value passed into a region, of this type.

    A size that is not known may be another one in every turn of a loop.
    """
    sizes = type_.sizes
    if sizes is not None:
        sizes = tuple(s if isinstance(s, int) else dims.fresh() for s in sizes)
    attrs = {"dtype": type_.dtype.base_dtype, "shape": sizes}
    tensor = single(create("Parameter", (), attrs, name))
    into.params.append(tensor)
    return tensor


def as_rows(stack: Tensor, row: tuple[DimLike, ...] = ()) -> Tensor:
    """What the turns of a loop have handed out, as rows of this shape, one behind the other."""
    none = single(create("EmptyRows", (constant(0),), {"dtype": stack.dtype, "row": row}))
    return single(create("AsRows", (stack, none)))


def captures(regions: Sequence[Region]) -> list[Tensor]:
    """The tensors from around that the operations of the regions use."""
    found: dict[Tensor, None] = {}
    for r in regions:
        used = [t for op in r.operations for t in op.inputs]
        for t in [*used, *r.results]:
            if not r.encloses(t.op.region):
                found[t] = None
    return list(found)


def awaited(regions: Sequence[Region]) -> list[Operation]:
    """The operations around that those of the regions must run after: so must their owner."""
    before = ((r, c) for r in regions for op in r.operations for c in op.control_inputs)
    return list(dict.fromkeys(c for r, c in before if not r.encloses(c.region)))


def make_owner(
    op_name: str, bodies: Sequence[Region], first: Sequence[Tensor], name: str
) -> Operation:
    """Declare the operation that runs ``bodies``.

    Args:
      op_name: ``While`` or ``Case``.
      bodies: finished regions.
      first: the operands before what the regions use from around: initial values, the selector.
      name: the operation's full name.
    """
    graph = get_default_graph()
    definition = get_op(op_name)
    inputs = [*first, *captures(bodies)]
    attrs = complete_attrs(definition, {"bodies": tuple(bodies), "saved": []})
    types = definition.infer(InferContext(definition, name, inputs, attrs))
    with graph.control_dependencies(awaited(bodies)):
        op = graph.add_operation(definition, inputs, attrs, types, name)
    for body in bodies:
        body.owner = op
    return op


def save_output(op: Operation, tensor: Tensor) -> Tensor:
    """The output of a control operation that hands out ``tensor``, which is in one of its regions.

    Of a loop, these are the values of all turns, stacked.
    """
    saved: list[Tensor] = op.attrs["saved"]
    if tensor not in saved:
        saved.append(tensor)
        definition = op.definition
        ctx = InferContext(definition, op.name, op.inputs, op.attrs)
        op.add_output(definition.infer(ctx)[-1])
    return op.outputs[len(op.outputs) - len(saved) + saved.index(tensor)]


def own_operands(op: Operation) -> int:
    """How many operands come before what the bodies use from around."""
    return len(op.attrs["bodies"][1].params) if op.type == "While" else 1
