"""Random ops with seeds, as TensorFlow has them, and their public functions.

``RandomUniform`` and its kin are impure: each run of a session gives other numbers.  The compiler
replaces them by the ops of :mod:`graphc.ops.random_stateless`, with a key made of the seeds and a
counter that the session keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import constant_of, convert_to_tensor, create, is_symbolic, single
from graphc.dtypes import DType, as_dtype
from graphc.errors import GraphError
from graphc.graph import Operation, Tensor, TensorType, get_default_graph, name_scope
from graphc.op import Attr, InferContext, Sample, SpecialOp, get_op, register
from graphc.ops.base import call
from graphc.ops.random_bits import seed_key
from graphc.ops.random_stateless import INDEX

DEFAULT_GRAPH_SEED = 87654321
MAX_INT32 = 2**31 - 1
# Seeds are below 2**31: no operation with a seed has the key of one without.
WITHOUT_SEED = 0xD1B54A32


class RandomOp(SpecialOp):
    """A random op with seeds; where both are 0 its place in the graph stands for them."""

    family = "random"
    inputs = "shape: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {
        "dtype": Attr("dtype", dtypes.float32),
        "seed": Attr("int", 0),
        "seed2": Attr("int", 0),
    }
    pure = False
    differentiable = False
    #: The op of random_stateless that computes it.
    stateless: ClassVar[str] = ""

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for, in the dtype of the attribute."""
        ctx.rank(0, 1)
        return [TensorType(ctx.attrs["dtype"], ctx.value(0))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """What the first run of a session gives for these seeds."""
        key = seed_key(attrs["seed"], attrs["seed2"])
        shape, rest = inputs[0], inputs[1:]
        return get_op(self.stateless).reference(attrs, shape, key, np.int64(0), *rest)

    def samples(self) -> Iterable[Sample]:
        """A matrix of each dtype, a scalar."""
        for dtype in dtypes.FLOATS:
            yield Sample((np.array([3, 4]),), {"dtype": dtype, "seed": 1, "seed2": 2})
        yield Sample((np.array([], np.int64),), {"seed": 5}, note="scalar")


@register
class RandomUniform(RandomOp):
    """Floats in [0, 1), other ones in every run."""

    name = "RandomUniform"
    stateless = "StatelessUniform"


@register
class RandomStandardNormal(RandomOp):
    """Floats with mean 0 and standard deviation 1, normally distributed, new in every run."""

    name = "RandomStandardNormal"
    stateless = "StatelessNormal"


@register
class TruncatedNormal(RandomOp):
    """Normally distributed floats no further than 2 from 0, new in every run."""

    name = "TruncatedNormal"
    stateless = "StatelessTruncatedNormal"


@register
class RandomUniformInt(RandomOp):
    """Integers in [``minval``, ``maxval``), new in every run; ``minval >= maxval`` is an error."""

    name = "RandomUniformInt"
    inputs = "shape: T, minval: Tout, maxval: Tout"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX, "Tout": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"seed": Attr("int", 0), "seed2": Attr("int", 0)}
    fallible = True
    stateless = "StatelessUniformInt"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for, in the dtype of the limits."""
        ctx.rank(0, 1)
        ctx.rank(1, 0)
        ctx.rank(2, 0)
        return [TensorType(ctx.dtype(1), ctx.value(0))]

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar."""
        attrs = {"seed": 1, "seed2": 2}
        yield Sample((np.array([3, 4]), np.int64(-2), np.int64(9)), attrs)
        yield Sample((np.array([], np.int64), np.int64(0), np.int64(2)), attrs, note="scalar")


def key_of(op: Operation) -> np.ndarray:
    """The key of a random operation: from its seeds, or from its place in the graph.

    What has no seed is as repeatable as everything else: the same graph gives the same numbers in
    every process.  Its keys differ from those of all seeds that TensorFlow's rules can give.
    """
    first, second = op.attrs["seed"], op.attrs["seed2"]
    return seed_key(first, second) if first or second else seed_key(WITHOUT_SEED, op.serial)


def stateless_form(
    op: Operation, inputs: Sequence[Tensor], counter: Tensor
) -> tuple[str, list[Tensor], dict[str, Any]]:
    """The plain op that a random operation is, given the number of the run.

    Args:
      op: the random operation.
      inputs: its inputs, in the graph that is being built (the default graph).
      counter: an int64 scalar, other in every run.
    Returns:
      The op's name, its operands (a constant key among them) and its attributes.
    """
    definition = op.definition
    assert isinstance(definition, RandomOp)
    key = key_of(op)
    attrs = {"dtype": op.attrs["dtype"]} if "dtype" in op.attrs else {}
    return definition.stateless, [inputs[0], constant_of(key, "key"), counter, *inputs[1:]], attrs


# --- seeds ----------------------------------------------------------------------------------------


def set_random_seed(seed: int | None) -> None:
    """Set the default graph's seed: other seeds give other random numbers.

    Without one the numbers are not left to chance either: an operation without a seed takes its
    place in the graph for one, so that the same program gives the same numbers in every process
    (where TensorFlow gives new ones).  For other numbers set another seed.
    """
    get_default_graph().seed = seed


def get_seed(op_seed: int | None) -> tuple[int | None, int | None]:
    """The attributes ``seed`` and ``seed2`` of a random operation, by TensorFlow's rules.

    With a seed of the graph: that seed, and the operation's own or the number of operations so far.
    With none of the graph: a fixed one and the operation's; ``(None, None)`` for neither, for
    which :func:`key_of` takes the operation's place in the graph.
    """
    graph = get_default_graph()
    if graph.seed is not None:
        own = graph.version if op_seed is None else op_seed
        seeds: tuple[int | None, int | None] = (graph.seed % MAX_INT32, own % MAX_INT32)
    elif op_seed is not None:
        seeds = (DEFAULT_GRAPH_SEED, op_seed % MAX_INT32)
    else:
        seeds = (None, None)
    return (0, MAX_INT32) if seeds == (0, 0) else seeds


def _seed_attrs(seed: int | None) -> dict[str, Any]:
    first, second = get_seed(seed)
    return {"seed": first or 0, "seed2": second or 0}


# --- public functions -----------------------------------------------------------------------------


def _shape_tensor(shape: Any) -> Tensor:
    """A shape given as numbers, Dimensions, a TensorShape or a tensor, as a tensor."""
    if isinstance(shape, (list, tuple)) and not any(is_symbolic(s) for s in shape):
        return convert_to_tensor(shape, dtype=dtypes.int32, name="shape")
    return convert_to_tensor(shape, name="shape", preferred_dtype=dtypes.int32)


def random_uniform(
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = dtypes.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Numbers in [``minval``, ``maxval``), equally likely; other ones in every run.

    Args:
      shape: the shape, a list or an integer tensor.
      minval, maxval: scalars; ``maxval`` is 1 by default for floats and must be given for integers.
      dtype: float16, float32, float64, int32 or int64.
      seed: the operation's seed; see :func:`set_random_seed` for what holds without one.
      name: the name scope.
    Raises:
      ValueError: another dtype, or integers without ``maxval``.
    """
    kind = as_dtype(dtype)
    if kind not in (*dtypes.FLOATS, *INDEX):
        raise GraphError(f"Invalid dtype {kind!r}")
    if maxval is None:
        if kind.is_integer:
            raise GraphError(f"Must specify maxval for integer dtype {kind!r}")
        maxval = 1
    with name_scope(name, "random_uniform", [shape, minval, maxval]) as scope:
        sizes = _shape_tensor(shape)
        low = convert_to_tensor(minval, dtype=kind, name="min")
        high = convert_to_tensor(maxval, dtype=kind, name="max")
        attrs = _seed_attrs(seed)
        if kind.is_integer:
            return single(create("RandomUniformInt", [sizes, low, high], attrs, scope))
        random = single(create("RandomUniform", [sizes], {**attrs, "dtype": kind}))
        span = call("Sub", high, low, name="sub")
        scaled = call("Mul", random, span, name="mul")
        return single(create("Add", [scaled, low], None, scope))


def _shifted(
    op_name: str, scope_name: str, shape: Any, mean: Any, stddev: Any, dtype: Any,
    seed: int | None, name: str | None,
) -> Tensor:  # fmt: skip
    kind = as_dtype(dtype)
    with name_scope(name, scope_name, [shape, mean, stddev]) as scope:
        sizes = _shape_tensor(shape)
        mean = convert_to_tensor(mean, dtype=kind, name="mean")
        stddev = convert_to_tensor(stddev, dtype=kind, name="stddev")
        random = single(create(op_name, [sizes], {**_seed_attrs(seed), "dtype": kind}))
        scaled = call("Mul", random, stddev, name="mul")
        return single(create("Add", [scaled, mean], None, scope))


def random_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = dtypes.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normally distributed floats; other ones in every run."""
    return _shifted(
        "RandomStandardNormal", "random_normal", shape, mean, stddev, dtype, seed, name
    )


def truncated_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = dtypes.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normally distributed floats within two standard deviations; other ones in every run."""
    return _shifted(
        "TruncatedNormal", "truncated_normal", shape, mean, stddev, dtype, seed, name
    )
