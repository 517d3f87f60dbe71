"""The ops: importing this package registers every op class of every module in it.

Modules are found by looking, so that adding an op touches the one file that it is in.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
