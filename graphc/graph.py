"""The graph: named, typed operations and the tensors that they produce.

A :class:`Graph` is append-only while the user declares it.  Names, scopes, control dependencies,
devices and collections follow TensorFlow 1.15.  The compiler works on copies
(:class:`FuncGraph`), never on the user's graph.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import (
    DTypeError,
    FinalizedError,
    GraphError,
    Location,
    OperatorNotAllowedInGraphError,
    user_location,
)
from graphc.shapes import TensorShape, shape_text

if TYPE_CHECKING:
    from graphc.op import Op

_OP_NAME = re.compile(r"^[A-Za-z0-9.][A-Za-z0-9_.\-/]*$")
_SCOPE_NAME = re.compile(r"^[A-Za-z0-9_.\-/]*$")


class TensorType(NamedTuple):
    """What is known of a tensor before it is computed: dtype and sizes (None: unknown rank)."""

    dtype: DType
    sizes: tuple[DimLike, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype.name}{shape_text(self.sizes)}"


class Tensor:
    """A symbolic value: one output of an :class:`Operation`. Operators build further operations."""

    __slots__ = ("_type", "_value_sizes", "index", "op")
    __array_priority__ = 100

    def __init__(self, op: Operation, index: int, type_: TensorType) -> None:
        self.op = op
        self.index = index
        self._type = type_
        self._value_sizes: Any = None

    @property
    def value_index(self) -> int:
        """Which output of its operation this is."""
        return self.index

    @property
    def type(self) -> TensorType:
        """dtype and sizes."""
        return self._type

    @property
    def sizes(self) -> tuple[DimLike, ...] | None:
        """The symbolic sizes; None for unknown rank."""
        return self._type.sizes

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._type.dtype

    @property
    def graph(self) -> Graph:
        """The graph that it belongs to."""
        return self.op.graph

    @property
    def name(self) -> str:
        """``"<operation name>:<output index>"``."""
        return f"{self.op.name}:{self.index}"

    @property
    def device(self) -> str:
        """The device that was asked for; empty for none."""
        return self.op.device

    @property
    def shape(self) -> TensorShape:
        """The static shape; unknown dimensions show as None."""
        return TensorShape(self._type.sizes)

    def get_shape(self) -> TensorShape:
        """The static shape."""
        return self.shape

    def set_shape(self, shape: Any) -> None:
        """State more about the static shape than was inferred.

        Raises:
          ShapeError: (a ValueError) when ``shape`` contradicts what is known.
        """
        merged = self.shape.merge_with(shape)
        self._type = TensorType(self._type.dtype, merged.sizes)

    def consumers(self) -> list[Operation]:
        """The operations that take this tensor as an input."""
        return [op for op in self.graph.get_operations() if any(t is self for t in op.inputs)]

    def eval(self, feed_dict: Any = None, session: Any = None) -> Any:
        """The tensor's value, computed by ``session`` or by the default session.

        Raises:
          GraphError: (a ValueError) when there is no session.
        """
        return _default_session("eval", "evaluate tensor", session).run(self, feed_dict)

    def __repr__(self) -> str:
        return f"<tf.Tensor '{self.name}' shape={self.shape} dtype={self.dtype.name}>"

    def __str__(self) -> str:
        shape = "" if self.sizes is None else f", shape={self.shape}"
        device = f", device={self.device}" if self.device else ""
        return f'Tensor("{self.name}"{shape}, dtype={self.dtype.name}{device})'

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __len__(self) -> int:
        raise DTypeError(
            f"len is not well defined for symbolic Tensors. ({self.name}) Please call `x.shape` "
            "rather than `len(x)` for shape information."
        )

    def __bool__(self) -> bool:
        self._disallow("using a `tf.Tensor` as a Python `bool`")
        return False

    def __iter__(self) -> Iterator[Tensor]:
        self._disallow("iterating over `tf.Tensor`")
        return iter(())

    def __float__(self) -> float:
        raise DTypeError(f"{self.name} is symbolic: ask a Session for its value before float()")

    def __int__(self) -> int:
        raise DTypeError(f"{self.name} is symbolic: ask a Session for its value before int()")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise DTypeError(f"{self.name} is symbolic: ask a Session for its value to get an array")

    def _disallow(self, what: str) -> None:
        raise OperatorNotAllowedInGraphError(
            f"{what} is not allowed in Graph execution. Use Eager execution or decorate this "
            "function with @tf.function."
        )


class NodeDef(NamedTuple):
    """What an operation was declared as."""

    name: str
    op: str
    input: list[str]
    device: str
    attr: dict[str, Any]


class Operation:
    """A node of the graph: an :class:`~graphc.op.Op` applied to inputs, with a unique name."""

    __slots__ = (
        "_control_inputs",
        "_name",
        "attrs",
        "definition",
        "device",
        "graph",
        "inputs",
        "location",
        "outputs",
        "serial",
    )

    def __init__(
        self,
        graph: Graph,
        definition: Op,
        name: str,
        inputs: Sequence[Tensor],
        attrs: dict[str, Any],
        types: Sequence[TensorType],
        control_inputs: Sequence[Operation],
        device: str,
        location: Location,
        serial: int,
    ) -> None:
        self.graph = graph
        self.definition = definition
        self._name = name
        self.inputs = tuple(inputs)
        self.attrs = attrs
        self._control_inputs = tuple(control_inputs)
        self.device = device
        self.location = location
        self.serial = serial
        self.outputs = [Tensor(self, i, t) for i, t in enumerate(types)]

    @property
    def name(self) -> str:
        """The unique name in its graph."""
        return self._name

    @property
    def type(self) -> str:
        """The name of the op: ``"MatMul"``."""
        return self.definition.name

    @property
    def control_inputs(self) -> list[Operation]:
        """The operations that must run before this one."""
        return list(self._control_inputs)

    @property
    def node_def(self) -> NodeDef:
        """The declaration as plain data."""
        inputs = [t.op.name if t.index == 0 else t.name for t in self.inputs]
        inputs += [f"^{op.name}" for op in self._control_inputs]
        return NodeDef(self.name, self.type, inputs, self.device, self.attrs)

    @property
    def traceback(self) -> list[tuple[str, int, str, None]]:
        """Where it was declared, innermost last."""
        return [(self.location.file, self.location.line, self.location.function, None)]

    def get_attr(self, name: str) -> Any:
        """An attribute by name, type variables (``"T"``) included.

        Raises:
          GraphError: (a ValueError) when there is no such attribute.
        """
        if name in self.attrs:
            return self.attrs[name]
        found = self.definition.type_attr(self, name)
        if found is None:
            raise GraphError(f"Operation '{self.name}' has no attr named '{name}'.")
        return found

    def run(self, feed_dict: Any = None, session: Any = None) -> None:
        """Run this operation in ``session`` or in the default session."""
        _default_session("run", "execute operation", session).run(self, feed_dict)

    def __repr__(self) -> str:
        return f"<tf.Operation '{self.name}' type={self.type}>"

    def __str__(self) -> str:
        lines = [f'name: "{self.name}"', f'op: "{self.type}"']
        lines += [f'input: "{i}"' for i in self.node_def.input]
        if self.device:
            lines.append(f'device: "{self.device}"')
        for key in sorted(self.attrs):
            lines.append(f'attr {{ key: "{key}" value: {self.attrs[key]!r} }}')
        return "\n".join(lines) + "\n"


def _default_session(method: str, what: str, session: Any) -> Any:
    if session is None:
        session = get_default_session()
    if session is None:
        raise GraphError(
            f"Cannot {what} using `{method}()`: No default session is registered. Use `with "
            f"sess.as_default()` or pass an explicit session to `{method}(session=sess)`"
        )
    return session


class Graph:
    """A graph of operations, with the declaring state of TensorFlow 1.x: scopes, collections."""

    def __init__(self) -> None:
        self._ops: dict[str, Operation] = {}
        self._names_in_use: dict[str, int] = {}
        self._name_stack = ""
        self._control_stack: list[tuple[bool, tuple[Operation, ...]]] = []
        self._device_stack: list[Any] = []
        self._collections: dict[Any, list[Any]] = {}
        self._finalized = False
        self._last_id = 0
        self._lock = threading.RLock()
        self.seed: int | None = None
        self.env: Any = None
        self.provenance: Location | None = None
        self.scratch: dict[Any, Any] = {}

    # --- operations ---------------------------------------------------------------------------

    def add_operation(
        self,
        definition: Op,
        inputs: Sequence[Tensor],
        attrs: dict[str, Any],
        types: Sequence[TensorType],
        name: str,
        location: Location | None = None,
    ) -> Operation:
        """Append an operation under ``name``, which must already be unique in the graph."""
        self._check_not_finalized()
        with self._lock:
            control = self._control_for(inputs)
            op = Operation(
                self, definition, name, inputs, attrs, types, control, self._device(),
                location or self.provenance or user_location(), self._last_id,
            )  # fmt: skip
            self._ops[name] = op
            self._last_id += 1
        return op

    def _control_for(self, inputs: Sequence[Tensor]) -> tuple[Operation, ...]:
        found: dict[Operation, None] = {}
        for clear, ops in self._control_stack:
            if clear:
                found.clear()
            found.update(dict.fromkeys(ops))
        direct = {t.op for t in inputs}
        return tuple(op for op in found if op not in direct)

    def _device(self) -> str:
        for device in reversed(self._device_stack):
            return "" if device is None else str(device)
        return ""

    def unique_name(self, name: str, mark_as_used: bool = True) -> str:
        """A name in the current scope that no operation or scope has; TensorFlow's numbering."""
        if self._name_stack:
            name = f"{self._name_stack}/{name}"
        key = name.lower()
        count = self._names_in_use.get(key, 0)
        if mark_as_used:
            self._names_in_use[key] = count + 1
        if count > 0:
            base = key
            while key in self._names_in_use:
                key = f"{base}_{count}"
                count += 1
            if mark_as_used:
                self._names_in_use[key] = 1
            name = f"{name}_{count - 1}"
        return name

    def op_name(self, name: str) -> str:
        """The name of a new operation: ``"scope/"`` stands for exactly ``scope``."""
        if not _OP_NAME.match(name):
            raise GraphError(f"'{name}' is not a valid node name")
        return name[:-1] if name.endswith("/") else self.unique_name(name)

    def get_operations(self) -> list[Operation]:
        """Every operation, in the order of declaration."""
        return list(self._ops.values())

    @property
    def version(self) -> int:
        """Grows with every operation."""
        return self._last_id

    def get_operation_by_name(self, name: str) -> Operation:
        """The operation of that name.

        Raises:
          KeyError: when there is none. ValueError: when the name is a tensor's.
        """
        return cast(Operation, self.as_graph_element(name, allow_tensor=False))

    def get_tensor_by_name(self, name: str) -> Tensor:
        """The tensor of that name (``"op:0"``).

        Raises:
          KeyError: when there is none. ValueError: when the name is an operation's.
        """
        return cast(Tensor, self.as_graph_element(name, allow_operation=False))

    def as_graph_element(
        self, obj: Any, allow_tensor: bool = True, allow_operation: bool = True
    ) -> Tensor | Operation:
        """The tensor or operation that ``obj`` is or names.

        Raises:
          TypeError: not something that names an element. KeyError: no such name.
          ValueError: an element of the wrong kind or of another graph.
        """
        kinds = " or ".join(
            k for k, ok in (("Tensor", allow_tensor), ("Operation", allow_operation)) if ok
        )
        converter = getattr(obj, "_as_graph_element", None)
        if converter is not None:
            obj = converter()
        if isinstance(obj, Tensor) and allow_tensor:
            if obj.graph is not self:
                raise GraphError(f"Tensor {obj} is not an element of this graph.")
            return obj
        if isinstance(obj, Operation) and allow_operation:
            if obj.graph is not self:
                raise GraphError(f"Operation {obj!r} is not an element of this graph.")
            return obj
        if isinstance(obj, str):
            return self._element_by_name(obj, allow_tensor, allow_operation)
        raise DTypeError(f"Can not convert a {type(obj).__name__} into a {kinds}.")

    def _element_by_name(self, name: str, tensor: bool, operation: bool) -> Tensor | Operation:
        if ":" in name and tensor:
            op_name, _, out = name.rpartition(":")
            if not out.isdigit():
                raise GraphError(
                    f"The name {name!r} looks a like a Tensor name, but is not a valid one. Tensor "
                    'names must be of the form "<op_name>:<output_index>".'
                )
            op = self._ops.get(op_name)
            if op is None:
                raise KeyError(
                    f"The name {name!r} refers to a Tensor which does not exist. The operation, "
                    f"{op_name!r}, does not exist in the graph."
                )
            if int(out) >= len(op.outputs):
                raise KeyError(
                    f"The name {name!r} refers to a Tensor which does not exist. The operation, "
                    f"{op_name!r}, exists but only has {len(op.outputs)} outputs."
                )
            return op.outputs[int(out)]
        if ":" in name:
            raise GraphError(
                f"The name {name!r} appears to refer to a Tensor, not a Operation."
            )
        if operation:
            if name not in self._ops:
                raise KeyError(
                    f"The name {name!r} refers to an Operation not in the graph."
                )
            return self._ops[name]
        if name in self._ops:
            raise GraphError(
                f"The name {name!r} refers to an Operation, not a Tensor. Tensor names must be of "
                'the form "<op_name>:<output_index>".'
            )
        raise GraphError(
            f"The name {name!r} looks like an (invalid) Operation name, not a Tensor. Tensor names "
            'must be of the form "<op_name>:<output_index>".'
        )

    # --- scopes -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def name_scope(self, name: str | None) -> Iterator[str]:
        """Prefix the names of operations declared inside; ``"s/"`` re-enters scope ``s``."""
        if name:
            if not self._name_stack and not _OP_NAME.match(name):
                raise GraphError(f"'{name}' is not a valid scope name")
            if not _SCOPE_NAME.match(name):
                raise GraphError(f"'{name}' is not a valid scope name")
        old = self._name_stack
        if not name:
            new = ""
        elif name.endswith("/"):
            new = name[:-1]
        else:
            new = self.unique_name(name)
        self._name_stack = new
        try:
            yield "" if not new else new + "/"
        finally:
            self._name_stack = old

    def get_name_scope(self) -> str:
        """The current name scope, without a trailing slash."""
        return self._name_stack

    @contextlib.contextmanager
    def control_dependencies(self, control_inputs: Iterable[Any] | None) -> Iterator[None]:
        """Operations declared inside run after ``control_inputs``; None clears those around."""
        if control_inputs is None:
            entry: tuple[bool, tuple[Operation, ...]] = (True, ())
        else:
            ops = []
            for c in control_inputs:
                element = self.as_graph_element(c)
                ops.append(element.op if isinstance(element, Tensor) else element)
            entry = (False, tuple(dict.fromkeys(ops)))
        self._control_stack.append(entry)
        try:
            yield
        finally:
            self._control_stack.pop()

    @contextlib.contextmanager
    def device(self, device_name_or_function: Any) -> Iterator[None]:
        """Record a device for the operations declared inside."""
        device = device_name_or_function
        if callable(device):
            device = None
        elif isinstance(device, str):
            device = canonical_device(device)
        self._device_stack.append(device)
        try:
            yield
        finally:
            self._device_stack.pop()

    @contextlib.contextmanager
    def colocate_with(self, op: Any, ignore_existing: bool = False) -> Iterator[None]:
        """Accepted for TensorFlow scripts; placement follows the data anyway."""
        yield

    def as_default(self) -> contextlib.AbstractContextManager[Graph]:
        """A context in which this is the default graph."""
        return _stacked(_graphs(), self)

    def finalize(self) -> None:
        """Forbid further operations."""
        self._finalized = True

    @property
    def finalized(self) -> bool:
        """Whether further operations are forbidden."""
        return self._finalized

    def _check_not_finalized(self) -> None:
        if self._finalized:
            raise FinalizedError("Graph is finalized and cannot be modified.")

    # --- collections --------------------------------------------------------------------------

    def add_to_collection(self, name: Any, value: Any) -> None:
        """Append ``value`` to the collection."""
        self._check_not_finalized()
        self._collections.setdefault(name, []).append(value)

    def add_to_collections(self, names: Any, value: Any) -> None:
        """Append ``value`` to each of the collections (one name or several)."""
        for name in (names,) if isinstance(names, str) else tuple(dict.fromkeys(names)):
            self.add_to_collection(name, value)

    def get_collection(self, name: Any, scope: str | None = None) -> list[Any]:
        """A copy of the collection; with ``scope``, the items whose name matches it as a regex."""
        items = self._collections.get(name, [])
        if scope is None:
            return list(items)
        regex = re.compile(scope)
        return [i for i in items if hasattr(i, "name") and regex.match(i.name)]

    def get_collection_ref(self, name: Any) -> list[Any]:
        """The collection itself, created when missing."""
        return self._collections.setdefault(name, [])

    def get_all_collection_keys(self) -> list[Any]:
        """The names of all collections that hold something."""
        return [k for k, v in self._collections.items() if v]

    @property
    def collections(self) -> list[Any]:
        """The names of all collections."""
        return list(self._collections)

    def clear_collection(self, name: Any) -> None:
        """Empty the collection."""
        self._check_not_finalized()
        self._collections.pop(name, None)

    def prevent_feeding(self, tensor: Tensor) -> None:
        """Refuse feeds of ``tensor``."""
        self.scratch.setdefault("unfeedable", set()).add(tensor)

    def is_feedable(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` may be fed."""
        return tensor not in self.scratch.get("unfeedable", ())

    def prevent_fetching(self, op: Operation) -> None:
        """Refuse fetches of ``op``."""
        self.scratch.setdefault("unfetchable", set()).add(op)

    def is_fetchable(self, element: Tensor | Operation) -> bool:
        """Whether the element may be fetched."""
        op = element.op if isinstance(element, Tensor) else element
        return op not in self.scratch.get("unfetchable", ())


_DEVICE = re.compile(r"^(?:/?device:|/)?(cpu|gpu|cuda):?(\d+|\*)?$", re.IGNORECASE)


def canonical_device(name: str) -> str:
    """``/cpu:0`` as TensorFlow writes it: ``/device:CPU:0``; other spellings are kept."""
    match = _DEVICE.match(name)
    if match is None:
        return name
    kind = "GPU" if match.group(1).lower() == "cuda" else match.group(1).upper()
    return f"/device:{kind}:{match.group(2) or 0}"


# --- defaults -----------------------------------------------------------------------------------


class _Stacks(threading.local):
    """Default graphs and sessions, per thread."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.sessions: list[Any] = []


_STACKS = _Stacks()
_GLOBAL: list[Graph] = [Graph()]


def _graphs() -> list[Graph]:
    return _STACKS.graphs


@contextlib.contextmanager
def _stacked(stack: list[Any], item: Any) -> Iterator[Any]:
    stack.append(item)
    try:
        yield item
    finally:
        stack.remove(item)


def get_default_graph() -> Graph:
    """The graph that declarations go to: the innermost ``as_default``, else the global one."""
    return _STACKS.graphs[-1] if _STACKS.graphs else _GLOBAL[0]


def reset_default_graph() -> None:
    """Replace the global default graph by an empty one.

    Raises:
      GraphError: (an AssertionError in TensorFlow) inside a ``with graph.as_default()``.
    """
    if _STACKS.graphs:
        raise GraphError(
            "Do not use tf.reset_default_graph() to clear nested graphs. If you need a cleared "
            "graph, exit the nesting and create a new graph."
        )
    _GLOBAL[0] = Graph()


def get_default_session() -> Any:
    """The innermost session made the default by ``with``, or None."""
    return _STACKS.sessions[-1] if _STACKS.sessions else None


def session_context(session: Any) -> contextlib.AbstractContextManager[Any]:
    """A context in which ``session`` is the default session."""
    return _stacked(_STACKS.sessions, session)


def push_session(session: Any) -> None:
    """Make ``session`` the default until :func:`pop_session` (InteractiveSession)."""
    _STACKS.sessions.append(session)
    _STACKS.graphs.append(session.graph)


def pop_session(session: Any) -> None:
    """Undo :func:`push_session`."""
    if session in _STACKS.sessions:
        _STACKS.sessions.remove(session)
        _STACKS.graphs.remove(session.graph)


# --- functions with the names of TensorFlow -------------------------------------------------------


def graph_of(values: Iterable[Any]) -> Graph:
    """The one graph that all tensors among ``values`` belong to; the default graph for none.

    Raises:
      GraphError: (a ValueError) when two tensors are of different graphs.
    """
    graph: Graph | None = None
    first: Any = None
    for value in values:
        if isinstance(value, (Tensor, Operation)) or hasattr(value, "_as_graph_element"):
            if graph is None:
                graph, first = value.graph, value
            elif value.graph is not graph:
                raise GraphError(f"{value} must be from the same graph as {first}.")
    return graph or get_default_graph()


class name_scope(contextlib.ContextDecorator):  # noqa: N801 - TensorFlow's name
    """Prefix the names of operations declared inside.

    Args:
      name: the scope; None uses ``default_name``; a trailing slash re-enters a scope.
      default_name: used when ``name`` is None.
      values: tensors whose graph the scope is opened in.
    """

    def __init__(self, name: str | None, default_name: str | None = None, values: Any = None):
        if name is not None and not isinstance(name, str):
            raise DTypeError("name for name_scope must be a string.")
        self._name = default_name if name is None else name
        self._values = values
        self._stack: list[contextlib.ExitStack] = []

    @property
    def name(self) -> str | None:
        """The scope's name as it was asked for."""
        return self._name

    def __enter__(self) -> str:
        graph = graph_of(self._values or ())
        with contextlib.ExitStack() as stack:
            if graph is not get_default_graph():
                stack.enter_context(graph.as_default())
            scope = stack.enter_context(graph.name_scope(self._name))
            self._stack.append(stack.pop_all())
        return scope

    def __exit__(self, *exc: Any) -> None:
        self._stack.pop().close()


def control_dependencies(control_inputs: Iterable[Any] | None) -> Any:
    """Operations declared inside run after ``control_inputs``."""
    return get_default_graph().control_dependencies(control_inputs)


def device(device_name_or_function: Any) -> Any:
    """Record a device for the operations declared inside."""
    return get_default_graph().device(device_name_or_function)


def add_to_collection(name: Any, value: Any) -> None:
    """Append ``value`` to a collection of the default graph."""
    get_default_graph().add_to_collection(name, value)


def add_to_collections(names: Any, value: Any) -> None:
    """Append ``value`` to several collections of the default graph."""
    get_default_graph().add_to_collections(names, value)


def get_collection(key: Any, scope: str | None = None) -> list[Any]:
    """A copy of a collection of the default graph."""
    return get_default_graph().get_collection(key, scope)


def get_collection_ref(key: Any) -> list[Any]:
    """A collection of the default graph itself."""
    return get_default_graph().get_collection_ref(key)


class GraphKeys:
    """Names of the standard collections, as in TensorFlow."""

    GLOBAL_VARIABLES = "variables"
    LOCAL_VARIABLES = "local_variables"
    METRIC_VARIABLES = "metric_variables"
    MODEL_VARIABLES = "model_variables"
    TRAINABLE_VARIABLES = "trainable_variables"
    MOVING_AVERAGE_VARIABLES = "moving_average_variables"
    SUMMARIES = "summaries"
    QUEUE_RUNNERS = "queue_runners"
    TABLE_INITIALIZERS = "table_initializer"
    ASSET_FILEPATHS = "asset_filepaths"
    REGULARIZATION_LOSSES = "regularization_losses"
    LOSSES = "losses"
    WEIGHTS = "weights"
    BIASES = "biases"
    ACTIVATIONS = "activations"
    UPDATE_OPS = "update_ops"
    TRAIN_OP = "train_op"
    GLOBAL_STEP = "global_step"
    INIT_OP = "init_op"
    LOCAL_INIT_OP = "local_init_op"
    READY_OP = "ready_op"
    SAVERS = "savers"
    SAVEABLE_OBJECTS = "saveable_objects"
    SUMMARY_OP = "summary_op"
    COND_CONTEXT = "cond_context"
    WHILE_CONTEXT = "while_context"


OverloadFn = Callable[..., Any]


def overload(name: str, fn: OverloadFn) -> None:
    """Give :class:`Tensor` the Python operator ``name`` (``"__add__"``)."""
    setattr(Tensor, name, fn)
