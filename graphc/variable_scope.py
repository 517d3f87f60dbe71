"""Variable scopes: variables with names of their own, created once and shared by name.

``get_variable`` names a variable after the variable scopes around it (name scopes do not count)
and finds it again where reuse is asked for.  The rules are those of TensorFlow 1.15.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor
from graphc.dtypes import as_dtype
from graphc.errors import DTypeError, FinalizedError, GraphError
from graphc.graph import (
    GraphKeys,
    get_collection,
    get_default_graph,
    graph_of,
    name_scope,
)
from graphc.variables import VariableAggregation, VariableSynchronization
from graphc.variables.store import VariableStore


class _ReuseMode(enum.Enum):
    AUTO_REUSE = 1


AUTO_REUSE = _ReuseMode.AUTO_REUSE

# What a scope inherits from the one around it, unless it sets it itself.
_INHERITED = (
    "initializer", "regularizer", "caching_device", "partitioner", "custom_getter", "dtype",
    "use_resource",
)  # fmt: skip


class VariableScope:
    """The defaults that ``get_variable`` uses inside a ``with variable_scope(...)``."""

    def __init__(
        self,
        reuse: Any,
        name: str = "",
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Any = None,
        name_scope: str = "",
        dtype: Any = dtypes.float32,
        use_resource: bool | None = None,
        constraint: Any = None,
    ) -> None:
        self._reuse = reuse
        self._name = name
        self._name_scope = name_scope
        self.initializer = initializer
        self.regularizer = regularizer
        self.caching_device = caching_device
        self.partitioner = partitioner
        self.custom_getter = custom_getter
        self.dtype = dtype
        self.use_resource = use_resource
        self.constraint = constraint

    @property
    def name(self) -> str:
        """The prefix of its variables' names, without the last slash."""
        return self._name

    @property
    def original_name_scope(self) -> str:
        """The name scope that was opened with it, with a slash at the end."""
        return self._name_scope

    @property
    def reuse(self) -> Any:
        """False, True or ``AUTO_REUSE``."""
        return self._reuse

    def reuse_variables(self) -> None:
        """From now on find variables, do not create them."""
        self._reuse = True

    def set_initializer(self, initializer: Any) -> None:
        """Set the default initializer."""
        self.initializer = initializer

    def set_regularizer(self, regularizer: Any) -> None:
        """Set the default regularizer."""
        self.regularizer = regularizer

    def set_caching_device(self, caching_device: Any) -> None:
        """Set the default caching device."""
        self.caching_device = caching_device

    def set_partitioner(self, partitioner: Any) -> None:
        """Set the default partitioner."""
        self.partitioner = partitioner

    def set_custom_getter(self, custom_getter: Any) -> None:
        """Set the custom getter."""
        self.custom_getter = custom_getter

    def set_dtype(self, dtype: Any) -> None:
        """Set the default dtype."""
        self.dtype = dtype

    def set_use_resource(self, use_resource: bool | None) -> None:
        """Record whether resource variables are asked for."""
        self.use_resource = use_resource

    def get_collection(self, name: Any) -> list[Any]:
        """The items of a collection whose names are in this scope."""
        return get_collection(name, self._name + "/" if self._name else "")

    def trainable_variables(self) -> list[Any]:
        """The trainable variables of this scope."""
        return self.get_collection(GraphKeys.TRAINABLE_VARIABLES)

    def global_variables(self) -> list[Any]:
        """The global variables of this scope."""
        return self.get_collection(GraphKeys.GLOBAL_VARIABLES)

    def local_variables(self) -> list[Any]:
        """The local variables of this scope."""
        return self.get_collection(GraphKeys.LOCAL_VARIABLES)

    def get_variable(
        self,
        var_store: VariableStore,
        name: str,
        shape: Any = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        reuse: Any = None,
        custom_getter: Any = None,
        constraint: Any = None,
        **options: Any,
    ) -> Any:
        """Find or create a variable of this scope in ``var_store``; see :func:`get_variable`."""
        given_constant = initializer is not None and not callable(initializer)
        with name_scope(None):
            if dtype is not None and given_constant:
                found = convert_to_tensor(initializer).dtype.base_dtype
                if found is not as_dtype(dtype).base_dtype:
                    raise GraphError(
                        f"Initializer type '{found}' and explicit dtype '{as_dtype(dtype)}' don't "
                        "match."
                    )
            for option in ("caching_device", "partitioner", "use_resource"):
                if options.get(option) is None:
                    options[option] = getattr(self, option)
            return var_store.get_variable(
                f"{self._name}/{name}" if self._name else name,
                custom_getter=self.custom_getter if custom_getter is None else custom_getter,
                shape=shape,
                dtype=self.dtype if dtype is None else dtype,
                initializer=self.initializer if initializer is None else initializer,
                regularizer=self.regularizer if regularizer is None else regularizer,
                reuse=self._reuse if reuse is None else reuse,
                constraint=self.constraint if constraint is None else constraint,
                **options,
            )


# --- the scope that is open -----------------------------------------------------------------------


class _ScopeState(threading.local):
    """The current scope of one graph, per thread; how often scopes were opened, by name."""

    def __init__(self) -> None:
        self.current = VariableScope(False)
        self.opened: dict[str, int] = {}


def _of_graph(kind: Any) -> Any:
    """The default graph's one object of the given class."""
    scratch = get_default_graph().scratch
    if kind not in scratch:
        scratch[kind] = kind()
    return scratch[kind]


def get_variable_scope() -> VariableScope:
    """The innermost variable scope that is open."""
    scope: VariableScope = _of_graph(_ScopeState).current
    return scope


class variable_scope:
    """A context whose name prefixes the variables that ``get_variable`` creates, and the ops.

    Args:
      name_or_scope: a name, or a scope to enter again.
      default_name: made unique and used when ``name_or_scope`` is None.
      values: tensors whose graph the scope is opened in.
      initializer, regularizer, caching_device, partitioner, custom_getter, dtype, use_resource:
        defaults for the variables inside, scopes inside included.
      reuse: True finds variables, None or False creates them (unless a scope around reuses),
        ``AUTO_REUSE`` does what is possible.
      constraint: the default constraint of the variables directly inside.
      auxiliary_name_scope: False opens no name scope.
    """

    def __init__(
        self,
        name_or_scope: Any,
        default_name: str | None = None,
        values: Sequence[Any] | None = None,
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Any = None,
        reuse: Any = None,
        dtype: Any = None,
        use_resource: bool | None = None,
        constraint: Any = None,
        auxiliary_name_scope: bool = True,
    ) -> None:
        if default_name is None and name_or_scope is None:
            raise DTypeError("If default_name is None then name_or_scope is required")
        if name_or_scope is not None and not isinstance(name_or_scope, (str, VariableScope)):
            raise DTypeError("VariableScope: name_or_scope must be a string or VariableScope.")
        if reuse not in (None, False, True, AUTO_REUSE):
            raise GraphError("The reuse parameter must be True or False or None.")
        if not isinstance(auxiliary_name_scope, bool):
            raise DTypeError(
                "The auxiliary_name_scope must be `True` or `False`, while get "
                f"{auxiliary_name_scope}"
            )
        if name_or_scope is None and reuse:
            raise GraphError("reuse=True cannot be used without a name_or_scope")
        self._given = name_or_scope
        self._default_name = default_name
        self._graph = graph_of(values or ())
        self._reuse = reuse or None
        self._own = dict(
            initializer=initializer, regularizer=regularizer, caching_device=caching_device,
            partitioner=partitioner, custom_getter=custom_getter, dtype=dtype,
            use_resource=use_resource,
        )  # fmt: skip
        self._constraint = constraint
        self._open_name_scope = auxiliary_name_scope
        self._stack: list[contextlib.ExitStack] = []

    def __enter__(self) -> VariableScope:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._graph.as_default())
            scope = self._enter(stack)
            self._stack.append(stack.pop_all())
        return scope

    def __exit__(self, *exc: Any) -> None:
        self._stack.pop().close()

    def _enter(self, stack: contextlib.ExitStack) -> VariableScope:
        given, state = self._given, _of_graph(_ScopeState)
        if given is None:
            assert self._default_name is not None
            name_scope_name, entered = self._default_name, _unique(self._default_name, state)
        elif isinstance(given, VariableScope):
            name_scope_name, entered = given.name.split("/")[-1], given.name
        else:
            name_scope_name = entered = given
        names = name_scope_name
        if self._open_name_scope and name_scope_name:
            names = stack.enter_context(name_scope(name_scope_name))
        elif not self._open_name_scope:
            around = self._graph.get_name_scope()
            names = around + "/" if around else ""
        around_scope = given if isinstance(given, VariableScope) else state.current
        if isinstance(given, VariableScope):
            names = given.original_name_scope
        elif state.current.name:
            entered = f"{state.current.name}/{entered}"
        scope = self._scope(around_scope, entered, names)
        stack.enter_context(_entered(state, scope, again=isinstance(given, VariableScope)))
        return scope

    def _scope(self, around: VariableScope, name: str, names: str) -> VariableScope:
        options = {key: getattr(around, key) for key in _INHERITED}
        options |= {key: value for key, value in self._own.items() if value is not None}
        inner, outer = self._own["custom_getter"], around.custom_getter
        if inner is not None and outer is not None:
            options["custom_getter"] = _chained(inner, outer)
        reuse = self._reuse or around.reuse
        return VariableScope(reuse, name, name_scope=names, constraint=self._constraint, **options)


@contextlib.contextmanager
def _entered(state: _ScopeState, scope: VariableScope, again: bool) -> Any:
    before, counts = state.current, state.opened
    counts[scope.name] = counts.get(scope.name, 0) + 1
    if again:
        counts = dict(counts)
    state.current = scope
    try:
        yield
        if state.current is not scope:
            raise FinalizedError("Improper nesting of variable_scope.")
    finally:
        if again:
            state.opened = counts
        else:
            inside = scope.name + "/"
            for name in state.opened:
                if name.startswith(inside):
                    state.opened[name] = 0
        state.current = before


def _unique(name: str, state: _ScopeState) -> str:
    """``name``, or ``name_1``, ... if the current scope has had a scope of that name."""
    prefix = f"{state.current.name}/" if state.current.name else ""
    candidate, count = name, 0
    while state.opened.get(prefix + candidate, 0) > 0:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _chained(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    def custom_getter(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return inner(functools.partial(outer, getter), *args, **kwargs)

    return custom_getter


# --- public functions -----------------------------------------------------------------------------


def get_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: bool | None = None,
    custom_getter: Any = None,
    constraint: Any = None,
    synchronization: Any = VariableSynchronization.AUTO,
    aggregation: Any = VariableAggregation.NONE,
) -> Any:
    """The variable of that name in the current variable scope: found, or created.

    Args:
      name: its name; the variable scopes around are put before it.
      shape: its shape; not needed where the initializer is a value.
      dtype: its dtype; the scope's by default.
      initializer: a value, a function without arguments, or an initializer called with shape and
        dtype.  By default the scope's, else Glorot's uniform distribution for floats, zeros for
        other dtypes.
      regularizer: a function from the variable to a loss, which joins
        ``GraphKeys.REGULARIZATION_LOSSES``.
      custom_getter: a function called with a getter and these arguments in place of it.
      trainable, collections, caching_device, validate_shape, use_resource, constraint,
        synchronization, aggregation: see :class:`Variable`.
      partitioner: only None, or anything for a scalar.
    Raises:
      ValueError: the variable exists but reuse was not asked for, or the other way round; or it
        has another shape or dtype.
    """
    return get_variable_scope().get_variable(
        _of_graph(VariableStore), name, shape, dtype, initializer, regularizer, None,
        custom_getter, constraint,
        trainable=trainable, collections=collections, caching_device=caching_device,
        partitioner=partitioner, validate_shape=validate_shape, use_resource=use_resource,
        synchronization=synchronization, aggregation=aggregation,
    )  # fmt: skip


def get_local_variable(name: str, *args: Any, **kwargs: Any) -> Any:
    """A local variable: as :func:`get_variable`, not trainable, not among the saved ones."""
    bound = inspect.signature(get_variable).bind(name, *args, **kwargs)
    options = bound.arguments
    options["trainable"] = False
    options["collections"] = [*(options.get("collections") or ()), GraphKeys.LOCAL_VARIABLES]
    return get_variable(**options)


def no_regularizer(_: Any) -> None:
    """A regularizer for scopes inside a regularized one: none."""
