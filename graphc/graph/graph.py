"""The graph that a user declares: names, scopes, control dependencies, collections."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from graphc.errors import DTypeError, FinalizedError, GraphError, Location, user_location
from graphc.graph.devices import asked_device, device_text, parse_device
from graphc.graph.nodes import Operation, Tensor, TensorType
from graphc.graph.region import Region
from graphc.graph.stacks import STACKS, stacked

if TYPE_CHECKING:
    from graphc.op import Op

OP_NAME = re.compile(r"^[A-Za-z0-9.][A-Za-z0-9_.\-/]*$")
_SCOPE_NAME = re.compile(r"^[A-Za-z0-9_.\-/]*$")


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
        self.region: Region | None = None
        self._lock = threading.RLock()
        self.seed: int | None = None
        self.env: Any = None
        self.provenance: Location | None = None
        self.scratch: dict[Any, Any] = {}
        self._gradient_overrides: dict[str, str] = {}

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
            if self.region is not None or any(t.op.region is not None for t in inputs):
                inputs = [self.visible(t) for t in inputs]
            control = self._control_for(inputs)
            op = Operation(
                self, definition, name, inputs, attrs, types, control, "",
                location or self.provenance or user_location(), self._last_id,
            )  # fmt: skip
            if self._device_stack:
                op.device = asked_device(self._device_stack, op)
            op.region = self.region
            op.gradient_rule = self._gradient_overrides.get(definition.name)
            if self.region is not None:
                self.region.operations.append(op)
            self._ops[name] = op
            # Passes name operations themselves; no later name may be the same.
            self._names_in_use.setdefault(name.lower(), 1)
            self._last_id += 1
        return op

    def visible(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for ``tensor`` in the current region.

        Raises:
          ValueError: it belongs to a branch or a loop that is not around.
        """
        home = tensor.op.region
        here = self.region
        while here is not home:
            if here is None:
                assert home is not None
                raise GraphError(
                    f"Tensor '{tensor.name}' (declared at {tensor.op.location}) is computed inside "
                    f"'{home.name}' and cannot be used outside of it: return it from there."
                )
            if tensor in here.reads:
                return here.reads[tensor]
            if here.recalled is home and here.recall is not None:
                with self.within(here):
                    return here.recall(tensor)
            here = here.parent
        return tensor

    def _control_for(self, inputs: Sequence[Tensor]) -> tuple[Operation, ...]:
        if not self._control_stack:
            return ()
        found: dict[Operation, None] = {}
        for clear, ops in self._control_stack:
            if clear:
                found.clear()
            found.update(dict.fromkeys(ops))
        for op in found:
            if op.region is not None and not op.region.encloses(self.region):
                raise GraphError(
                    f"Operation '{op.name}' (declared at {op.location}) is inside "
                    f"'{op.region.name}' and cannot be waited for outside of it."
                )
        direct = {t.op for t in inputs}
        return tuple(op for op in found if op not in direct)

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
        if not OP_NAME.fullmatch(name):
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

    # --- regions ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def within(self, region: Region | None) -> Iterator[Region | None]:
        """Operations declared inside belong to ``region``; None is the top level.

        Control dependencies from around are the owner's, not those of what it owns.
        """
        old = self.region
        self.region = region
        try:
            with self.control_dependencies(None):
                yield region
        finally:
            self.region = old

    # --- scopes -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def name_scope(self, name: str | None) -> Iterator[str]:
        """Prefix the names of operations declared inside; ``"s/"`` re-enters scope ``s``."""
        if name:
            if not self._name_stack and not OP_NAME.fullmatch(name):
                raise GraphError(f"'{name}' is not a valid scope name")
            if not _SCOPE_NAME.fullmatch(name):
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
        """Ask for a device for the operations declared inside; see ``Session``.

        Args:
          device_name_or_function: ``"/gpu:0"``, ``"/cpu:0"``, ``"/device:GPU:1"``, ...; a function
            of the operation that gives a name; None for none, whatever is asked for around.
        Raises:
          ValueError, TypeError: it is no such name.
        """
        device = device_name_or_function
        if device is not None and not callable(device):
            device = parse_device(device_text(device))
        self._device_stack.append(device)
        try:
            yield
        finally:
            self._device_stack.pop()

    @contextlib.contextmanager
    def colocate_with(self, op: Any, ignore_existing: bool = False) -> Iterator[None]:
        """Accepted for TensorFlow scripts; placement follows the data anyway."""
        yield

    @contextlib.contextmanager
    def gradient_override_map(self, op_type_map: Any) -> Iterator[None]:
        """Operations declared inside have the gradients registered under other names.

        Args:
          op_type_map: names that ``RegisterGradient`` knows, by the type of the operation.
        Raises:
          TypeError: it is no dict of strings by strings.
        """
        items = op_type_map.items() if isinstance(op_type_map, dict) else [(None, None)]
        if not all(isinstance(k, str) and isinstance(v, str) for k, v in items):
            raise DTypeError("op_type_map must be a dictionary mapping strings to strings")
        old = self._gradient_overrides
        self._gradient_overrides = old | op_type_map
        try:
            yield
        finally:
            self._gradient_overrides = old

    def as_default(self) -> contextlib.AbstractContextManager[Graph]:
        """A context in which this is the default graph."""
        return stacked(STACKS.graphs, self)

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
        return tensor.op.region is None and tensor not in self.scratch.get("unfeedable", ())

    def prevent_fetching(self, op: Operation) -> None:
        """Refuse fetches of ``op``."""
        self.scratch.setdefault("unfetchable", set()).add(op)

    def is_fetchable(self, element: Tensor | Operation) -> bool:
        """Whether the element may be fetched."""
        op = element.op if isinstance(element, Tensor) else element
        return op.region is None and op not in self.scratch.get("unfetchable", ())

