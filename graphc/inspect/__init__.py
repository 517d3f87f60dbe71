"""Looking at what the compiler does: every stage of a compilation as text."""

from __future__ import annotations

from graphc.inspect.stages import Stage, compile_stages, write_stages

__all__ = ["Stage", "compile_stages", "write_stages"]
