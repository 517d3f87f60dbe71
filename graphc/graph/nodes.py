"""The nodes of a graph: tensors and the operations that produce them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc.dims import DimLike, Symbol, symbols_of
from graphc.dtypes import DType
from graphc.errors import DTypeError, GraphError, Location, OperatorNotAllowedInGraphError
from graphc.graph.stacks import default_session
from graphc.shapes import TensorShape, shape_text

if TYPE_CHECKING:
    from graphc.graph.graph import Graph
    from graphc.graph.region import Region
    from graphc.op import Op


_UNASKED: tuple[Any, frozenset[Symbol]] = (None, frozenset())


class TensorType(NamedTuple):
    """What is known of a tensor before it is computed: dtype and sizes (None: unknown rank)."""

    dtype: DType
    sizes: tuple[DimLike, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype.name}{shape_text(self.sizes)}"


class Tensor:
    """A symbolic value: one output of an :class:`Operation`. Operators build further operations."""

    __slots__ = ("_symbols", "_type", "_value_sizes", "index", "op")
    __array_priority__ = 100

    def __init__(self, op: Operation, index: int, type_: TensorType) -> None:
        self.op = op
        self.index = index
        self._type = type_
        self._value_sizes: Any = None
        self._symbols = _UNASKED

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
    def symbols(self) -> frozenset[Symbol]:
        """Every symbol in the sizes."""
        sizes = self._type.sizes
        if self._symbols[0] is not sizes:
            self._symbols = sizes, frozenset().union(*map(symbols_of, sizes or ()))
        return self._symbols[1]

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
        return default_session("eval", "evaluate tensor", session).run(self, feed_dict)

    def __repr__(self) -> str:
        return f"<tf.Tensor '{self.name}' shape={self.shape} dtype={self.dtype.name}>"

    def __str__(self) -> str:
        shape = "" if self.sizes is None else f", shape={self.shape}"
        device = f", device={self.device}" if self.device else ""
        return f'Tensor("{self.name}"{shape}, dtype={self.dtype.name}{device})'

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
        "gradient_rule",
        "graph",
        "inputs",
        "location",
        "outputs",
        "reads",
        "region",
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
        self.region: Region | None = None
        # A registered gradient's name, or a function, that takes the place of the op's own.
        self.gradient_rule: Any = None
        # Of one with bodies: for reads of variables that are assigned behind it, what they gave.
        self.reads: dict[Tensor, Tensor] = {}
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

    def add_output(self, type_: TensorType) -> Tensor:
        """One more output: what a region hands out that gradients turned out to need."""
        tensor = Tensor(self, len(self.outputs), type_)
        self.outputs.append(tensor)
        return tensor

    def get_attr(self, name: str) -> Any:
        """An attribute by name, type variables (``"T"``) included.

        Raises:
          GraphError: (a ValueError) when there is no such attribute.
        """
        if name in self.attrs:
            return self.attrs[name]
        if name == "_gradient_op_type" and isinstance(self.gradient_rule, str):
            return self.gradient_rule
        found = self.definition.type_attr(self, name)
        if found is None:
            raise GraphError(f"Operation '{self.name}' has no attr named '{name}'.")
        return found

    def run(self, feed_dict: Any = None, session: Any = None) -> None:
        """Run this operation in ``session`` or in the default session."""
        default_session("run", "execute operation", session).run(self, feed_dict)

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


OverloadFn = Callable[..., Any]


def overload(name: str, fn: OverloadFn) -> None:
    """Give :class:`Tensor` the Python operator ``name`` (``"__add__"``)."""
    setattr(Tensor, name, fn)
