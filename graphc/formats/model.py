"""A loaded model: a graph, its variables, named inputs and outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graphc.config import RunMetadata, RunOptions
from graphc.errors import FeedError
from graphc.formats.closure import needed_operations
from graphc.graph import Graph, Operation, Tensor
from graphc.passes.extract import reachable
from graphc.runtime.profile import Profile
from graphc.session import Session
from graphc.variables import Variable


class Model:
    """A loaded model.  Calling it runs it.

    Attributes:
      graph: the graph; it can be extended like any other.
      session: a session that holds the variables.
      inputs: tensors by name.
      outputs: tensors and operations by name.
      variables: the Variables, in the order of their creation.
    """

    def __init__(
        self, graph: Graph, session: Session, inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor | Operation], variables: list[Variable],
    ) -> None:  # fmt: skip
        self.graph = graph
        self.session = session
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self.variables = variables
        self._required: dict[frozenset[str], list[str]] = {}

    def __call__(self, /, *args: Any, **feeds: Any) -> Any:
        """The outputs for named inputs (or positional ones, in the order they were saved).

        Returns:
          The array of the only output, or a dict by name; None for an operation.
        Raises:
          FeedError: (a ValueError) inputs that are unknown, missing or of the wrong shape.
        """
        values = self.run(*args, **feeds)
        return next(iter(values.values())) if len(values) == 1 else values

    def run(self, /, *args: Any, **feeds: Any) -> dict[str, Any]:
        """The outputs by name, however many there are."""
        # As a list, which a session that knows it calls without a search.
        values = self.session.run([*self.outputs.values()], self._feeds(args, feeds))
        return dict(zip(self.outputs, values, strict=True))

    def profile(self, /, *args: Any, **feeds: Any) -> Profile:
        """How long the kernels of a run with these inputs take."""
        metadata = RunMetadata()
        options = RunOptions(trace=True)
        self.session.run(self.outputs, self._feeds(args, feeds), options, metadata)
        profile: Profile = metadata.profile
        return profile

    def _feeds(self, args: tuple[Any, ...], feeds: dict[str, Any]) -> dict[Any, Any]:
        """The inputs' tensors and their values."""
        if len(args) > len(self.inputs):
            raise FeedError(f"{len(args)} inputs were given; the model has {self.listed_inputs()}")
        given = dict(zip(self.inputs, args, strict=False))
        if twice := given.keys() & feeds.keys():
            raise FeedError(f"the inputs {sorted(twice)} were given twice")
        given |= feeds
        if unknown := given.keys() - self.inputs.keys():
            raise FeedError(
                f"there is no input {', '.join(map(repr, sorted(unknown)))}; the model has "
                f"{self.listed_inputs()}"
            )
        if missing := self.missing(given):
            raise FeedError(
                f"no value was given for the input {', '.join(map(repr, missing))}; the model has "
                f"{self.listed_inputs()}"
            )
        return {self.inputs[name]: value for name, value in given.items()}

    def missing(self, given: Collection[str]) -> list[str]:
        """The inputs that a run needs beside those given: without them a placeholder is not fed."""
        key = frozenset(given)
        found = self._required.get(key)
        if found is None:
            fed = dict.fromkeys(self.inputs[name] for name in given)
            needed = needed_operations(fed, self.outputs.values())
            unfed = {op for op in needed if op.type == "Placeholder" and op.outputs[0] not in fed}
            found = self._required[key] = [
                name for name, t in self.inputs.items()
                if name not in key and t.op in needed and unfed & {*reachable([t.op], fed)}
            ]  # fmt: skip
        return found

    def listed_inputs(self) -> str:
        """The inputs with their types, for messages."""
        return ", ".join(_listed(n, t) for n, t in self.inputs.items()) or "none"

    def __repr__(self) -> str:
        outs = ", ".join(_listed(n, t) for n, t in self.outputs.items())
        count = len(self.variables)
        noun = "variable" if count == 1 else "variables"
        return f"<graphc.Model ({self.listed_inputs()}) -> ({outs}), {count} {noun}>"


def _listed(name: str, element: Tensor | Operation) -> str:
    if isinstance(element, Operation):
        return name
    return f"{name}: {element.dtype.base_dtype.name}{element.shape}"
