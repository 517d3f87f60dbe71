"""A template's group: inlined operands become its prologue, members its epilogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from graphc.dims import DimLike, floordiv, product
from graphc.errors import CompileError
from graphc.graph import Operation
from graphc.kernels.attention import Attention, attention_kernel
from graphc.kernels.attention_gradient import attention_gradient_kernel
from graphc.kernels.attention_gradient_problem import AttentionGradient
from graphc.kernels.contraction import contraction_kernel
from graphc.kernels.problem import Contraction, accumulator
from graphc.kernels.scan import scan_kernel
from graphc.kernels.scatter import (
    positions_kernel,
    put_part_kernel,
    put_row_kernel,
    scatter_add_kernel,
)
from graphc.kernels.sort import first_sorted_kernel
from graphc.kernels.tiling import Tiles
from graphc.kernels.windows import Windows, windows_kernel
from graphc.loop import ir
from graphc.loop.ir import ZERO, Expr, Kernel, Stmt, Var
from graphc.lower_attention import attention_gradient_of, attention_of
from graphc.lower_operands import GroupOperands, Index, Reader
from graphc.op import ContractionForm, ContractionOp, ScanOp, TemplateOp
from graphc.ops.reduction import axes_of
from graphc.passes.plan import Member


class TemplateLowering(GroupOperands):
    """Lowers the group of an operation that a template computes.

    ``tiles``, of a contraction, are taken instead of those that the template estimates to be best;
    ``contracted``, ``attended`` or ``descended`` is the problem that it solves; ``arguments`` are
    those of the template of a scan or a sort.
    """

    tiles: Tiles | None = None
    contracted: Contraction | None = None
    attended: Attention | None = None
    descended: AttentionGradient | None = None
    arguments: Mapping[str, Any] = MappingProxyType({})

    def prepare(self) -> Callable[[], Kernel]:
        """Settle the parameters; what is returned builds the kernel."""
        op = self.group.template
        assert op is not None
        if isinstance(op.definition, ContractionOp):
            return self.contraction()
        assert isinstance(op.definition, TemplateOp)
        build = {
            "scatter_add": self.scatter_add, "put_row": self.put_row, "positions": self.positions,
            "put_part": self.put_part, "scan": self.scan, "first_sorted": self.first_sorted,
            "windows": self.windows, "attention": self.attention,
            "attention_gradient": self.attention_gradient,
        }.get(op.definition.template)  # fmt: skip
        if build is None:
            raise CompileError(f"no template computes {op.type}")
        return build(op)

    def contraction(self) -> Callable[[], Kernel]:
        """The group's anchor as a contraction with prologue and epilogue."""
        op = self.group.template
        assert op is not None
        assert isinstance(op.definition, ContractionOp)
        form = op.definition.contraction(Reader(self, op, 0))
        problem = self.problem(op, form)
        self.declare(form, problem.epilogue)
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        target = self.lowering.target
        self.contracted = problem
        return lambda: contraction_kernel(
            self.name, params, scalars, problem, target, self.tiles
        )

    def problem(self, op: Operation, form: ContractionForm) -> Contraction:
        """The contraction over the kernel's parameters, with its epilogue."""
        out = op.outputs[0]

        def epilogue(b: Index, m: Index, n: Expr, acc: Expr) -> tuple[Stmt, ...]:
            self.memo.clear()
            index = form.index(b, m, n)
            value = ir.cast(acc, out.dtype.base_dtype)
            self.remember(Member(out, "point", ()), index, value)
            stores = []
            if out in self.group.outputs:
                stores.append(self.store(out, index, value))
            return (*stores, *self.epilogue_stores(index))

        return Contraction(
            batch=tuple(self.size(s) for s in form.batch),
            m=tuple(self.size(s) for s in form.m),
            n=self.size(form.n),
            k=tuple(self.size(s) for s in form.k),
            acc=accumulator(out.dtype.base_dtype),
            lhs=form.lhs,
            rhs=form.rhs,
            epilogue=epilogue,
        )

    def scatter_add(self, op: Operation) -> Callable[[], Kernel]:
        """Rows of updates added to zeros; nothing may be fused behind it."""
        reader, out = Reader(self, op, 0), op.outputs[0]
        assert out.sizes is not None
        assert op.inputs[2].sizes is not None
        rows, columns = out.sizes[0], product(out.sizes[1:])
        shape = op.inputs[2].sizes

        def update(i: Expr, column: Expr) -> Expr:
            index = [column] if len(shape) == 2 else delinearize(self, column, shape[1:])
            return reader.operand(2, (i, *index) if len(shape) > 1 else (i,))

        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None
        probe = Var("i")
        reader.operand(1, (probe,))
        update(probe, Var("c"))
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        self.arguments = arguments = dict[str, Any](
            rows=self.size(rows), count=self.size(shape[0]), columns=self.size(columns),
            index=lambda i: reader.operand(1, (i,)), update=update, out=buffer,
        )  # fmt: skip
        return lambda: scatter_add_kernel(self.name, params, scalars, **arguments)

    def positions(self, op: Operation) -> Callable[[], Kernel]:
        """The positions of true elements, one after the other."""
        reader, out, sizes = Reader(self, op, 0), op.outputs[0], op.inputs[0].sizes
        assert sizes is not None
        assert out.sizes is not None
        shape = sizes

        def condition(flat: Expr) -> Expr:
            return reader.operand(0, delinearize(self, flat, shape))

        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None
        condition(Var("i"))
        extents = {"size": self.size(product(shape)), "count": self.size(out.sizes[0])}
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        return lambda: positions_kernel(
            self.name, params, scalars, **extents, condition=condition, out=buffer
        )

    def scan(self, op: Operation) -> Callable[[], Kernel]:
        """Running sums or products along one dimension."""
        reader, out, sizes = Reader(self, op, 0), op.outputs[0], op.inputs[0].sizes
        assert sizes is not None
        shape = sizes
        assert isinstance(op.definition, ScanOp)
        combine = op.definition.op
        (axis,) = axes_of(op, 1, len(sizes))
        before, after = shape[:axis], shape[axis + 1 :]

        def element(o: Expr, i: Expr, column: Expr) -> Expr:
            index = (*delinearize(self, o, before), i, *delinearize(self, column, after))
            return reader.operand(0, index)

        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None
        element(*(Var(name) for name in "oic"))
        extents = {
            "outer": self.size(product(before)), "length": self.size(shape[axis]),
            "inner": self.size(product(after)),
        }  # fmt: skip
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        dtype = out.dtype.base_dtype
        self.arguments = arguments = dict(
            **extents, element=element, out=buffer, op=combine, acc=dtype.accumulator,
            exclusive=op.attrs["exclusive"], reverse=op.attrs["reverse"],
        )  # fmt: skip
        return lambda: scan_kernel(self.name, params, scalars, **arguments)

    def first_sorted(self, op: Operation) -> Callable[[], Kernel]:
        """The first elements of every row in order, and where they stood."""
        reader, sizes = Reader(self, op, 0), op.inputs[0].sizes
        kept = op.outputs[0].sizes
        assert sizes is not None
        assert kept is not None
        shape = sizes

        def element(row: Expr, i: Expr) -> Expr:
            return reader.operand(0, (*delinearize(self, row, shape[:-1]), i))

        values, places = (self.buffer(t) for t in op.outputs)
        self.writes.update((self.lowering.storage(t), None) for t in op.outputs)
        element(Var("r"), Var("i"))
        site = None
        if op.definition.can_fail(op):
            site = reader.site("input must have at least k columns. Had %d, needed %d")
        extents = {
            "rows": self.size(product(shape[:-1])), "columns": self.size(shape[-1]),
            "count": self.size(kept[-1]),
        }  # fmt: skip
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        self.arguments = arguments = dict(
            **extents, site=site, element=element, descending=op.attrs["descending"],
            values=values, places=places,
        )  # fmt: skip
        return lambda: first_sorted_kernel(self.name, params, scalars, **arguments)

    def attention(self, op: Operation) -> Callable[[], Kernel]:
        """Softmax of scaled scores, times the values."""
        self.attended = problem = attention_of(self, op)
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        target = self.lowering.target
        return lambda: attention_kernel(self.name, params, scalars, problem, target)

    def attention_gradient(self, op: Operation) -> Callable[[], Kernel]:
        """The gradients of attention, its weights computed again."""
        self.descended = problem = attention_gradient_of(self, op)
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        target = self.lowering.target
        return lambda: attention_gradient_kernel(self.name, params, scalars, problem, target)

    def windows(self, op: Operation) -> Callable[[], Kernel]:
        """Products added up where the taps of windows fall on an image."""
        reader, out = Reader(self, op, 0), op.outputs[0]
        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None
        probe = Var("i")
        reader.operand(0, (probe,) * 4)
        reader.operand(1, (probe,) * 3)
        shape = self.windows_on_images(reader)
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        return lambda: windows_kernel(
            self.name, params, scalars, windows=shape, target=self.lowering.target, out=buffer,
            gradient=lambda *at: reader.operand(0, at), weight=lambda *at: reader.operand(1, at),
        )  # fmt: skip

    def windows_on_images(self, reader: Reader) -> Windows:
        """The windows of an operation that adds up what they give, over the parameters."""
        (images, oh, ow, depth), (kh, _, run) = reader.sizes(0), reader.sizes(1)
        attrs = reader.op.attrs
        (sh, sw), (top, left), channels = attrs["strides"], attrs["before"], attrs["channels"]
        height, width = (self.size(s) for s in attrs["sizes"])
        return Windows(
            self.size(images), (height, width), self.size(channels), (top, left),
            (self.size(oh), self.size(ow)), self.size(depth),
            (self.size(kh), self.size(floordiv(run, channels))), (sh, sw), attrs["dilations"][0],
        )  # fmt: skip

    def put_row(self, op: Operation) -> Callable[[], Kernel]:
        """One row replaced; the others are copied, unless they are in place."""
        reader, out = Reader(self, op, 0), op.outputs[0]
        x, sizes, shape = op.inputs[0], out.sizes, op.inputs[2].sizes
        assert sizes is not None
        assert shape is not None
        inplace = self.lowering.storage(out) is self.lowering.storage(x)
        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None

        def row(column: Expr) -> Expr:
            return reader.operand(2, delinearize(self, column, shape) if shape else ())

        old = x.sizes
        assert old is not None

        def kept(flat: Expr) -> Expr:
            index = delinearize(self, flat, sizes)
            value = reader.operand(0, index)
            if old[0] == sizes[0]:
                return value
            return ir.Guard(index[0] < self.size(old[0]), value, ir.Const(0, value.dtype))

        site = None
        if op.definition.can_fail(op):
            site = reader.site("index %d is out of range")
        probe = Var("c")
        reader.operand(1, ())
        row(probe)
        if not inplace:
            kept(probe)
        extents = {"rows": self.size(sizes[0]), "columns": self.size(product(shape))}
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        return lambda: put_row_kernel(
            self.name, params, scalars, **extents, index=reader.operand(1, ()), site=site,
            row=row, kept=None if inplace else kept, add=op.attrs.get("add", False), out=buffer,
        )  # fmt: skip

    def put_part(self, op: Operation) -> Callable[[], Kernel]:
        """Elements put into others, or behind them; these are copied, unless in place."""
        reader, x, out = Reader(self, op, 0), op.inputs[0], op.outputs[0]
        number = len(op.inputs) - 1
        old, new, shape = x.sizes, out.sizes, op.inputs[number].sizes
        assert old is not None
        assert new is not None
        assert shape is not None
        inplace = self.lowering.storage(out) is self.lowering.storage(x)
        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None

        def part(flat: Expr) -> Expr:
            return reader.operand(number, delinearize(self, flat, shape) if shape else ())

        def kept(flat: Expr) -> Expr:
            return reader.operand(0, delinearize(self, flat, old))

        before, size = self.size(product(old)), self.size(product(new))

        def offset() -> Expr:
            return reader.operand(1, (ZERO,)) if number == 2 else before

        probe = Var("c")
        offset()
        part(probe)
        if not inplace:
            kept(probe)
        count = self.size(product(shape))
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        return lambda: put_part_kernel(
            self.name, params, scalars, before=before, size=size, count=count, offset=offset(),
            part=part, kept=None if inplace else kept, add=op.attrs.get("add", False), out=buffer,
        )  # fmt: skip

    def epilogue_stores(self, index: Index) -> list[Stmt]:
        """The group's members at an index of the output domain."""
        at = tuple(index)
        frame = self.group.frame
        at = tuple(ZERO if s == 1 else x for s, x in zip(frame, at, strict=True))
        if at != tuple(index):
            assert self.group.template is not None
            out = self.group.template.outputs[0]
            self.memo[(out, tuple(id(x) for x in at))] = self.memo[
                (out, tuple(id(x) for x in index))
            ]
            self.keep.append(at)
        return self.store_stage(self.group.members, at)

    def declare(self, form: Any, epilogue: Callable[..., Any]) -> None:
        """Touch every operand and output once, so that all parameters are known beforehand."""
        b = tuple(Var("b") for _ in form.batch)
        m, k = tuple(Var("m") for _ in form.m), tuple(Var("k") for _ in form.k)
        n = Var("n")
        form.lhs(b, m, k)
        form.rhs(b, k, n)
        assert self.group.template is not None
        dtype = accumulator(self.group.template.outputs[0].dtype.base_dtype)
        epilogue(b, m, n, Var("acc", dtype))
        self.memo.clear()


def delinearize(lowering: GroupOperands, flat: Expr, sizes: Sequence[DimLike]) -> Index:
    """The index whose row-major offset is ``flat``."""
    index: list[Expr] = []
    for k, size in enumerate(sizes):
        stride = lowering.size(product(sizes[k + 1 :]))
        at = ir.index_div(flat, stride)
        index.append(at if k == 0 else ir.index_mod(at, lowering.size(size)))
    return tuple(index)
