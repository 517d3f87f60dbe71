"""Files: saving a model and loading it where its source was never seen."""

from __future__ import annotations

from graphc.formats.kernels import load_kernels, save_kernels
from graphc.formats.load import load
from graphc.formats.model import Model
from graphc.formats.save import save

__all__ = ["Model", "load", "load_kernels", "save", "save_kernels"]
