"""Work that is the same in every turn of a loop is done once, before it."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dims import product, symbols_of
from graphc.function import Function, Input, Rebuilder, with_expanded
from graphc.graph import Operation, Tensor
from graphc.op import ElementOp, SpecialOp
from graphc.ops.base import call
from graphc.ops.movement_value import int_tensor
from graphc.passes.basic import DeadCode


def hoist(
    rebuilder: Rebuilder, body: Function, operands: Sequence[Tensor]
) -> tuple[Function, list[Tensor]]:
    """Compute before the loop what every turn would compute the same way.

    Returns the body, and the tensors of the function around that it captures besides: they are
    numbered behind ``operands``.
    """
    body = with_turned_operands(body)
    outside = {i.tensor: int(i.key) for i in body.inputs if not i.key.startswith("carry")}
    invariant = invariant_operations(body, set(outside))
    worth = [op for op in invariant if is_work(op, body.operations)]
    if not worth:
        return body, []
    moved: set[Operation] = set()
    stack = list(worth)
    while stack:
        op = stack.pop()
        if op not in moved and op.type != "Placeholder":
            moved.add(op)
            stack.extend(t.op for t in op.inputs)
    place: dict[Tensor, Tensor] = {t: operands[k] for t, k in outside.items()}
    for op in body.operations:
        if op in moved:
            copy_into(rebuilder, body, op, place)
    inner = Rebuilder(body)
    taken: list[Tensor] = []
    inputs: list[Input] = []
    heavy = {t for op in worth for t in op.outputs}
    for op in body.operations:
        if op.outputs and op.outputs[0] in heavy:
            for t in op.outputs:
                new = placeholder(inner, op, t)
                number = len(operands) + len(taken)
                taken.append(place[t])
                inputs.append(Input("capture", new, None, str(number), new.sizes or ()))
        else:
            inner.copy(op)
    fn = inner.finish()
    used = {t for op in fn.operations for t in op.inputs} | set(fn.results())
    fn.inputs = fn.inputs + [i for i in inputs if i.tensor in used]
    return DeadCode().run(fn), taken


def with_turned_operands(body: Function) -> Function:
    """The body with products that read an invariant right operand along its rows.

    Across them it would be brought into another order in every turn.
    """
    outside = {i.tensor for i in body.inputs if not i.key.startswith("carry")}
    known = outside | {
        t for op in invariant_operations(body, outside) for t in op.outputs
    }
    chosen = [
        op for op in body.operations
        if op.type == "MatMul" and op.attrs["transpose_b"] and op.inputs[1] in known
    ]  # fmt: skip
    return with_expanded(body, chosen, _over_turned)


def _over_turned(op: Operation, inputs: Sequence[Tensor]) -> list[Tensor]:
    turned = call("Transpose", inputs[1], int_tensor([1, 0]))
    return [call("MatMul", inputs[0], turned, **op.attrs | {"transpose_b": False})]


def invariant_operations(body: Function, outside: set[Tensor]) -> list[Operation]:
    """The operations of a body that depend on nothing that changes from turn to turn.

    What has a size that the body learns stays: around the body nobody knows it.
    """
    late = {s.tensor for s in body.late}
    own = set(body.binders())
    found: list[Operation] = []
    known = set(outside)
    for op in body.operations:
        if op.type == "Placeholder" or "bodies" in op.attrs or not late.isdisjoint(op.outputs):
            continue
        if any(not own.isdisjoint(symbols_of(s)) for t in op.outputs for s in t.sizes or ()):
            continue
        special = isinstance(op.definition, SpecialOp) and op.type != "Const"
        if special or not op.definition.pure or op.definition.can_fail(op):
            continue
        if all(t in known for t in op.inputs):
            found.append(op)
            known.update(op.outputs)
    return found


def is_work(op: Operation, readers: Sequence[Operation]) -> bool:
    """Whether doing an operation once, and keeping what it gives, saves anything."""
    if op.type == "Const" or getattr(op.definition, "view", False):
        return False
    if op.definition.prepared:
        return True
    if op.type == "Transpose":
        # Others are read in place; see with_turned_operands.
        return any(o.type == "MatMul" and op.outputs[0] is o.inputs[1] for o in readers)
    if not isinstance(op.definition, ElementOp):
        return True
    sizes = [product(t.sizes or ()) for t in op.outputs]
    given = [product(t.sizes or ()) for t in op.inputs]
    # What only spreads or moves elements is read in place.
    return bool(getattr(op.definition, "fn", "")) and any(s in given for s in sizes)


def placeholder(inner: Rebuilder, op: Operation, tensor: Tensor) -> Tensor:
    """What stands in the body for a tensor that is computed before the loop."""
    name = inner.graph.unique_name(op.name)
    definition = next(
        o.definition for o in inner.old.operations if o.type == "Placeholder"
    )
    attrs = {"dtype": tensor.dtype, "shape": tensor.sizes}
    new = inner.graph.add_operation(definition, (), attrs, [tensor.type], name, op.location)
    if op.name in inner.old.origin:
        inner.origin[name] = inner.old.origin[op.name]
    inner.map[tensor] = new.outputs[0]
    return new.outputs[0]


def copy_into(
    rebuilder: Rebuilder, body: Function, op: Operation, place: dict[Tensor, Tensor]
) -> None:
    """A copy of an operation of a body in the function around."""
    graph = rebuilder.graph
    name = op.name if op.name not in graph._ops else graph.unique_name(op.name)
    types = [t.type for t in op.outputs]
    inputs = [place[t] for t in op.inputs]
    new = graph.add_operation(op.definition, inputs, op.attrs, types, name, op.location)
    if op.name in body.origin:
        rebuilder.origin[name] = body.origin[op.name]
    for a, b in zip(op.outputs, new.outputs, strict=True):
        place[a] = b
        if body.env is not None:
            body.env.stands_for(b, a)
