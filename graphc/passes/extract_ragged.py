"""Values that a loop hands out of all turns, and whose shape changes from turn to turn.

Such a value is *ragged*.  Its elements of all turns are joined in one vector, a loop variable that
every turn makes longer.  Beside it lie two ordinary stacks: where the elements of a turn begin, and
their shape.  In a compiled function the vector stands for the stack that the user's graph has; what
reads a row of it takes a part out of the vector, what adds to a row adds to the part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, DimLike, Symbol, in_order, symbols_of
from graphc.dtypes import DType
from graphc.errors import InvalidArgumentError
from graphc.function import Input, Late, Output
from graphc.graph import Operation, Tensor, TensorType
from graphc.passes.assume import CompileEnv
from graphc.passes.extract_stretching import StretchingExtractor
from graphc.passes.extractor import Extractor, VariableState

WHOLE = frozenset({"AddN", "AddV2", "Identity", "ZerosLike"})
"""Ops that do the same to the elements of all turns as to the stack."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """How the parts of a ragged value lie in its vector.

    Attributes:
      sizes: the shape in a turn, over sizes that the turn decides.
      offset, shape: stand for the stacks of both, as tensors of the user's graph would.
      sources: for each size that the turn decides, the stack that has it, and the element.
    """

    sizes: tuple[DimLike, ...]
    offset: Tensor
    shape: Tensor
    sources: dict[Symbol, tuple[Tensor, int]]


class RaggedExtractor(StretchingExtractor):
    """Extraction that knows ragged values; see the module's text.

    Attributes:
      rows: rows of ordinary stacks that are there already.
      learnt: the sizes that elements of such rows tell.
    """

    def __init__(
        self,
        feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
        variable_state: Callable[[Operation], VariableState],
        env: CompileEnv,
    ) -> None:
        super().__init__(feeds, variable_state, env)
        self.rows: dict[tuple[Tensor, Tensor], Tensor] = {}
        self.learnt: dict[tuple[Tensor, int], Dim] = {}

    def visit(self, op: Operation) -> None:
        """Copy one operation; over the vector of a ragged value, another one."""
        ragged = [t for t in op.inputs if t in self.env.ragged]
        if not ragged:
            super().visit(op)
        elif op.outputs[0] not in self.map:
            self.note_ancestors(op)
            self.over_parts(op, ragged)

    def over_parts(self, op: Operation, ragged: Sequence[Tensor]) -> None:
        """An operation over ragged values."""
        info = self.env.ragged[ragged[0]]
        out = op.outputs[0]
        if op.type in WHOLE and all(self.env.ragged.get(t) is info for t in op.inputs):
            self.copy(op)
            self.env.ragged[out] = info
        elif op.type == "TakeRow":
            self.map[out] = self.take(op, info)
        elif op.type == "AsRows" and ragged == [op.inputs[0]]:
            self.map[out] = self.as_rows(op, info)
        elif op.type == "LikeParts" and ragged == [op.inputs[1]]:
            self.map[out] = self.like_parts(op)
            self.env.ragged[out] = info
        elif op.type == "PutRow" and len(ragged) == 1 and op.inputs[0] is ragged[0]:
            self.map[out] = self.put(op, info)
            self.env.ragged[out] = info
        else:
            raise shape_changes(op, ragged[0])

    def take(self, op: Operation, info: Ragged) -> Tensor:
        """The part of a turn."""
        x, index = (self.operand(t, op) for t in op.inputs)
        shape = self.row(op, info.shape, index)
        self.env.values[shape] = self.sizes_at(op, info, index)
        return self.emit("TakePart", op, [x, self.row(op, info.offset, index), shape])

    def put(self, op: Operation, info: Ragged) -> Tensor:
        """The vector with another part."""
        x, index, part = (self.operand(t, op) for t in op.inputs)
        for mine, size in zip(part.sizes or (), self.sizes_at(op, info, index), strict=True):
            self.env.assume_equal(mine, size)
        offset = self.row(op, info.offset, index)
        return self.emit("PutPart", op, [x, offset, part], {"add": op.attrs["add"]})

    def as_rows(self, op: Operation, info: Ragged) -> Tensor:
        """The vector as rows: the parts lie in it one behind the other."""
        if any(not symbols_of(s).isdisjoint(info.sources) for s in info.sizes[1:]):
            raise shape_changes(op, op.inputs[0])
        return self.emit("AsRows", op, [self.operand(t, op) for t in op.inputs])

    def like_parts(self, op: Operation) -> Tensor:
        """Rows as such a vector."""
        return self.emit("LikeParts", op, [self.operand(t, op) for t in op.inputs])

    def row(self, op: Operation, stack: Tensor, index: Tensor) -> Tensor:
        """A row of an ordinary stack."""
        found = self.rows.get((stack, index))
        if found is None:
            given = [self.operand(stack, op), index]
            found = self.rows[stack, index] = self.emit("TakeRow", op, given, {"checked": False})
        return found

    def sizes_at(self, op: Operation, info: Ragged, index: Tensor) -> tuple[DimLike, ...]:
        """The shape in a turn: its sizes are learnt from what the loop has handed out."""
        found: dict[Symbol, DimLike] = {}
        for symbol, (stack, element) in info.sources.items():
            row = self.row(op, stack, index)
            if (row, element) not in self.learnt:
                size = self.learnt[row, element] = self.env.new_symbol()
                assert size.as_symbol is not None
                self.env.late.append(Late(size.as_symbol, row, element, None))
            found[symbol] = self.learnt[row, element]
        return tuple(self.env.canonical(dims.substitute(s, found)) for s in info.sizes)


class Stacks:
    """What one loop hands out of all turns.

    Args:
      around: the extraction of the function that the loop is in.
      op: the user's loop.
      body: the extraction of its body, all of whose operations are there.
      symbols: the sizes of loop variables that change from turn to turn; this adds some.
      inner: all sizes that a turn decides.

    Attributes:
      rows: ordinary stacks: what stands for them in the user's graph, and a turn's value.
      vectors: ragged values: the user's output, the loop variable, its next value, its start.
        Where a turn hands out rows of one shape, a loop variable consists of such rows.
    """

    def __init__(
        self, around: Extractor, op: Operation, body: Extractor, symbols: list[Symbol],
        inner: set[Symbol],
    ) -> None:  # fmt: skip
        self.around = around
        self.op = op
        self.body = body
        self.symbols = symbols
        self.inner = inner
        self.env = around.env
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.vectors: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.shapes: dict[Tensor, Tensor] = {}
        self.ragged: list[Tensor] = []

    def save(self, saved: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take the values of the body for the user's outputs."""
        found = []
        for user, out in saved:
            tensor = self.body.operand(user, self.op)
            if user in self.env.ragged:
                raise shape_changes(self.op, user)
            if self.changing(tensor):
                found.append((user, out, tensor))
            else:
                self.rows.append((out, tensor))
        self.ragged = [tensor for _, _, tensor in found]
        for user, out, tensor in found:
            self.join(user, out, tensor)

    def changing(self, tensor: Tensor) -> set[Symbol]:
        """The sizes of a tensor of the body that a turn decides."""
        sizes = (self.env.canonical(s) for s in tensor.sizes or ())
        return {s for size in sizes for s in symbols_of(size)} & self.inner

    def join(self, user: Tensor, out: Tensor, tensor: Tensor) -> None:
        """A ragged value: a vector that grows, and how its parts lie in it."""
        size = self.env.new_symbol()
        assert size.as_symbol is not None
        self.symbols.append(size.as_symbol)
        dtype = tensor.dtype.base_dtype
        sizes = tuple(self.env.canonical(s) for s in tensor.sizes or ())
        # Rows that are alike in all turns stay rows, so that their number can be told.
        row = sizes[1:]
        if any(not symbols_of(s).isdisjoint(self.inner) for s in row):
            row = ()
        name = f"{user.op.name}/parts"
        parts = self.body.placeholder(name, TensorType(dtype, (size, *row)), self.op)
        key = str(len(self.body.inputs))
        self.body.inputs.append(Input("carry", parts, None, key, (size, *row)))
        after = self.body.emit("JoinPart", user.op, [parts, tensor])
        start = empty_rows(self.around, user.op, dtype, row)
        self.vectors.append((out, parts, after, start))
        sources = {s: self.source(user, s) for s in sorted(self.changing(tensor), key=in_order)}
        shape, offset = self.shape_of(tensor), self.shape_of(vector_of(self.body, parts))
        self.env.ragged[out] = Ragged(sizes, offset, shape, sources)

    def shape_of(self, tensor: Tensor) -> Tensor:
        """What stands for the stack of a tensor's shapes."""
        found = self.shapes.get(tensor)
        if found is None:
            value = self.body.emit("Shape", self.op, [tensor], {"out_type": dtypes.int64})
            found = self.shapes[tensor] = self.stack(value)
        return found

    def stack(self, value: Tensor) -> Tensor:
        """An ordinary stack that the user's graph does not have."""
        type_ = TensorType(value.dtype, (dims.fresh(), *(value.sizes or ())))
        out = Tensor(self.op, len(self.op.outputs) + len(self.rows), type_)
        self.rows.append((out, value))
        return out

    def source(self, user: Tensor, symbol: Symbol) -> tuple[Tensor, int]:
        """A stack whose rows have the values of a size, and the element."""
        every = [t for o in self.body.graph.get_operations() for t in o.outputs]
        for tensor in (*self.ragged, *every):
            for k, size in enumerate(tensor.sizes or ()):
                size = self.env.canonical(size)
                if isinstance(size, Dim) and size.as_symbol is symbol:
                    return self.shape_of(tensor), k
        for late in self.env.late:
            if late.symbol is symbol and late.tensor.op.graph is self.body.graph:
                return self.stack(late.tensor), late.element
        raise shape_changes(self.op, user)

    def outputs(self) -> list[Output]:
        """What the body hands out besides the loop variables of the user."""
        first = len(self.body.inputs) - len(self.vectors)
        found = [
            Output("update", after, self.op, str(first + k))
            for k, (_, _, after, _) in enumerate(self.vectors)
        ]
        rows = enumerate(self.rows)
        return found + [Output("result", value, self.op, str(k)) for k, (_, value) in rows]


def empty_rows(
    extractor: Extractor, like: Operation, dtype: DType, row: tuple[DimLike, ...]
) -> Tensor:
    """No rows, of this shape."""
    none = extractor.emit("Const", like, [], {"value": np.array(0, np.int32)})
    return extractor.emit("EmptyRows", like, [none], {"dtype": dtype, "row": row})


def vector_of(extractor: Extractor, parts: Tensor) -> Tensor:
    """The elements of rows in one dimension."""
    if len(parts.sizes or ()) == 1:
        return parts
    like = parts.op
    scalars = empty_rows(extractor, like, parts.dtype.base_dtype, ())
    return extractor.emit("AsRows", like, [parts, scalars])


def shape_changes(op: Operation, tensor: Tensor) -> InvalidArgumentError:
    """The error of a use of a ragged value for which there is no way."""
    return InvalidArgumentError(
        op.node_def, op,
        f"'{op.name}' needs {tensor.name} of every turn of a loop, whose shape changes from turn "
        "to turn, in a way that has no vector of parts",
    )  # fmt: skip
