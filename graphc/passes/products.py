"""Products of one left operand by several right ones made one product, where these are prepared.

The queries, keys and values of attention, say.  The right operands lie one behind the other, and
what is computed from every product in the same way (the sum with a bias, an activation, a view)
is computed from all of them at once; the results are slices, which their readers read in place.

One product is better than several where each is too small for more than one thread, and all
together are not.  Elsewhere it is as good, no better, and would cost a copy of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc import dims
from graphc.build import create
from graphc.dtypes import float32, float64
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.op import TemplateOp
from graphc.ops.base import Binary, Unary, call
from graphc.ops.contraction import TRANSPOSED
from graphc.ops.movement_value import int_tensor
from graphc.passes.plan import is_literal, is_view
from graphc.passes.prepare import over_stable, stable_tensors

SMALL_OPERATIONS = 4_000_000
"""A product of no more operations runs on one thread: ``SERIAL_FLOPS`` of the template."""


@dataclass(frozen=True)
class MergeProducts:
    """Replace products that differ in stable right operands alone by one and its slices."""

    name: str = "products"
    outermost: bool = True

    def run(self, fn: Function) -> Function:
        """The function with fewer products."""
        merges = _Search(fn).merges()
        if not merges:
            return fn
        operands = {t.op for m in merges for t in m.operands()}
        early = ancestors(operands)
        firsts = {m.products[0]: m for m in merges}
        gone = {op for m in merges for op in m.operations()}
        rebuilder = Rebuilder(fn)
        # The right operands come before the first of the products.
        for op in fn.operations:
            if op in early:
                rebuilder.copy(op)
        for op in fn.operations:
            if op in firsts:
                firsts[op].build(rebuilder)
            elif op not in gone and op not in early:
                rebuilder.copy(op)
        return rebuilder.finish()


def ancestors(operations: set[Operation]) -> set[Operation]:
    """The operations and all that they depend on."""
    found: set[Operation] = set()
    stack = list(operations)
    while stack:
        op = stack.pop()
        if op not in found:
            found.add(op)
            stack += [t.op for t in op.inputs]
    return found


@dataclass
class _Merge:
    """Products that become one; ``steps`` are what is computed from each of them alike."""

    products: list[Operation]
    steps: list[list[Operation]] = field(default_factory=list)

    def last(self) -> list[Tensor]:
        """What of every product is read elsewhere."""
        return [op.outputs[0] for op in (self.steps[-1] if self.steps else self.products)]

    def operations(self) -> list[Operation]:
        """All that is replaced."""
        return [op for ops in (self.products, *self.steps) for op in ops]

    def operands(self) -> list[Tensor]:
        """What must have been computed before."""
        mine = set(self.operations())
        found = [op.inputs[1] for op in self.products]
        return found + [
            t for ops in self.steps for op in ops for t in op.inputs if t.op not in mine
        ]

    def build(self, rebuilder: Rebuilder) -> None:
        """Declare the product, the steps and the slices in the place of the first product."""

        def declare(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
            mapped = rebuilder.map
            found = self._product(inputs[0], [mapped[op.inputs[1]] for op in self.products])
            before = self.products
            for ops in self.steps:
                found = self._step(rebuilder, ops, before, found)
                before = ops
            parts = create("Unpack", [found], {"num": len(self.products), "axis": 0}).outputs
            mapped.update(zip(self.last(), parts, strict=True))
            return parts[:1]

        last = self.last()[0]
        rebuilder.expand(self.products[0], declare)
        if self.steps:
            # The product itself is read no more.
            rebuilder.map[self.products[0].outputs[0]] = rebuilder.map[last]

    def _product(self, left: Tensor, rights: list[Tensor]) -> Tensor:
        first = self.products[0]
        rank = len(first.outputs[0].sizes or ())
        stacked = kept_apart(rights, rank)
        ta, tb = (first.attrs[flag] for flag in TRANSPOSED[first.type])
        return call("BatchMatMulV2", left, stacked, adj_x=ta, adj_y=tb)

    def _step(
        self, rebuilder: Rebuilder, ops: list[Operation], before: list[Operation], found: Tensor
    ) -> Tensor:
        first, out = ops[0], ops[0].outputs[0]
        assert out.sizes is not None
        if is_view(first):
            shape = [s if isinstance(s, int) else -1 for s in out.sizes]
            return call("Reshape", found, int_tensor([len(ops), *shape]))
        at = [t.op for t in first.inputs].index(before[0])
        operands = []
        for k in range(len(first.inputs)):
            if k == at:
                operands.append(found)
                continue
            others = [rebuilder.map[op.inputs[k]] for op in ops]
            same = all(is_literal(op.inputs[k]) for op in ops) and len(set(others)) == 1
            operands.append(others[0] if same else kept_apart(others, len(out.sizes)))
        if first.type == "BiasAdd":
            return call("AddV2", *operands)
        (made,) = create(first.type, operands, dict(first.attrs)).outputs
        return made


def kept_apart(tensors: Sequence[Tensor], rank: int) -> Tensor:
    """Stable tensors along a new first dimension, prepared, to be broadcast to one more rank."""
    sizes = tensors[0].sizes
    assert sizes is not None
    stacked = create("Pack", [list(tensors)], {"axis": 0}).outputs[0]
    if len(sizes) < rank:
        ones = [1] * (rank - len(sizes))
        shape = [s for s in sizes if isinstance(s, int)]
        stacked = call("Reshape", stacked, int_tensor([len(tensors), *ones, *shape]))
    return call("Prepared", stacked)


class _Search:
    """Finds what can be merged in a function."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.results = set(fn.results())
        self.readers: dict[Tensor, list[Operation]] = {}
        self.stable: set[Tensor] = set()

    def merges(self) -> list[_Merge]:
        """The products to make one of, each with all that can go with it."""
        alike: dict[object, list[Operation]] = {}
        for op in over_stable(self.fn, suits):
            flags = tuple(op.attrs[flag] for flag in TRANSPOSED[op.type])
            key = (op.type, op.inputs[0], flags, op.inputs[1].sizes)
            alike.setdefault(key, []).append(op)
        groups = [ops for ops in alike.values() if gains(ops)]
        if not groups:
            return []
        self.stable = stable_tensors(self.fn)
        for op in self.fn.operations:
            for t in op.inputs:
                self.readers.setdefault(t, []).append(op)
        found = [self._followed(ops) for ops in groups if ops[0].inputs[0] not in self.stable]
        return [m for m in found if all(self._read_in_place(t) for t in m.last())]

    def _followed(self, products: list[Operation]) -> _Merge:
        """The products with the steps that all of them take alike."""
        merge = _Merge(products)
        while True:
            readers = [self.readers.get(t, []) for t in merge.last()]
            if any(len(ops) != 1 for ops in readers) or self.results & set(merge.last()):
                return merge
            steps = [ops[0] for ops in readers]
            if len(set(steps)) < len(steps) or not self._alike(steps, merge.last()):
                return merge
            merge.steps.append(steps)

    def _alike(self, steps: list[Operation], sources: list[Tensor]) -> bool:
        """Whether the steps are one operation of all their sources."""
        first, out = steps[0], steps[0].outputs[0]
        if any(
            op.type != first.type or op.attrs != first.attrs or op.outputs[0].type != out.type
            for op in steps
        ):
            return False
        at = [list(op.inputs).index(t) for op, t in zip(steps, sources, strict=True)]
        if is_view(first):
            unknown = [s for s in out.sizes or (None, None) if not isinstance(s, int)]
            return at == [0] * len(steps) and len(unknown) <= 1 and 0 not in (out.sizes or ())
        if len(set(at)) > 1 or out.sizes != sources[0].sizes:
            return False
        if not isinstance(first.definition, (Unary, Binary)) and not plain_bias(first):
            return False
        if first.definition.can_fail(first) or len(first.inputs) > 2:
            return False
        return all(
            len({op.inputs[k].sizes for op in steps}) == 1
            and all(op.inputs[k] in self.stable for op in steps)
            for k in range(len(first.inputs))
            if k != at[0]
        )

    def _read_in_place(self, tensor: Tensor) -> bool:
        """Whether nothing wants the tensor itself, nor would be computed with the product.

        Products read their operands where these are, transposed ones too.  What a product's own
        kernel would compute from its results has to stay behind it.
        """
        if tensor in self.results:
            return False
        return all(
            op.type == "Transpose" or isinstance(op.definition, TemplateOp)
            for op in self.readers.get(tensor, [])
        )


def plain_bias(op: Operation) -> bool:
    """Whether a bias is added along the last dimension."""
    rank = len(op.outputs[0].sizes or ())
    return op.type == "BiasAdd" and (op.attrs["data_format"] == "NHWC" or rank == 2)


def suits(op: Operation) -> bool:
    """Whether a product has the form for it: stacked matrices make a batch."""
    if op.type not in TRANSPOSED or op.outputs[0].dtype.base_dtype not in (float32, float64):
        return False
    right = op.inputs[1].sizes
    return op.outputs[0].sizes is not None and right is not None and len(right) == 2


def gains(products: list[Operation]) -> bool:
    """Whether one product is faster than several of one form; for unknown rows: whether it may be.

    It is no slower for rows that are more.
    """
    rows = dims.product((products[0].outputs[0].sizes or ())[:-1])
    operations = dims.product((2, *(products[0].inputs[1].sizes or ())))
    if len(products) == 1 or not isinstance(operations, int) or operations == 0:
        return False
    if not isinstance(rows, int):
        return operations <= SMALL_OPERATIONS
    alone = rows * operations
    return alone <= SMALL_OPERATIONS < alone * len(products)
