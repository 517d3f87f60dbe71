"""What is computed at its uses and what is stored, and what an element reads through that."""

from __future__ import annotations

from graphc import dims
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.op import ElementOp, ReductionOp, TemplateOp
from graphc.ops.host import calls_host
from graphc.passes.plan import is_literal, is_view, only_unit_dims
from graphc.passes.trace import Index, Trace, trace

CHEAP = 2
MAX_INLINE_COST = 160


def loaded(op: Operation) -> list[Tensor]:
    """The operands whose elements come from memory or are computed: no literals, no mere shapes."""
    unread = op.definition.shape_operands
    return [t for k, t in enumerate(op.inputs) if k not in unread and not is_literal(t)]


def read_once(tensor: Tensor, op: Operation) -> bool:
    """Whether a template reads each of these elements once, and no others in their place."""
    once = op.definition.once if isinstance(op.definition, TemplateOp) else ()
    return bool(once) and all(k in once for k, t in enumerate(op.inputs) if t is tensor)


class Inliner:
    """Decides for every elementwise tensor whether it is *inlined*, an alias or stored."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.results = set(fn.results())
        self.traces: dict[Tensor, Trace] = {}
        self.inlined: set[Tensor] = set()
        self.aliases: dict[Tensor, Tensor] = {}
        self.costs: dict[Tensor, int] = {}
        self.deep: dict[Tensor, list[tuple[Tensor, Index]]] = {}
        self.hosted = any(calls_host(op) for op in fn.operations)
        self.consumers: dict[Tensor, list[Operation]] = {}
        for op in fn.operations:
            for t in dict.fromkeys(self.operands(op)):
                self.consumers.setdefault(t, []).append(op)

    def operands(self, op: Operation) -> list[Tensor]:
        """The operands whose elements the operation reads, not only their shapes."""
        if isinstance(op.definition, (ElementOp, ReductionOp)):
            return [t for out in op.outputs for t, _ in self.trace(out).reads]
        unread = op.definition.shape_operands
        return [t for k, t in enumerate(op.inputs) if k not in unread]

    def trace(self, tensor: Tensor) -> Trace:
        """The trace of a tensor, computed once."""
        found = self.traces.get(tensor)
        if found is None:
            found = self.traces[tensor] = trace(tensor)
        return found

    def root(self, tensor: Tensor) -> Tensor:
        """The tensor whose storage this one uses."""
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor

    def decide(self) -> None:
        """Choose for every elementwise tensor whether it is inlined, an alias or stored."""
        for op in self.fn.operations:
            if not isinstance(op.definition, ElementOp):
                continue
            for tensor in op.outputs:
                if is_view(op) and self.has_storage(op.inputs[0]):
                    self.aliases[tensor] = op.inputs[0]
                    continue
                self.costs[tensor] = self.trace(tensor).cost + sum(
                    self.costs.get(t, 1) if t in self.inlined else 1 for t in loaded(op)
                )  # fmt: skip
                if self.may_inline(tensor):
                    self.inlined.add(tensor)

    def has_storage(self, tensor: Tensor) -> bool:
        """Whether the tensor is in memory, or an alias of what is."""
        return tensor not in self.inlined and not is_literal(tensor)

    def may_inline(self, tensor: Tensor) -> bool:
        """Whether computing ``tensor`` at its uses is right and cheaper than storing it."""
        uses = self.consumers.get(tensor, [])
        if tensor in self.results:
            return False
        if tensor.op.definition.can_fail(tensor.op) and not self.summed_up(tensor, uses):
            return False
        cost = self.costs[tensor]
        if cost > MAX_INLINE_COST:
            return False
        free = cost - len(loaded(tensor.op)) <= 0
        for op in uses:
            if "bodies" in op.attrs or op.type == "Host":
                return False
            if isinstance(op.definition, TemplateOp):
                definition, inputs = op.definition, op.inputs
                dense = any(inputs[k] is tensor for k in definition.dense(op))
                moved = free and self.moved(tensor)
                if dense or not (moved or read_once(tensor, op)):
                    return False
                continue
            turned = is_view(op) and not (only_unit_dims(op) or self.taken_by_row(op))
            if turned or (cost > CHEAP and self.repeats(tensor, op)):
                return False
        return len(uses) <= 1 or cost <= CHEAP

    def summed_up(self, tensor: Tensor, uses: list[Operation]) -> bool:
        """Whether its only use is a reduction that reads each element once, whatever they are.

        What can fail then fails there.  Among operations in Python it has its place in their order.
        """
        if self.hosted or len(uses) != 1 or not isinstance(uses[0].definition, ReductionOp):
            return False
        outputs = uses[0].outputs
        info = self.trace(outputs[0])
        return (
            len(outputs) == 1 and not info.guarded
            and info.reads_all(outputs[0].sizes or (), tensor)
        )  # fmt: skip

    def taken_by_row(self, view: Operation) -> bool:
        """Whether a template alone reads a view, once and by rows that are the viewed one's, too.

        It takes indices apart for each row then, not for each element.
        """
        (inner,), (out,) = view.inputs[:1], view.outputs
        uses = self.consumers.get(out, [])
        alone = len(uses) == 1 and out not in self.results and read_once(out, uses[0])
        return alone and (inner.sizes or ())[-1:] == (out.sizes or ())[-1:] != ()

    def checked(self, tensor: Tensor) -> Tensor:
        """The stored tensor whose computation finds out whether this one fails."""
        while tensor in self.inlined:
            (use,) = self.consumers[tensor]
            tensor = use.outputs[0]
        return tensor

    def moved(self, tensor: Tensor) -> bool:
        """Whether the elements are others' in memory, in another place and no more."""
        return self.trace(tensor).moves and all(
            t not in self.inlined or self.moved(t) for t in tensor.op.inputs
        )

    def repeats(self, tensor: Tensor, op: Operation) -> bool:
        """Whether ``op`` reads elements of ``tensor`` more than once."""
        assert tensor.sizes is not None
        size = dims.product(tensor.sizes)
        for out in op.outputs:
            if isinstance(op.definition, (ElementOp, ReductionOp)):
                info = self.trace(out)
                if out.sizes == tensor.sizes and not info.extents:
                    continue
                domain = dims.product((*(out.sizes or ()), *info.extents))
                if domain != size and not (
                    isinstance(domain, int) and isinstance(size, int) and domain < size
                ):
                    return True
        return False

    def surely(self, tensor: Tensor) -> set[Tensor]:
        """The stored tensors that each element of this one depends on, whatever others are."""
        info = self.trace(tensor)
        found: set[Tensor] = set()
        if info.depends:
            for read, _ in info.reads:
                found |= self.surely(read) if read in self.inlined else {read}
        return found

    # --- reads through inlined tensors -----------------------------------------------------------

    def reads(self, tensor: Tensor) -> list[tuple[Tensor, Index]]:
        """The stored elements that one element of ``tensor`` needs, inlined tensors seen through.

        The indices are over the variables of ``trace(tensor)``.
        """
        found = self.deep.get(tensor)
        if found is None:
            found = []
            for read, index in self.trace(tensor).reads:
                found += self.expand(read, index)
            self.deep[tensor] = found
        return found

    def expand(self, tensor: Tensor, index: Index) -> list[tuple[Tensor, Index]]:
        """One read, expanded until it meets stored tensors."""
        if tensor not in self.inlined:
            return [(tensor, index)]
        info = self.trace(tensor)
        binding = dict(zip(info.out, index, strict=True))
        found = []
        for read, at in self.reads(tensor):
            found.append((read, tuple(ir.substitute(x, binding) for x in at)))
        return found
