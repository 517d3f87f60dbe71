"""Eager mode: the same ops through the same compiled kernels, one op at a time.

An eager session runs what a static one runs, but every op is a program of its own, called from
Python, with its result in memory: what a graph compiler saves is the difference between the two.
Nothing else differs, so one argument turns a static program or benchmark into an eager one.
"""

from __future__ import annotations

from typing import Any

from graphc import session as _session
from graphc.graph import Graph, graph_of


class Session(_session.Session):
    """A session in eager mode; takes what :class:`graphc.Session` takes."""

    def __init__(self, target: str = "", graph: Graph | None = None, config: Any = None) -> None:
        super().__init__(target, graph, config, mode="eager")


def run(fetches: Any, feed_dict: Any = None) -> Any:
    """Evaluate ``fetches`` op by op in a session of its own: for graphs without variables.

    Args:
      fetches: as for ``Session.run``.
      feed_dict: values for tensors.
    Returns:
      What ``Session.run`` returns.
    """
    flat = fetches if isinstance(fetches, (list, tuple)) else [fetches]
    with Session(graph=graph_of(flat)) as sess:
        return sess.run(fetches, feed_dict)


__all__ = ["Session", "run"]
