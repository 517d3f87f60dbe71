"""Writes docs/ops.md, the reference of all ops, from the registry.

    python docs/generate.py            write it
    python docs/generate.py --check    fail if it is not what the registry gives
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import graphc.ops
from graphc.build import constant_of, create
from graphc.dtypes import DType, as_dtype, float32, int32, string
from graphc.graph import Graph, Operation
from graphc.inspect.describe import default_text
from graphc.op import REGISTRY, Arg, Op, Sample, evaluate_reference

TARGET = Path(__file__).with_name("ops.md")
COMMAND = "make docs"
FAMILIES = {
    "elementwise": "One element of the output from one element of each operand (or from none: "
    "movements and views are index maps). Fused for free.",
    "reduction": "One element of the output from a loop over elements of the operands.",
    "contraction": "Sums of products, computed by the templates of `kernels/`, which take a "
    "prologue and an epilogue.",
    "scatter": "Computed by a template of `kernels/`; nothing is fused behind it.",
    "composite": "Defined by other ops; kept whole so that passes and files recognise them.",
    "random": "Random numbers from a counter and a seed.",
    "special": "What the compiler knows by itself.",
    "state": "Variables.",
}
INTRODUCTION = (
    "graphc has {count} ops. Scripts use them through functions (`gc.matmul` declares `MatMul`); "
    "this is what graphs and files are made of. A name such as `T` stands for one dtype in all its "
    "places. Examples show the first sample of an op as its NumPy reference computes it."
)
MOST = 8  # elements that an example shows of an array


def load_all() -> None:
    """Import every module of ops, so that the registry is complete."""
    for module in pkgutil.iter_modules(graphc.ops.__path__):
        importlib.import_module(f"graphc.ops.{module.name}")


def reference() -> str:
    """The whole page."""
    load_all()
    lines = [
        "# Ops",
        "",
        f"<!-- Generated from the registry by docs/generate.py; do not edit: run `{COMMAND}`. -->",
        "",
        INTRODUCTION.format(count=len(REGISTRY)),
        "",
    ]
    families = sorted({op.family for op in REGISTRY.values()}, key=family_order)
    for family in families:
        ops = sorted((op for op in REGISTRY.values() if op.family == family), key=by_name)
        listed = ", ".join(f"[{op.name}](#{op.name.lower()})" for op in ops)
        lines += [f"- **{family}**: {listed}"]
    for family in families:
        ops = sorted((op for op in REGISTRY.values() if op.family == family), key=by_name)
        lines += ["", f"## {family}", "", FAMILIES.get(family, ""), ""]
        for op in ops:
            lines += entry(op)
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip("\n") + "\n"


def by_name(op: Op) -> str:
    return op.name


def family_order(family: str) -> tuple[int, str]:
    known = list(FAMILIES)
    return (known.index(family) if family in known else len(known), family)


def entry(op: Op) -> list[str]:
    """One op."""
    lines = [f"### {op.name}", "", f"`{signature(op)}` · {', '.join(notes(op))}", ""]
    lines += [inspect.cleandoc(op.doc), ""]
    variables = {a.type_var: a.types for a in op.args if a.type_var}
    for name, types in variables.items():
        lines.append(f"- `{name}`: {', '.join(t.name for t in types)}")
    for key, attr in op.attrs.items():
        lines.append(f"- attribute `{key}`: {attr.kind}, {default_text(attr.default)}")
    if variables or op.attrs:
        lines.append("")
    return [*lines, *example(op)]


def signature(op: Op) -> str:
    """``MatMul(a: T, b: T)``."""
    return f"{op.name}({', '.join(operand(a) for a in op.args)})"


def operand(arg: Arg) -> str:
    kind = arg.type_var or " | ".join(t.name for t in arg.types)
    if arg.ref:
        kind = f"handle of {kind}"
    return f"{arg.name}: " + (f"list of {kind}" if arg.variadic else kind)


def notes(op: Op) -> Iterator[str]:
    """What is true of the op besides its types."""
    yield f"version {op.version}"
    yield "differentiable" if op.differentiable else "no gradient"
    if op.fallible:
        yield "some values make a run fail"
    if not op.pure:
        yield "has an effect or a state"


# --- examples -------------------------------------------------------------------------------------


def example(op: Op) -> list[str]:
    """The first sample, as inputs and outputs."""
    sample = next(iter(op.samples()), None)
    if sample is None:
        return []
    values = operands(op, sample)
    outputs = computed(op, sample, values)
    given = [f"{name} = {text(value)}" for name, value in values]
    given += [f"{key} = {attr_text(value)}" for key, value in sample.attrs.items()]
    found = [text(v) for v in outputs]
    names = [""] if len(found) == 1 else [f"output {k}: " for k in range(len(found))]
    results = [f"→ {n}{v}" for n, v in zip(names, found, strict=True)]
    return ["```text", *given, *results, "```", ""]


def operands(op: Op, sample: Sample) -> list[tuple[str, np.ndarray]]:
    """The operands of a sample, in the dtypes that an example shows."""
    chosen: dict[str, DType] = {}
    found: list[tuple[str, np.ndarray]] = []
    for arg, given in zip(op.args, sample.inputs, strict=True):
        members = list(given) if arg.variadic else [given]
        for k, member in enumerate(members):
            dtype = example_dtype(arg, np.asarray(member), sample, chosen)
            name = f"{arg.name}[{k}]" if arg.variadic else arg.name
            found.append((name, np.array(np.asarray(member).astype(dtype.numpy), order="C")))
    return found


def example_dtype(arg: Arg, value: np.ndarray, sample: Sample, chosen: dict[str, DType]) -> DType:
    """float32 and int32 where the operand takes them, else the first dtype it takes."""
    if arg.type_var in chosen:
        return chosen[arg.type_var]
    allowed = [t for t in arg.types if t is not string]
    if arg.type_var and sample.dtypes is not None and not chosen:
        allowed = [t for t in allowed if t in sample.dtypes] or allowed
    wanted = {"f": float32, "b": as_dtype("bool")}.get(value.dtype.kind, int32)
    dtype = next((t for t in (wanted, float32, int32) if t in allowed), allowed[0])
    if arg.type_var:
        chosen[arg.type_var] = dtype
    return dtype


def computed(op: Op, sample: Sample, values: Iterable[tuple[str, np.ndarray]]) -> Any:
    """The outputs by the op's reference, in the types that inference gives."""
    arrays = [v for _, v in values]
    declared = declare(op, sample, arrays)
    return evaluate_reference(declared, arrays)


def declare(op: Op, sample: Sample, arrays: list[np.ndarray]) -> Operation:
    """The op over constants, in a graph of its own."""
    with Graph().as_default():
        tensors = iter([constant_of(a.copy()) for a in arrays])
        inputs: list[Any] = []
        for arg, given in zip(op.args, sample.inputs, strict=True):
            inputs.append([next(tensors) for _ in given] if arg.variadic else next(tensors))
        return create(op.name, inputs, sample.attrs)


def text(array: np.ndarray) -> str:
    """``float32[2, 2] [[1, 2], [3, 4]]``; the first elements of a larger array."""
    head = f"{array.dtype}{list(array.shape)}"
    if array.size > MOST:
        shown = ", ".join(number(v) for v in array.reshape(-1)[:MOST])
        return f"{head} {shown}, …"
    return f"{head} {nested(array)}"


def nested(array: np.ndarray) -> str:
    if array.ndim == 0:
        return number(array[()])
    return "[" + ", ".join(nested(a) for a in array) + "]"


def number(value: Any) -> str:
    """An element, short: what four digits tell is the same on every machine."""
    if isinstance(value, np.bool_):
        return str(bool(value))
    if isinstance(value, np.floating):
        return f"{float(value):.4g}"
    return str(value)


def attr_text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return text(value)
    return getattr(value, "name", None) or repr(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args()
    page = reference()
    if args.check:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != page:
            print(f"{TARGET} is not what the registry gives: run `{COMMAND}`")
            return 1
        return 0
    TARGET.write_text(page, encoding="utf-8")
    print(f"{TARGET}: {len(REGISTRY)} ops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
