"""The default graph and the default session, per thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from graphc.errors import GraphError


class Stacks(threading.local):
    """Default graphs and sessions, per thread."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []
        self.sessions: list[Any] = []


STACKS = Stacks()


@contextlib.contextmanager
def stacked(stack: list[Any], item: Any) -> Iterator[Any]:
    """A context in which ``item`` is on top of a stack."""
    stack.append(item)
    try:
        yield item
    finally:
        stack.remove(item)


def get_default_session() -> Any:
    """The innermost session made the default by ``with``, or None."""
    return STACKS.sessions[-1] if STACKS.sessions else None


def session_context(session: Any) -> contextlib.AbstractContextManager[Any]:
    """A context in which ``session`` is the default session."""
    return stacked(STACKS.sessions, session)


def push_session(session: Any) -> None:
    """Make ``session`` the default until :func:`pop_session` (InteractiveSession)."""
    STACKS.sessions.append(session)
    STACKS.graphs.append(session.graph)


def pop_session(session: Any) -> None:
    """Undo :func:`push_session`."""
    if session in STACKS.sessions:
        STACKS.sessions.remove(session)
        STACKS.graphs.remove(session.graph)


def default_session(method: str, what: str, session: Any) -> Any:
    """``session``, or the default session; an error that names ``method`` if there is none."""
    if session is None:
        session = get_default_session()
    if session is None:
        raise GraphError(
            f"Cannot {what} using `{method}()`: No default session is registered. Use `with "
            f"sess.as_default()` or pass an explicit session to `{method}(session=sess)`"
        )
    return session
