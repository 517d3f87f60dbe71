"""Two other ways to run a function: eager (the compiled kernels, one op at a time) and reference.

Both take the function that the static mode would compile, so that the three differ in nothing but
the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.build import complete_attrs
from graphc.compiler import compile_function
from graphc.dims import DimLike, Symbol, substitute
from graphc.errors import CompileError, InvalidArgumentError, OpError
from graphc.function import Function, Input, Output
from graphc.graph import Graph, Operation, Tensor, TensorType
from graphc.op import InferContext, evaluate_reference, get_op
from graphc.ops.control import branch_number
from graphc.ops.host import host_values
from graphc.passes.assume import CompileEnv
from graphc.passes.basic import DeadCode, Decompose, attrs_key
from graphc.passes.pipeline import run_nested
from graphc.runtime.executable import Executable

Kernel = Callable[..., Sequence[Any]]
Compute = Callable[[Operation, list[np.ndarray]], Sequence[Any]]


def prepared(fn: Function, mode: str) -> Function:
    """The function as a mode runs it: in eager mode, composite ops by the ops that define them."""
    fn = run_nested(DeadCode(), fn)
    if mode == "reference":
        return fn
    return run_nested(DeadCode(), run_nested(Decompose(), fn))


def run_eager(
    fn: Function, inputs: Mapping[str, np.ndarray], cache: dict[Any, Kernel], lock: Any
) -> list[np.ndarray]:
    """The function's outputs, every op a compiled program of its own.

    Args:
      fn: the function, for concrete shapes.
      inputs: arrays by the keys of ``fn.inputs``.
      cache: single-op programs of earlier calls.
      lock: the session's native lock.
    """
    return _run(fn, inputs, lambda op, xs: _kernel(op, xs, cache, lock)(*xs))


def run_reference(fn: Function, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The function's outputs by the NumPy references of its ops."""
    return _run(fn, inputs, evaluate_reference)


def _run(
    fn: Function,
    inputs: Mapping[str, np.ndarray],
    compute: Compute,
    around: Mapping[Symbol, int] | None = None,
) -> list[np.ndarray]:
    values: dict[Tensor, np.ndarray] = {}
    sizes = dict(around or {})
    for i in fn.inputs:
        values[i.tensor] = inputs[i.key]
        _note_sizes(i.tensor, inputs[i.key], sizes)
    for op in fn.operations:
        if all(t in values for t in op.outputs):
            continue
        if op.type == "Const":
            values[op.outputs[0]] = op.attrs["value"]
            continue
        source = fn.origin.get(op.name, op)
        operands = [values[t] for t in op.inputs]
        outputs: Sequence[Any]
        try:
            if op.type == "Host":
                outputs = host_values(op, operands)
            elif "bodies" in op.attrs:
                outputs = _run_bodies(op, operands, compute, sizes)
            elif op.type == "EmptyRows":
                row = (substitute(s, sizes) for s in op.attrs["row"] or ())
                outputs = [np.zeros((int(operands[0]), *row), op.attrs["dtype"].numpy)]
            else:
                outputs = compute(op, operands)
        except OpError as e:
            if op.type == "Host" or "bodies" in op.attrs:
                raise  # It names the operation already.
            raise type(e)(source.node_def, source, e.message) from None
        except (ArithmeticError, IndexError, ValueError) as e:
            if isinstance(e, CompileError):
                raise
            raise InvalidArgumentError(source.node_def, source, str(e)) from e
        for tensor, value in zip(op.outputs, outputs, strict=True):
            values[tensor] = value
            _note_sizes(tensor, value, sizes)
    return [np.asarray(values[o.tensor]) for o in fn.outputs]


def _note_sizes(tensor: Tensor, value: Any, sizes: dict[Symbol, int]) -> None:
    """Learn the sizes that a value has where its tensor has symbols."""
    for size, found in zip(tensor.sizes or (), np.shape(value), strict=False):
        symbol = None if isinstance(size, int) else size.as_symbol
        if symbol is not None:
            sizes[symbol] = found


def _run_bodies(
    op: Operation, operands: list[np.ndarray], compute: Compute, sizes: Mapping[Symbol, int]
) -> list[np.ndarray]:
    """The outputs of a loop or a branch, turn by turn; ``sizes`` are those known around it."""
    bodies = op.attrs["bodies"]
    if op.type == "Case":
        number = branch_number(operands[0], len(bodies))
        return _run(bodies[number], _numbered(operands), compute, sizes)[: len(op.outputs)]
    test, body = bodies
    state = [np.asarray(x) for x in operands[: len(body.carried)]]
    rest = operands[len(state) :]
    count = len(body.given) - len(state)
    saved: list[list[np.ndarray]] = [[] for _ in range(count)]
    turns = 0
    while bool(_run(test, _numbered([*state, *rest]), compute, sizes)[0]):
        found = _run(body, _numbered([*state, *rest]), compute, sizes)
        state = [np.array(x) for x in found[: len(state)]]
        for stack, value in zip(saved, found[len(state) :], strict=False):
            stack.append(np.array(value))
        turns += 1
    stacks = []
    for stack, out in zip(saved, op.outputs[len(state) + 1 :], strict=True):
        row = tuple(s if isinstance(s, int) else 0 for s in (out.sizes or ())[1:])
        stacks.append(np.stack(stack) if stack else np.zeros((0, *row), out.dtype.numpy))
    return [*state, np.array(turns, np.int32), *stacks]


def _numbered(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {str(k): np.asarray(a) for k, a in enumerate(arrays)}


def _kernel(op: Operation, arrays: list[np.ndarray], cache: dict[Any, Kernel], lock: Any) -> Kernel:
    """The compiled program of one op for operands of these types."""
    definition = op.definition
    values = {
        k % len(arrays) for k in (*definition.value_operands, *definition.constant_operands)
    }
    shapes = tuple((a.shape, a.dtype.char) for a in arrays)
    small = tuple(
        a.tobytes() if k in values and a.dtype.kind in "iuf" else None
        for k, a in enumerate(arrays)
    )
    key = (op.type, attrs_key(op), shapes, small)
    found = cache.get(key)
    if found is None:
        found = cache[key] = _compile_op(op, arrays, small, lock)
    return found


def _compile_op(
    op: Operation, arrays: list[np.ndarray], small: Sequence[bytes | None], lock: Any
) -> Kernel:
    graph, env = Graph(), CompileEnv()
    graph.env = env
    inputs: list[Input] = []
    operands: list[Tensor] = []
    for k, (tensor, array) in enumerate(zip(op.inputs, arrays, strict=True)):
        # Shapes may depend on small integer operands, so those are part of the program.
        if small[k] is not None:
            value = {"value": np.asarray(array)}
            operands.append(_add(graph, "Const", [], value, f"c{k}").outputs[0])
            continue
        sizes: tuple[DimLike, ...] = tuple(array.shape)
        attrs = {"dtype": tensor.dtype.base_dtype, "shape": sizes}
        placeholder = _add(graph, "Placeholder", [], attrs, f"x{k}").outputs[0]
        operands.append(placeholder)
        inputs.append(Input("feed", placeholder, placeholder, placeholder.name, sizes))
    types = op.definition.infer(InferContext(op.definition, op.name, operands, op.attrs, env))
    new = graph.add_operation(op.definition, operands, op.attrs, types, op.name, op.location)
    outputs = [Output("fetch", t, t, t.name) for t in new.outputs]
    fn = Function(graph, inputs, outputs, env.guards, [], {op.name: op}, env)
    env.graphs.append(graph)
    executable = Executable(compile_function(fn), {}, lock)
    taken = [k for k in range(len(arrays)) if small[k] is None]

    def call(*xs: np.ndarray) -> Sequence[Any]:
        return executable.call(*(np.asarray(xs[k], order="C") for k in taken))

    return call


def _add(
    graph: Graph, name: str, inputs: Sequence[Tensor], attrs: dict[str, Any], label: str
) -> Operation:
    definition = get_op(name)
    full = complete_attrs(definition, attrs)
    types: Sequence[TensorType] = definition.infer(
        InferContext(definition, label, inputs, full)
    )
    return graph.add_operation(definition, inputs, full, types, label)

