"""What has weights and is called: names, variable scopes and dtypes of layers and cells.

The rules are those of ``tf.layers.Layer`` of TensorFlow 1.15: a layer opens a variable scope of
its own at the first call, makes its weights there, and finds them again at every later call.
"""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import numpy as np

from graphc import nest
from graphc.build import convert_to_tensor
from graphc.dtypes import DType, as_dtype, float32
from graphc.errors import AbstractMethodError, DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, get_default_graph, name_scope
from graphc.shapes import TensorShape
from graphc.variable_scope import VariableScope, get_variable, variable_scope
from graphc.variables import Variable


class _Names:
    """How many layers of each class a graph has had."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}


def _snake_case(name: str) -> str:
    text = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    text = re.sub(r"([a-z])([A-Z])", r"\1_\2", text).lower()
    return "private" + text if text.startswith("_") else text


def _unique(base: str) -> str:
    names = get_default_graph().scratch.setdefault(_Names, _Names()).counts
    names[base] = names.get(base, 0) + 1
    return f"{base}_{names[base]}"


class Layer:
    """Base of what has weights and is called.

    Subclasses define ``call`` and, where they make weights once, ``build``.

    Args:
      trainable: whether optimizers train the weights.
      name: a name, which the variable scope of the weights is called; the class's in snake case
        by default, made unique.
      dtype: the weights' dtype; by default that of the first input.
      _reuse: (keyword) True finds the weights of another layer of that name.
      _scope: (keyword) a variable scope, or its name, for the weights.
    Raises:
      TypeError: any other keyword.
    """

    # The rank that the first input must have; None for any.
    input_rank: int | None = None

    def __init__(
        self, trainable: bool = True, name: Any = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        self._reuse = kwargs.pop("_reuse", None)
        scope = kwargs.pop("_scope", None)
        for keyword in kwargs:
            raise DTypeError(f"Keyword argument not understood: {keyword!r}")
        self.trainable = trainable
        self.built = False
        self._dtype = None if dtype is None else as_dtype(dtype).base_dtype
        self._trainable_weights: list[Any] = []
        self._non_trainable_weights: list[Any] = []
        self._name, self._base_name = self._names(name)
        self._scope: VariableScope | None = None
        if scope:
            with variable_scope(scope) as captured:
                self._scope = captured

    def _names(self, name: Any) -> tuple[str, str]:
        """The layer's own name, and what its scope is called unless that is taken."""
        base = _snake_case(type(self).__name__)
        if isinstance(name, VariableScope):
            return _unique(base), name.name
        return (name, name) if name else (_unique(base), base)

    # --- what it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name, unique among the layers of the graph unless it was given."""
        return self._name

    @property
    def dtype(self) -> DType | None:
        """The weights' dtype; None if neither given nor known from an input."""
        return self._dtype

    @property
    def scope_name(self) -> str:
        """The name of the variable scope of the weights.

        Raises:
          ValueError: the layer has not been called.
        """
        if self._scope is None:
            raise GraphError(
                f'No name available for layer scope because the layer "{self._name}" has not been '
                "used yet. The scope name  is determined the first time the layer instance is "
                "called. You must therefore call the layer before querying `scope_name`."
            )
        return self._scope.name

    @property
    def trainable_weights(self) -> list[Any]:
        """The variables that optimizers train; none if the layer is not trainable."""
        return list(self._trainable_weights) if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The variables that optimizers leave alone."""
        frozen = [] if self.trainable else list(self._trainable_weights)
        return [*frozen, *self._non_trainable_weights]

    @property
    def weights(self) -> list[Any]:
        """All variables, the trainable ones first."""
        return [*self.trainable_weights, *self.non_trainable_weights]

    @property
    def variables(self) -> list[Any]:
        """All variables, the trainable ones first."""
        return self.weights

    @property
    def trainable_variables(self) -> list[Any]:
        """The variables that optimizers train."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The variables that optimizers leave alone."""
        return self.non_trainable_weights

    # --- weights ------------------------------------------------------------------------------

    def add_variable(
        self,
        name: str,
        shape: Any,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool = True,
        constraint: Any = None,
        **options: Any,
    ) -> Any:
        """Make (or, where the scope reuses, find) a weight in the layer's variable scope.

        Args:
          name: its name in that scope.
          shape: its shape.
          dtype: its dtype; the layer's by default, else float32.
          initializer, regularizer, constraint: see :func:`graphc.get_variable`.
          trainable: whether it is trained, if the layer is.
          options: further arguments of :func:`graphc.get_variable`.
        """
        scope = self._opened()
        reuse = self.built or self._reuse
        wanted = as_dtype(dtype or self._dtype or float32)
        with (
            variable_scope(scope, reuse=reuse, auxiliary_name_scope=False) as inner,
            name_scope(inner.original_name_scope),
        ):
            variable = get_variable(
                name, shape, wanted, initializer, regularizer, bool(trainable and self.trainable),
                constraint=constraint, **options,
            )  # fmt: skip
        self._track(variable, trainable)
        return variable

    add_weight = add_variable

    def _track(self, variable: Any, trainable: bool = True) -> None:
        # Weights of a layer that is not trainable count as trainable in case it becomes so.
        trained = trainable and (variable.trainable or not self.trainable)
        weights = self._trainable_weights if trained else self._non_trainable_weights
        if not any(v is variable for v in weights):
            weights.append(variable)

    def _opened(self, scope: Any = None) -> VariableScope:
        """The layer's variable scope, opened the first time."""
        if self._scope is None:
            name = self._base_name if self._reuse and scope is None else scope
            with variable_scope(name, default_name=self._base_name) as captured:
                self._scope = captured
        return self._scope

    # --- calls --------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make the weights that take inputs of ``input_shape`` (a structure of TensorShapes)."""
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What a call computes; a parameter ``scope`` is given the layer's variable scope.

        Raises:
          NotImplementedError: the subclass does not say.
        """
        raise AbstractMethodError(f"{self.name} does not define what it computes: call()")

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Build the weights at the first call, then ``call(inputs, ...)``.

        Args:
          inputs: a structure of tensors.
          args, kwargs: passed on; a keyword ``scope`` names the variable scope of the weights.
        Raises:
          ValueError: an input of another rank than the layer takes.
        """
        scope = self._opened(kwargs.pop("scope", None))
        reuse = True if self.built else self._reuse
        with variable_scope(scope, reuse=reuse, auxiliary_name_scope=False) as inner:
            if "scope" in inspect.signature(self.call).parameters:
                kwargs["scope"] = inner
            with name_scope(inner.original_name_scope):
                inputs = nest.map_structure(_as_tensor, inputs)
                self._build_once(inputs)
                return self.call(inputs, *args, **kwargs)

    apply = __call__

    def _build_once(self, inputs: Any) -> None:
        shapes = nest.map_structure(lambda t: t.get_shape(), inputs)
        self._check_rank(shapes)
        if self.built:
            return
        if self._dtype is None:
            leaves = nest.flatten(inputs)
            self._dtype = leaves[0].dtype.base_dtype if leaves else None
        self.build(shapes)
        self.built = True

    def _check_rank(self, shapes: Any) -> None:
        if self.input_rank is None:
            return
        for i, shape in enumerate(nest.flatten(shapes)):
            if shape.ndims not in (None, self.input_rank):
                raise ShapeError(
                    f"Input {i} of layer {self._name} is incompatible with the layer: expected "
                    f"ndim={self.input_rank}, found ndim={shape.ndims}. Full shape received: "
                    f"{shape.as_list()}"
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A layer like this one; tensors, variables and scopes are not copied but shared."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for key, value in self.__dict__.items():
            leaves = nest.flatten(value) if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(v, (Tensor, Variable, VariableScope)) for v in leaves):
                made.__dict__[key] = copy.copy(value) if isinstance(value, list) else value
            else:
                made.__dict__[key] = copy.deepcopy(value, memo)
        return made


def _as_tensor(value: Any) -> Any:
    plain = isinstance(value, (np.ndarray, np.generic, float, int))
    return convert_to_tensor(value) if plain else value


def last_size(shape: Any) -> int:
    """The last size of an input's shape, which must be known.

    Raises:
      ValueError: it is not.
    """
    sizes = TensorShape(shape).sizes
    if not sizes or not isinstance(sizes[-1], int):
        listed = None if sizes is None else tuple(TensorShape(shape).as_list())
        raise ShapeError(f"Expected inputs.shape[-1] to be known, saw shape: {listed}")
    return sizes[-1]
