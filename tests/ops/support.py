"""What the generated tests of ops share: rows of the registry as graphs, values and tolerances."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ops
from graphc import dtypes
from graphc.build import constant_of, create
from graphc.dtypes import DType
from graphc.graph import Graph, Operation, Tensor
from graphc.op import REGISTRY, Arg, Op, Sample, SpecialOp
from graphc.runtime.jit import named_target

for _module in pkgutil.iter_modules(graphc.ops.__path__):
    importlib.import_module(f"graphc.ops.{_module.name}")

# Those that this machine can run, the best one first.
TARGETS = tuple(t for t in ("avx512", "avx2", "generic") if named_target(t).is_host)
INDEX_TYPES = {dtypes.int32, dtypes.int64}
# Ops whose operands must all be known when they are compiled, whatever their types.
NEEDS_VALUES = {"Range"}
EPSILON = {
    dtypes.float16: 2.0**-10, dtypes.bfloat16: 2.0**-7,
    dtypes.float32: 2.0**-23, dtypes.float64: 2.0**-52,
}  # fmt: skip


def run_compiled(fetches: Sequence[Any], feeds: dict[Any, Any], target: str) -> list[Any]:
    """The fetches' values by the compiler for one CPU target."""
    from graphc.session import Session

    before = os.environ.get("GRAPHC_TARGET")
    os.environ["GRAPHC_TARGET"] = target
    try:
        graph = next(t for t in fetches).graph
        with Session(graph=graph) as session:
            return session.run(list(fetches), feeds)
    finally:
        if before is None:
            del os.environ["GRAPHC_TARGET"]
        else:
            os.environ["GRAPHC_TARGET"] = before


def pure_ops() -> list[Op]:
    """Every registered op that can be computed from its operands alone, by name."""
    ops = [op for op in REGISTRY.values() if not isinstance(op, SpecialOp) and op.pure]
    return sorted(ops, key=lambda op: op.name)


def first_type_var(op: Op) -> str | None:
    """The type variable that the tests run through: the first that is not just for indices."""
    variables = [a.type_var for a in op.args if a.type_var is not None]
    return next((v for v in variables if not set(op.types[v]) <= INDEX_TYPES), None)


def op_dtypes(op: Op) -> list[DType | None]:
    """The dtypes that the first type variable takes; None for an op without one."""
    var = first_type_var(op)
    return [None] if var is None else [t for t in op.types[var] if t is not dtypes.string]


def converted(value: Any, dtype: DType) -> np.ndarray:
    """A sample's array in another dtype: towards zero, and without sign for unsigned types."""
    array = np.asarray(value)
    if dtype.is_unsigned:
        array = np.abs(array)
    with np.errstate(all="ignore"):
        return np.array(array.astype(dtype.numpy), order="C")


def number_kind(dtype: np.dtype[Any]) -> str:
    """NumPy's character for the kind of a dtype; bfloat16 is a float."""
    return "f" if dtypes.is_float(dtype) else dtype.kind


def as_numbers(value: Any) -> np.ndarray:
    """bfloat16 as float32: NumPy's comparisons know no NaN in it."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == dtypes.bfloat16.numpy else array


def operand_dtype(op: Op, arg: Arg, value: Any, dtype: DType | None) -> DType:
    """The dtype that a sample's array is given to an operand in."""
    var = first_type_var(op)
    if arg.type_var is not None and arg.type_var == var:
        assert dtype is not None
        return dtype
    kind = np.asarray(value).dtype.kind
    wanted = {"f": dtypes.float32, "b": dtypes.bool_}.get(kind, dtypes.int32)
    return wanted if wanted in arg.types else arg.types[0]


def is_index(arg: Arg) -> bool:
    """Whether an operand says axes, shapes or positions, which the tests give as constants."""
    return set(arg.types) <= INDEX_TYPES


@dataclass
class Case:
    """One sample of one op in one dtype.

    Attributes:
      values: the arrays, one per tensor, in the dtypes that the operands get.
      constants: for each tensor, whether it is a constant of the graph.
      groups: how many tensors each declared operand has; None for one that is no list.
    """

    op: Op
    sample: Sample
    dtype: DType | None
    values: list[np.ndarray]
    constants: list[bool]
    groups: list[int | None]

    def __str__(self) -> str:
        shapes = ", ".join(f"{v.dtype}{list(v.shape)}" for v in self.values)
        return f"{self.op.name}({shapes}) {self.sample.attrs} {self.sample.note}"

    def declare(self, known: str = "shape", graph: Graph | None = None) -> Declared:
        """The op over placeholders (constants where values must be known) in a (new) graph.

        ``known`` is what the placeholders say: their ``shape``, their ``rank``, or ``nothing``.
        """
        with (graph or Graph()).as_default():
            tensors = [self._operand(i, known) for i in range(len(self.values))]
            inputs: list[Any] = []
            at = 0
            for count in self.groups:
                inputs.append(tensors[at] if count is None else tensors[at : at + count])
                at += 1 if count is None else count
            op = create(self.op.name, inputs, self.sample.attrs)
        feeds = {
            t: v
            for t, v, fixed in zip(tensors, self.values, self.constants, strict=True)
            if not fixed
        }
        return Declared(op, tensors, feeds)

    def _operand(self, i: int, known: str) -> Tensor:
        value = self.values[i]
        if self.constants[i]:
            return constant_of(value.copy())
        shape: Any = {
            "shape": value.shape, "rank": [None] * value.ndim, "nothing": None
        }[known]  # fmt: skip
        return graphc.ops.array.placeholder(dtypes.as_dtype(value.dtype), shape)

    def tolerance(self, value: np.ndarray) -> dict[str, float]:
        """``rtol`` and ``atol`` for comparing with ``value``."""
        if not dtypes.is_float(value.dtype):
            return {"rtol": 0.0, "atol": 0.0}
        scale = EPSILON[dtypes.as_dtype(value.dtype)] / EPSILON[dtypes.float32]
        rtol = self.sample.rtol * scale
        if self.op.family in ("elementwise", "movement"):
            return {"rtol": rtol, "atol": rtol * 1e-3}
        return {"rtol": rtol, "atol": rtol * 4}

    def check(self, found: Any, expected: Any, what: str) -> None:
        """Fail unless two values agree in dtype, shape and, within tolerance, elements."""
        found, expected = np.asarray(found), np.asarray(expected)
        assert found.dtype == expected.dtype, f"{self}: {what}: {found.dtype}"
        assert found.shape == expected.shape, f"{self}: {what}: {found.shape}"
        np.testing.assert_allclose(
            as_numbers(found), as_numbers(expected), **self.tolerance(expected), equal_nan=True,
            err_msg=f"{self}: {what}",
        )  # fmt: skip


@dataclass
class Declared:
    """A case in a graph: the operation, its operands, and what to feed."""

    op: Operation
    operands: list[Tensor]
    feeds: dict[Tensor, np.ndarray]


def cases(op: Op, dtype: DType | None) -> Iterator[Case]:
    """Every sample of an op that has the dtype."""
    for sample in op.samples():
        if sample.dtypes is not None and dtype is not None and dtype not in sample.dtypes:
            continue
        values: list[np.ndarray] = []
        constants: list[bool] = []
        groups: list[int | None] = []
        for arg, given in zip(op.args, sample.inputs, strict=True):
            members = list(given) if arg.variadic else [given]
            groups.append(len(members) if arg.variadic else None)
            for member in members:
                values.append(converted(member, operand_dtype(op, arg, member, dtype)))
                constants.append(is_index(arg) or op.name in NEEDS_VALUES)
        yield Case(op, sample, dtype, values, constants, groups)


def flat_operand(case: Case, operand: int) -> range:
    """The tensors of declared operand ``operand``."""
    start = sum(1 if g is None else g for g in case.groups[:operand])
    group = case.groups[operand]
    return range(start, start + (1 if group is None else group))


def op_rows() -> list[Any]:
    """(op, dtype) for pytest."""
    return [(op, dtype) for op in pure_ops() for dtype in op_dtypes(op)]


def row_id(value: Any) -> str:
    """A readable test id."""
    if isinstance(value, Op):
        return value.name
    return "any" if value is None else str(getattr(value, "name", value))
