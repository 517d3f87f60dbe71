"""The extraction of one graph or body: see :mod:`graphc.passes.extract`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.backward import variable_read
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError, GraphcError, InvalidArgumentError
from graphc.function import Input, Output
from graphc.graph import Graph, Operation, Tensor, TensorType
from graphc.op import InferContext, get_op, value_sizes
from graphc.ops.host import HostOp, is_host
from graphc.ops.random import stateless_form
from graphc.ops.state import assigned_variable, is_assignment
from graphc.passes.assume import CompileEnv, RanksNeeded, RowsKnown, ValuesNeeded
from graphc.passes.extract_errors import (
    fed_variable_assigned,
    missing_feed,
    shape_mismatch,
    uninitialized,
)
from graphc.passes.extract_graph import needed_operations, refine, small_integers
from graphc.passes.extract_host import extract_host, needs_rank, not_beforehand


@dataclass(frozen=True)
class VariableState:
    """What the session knows of a variable when the function is extracted."""

    dtype: DType
    shape: tuple[int, ...] | None
    initialized: bool


class Extractor:
    """One extraction; see the module's text."""

    def __init__(
        self,
        feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
        variable_state: Callable[[Operation], VariableState],
        env: CompileEnv,
    ) -> None:
        self.feeds = feeds
        self.variable_state = variable_state
        self.env = env
        self.graph = Graph()
        self.graph.env = env
        env.graphs.append(self.graph)
        self.map: dict[Tensor, Tensor] = {}
        self.inputs: list[Input] = []
        self.origin: dict[str, Operation] = {}
        self.chains: dict[Operation, list[tuple[Operation, Tensor]]] = {}
        self.before: dict[str, Tensor] = {}
        self.consulted: set[str] = set()
        self.constants: dict[Tensor, Tensor] = {}
        self.counters: dict[str, Output] = {}
        self.ancestors: dict[Operation, frozenset[Operation]] = {}
        self.assigning: dict[Operation, bool] = {}

    # --- the boundary -------------------------------------------------------------------------

    def add_input(
        self, kind: Any, key: str, dtype: DType, sizes: tuple[DimLike, ...], source: Any
    ) -> Tensor:
        """A placeholder of the function for something that comes from outside."""
        name = key.replace(":", "_").replace("^", "")
        like = source if isinstance(source, Operation) else source.op
        tensor = self.placeholder(name, TensorType(dtype, sizes), like)
        self.inputs.append(Input(kind, tensor, source, key, sizes))
        return tensor

    def feed_inputs(self) -> None:
        """Placeholders for the feeds; unknown dims get canonical symbols."""
        for tensor, shape in self.feeds.items():
            sizes = tuple(self.env.new_symbol() if s is None else s for s in shape)
            dtype = tensor.dtype.base_dtype
            self.map[tensor] = self.add_input("feed", tensor.name, dtype, sizes, tensor)
            self.env.user[self.map[tensor]] = tensor

    def variable_before(self, variable: Operation, unchecked: bool = False) -> Tensor:
        """The variable's value before the run."""
        key = variable.name
        if key not in self.before:
            state = self.variable_state(variable)
            sizes = state.shape
            if sizes is None or not (state.initialized or unchecked):
                raise uninitialized(variable)
            self.before[key] = self.add_input("variable", key, state.dtype, sizes, variable)
        return self.before[key]

    # --- state --------------------------------------------------------------------------------

    def note_ancestors(self, op: Operation) -> None:
        """Which assignments the operation depends on, and whether it depends on a host step."""
        definition = op.definition
        hosted = self.env.hosted
        once = isinstance(definition, HostOp) and not definition.repeatable(op)
        if once or not hosted.isdisjoint(t.op for t in op.inputs):
            hosted.add(op)
        found: set[Operation] = set()
        for before in {*(t.op for t in op.inputs), *op.control_inputs}:
            found |= self.ancestors.get(before, frozenset())
            if self.assigns(before):
                found.add(before)
        self.ancestors[op] = frozenset(found)

    def assigns(self, op: Operation) -> bool:
        """Whether the operation changes a variable."""
        return is_assignment(op)

    def variable_of(self, tensor: Tensor) -> Operation | None:
        """The variable that a tensor is an alias of: its handle or its cached ``v/read``."""
        return variable_read(tensor)

    def read(self, variable: Operation, reader: Operation | None) -> Tensor:
        """The version of the variable that ``reader`` sees; None reads after the run."""
        chain = self.chains.get(variable, [])
        for assignment, value in reversed(chain):
            if reader is None or assignment in self.ancestors[reader]:
                return value
        return self.variable_before(variable)

    def operand(self, tensor: Tensor, reader: Operation | None) -> Tensor:
        """The function's tensor for an operand of ``reader``."""
        if tensor in self.env.known and tensor not in self.constants:
            self.constants[tensor] = self.known_constant(tensor)
        if tensor in self.constants:
            return self.constants[tensor]
        if tensor in self.map:
            found = self.map[tensor]
            if found in self.env.flat and not self.takes_any_rank(reader):
                raise needs_rank(reader or tensor.op, tensor)
            return found
        variable = self.variable_of(tensor)
        if variable is None:
            raise CompileError(f"{tensor.name} is needed by {reader}, and was not visited")
        # A fed variable has that value for everyone who reads it.
        fed = self.map.get(variable.outputs[0])
        return self.read(variable, reader) if fed is None else fed

    def takes_any_rank(self, reader: Operation | None) -> bool:
        """Whether a reader can do with a tensor whose rank a run decides; None is a fetch."""
        return reader is None or reader.type == "Identity" or is_host(reader)

    def known_constant(self, tensor: Tensor) -> Tensor:
        """A tensor whose value is given, as a constant."""
        sizes = self.map[tensor].sizes if tensor in self.map else tensor.sizes
        values = list(self.env.known[tensor])
        given = (len(values),) if sizes is None else sizes
        shape = tuple(s if isinstance(s, int) else -1 for s in given)
        if shape.count(-1) > 1:
            shape = (len(values),)
        array = np.array(values, tensor.dtype.base_dtype.numpy).reshape(shape)
        return self.emit("Const", tensor.op, [], {"value": array})

    def constant_operands(self, op: Operation, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The user's operands that must be constants and are not."""
        found = []
        for k in op.definition.constant_operands:
            sizes = value_sizes(inputs[k])
            if sizes is None or not all(isinstance(s, int) for s in sizes):
                found.append(op.inputs[k])
        return found

    def assign(self, op: Operation) -> None:
        """Append an assignment to its variable's chain."""
        variable = assigned_variable(op)
        if variable.outputs[0] in self.feeds:
            raise fed_variable_assigned(op, variable)
        chain = self.chains.setdefault(variable, [])
        value = self.operand(op.inputs[1], op)
        if op.type == "Assign":
            if op.attrs["validate_shape"]:
                self.check_shape(op, value, op.inputs[0].sizes)
        else:
            before = chain[-1][1] if chain else self.variable_before(variable)
            self.check_shape(op, value, before.sizes)
            value = self.emit("AddV2" if op.type == "AssignAdd" else "Sub", op, [before, value])
        chain.append((op, value))
        self.map[op.outputs[0]] = value

    def update(self, variable: Operation, value: Tensor) -> Output:
        """The variable's value after the run: written to its buffer, where that has its shape."""
        key = variable.name
        shape = self.variable_state(variable).shape
        sizes = tuple(self.env.canonical(s) for s in value.sizes or ())
        if shape != sizes:
            return Output("store", value, variable, key)
        if key not in self.before:
            dtype = value.dtype.base_dtype
            self.before[key] = self.add_input("variable", key, dtype, shape, variable)
        return Output("update", value, variable, key)

    def check_shape(
        self, op: Operation, value: Tensor, declared: tuple[DimLike, ...] | None
    ) -> None:
        """The assigned value must have the variable's shape."""
        sizes = value.sizes
        if declared is None or sizes is None:
            return
        if len(sizes) != len(declared):
            raise shape_mismatch(op, declared, sizes)
        for a, b in zip(declared, sizes, strict=True):
            if isinstance(a, int) and isinstance(b, int) and a != b:
                raise shape_mismatch(op, declared, sizes)
            if isinstance(a, int) and not isinstance(b, int):
                self.env.assume_equal(b, a)

    def checks(self, outputs: Sequence[Output]) -> list[Output]:
        """What must be computed although no output needs it, because it can make the run fail."""
        live = needed_operations([o.tensor for o in outputs])
        idle = [
            op
            for op in self.graph.get_operations()
            if op not in live and op.definition.can_fail(op)
        ]
        live = needed_operations([t for op in idle for t in op.inputs])
        return [
            Output("check", op.outputs[0], self.origin.get(op.name), op.name)
            for op in idle
            if op not in live
        ]

    # --- operations -----------------------------------------------------------------------------

    def emit(
        self, op_name: str, like: Operation, inputs: list[Tensor], attrs: Any = None
    ) -> Tensor:
        """A new operation with one output on behalf of the user's operation ``like``."""
        return self.emit_all(op_name, like, inputs, attrs)[0]

    def emit_all(
        self, op_name: str, like: Operation, inputs: list[Tensor], attrs: Any = None
    ) -> list[Tensor]:
        """The outputs of a new operation on behalf of the user's operation ``like``."""
        definition = get_op(op_name)
        name = self.graph.unique_name(like.name)
        full = {k: a.default for k, a in definition.attrs.items()} | (attrs or {})
        ctx = InferContext(definition, like.name, inputs, full, self.env)
        op = self.graph.add_operation(
            definition, inputs, full, definition.infer(ctx), name, like.location
        )
        self.origin[name] = like
        return op.outputs

    def visit(self, op: Operation) -> None:
        """Copy one operation of the user's graph."""
        self.note_ancestors(op)
        if op.type in ("VariableV2", "NoOp"):
            return
        if all(t in self.map for t in op.outputs) and not (is_host(op) and not op.outputs):
            return
        if len(op.outputs) == 1 and self.variable_of(op.outputs[0]) is not None:
            return
        if op.type == "Placeholder":
            raise missing_feed(op)
        if is_assignment(op):
            self.assign(op)
        elif op.type == "IsVariableInitialized":
            self.consulted.add(op.inputs[0].op.name)
            state = self.variable_state(op.inputs[0].op)
            self.constant(op, np.array(state.initialized))
        elif op.type == "InitializedValue":
            variable = op.inputs[0].op
            self.consulted.add(variable.name)
            if self.variable_state(variable).initialized:
                self.map[op.outputs[0]] = self.variable_before(variable)
            else:
                self.map[op.outputs[0]] = self.operand(op.inputs[1], op)
        elif is_host(op):
            extract_host(self, op)
        elif not op.definition.pure:
            self.random(op)
        else:
            self.copy(op)

    def constant(self, op: Operation, value: Any) -> None:
        """The operation's output is a constant known now."""
        self.map[op.outputs[0]] = self.emit("Const", op, [], {"value": np.asarray(value)})

    def counter(self, op: Operation) -> Tensor:
        """How often a random op has run before."""
        return self.add_input("variable", counter_key(op), dtypes.int64, (), op)

    def count(self, op: Operation, after: Tensor) -> None:
        """How often a random op has run afterwards."""
        self.counters[counter_key(op)] = Output("update", after, op, counter_key(op))

    def random(self, op: Operation) -> None:
        """A random op reads its counter and advances it."""
        counter = self.counter(op)
        with self.graph.as_default(), self.graph.name_scope(None):
            inputs = [self.operand(t, op) for t in op.inputs]
            self.env.user.update(zip(inputs, op.inputs, strict=True))
            name, operands, attrs = stateless_form(op, inputs, counter)
            self.map[op.outputs[0]] = self.emit(name, op, list(operands), attrs)
        self.advance(op, counter)

    def advance(self, op: Operation, counter: Tensor) -> None:
        """A counter is one more when what it counts has run."""
        with self.graph.as_default(), self.graph.name_scope(None):
            one = self.emit("Const", op, [], {"value": np.array(1, np.int64)})
            after = self.emit("AddV2", op, [counter, one])
        self.count(op, after)

    def operands(self, op: Operation) -> list[Tensor]:
        """The function's tensors for the operands of an operation."""
        return [self.operand(t, op) for t in op.inputs]

    def copy(self, op: Operation) -> None:
        """The same operation over the function's operands, inferred anew."""
        self.env.reader = op
        inputs = self.operands(op)
        passed = (*self.env.pending, *self.env.flat)
        if op.type in ("PlaceholderWithDefault", "Identity") and inputs[0] in passed:
            self.map[op.outputs[0]] = inputs[0]
            return
        if op.type == "PlaceholderWithDefault":
            self.map[op.outputs[0]] = inputs[0]
            return
        self.env.user.update(zip(inputs, op.inputs, strict=True))
        needed = self.constant_operands(op, inputs)
        if needed:
            inside = [t for t in needed if t.op.region is not None]
            if inside:
                raise InvalidArgumentError(
                    op.node_def, op,
                    f"{inside[0].name} must be known before the loop or branch runs: the rank or "
                    "the axes of a tensor in it depend on it",
                )  # fmt: skip
            for t in needed:
                if t.op in self.env.hosted:
                    raise not_beforehand(op, t)
            raise ValuesNeeded(needed)
        attrs = op.attrs
        if op in self.env.rows:
            attrs = attrs | {"row": self.env.rows[op]}
        try:
            types = op.definition.infer(
                InferContext(op.definition, op.name, inputs, attrs, self.env)
            )
        except GraphcError as e:
            raise InvalidArgumentError(op.node_def, op, str(e)) from e
        if any(t.sizes is None for t in types):
            self.unknown(op, inputs)
            return
        types = [refine(t, user, self.env) for t, user in zip(types, op.outputs, strict=True)]
        name = op.name if op.name not in self.graph._ops else self.graph.unique_name(op.name)
        new = self.graph.add_operation(op.definition, inputs, attrs, types, name, op.location)
        self.origin[name] = op
        if len(new.outputs) == 1:
            self.env.user.setdefault(new.outputs[0], op.outputs[0])
        folded = small_integers(new)
        for k, (a, b) in enumerate(zip(op.outputs, new.outputs, strict=True)):
            if a not in self.map:
                self.map[a] = b if folded is None else self.emit("Const", op, [], folded[k])

    def unknown(self, op: Operation, inputs: Sequence[Tensor]) -> None:
        """An operation whose rank is not known: only a TensorArray's may stay so for a while."""
        first = inputs[0] if inputs else None
        if op.type == "EmptyRows":
            out = op.outputs[0]
            self.map[out] = self.placeholder(op.name, TensorType(out.dtype, None), op)
            self.env.pending[self.map[out]] = op
        elif first in self.env.pending and op.type in ("PutRow", "PutRowGrowing"):
            row = inputs[2].sizes
            assert row is not None
            raise RowsKnown(self.env.pending[first], row)
        elif first in self.env.pending:
            raise InvalidArgumentError(
                op.node_def, op, "the TensorArray is read before anything is written to it"
            )
        else:
            raise RanksNeeded

    def placeholder(self, name: str, type_: TensorType, like: Operation) -> Tensor:
        """A placeholder that is no input yet."""
        attrs = {"dtype": type_.dtype, "shape": type_.sizes}
        name = self.graph.unique_name(name)
        op = self.graph.add_operation(
            get_op("Placeholder"), (), attrs, [type_], name, like.location
        )
        self.origin[name] = like
        return op.outputs[0]


def counter_key(op: Operation) -> str:
    """What the session keeps a random operation's counter under."""
    return f"{op.name}^counter"
