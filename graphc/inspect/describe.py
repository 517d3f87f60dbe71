"""Models, ops and the installation as short texts."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.errors import GraphError
from graphc.formats import Model
from graphc.graph import Operation, Region, Tensor
from graphc.op import REGISTRY, REQUIRED, Arg, Op
from graphc.ops.control import is_control
from graphc.runtime import cache, jit, native
from graphc.runtime.cuda_cupy import cuda_names

# The features that decide which instructions kernels are made of.
FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni",
    "avx512bf16", "avx512fp16", "avxvnni", "amx-int8", "amx-bf16",
    "neon", "dotprod", "i8mm", "fullfp16", "bf16", "sve", "sve2",
)  # fmt: skip
X86_TARGETS = ("avx512bf16", "avx512vnni", "avx512", "avx2", "generic")


# --- models ---------------------------------------------------------------------------------------


def describe_model(model: Model, path: Any = None) -> str:
    """The signature, the variables, the ops and their number, the sizes."""
    lines = []
    if path is not None:
        lines.append(f"{path}: {Path(path).stat().st_size:,} bytes")
    for title, elements in (("inputs", model.inputs), ("outputs", model.outputs)):
        lines += ["", title, *table([_element(n, e) for n, e in elements.items()])]
    lines += ["", "variables", *table([_variable(model, v) for v in model.variables])]
    operations = model.graph.get_operations()
    inside = sum(op.region is not None for op in operations)
    lines += ["", f"ops ({len(operations)}{f', {inside} of them in bodies' if inside else ''})"]
    lines += [f"  {count:5} {type_}" for type_, count in _counts(operations)]
    if inside:
        lines += ["", "bodies", *table(_bodies(operations, None))]
    lines += ["", _totals(model)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _counts(operations: Sequence[Operation]) -> list[tuple[str, int]]:
    """How many there are of each op, the most frequent first."""
    counts = Counter(op.type for op in operations)
    return sorted(counts.items(), key=lambda c: (-c[1], c[0]))


def _bodies(operations: Sequence[Operation], around: Region | None) -> list[tuple[str, ...]]:
    """A row for each body, those in it below and further to the right."""
    rows: list[tuple[str, ...]] = []
    depth = 0
    region = around
    while region is not None:
        depth, region = depth + 1, region.parent
    for op in operations:
        if op.region is not around or not is_control(op):
            continue
        for k, body in enumerate(op.attrs["bodies"]):
            role = ("condition", "body")[k] if op.type == "While" else f"branch {k}"
            if op.type == "Case" and op.inputs[0].dtype.base_dtype is bool_:
                role = ("if true", "if false")[k]
            held = [name if n == 1 else f"{n} {name}" for name, n in _counts(body.operations)]
            size = f"{len(body.operations)} op{'' if len(body.operations) == 1 else 's'}"
            rows.append(("  " * depth + op.name, op.type, role, size, ", ".join(held) or "none"))
            rows += _bodies(body.operations, body)
    return rows


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with their columns aligned; ``none`` for no rows."""
    if not rows:
        return ["  none"]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip


def _element(name: str, element: Any) -> tuple[str, ...]:
    if not isinstance(element, Tensor):
        return (name, "operation", "", element.name)
    optional = "  may be left out" if element.op.type == "PlaceholderWithDefault" else ""
    return (name, element.dtype.base_dtype.name, str(element.shape), element.name + optional)


def _value(model: Model, v: Any) -> np.ndarray | None:
    has_value = v.op.name not in _uninitialized(model)
    return model.session.read_variable(v.op) if has_value else None


def _uninitialized(model: Model) -> set[str]:
    state = model.session._variable_state
    return {v.op.name for v in model.variables if not state(v.op).initialized}


def _variable(model: Model, v: Any) -> tuple[str, ...]:
    value = _value(model, v)
    kind = "" if v.trainable else "not trainable"
    if value is None:
        return (v.op.name, v.dtype.base_dtype.name, str(v.shape), "", f"no value  {kind}".strip())
    return (v.op.name, str(value.dtype), str(value.shape), f"{value.nbytes:,} bytes", kind)


def _totals(model: Model) -> str:
    total = trainable = size = 0
    for v in model.variables:
        value = _value(model, v)
        if value is not None:
            total += value.size
            trainable += value.size if v.trainable else 0
            size += value.nbytes
    return f"{total:,} parameters, {trainable:,} of them trainable, {size:,} bytes"


# --- ops ------------------------------------------------------------------------------------------


def list_ops() -> str:
    """One line per op."""
    rows = [(name, op.family, op.doc.splitlines()[0]) for name, op in sorted(REGISTRY.items())]
    return "\n".join(table(rows)) + "\n"


def describe_op(name: str) -> str:
    """What an op is: documentation, operands, attributes.

    Raises:
      GraphError: (a ValueError) there is none of that name; says which are close.
    """
    op = REGISTRY.get(name)
    if op is None:
        lower = {n.lower(): n for n in REGISTRY}
        close = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, 4, 0.5)]
        hint = f"; close to it: {', '.join(close)}" if close else "; `graphc ops` lists all"
        raise GraphError(f"there is no op named {name!r}{hint}")
    lines = [f"{op.name}, version {op.version}, {op.family}", "", clean(op.doc), ""]
    lines += ["inputs", *table([(a.name, input_types(a)) for a in op.args])]
    rows = [(k, a.kind, default_text(a.default)) for k, a in op.attrs.items()]
    lines += ["", "attributes", *table(rows), "", ", ".join(properties(op))]
    return "\n".join(lines) + "\n"


def clean(doc: str) -> str:
    """A docstring without the indentation of its later lines."""
    first, *rest = doc.expandtabs().splitlines()
    margin = min((len(t) - len(t.lstrip()) for t in rest if t.strip()), default=0)
    return "\n".join([first.strip(), *(t[margin:].rstrip() for t in rest)]).strip()


def input_types(arg: Arg) -> str:
    """The dtypes that an operand admits: ``T: float32 | float64``, ``list of ...``."""
    types = " | ".join(t.name for t in arg.types)
    text = f"{arg.type_var}: {types}" if arg.type_var else types
    if arg.ref:
        text = f"a variable's handle of {text}"
    return f"list of {text}" if arg.variadic else text


def default_text(default: Any) -> str:
    """An attribute's default, or that there is none."""
    if default is REQUIRED:
        return "required"
    return f"= {getattr(default, 'name', None) or repr(default)}"


def properties(op: Op) -> list[str]:
    """Whether the op has a gradient, can make a run fail, has an effect."""
    found = ["differentiable" if op.differentiable else "no gradient"]
    if op.fallible:
        found.append("some values make a run fail")
    if not op.pure:
        found.append("has an effect or a state")
    return found


# --- the installation -----------------------------------------------------------------------------


def describe_installation(version: str) -> str:
    """Versions, the CPU and what is compiled for it, CUDA, the cache."""
    target, refused = jit.named_target("host"), ""
    try:
        target = jit.host_target()
    except ValueError as error:
        refused = f" ({error})"
    targets = []
    for name in X86_TARGETS:
        other = jit.named_target(name)
        targets.append(name if other.is_host else f"{name} (not on this machine)")
    rows = [
        ("graphc", f"{version} (Python {sys.version.split()[0]}, NumPy {np.__version__})"),
        ("CPU", f"{target.cpu}, {target.vector_bytes * 8}-bit vectors: {features(target)}"),
        ("compiler", f"LLVM {target.description.rsplit('llvm-', 1)[-1]} for {target.triple}"),
        ("targets", f"{target.name}{refused}; GRAPHC_TARGET may name {', '.join(targets)}"),
        ("threads", str(native.get_num_threads())),
        ("CUDA", cuda_status()),
        ("cache", cache_status()),
    ]
    return "\n".join(f"{name:9} {text}" for name, text in rows) + "\n"


def features(target: Any) -> str:
    """Those of the CPU's features that kernels make use of."""
    has = {f[1:] for f in target.features.split(",") if f.startswith("+")}
    return " ".join(f for f in FEATURES if f in has) or "the baseline"


def cuda_status() -> str:
    """Whether a GPU can be used, or why not."""
    try:
        import cupy
    except ImportError:
        return "no: cupy is not installed (pip install graphc[cuda13] or graphc[cuda12])"
    if not cupy.is_available():
        return f"no: cupy {cupy.__version__} finds no GPU or driver"
    found = []
    for number, name in enumerate(cuda_names()):
        about = cupy.cuda.runtime.getDeviceProperties(number)
        arch, size = f"sm_{about['major']}{about['minor']}", about["totalGlobalMem"] / (1 << 30)
        found.append(f"{name}: {about['name'].decode()} ({arch}, {size:.0f} GiB)")
    return f"cupy {cupy.__version__} finds {'; '.join(found)}"


def cache_status() -> str:
    """Where compiled code is kept and how much there is."""
    store = cache.default_cache()
    if store.directory is None:
        return "off"
    stats = store.stats()
    return (
        f"{store.directory}: {stats.entries} programs, {stats.bytes / 1e6:.1f} MB of "
        f"{store.limit / 1e6:.0f} MB"
    )
