"""From the user's graph to a pure function: what the fetches need, with the state made explicit.

* Only operations that the fetches depend on (by data or by control) are copied; fed tensors cut
  the graph off.
* Variables become values.  Assignments to one variable form a chain in the order of declaration
  (which respects control dependencies).  An operation that reads a variable sees the last
  assignment that it depends on, else the value before the run.  The last link of the chain is the
  variable's update.  ``v/read`` and the handle are aliases: the operation that consumes them is
  the reader.  A fetch of the variable itself gives its value after the run.
* Random ops read a hidden counter of their own and advance it.
* Types are inferred again from the feeds' shapes; what inference must assume of the symbols is
  recorded as guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError, GraphcError, InvalidArgumentError
from graphc.function import Function, Input, Output
from graphc.graph import Graph, Operation, Tensor, TensorType
from graphc.op import InferContext, get_op, value_sizes
from graphc.ops.random import stateless_form
from graphc.ops.state import assigned_variable, is_assignment
from graphc.passes.assume import CompileEnv, RanksNeeded, ValuesNeeded
from graphc.passes.extract_errors import (
    fed_variable_assigned,
    missing_feed,
    shape_mismatch,
    uninitialized,
)
from graphc.passes.extract_graph import (
    canonicalize,
    needed_operations,
    reachable,
    refine,
    small_integers,
)

__all__ = ["BOUND", "Extractor", "VariableState", "extract", "reachable"]

BOUND = "^bound"


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
        known: Mapping[Tensor, Sequence[int]],
    ) -> None:
        self.feeds = feeds
        self.variable_state = variable_state
        self.env = CompileEnv()
        self.env.known = known
        self.graph = Graph()
        self.graph.env = self.env
        self.map: dict[Tensor, Tensor] = {}
        self.inputs: list[Input] = []
        self.origin: dict[str, Operation] = {}
        self.chains: dict[Operation, list[tuple[Operation, Tensor]]] = {}
        self.before: dict[str, Tensor] = {}
        self.consulted: set[str] = set()
        self.constants: dict[Tensor, Tensor] = {}
        self.counters: list[Output] = []
        self.ancestors: dict[Operation, frozenset[Operation]] = {}

    # --- the boundary -------------------------------------------------------------------------

    def add_input(
        self, kind: Any, key: str, dtype: DType, sizes: tuple[DimLike, ...], source: Any
    ) -> Tensor:
        """A placeholder of the function for something that comes from outside."""
        definition = get_op("Placeholder")
        name = self.graph.unique_name(key.replace(":", "_").replace("^", ""))
        op = self.graph.add_operation(
            definition, (), {"dtype": dtype, "shape": sizes}, [TensorType(dtype, sizes)], name,
            source.location if isinstance(source, Operation) else source.op.location,
        )  # fmt: skip
        self.inputs.append(Input(kind, op.outputs[0], source, key, sizes))
        self.origin[name] = source if isinstance(source, Operation) else source.op
        return op.outputs[0]

    def feed_inputs(self) -> None:
        """Placeholders for the feeds; unknown dims get canonical symbols."""
        for tensor, shape in self.feeds.items():
            sizes = tuple(self.env.new_symbol() if s is None else s for s in shape)
            dtype = tensor.dtype.base_dtype
            self.map[tensor] = self.add_input("feed", tensor.name, dtype, sizes, tensor)

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
        """Which assignments the operation depends on."""
        found: set[Operation] = set()
        for before in {*(t.op for t in op.inputs), *op.control_inputs}:
            found |= self.ancestors.get(before, frozenset())
            if is_assignment(before):
                found.add(before)
        self.ancestors[op] = frozenset(found)

    def variable_of(self, tensor: Tensor) -> Operation | None:
        """The variable that a tensor is an alias of: its handle or its cached ``v/read``."""
        op = tensor.op
        if op.type == "VariableV2":
            return op
        if op.type == "Identity" and op.inputs[0].op.type == "VariableV2":
            variable = op.inputs[0].op
            if op.name == f"{variable.name}/read" and not op.control_inputs:
                return variable
        return None

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
            return self.map[tensor]
        variable = self.variable_of(tensor)
        if variable is None:
            raise CompileError(f"{tensor.name} is needed by {reader}, and was not visited")
        # A fed variable has that value for everyone who reads it.
        fed = self.map.get(variable.outputs[0])
        return self.read(variable, reader) if fed is None else fed

    def known_constant(self, tensor: Tensor) -> Tensor:
        """A tensor whose value is given, as a constant."""
        sizes = self.map[tensor].sizes if tensor in self.map else tensor.sizes
        values = list(self.env.known[tensor])
        shape = () if sizes == () else (len(values),)
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
        """A new operation on behalf of the user's operation ``like``."""
        definition = get_op(op_name)
        name = self.graph.unique_name(like.name)
        full = {k: a.default for k, a in definition.attrs.items()} | (attrs or {})
        ctx = InferContext(definition, like.name, inputs, full, self.env)
        op = self.graph.add_operation(
            definition, inputs, full, definition.infer(ctx), name, like.location
        )
        self.origin[name] = like
        return op.outputs[0]

    def visit(self, op: Operation) -> None:
        """Copy one operation of the user's graph."""
        self.note_ancestors(op)
        if op.type in ("VariableV2", "NoOp") or all(t in self.map for t in op.outputs):
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
        elif not op.definition.pure:
            self.random(op)
        else:
            self.copy(op)

    def constant(self, op: Operation, value: Any) -> None:
        """The operation's output is a constant known now."""
        self.map[op.outputs[0]] = self.emit("Const", op, [], {"value": np.asarray(value)})

    def random(self, op: Operation) -> None:
        """A random op reads its counter and advances it."""
        key = f"{op.name}^counter"
        counter = self.add_input("variable", key, dtypes.int64, (), op)
        with self.graph.as_default(), self.graph.name_scope(None):
            inputs = [self.operand(t, op) for t in op.inputs]
            self.env.user.update(zip(inputs, op.inputs, strict=True))
            name, operands, attrs = stateless_form(op, inputs, counter)
            self.map[op.outputs[0]] = self.emit(name, op, list(operands), attrs)
            one = self.emit("Const", op, [], {"value": np.array(1, np.int64)})
            after = self.emit("AddV2", op, [counter, one])
        self.counters.append(Output("update", after, op, key))

    def copy(self, op: Operation) -> None:
        """The same operation over the function's operands, inferred anew."""
        inputs = [self.operand(t, op) for t in op.inputs]
        if op.type == "PlaceholderWithDefault":
            self.map[op.outputs[0]] = inputs[0]
            return
        self.env.user.update(zip(inputs, op.inputs, strict=True))
        needed = self.constant_operands(op, inputs)
        if needed:
            raise ValuesNeeded(needed)
        try:
            types = op.definition.infer(
                InferContext(op.definition, op.name, inputs, op.attrs, self.env)
            )
        except GraphcError as e:
            raise InvalidArgumentError(op.node_def, op, str(e)) from e
        if any(t.sizes is None for t in types):
            raise RanksNeeded
        types = [refine(t, user, self.env) for t, user in zip(types, op.outputs, strict=True)]
        name = op.name if op.name not in self.graph._ops else self.graph.unique_name(op.name)
        new = self.graph.add_operation(op.definition, inputs, op.attrs, types, name, op.location)
        self.origin[name] = op
        folded = small_integers(new)
        for k, (a, b) in enumerate(zip(op.outputs, new.outputs, strict=True)):
            if a not in self.map:
                self.map[a] = b if folded is None else self.emit("Const", op, [], folded[k])


def extract(
    fetches: Sequence[Tensor],
    targets: Sequence[Operation],
    feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
    variable_state: Callable[[Operation], VariableState],
    known: Mapping[Tensor, Sequence[int]] | None = None,
    keep: bool = True,
) -> Function:
    """The pure function that computes ``fetches`` and runs ``targets``.

    Args:
      fetches: tensors whose values are wanted.
      targets: operations to run for their effect.
      feeds: for each fed tensor the sizes to compile for; None where any size is to be accepted.
      variable_state: what is known of a variable.
      known: values of integer tensors to compile for, where sizes depend on them.
      keep: False leaves every variable and counter as it was.
    Raises:
      OpError: a missing feed, an uninitialized variable, shapes that do not go together.
    """
    extractor = Extractor(feeds, variable_state, known or {})
    extractor.feed_inputs()
    roots = [t.op for t in fetches if t not in feeds] + list(targets)
    for op in reachable(roots, feeds):
        extractor.visit(op)
    outputs = [Output("fetch", extractor.operand(t, None), t, t.name) for t in fetches]
    if keep:
        outputs += [extractor.update(v, chain[-1][1]) for v, chain in extractor.chains.items()]
        outputs += extractor.counters
    outputs += extractor.checks(outputs)
    return finish(extractor, outputs)


def finish(extractor: Extractor, outputs: list[Output]) -> Function:
    """The function, with every type rewritten by the assumptions that were made on the way."""
    env = extractor.env
    canonicalize(extractor.graph, env)
    if env.carriers:
        source = env.bound[0][0].op
        sizes = (*env.carriers, 0)
        extractor.add_input("feed", BOUND, dtypes.int8, sizes, source)
    return Function(
        extractor.graph, extractor.inputs, outputs, env.guards, env.bound, extractor.origin, env,
        frozenset(extractor.consulted),
    )  # fmt: skip
