"""Errors that a user of graphc can meet, each with the user's own ``file:line``.

Errors raised while a graph is declared derive from the builtin exception that TensorFlow 1.x
raises in the same place (``ValueError``, ``TypeError``, ...).  Errors raised by a run derive from
:class:`OpError` and carry the operation, its type and TensorFlow's numeric error code, under the
class names of ``tf.errors``.

The first line of every message is self-contained; the lines after it give the context (the
operation, its operands and where it was declared).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

_PACKAGE_DIR = os.path.dirname(os.path.abspath(__file__)) + os.sep
_INTERNAL: dict[str, bool] = {}


@dataclass(frozen=True, slots=True)
class Location:
    """Where the user declared something: the innermost frame outside the package."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _is_internal(filename: str) -> bool:
    known = _INTERNAL.get(filename)
    if known is None:
        inside = os.path.abspath(filename).startswith(_PACKAGE_DIR)
        known = _INTERNAL[filename] = inside or filename.startswith("<frozen")
    return known


def user_location() -> Location:
    """The caller's own line: the innermost stack frame whose file is not part of graphc."""
    frame: FrameType | None = sys._getframe(1)
    outermost = frame
    while frame is not None:
        if not _is_internal(frame.f_code.co_filename):
            return Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        outermost, frame = frame, frame.f_back
    assert outermost is not None
    return Location(outermost.f_code.co_filename, outermost.f_lineno, outermost.f_code.co_name)


class GraphcError(Exception):
    """Base of every error that graphc raises on purpose."""


class ShapeError(GraphcError, ValueError):
    """Operand shapes that an operation cannot accept, found while the graph is declared."""


class DTypeError(GraphcError, TypeError):
    """Operand dtypes that an operation cannot accept, found while the graph is declared."""


class GraphError(GraphcError, ValueError):
    """A graph that is used wrongly: unknown names, tensors of another graph, duplicate names."""


class FinalizedError(GraphcError, RuntimeError):
    """A finalized graph or a closed session was used."""


class FeedError(GraphcError, ValueError):
    """A fed value that does not fit the tensor it is fed to."""


class FetchError(GraphcError, ValueError):
    """Something that cannot be fetched."""


class DataError(GraphcError, ValueError):
    """A data set file that is missing, truncated or not what it claims to be."""


class FileFormatError(GraphcError, ValueError):
    """A model file that is truncated, altered or of an unknown version."""


class CompileError(GraphcError, RuntimeError):
    """The compiler broke one of its own rules; names the pass and prints the op in context."""


class VerifyError(CompileError):
    """A verifier refused a graph, a kernel or a program."""


class AbstractMethodError(GraphcError, NotImplementedError):
    """A method that a subclass should have defined."""


class OperatorNotAllowedInGraphError(GraphcError, TypeError):
    """A Python operation (``bool``, iteration) that a symbolic tensor cannot answer."""


class OpError(GraphcError):
    """An error of a run.

    Attributes:
      node_def: what the operation was declared as (has ``name`` and ``op``), or None.
      op: the :class:`graphc.Operation`, or None when it is not part of the user's graph.
      message: the message without the context lines.
      error_code: the numeric code of TensorFlow's error space.
    """

    def __init__(self, node_def: Any, op: Any, message: str, error_code: int | None = None) -> None:
        super().__init__(message)
        self.node_def = node_def
        self.op = op
        self.message = message
        self.error_code = self.code if error_code is None else error_code

    code = 2

    def __str__(self) -> str:
        if self.op is None:
            return self.message
        return (
            f"{self.message}\n\t [[node {self.op.name} (op: {self.op.type}), "
            f"declared at {self.op.location}]]"
        )


class CancelledError(OpError):
    """The run was cancelled."""

    code = 1


class UnknownError(OpError):
    """An error of no other class."""

    code = 2


class InvalidArgumentError(OpError):
    """An operation received a value that it cannot accept."""

    code = 3


class DeadlineExceededError(OpError):
    """The run took longer than was allowed."""

    code = 4


class NotFoundError(OpError):
    """A file or a name that does not exist."""

    code = 5


class AlreadyExistsError(OpError):
    """Something that was to be created exists."""

    code = 6


class PermissionDeniedError(OpError):
    """The caller may not do this."""

    code = 7


class ResourceExhaustedError(OpError):
    """There is not enough memory; no variable was changed."""

    code = 8


class FailedPreconditionError(OpError):
    """The state does not allow the operation: an uninitialized variable, say."""

    code = 9


class AbortedError(OpError):
    """The operation was aborted."""

    code = 10


class OutOfRangeError(OpError):
    """The end of the input was passed."""

    code = 11


class UnimplementedError(OpError):
    """The operation has no implementation for these operands."""

    code = 12


class InternalError(OpError):
    """The runtime broke one of its own rules."""

    code = 13


class UnavailableError(OpError):
    """A device or service that cannot be had now."""

    code = 14


class DataLossError(OpError):
    """Data that was lost or altered."""

    code = 15
