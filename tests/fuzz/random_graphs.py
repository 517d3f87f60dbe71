"""The steps that random graphs are made of; each returns None where it does not apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from graph_builder import Builder, Case, Value
from hypothesis import strategies as st

import graphc as gc
from graphc import dtypes, nn
from graphc.ops.contraction_functions import matmul

LARGE = 1e3
SHORT = ("float16", "bfloat16")

UNARY: dict[str, Callable[[float], float]] = {
    "abs": lambda b: b, "negative": lambda b: b, "square": lambda b: b * b,
    "floor": lambda b: b + 1, "ceil": lambda b: b + 1, "sign": lambda b: 1,
}  # fmt: skip
SMOOTH: dict[str, Callable[[float], float]] = {
    "tanh": lambda b: 1, "sigmoid": lambda b: 1, "sin": lambda b: 1, "cos": lambda b: 1,
    "erf": lambda b: 1, "exp": lambda b: float(np.exp(min(b, 20))), "softplus": lambda b: b + 1,
    "log1p": lambda b: 8.0, "sqrt": lambda b: b + 1, "rsqrt": lambda b: 4.0,
}  # fmt: skip


def unary(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.exact and v.dtype not in ("bool", *SHORT))
    if x is None:
        return None
    name = b.pick(*UNARY)
    if not x.is_float and name in ("floor", "ceil"):
        return None
    if x.dtype.startswith("u") and name in ("negative", "abs", "sign"):
        return None
    bound = UNARY[name](x.bound)
    if x.is_int and bound > 100:
        return None
    return b.add(getattr(gc, name)(x.tensor), x.shape, x.dtype, bound, name != "square" or x.is_int)


def smooth(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.is_float)
    if x is None:
        return None
    name = b.pick(*SMOOTH)
    if name == "exp" and x.bound > 8:
        name = "tanh"
    tensor = x.tensor
    if name in ("sqrt", "log1p", "rsqrt"):
        tensor = gc.abs(tensor) + np.asarray(0.5, x.dtype)
    fn = nn.softplus if name == "softplus" else getattr(gc, name)
    return b.add(fn(tensor), x.shape, x.dtype, SMOOTH[name](x.bound), False)


def broadcast(a: tuple[int, ...], c: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, c)
    except ValueError:
        return None


def binary(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype != "bool")
    if x is None:
        return None
    y = b.operand(lambda v: v.dtype == x.dtype and broadcast(x.shape, v.shape) is not None)
    if y is None or (b.pick(False, False, True) and len(b.case.values) < 8):
        cut = b.pick(0, 1, len(x.shape))
        shape = tuple(b.pick(n, n, 1) for n in x.shape[cut:])
        y = b.source(x.dtype, shape)
    name = b.pick("add", "subtract", "multiply", "maximum", "minimum")
    bound = x.bound * y.bound if name == "multiply" else x.bound + y.bound
    if bound > LARGE or (x.is_int and bound > 100):
        name, bound = "maximum", max(x.bound, y.bound)
    if x.dtype.startswith("u") and name == "subtract":
        name = "add"
    exact = x.exact and y.exact and name != "multiply"
    if name in ("maximum", "minimum") and not (x.exact and y.exact):
        name, bound = "add", x.bound + y.bound
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    return b.add(getattr(gc, name)(x.tensor, y.tensor), shape, x.dtype, bound, exact)


def compare(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.exact and v.dtype != "bool")
    if x is None:
        return None
    y = b.operand(
        lambda v: v.exact and v.dtype == x.dtype and broadcast(x.shape, v.shape) is not None
    )
    if y is None:
        return None
    name = b.pick("less", "greater_equal", "equal", "not_equal", "greater")
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    return b.add(getattr(gc, name)(x.tensor, y.tensor), shape, "bool", 1, True)


def select(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype != "bool")
    if x is None:
        return None
    c = b.operand(lambda v: v.dtype == "bool" and broadcast(x.shape, v.shape) is not None)
    if c is None:
        c = b.source("bool", b.pick(x.shape, x.shape[1:]))
    y = b.operand(
        lambda v: v.dtype == x.dtype
        and broadcast(np.broadcast_shapes(x.shape, c.shape), v.shape) is not None
    )
    other = x if y is None else y
    shape = np.broadcast_shapes(c.shape, x.shape, other.shape)
    tensor = gc.where_v2(c.tensor, x.tensor, other.tensor)
    return b.add(tensor, shape, x.dtype, max(x.bound, other.bound), x.exact and other.exact)


def logic(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype == "bool")
    if x is None:
        return None
    y = b.operand(lambda v: v.dtype == "bool" and broadcast(x.shape, v.shape) is not None)
    assert y is not None
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    name = b.pick("logical_and", "logical_or", "logical_xor", "logical_not")
    if name == "logical_not":
        return b.add(gc.logical_not(x.tensor), x.shape, "bool", 1, True)
    return b.add(getattr(gc, name)(x.tensor, y.tensor), shape, "bool", 1, True)


def cast(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.exact)
    if x is None:
        return None
    to = b.pick("float32", "float64", "int32", "int64", "float32", "bool")
    bound = 1.0 if "bool" in (to, x.dtype) else x.bound
    return b.add(gc.cast(x.tensor, to), x.shape, to, bound, True)


def some_axes(b: Builder, rank: int) -> list[int]:
    return sorted({b.pick(*range(rank)) for _ in range(b.pick(1, 1, 2))}) if rank else []


def reduce(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype != "bool" and 0 not in v.shape)
    if x is None:
        return None
    axes = some_axes(b, len(x.shape))
    keep = b.pick(True, False)
    count = int(np.prod([x.shape[a] for a in axes]))
    shape = tuple(
        1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes
    )
    options = ["sum", "mean"] if x.is_float else ["sum"]
    name = b.pick(*options, *(["max", "min"] if x.exact else []))
    bound = x.bound * count if name == "sum" else x.bound
    if bound > LARGE or (x.is_int and bound > 100):
        if not x.exact:
            return None
        name, bound = "max", x.bound
    if x.dtype in SHORT and name in ("sum", "mean") and count > 8:
        return None
    tensor = getattr(gc, f"reduce_{name}")(x.tensor, axes, keepdims=keep)
    return b.add(tensor, shape, x.dtype, bound, x.exact and name != "mean")


def arg(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.exact and v.dtype != "bool" and len(v.shape) > 0)
    if x is None or 0 in x.shape:
        return None
    axis = b.pick(*range(len(x.shape)))
    name = b.pick("argmax", "argmin")
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    bound = float(x.shape[axis])
    return b.add(getattr(gc, name)(x.tensor, axis), shape, "int64", bound, True)


def predicate(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype == "bool" and len(v.shape) > 0)
    if x is None:
        return None
    axis = b.pick(*range(len(x.shape)))
    name = b.pick("reduce_any", "reduce_all")
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    return b.add(getattr(gc, name)(x.tensor, axis), shape, "bool", 1, True)


def softmax(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype in ("float32", "float64") and len(v.shape) > 0 and v.bound < 50)
    if x is None:
        return None
    fn = b.pick(nn.softmax, nn.log_softmax)
    return b.add(fn(x.tensor), x.shape, x.dtype, 1.0 + 2 * x.bound + 8, False)


def normalize(b: Builder) -> Value | None:
    x = b.operand(lambda v: v.dtype in ("float32", "float64") and len(v.shape) > 1 and v.bound < 50)
    if x is None:
        return None
    axis = b.pick(*range(len(x.shape)))
    mean = gc.reduce_mean(x.tensor, axis, keepdims=True)
    centred = x.tensor - mean
    variance = gc.reduce_mean(gc.square(centred), axis, keepdims=True)
    tensor = centred * gc.rsqrt(variance + np.asarray(0.25, x.dtype))
    return b.add(tensor, x.shape, x.dtype, 4 * x.bound, False)


def product(b: Builder) -> Value | None:
    x = b.operand(
        lambda v: v.dtype in ("float32", "float64", "int32") and len(v.shape) >= 2 and v.bound < 32
    )
    if x is None:
        return None
    transpose_a, transpose_b = b.pick(False, True), b.pick(False, True)
    k = x.shape[-2] if transpose_a else x.shape[-1]
    m = x.shape[-1] if transpose_a else x.shape[-2]
    y = b.operand(
        lambda v: v.dtype == x.dtype and len(v.shape) == len(x.shape) and v.bound < 32
        and v.shape[:-2] == x.shape[:-2] and v.shape[-1 if transpose_b else -2] == k
    )  # fmt: skip
    if y is None:
        n = b.pick(*b.pool)
        y = b.source(x.dtype, x.shape[:-2] + ((n, k) if transpose_b else (k, n)))
    n = y.shape[-2] if transpose_b else y.shape[-1]
    bound = x.bound * y.bound * k
    tensor = matmul(x.tensor, y.tensor, transpose_a=transpose_a, transpose_b=transpose_b)
    if bound > LARGE and x.is_float:
        tensor, bound = gc.tanh(tensor * np.asarray(1 / bound, x.dtype)), 1.0
    elif bound > 1e6:
        return None
    return b.add(tensor, (*x.shape[:-2], m, n), x.dtype, bound, False)


def transpose(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 1)
    if x is None:
        return None
    perm = b.draw(st.permutations(range(len(x.shape))))
    shape = tuple(x.shape[p] for p in perm)
    return b.add(gc.transpose(x.tensor, perm), shape, x.dtype, x.bound, x.exact)


def reshape(b: Builder) -> Value | None:
    x = b.operand()
    assert x is not None
    count = int(np.prod(x.shape))
    kind = b.pick("flat", "column", "keep_first", "expand", "squeeze")
    if kind == "flat":
        return b.add(gc.reshape(x.tensor, [-1]), (count,), x.dtype, x.bound, x.exact)
    if kind == "column":
        return b.add(gc.reshape(x.tensor, [-1, 1]), (count, 1), x.dtype, x.bound, x.exact)
    if kind == "keep_first" and x.shape:
        shape = (x.shape[0], count // max(x.shape[0], 1))
        first = gc.shape(x.tensor)[0]
        rest = [shape[1]] if x.shape[0] == 0 else [-1]
        tensor = gc.reshape(x.tensor, gc.concat([[first], rest], 0))
        return b.add(tensor, shape, x.dtype, x.bound, x.exact)
    if kind == "squeeze" and 1 in x.shape:
        at = x.shape.index(1)
        shape = x.shape[:at] + x.shape[at + 1 :]
        return b.add(gc.squeeze(x.tensor, [at]), shape, x.dtype, x.bound, x.exact)
    at = b.pick(*range(len(x.shape) + 1))
    shape = (*x.shape[:at], 1, *x.shape[at:])
    return b.add(gc.expand_dims(x.tensor, at), shape, x.dtype, x.bound, x.exact)


def slices(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 0)
    if x is None:
        return None
    index: list[Any] = []
    for n in x.shape:
        start, stop = b.pick(None, 0, 1, -1), b.pick(None, n, -1, 2)
        index.append(slice(start, stop, b.pick(None, 1, 2, -1)))
    shape = np.empty(x.shape)[tuple(index)].shape
    return b.add(x.tensor[tuple(index)], shape, x.dtype, x.bound, x.exact)


def concat(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 0)
    if x is None:
        return None
    axis = b.pick(*range(len(x.shape)))
    y = b.operand(
        lambda v: v.dtype == x.dtype and len(v.shape) == len(x.shape)
        and all(i == axis or n == m for i, (n, m) in enumerate(zip(x.shape, v.shape, strict=True)))
    )  # fmt: skip
    assert y is not None
    shape = list(x.shape)
    shape[axis] += y.shape[axis]
    tensor = gc.concat([x.tensor, y.tensor], axis)
    return b.add(tensor, tuple(shape), x.dtype, max(x.bound, y.bound), x.exact and y.exact)


def stack(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) < 4)
    if x is None:
        return None
    y = b.operand(lambda v: v.dtype == x.dtype and v.shape == x.shape)
    assert y is not None
    axis = b.pick(*range(len(x.shape) + 1))
    shape = (*x.shape[:axis], 2, *x.shape[axis:])
    tensor = gc.stack([x.tensor, y.tensor], axis)
    return b.add(tensor, shape, x.dtype, max(x.bound, y.bound), x.exact and y.exact)


def tile(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 0 and np.prod(v.shape) < 2000)
    if x is None:
        return None
    multiples = [b.pick(1, 1, 2, 3) for _ in x.shape]
    shape = tuple(n * m for n, m in zip(x.shape, multiples, strict=True))
    return b.add(gc.tile(x.tensor, multiples), shape, x.dtype, x.bound, x.exact)


def pad(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 0 and v.dtype != "bool")
    if x is None:
        return None
    widths = [[b.pick(0, 1, 2), b.pick(0, 1)] for _ in x.shape]
    shape = tuple(n + p + q for n, (p, q) in zip(x.shape, widths, strict=True))
    return b.add(gc.pad(x.tensor, widths), shape, x.dtype, x.bound, x.exact)


def gather(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 0 and v.shape[0] > 0)
    if x is None:
        return None
    count = b.pick(1, 3, 8)
    index = b.rng.integers(0, x.shape[0], count).astype(b.pick("int32", "int64"))
    if b.pick(True, False):
        positions = gc.placeholder(index.dtype, [b.pick(None, count)])
        b.case.feeds[positions] = index
    else:
        positions = gc.constant(index)
    shape = (count, *x.shape[1:])
    return b.add(gc.gather(x.tensor, positions), shape, x.dtype, x.bound, x.exact)


def reverse(b: Builder) -> Value | None:
    x = b.operand(lambda v: len(v.shape) > 0)
    if x is None:
        return None
    axis = b.pick(*range(len(x.shape)))
    return b.add(gc.reverse(x.tensor, [axis]), x.shape, x.dtype, x.bound, x.exact)


def another(b: Builder) -> Value | None:
    return b.source()


STEPS = (
    unary, smooth, smooth, binary, binary, binary, compare, select, logic, cast, reduce, reduce,
    reduce, arg, predicate, softmax, normalize, product, product, transpose, reshape, reshape,
    slices, concat, stack, tile, pad, gather, reverse, another,
)  # fmt: skip


@st.composite
def cases(draw: Callable[..., Any], max_ops: int = 12) -> Case:
    """Graphs of up to ``max_ops`` random steps with values to feed."""
    return Builder(draw, STEPS, max_ops).build()


def wide(value: np.ndarray) -> np.ndarray:
    """bfloat16 as float32: NumPy knows no NaN in it."""
    return value.astype(np.float32) if value.dtype == dtypes.bfloat16.numpy else value


def tolerances(value: np.ndarray) -> dict[str, float]:
    """How far a result may be from the reference: rounding of some operations in a row."""
    if not dtypes.is_float(value.dtype) or not value.size:
        return {"rtol": 0.0, "atol": 0.0}
    eps = min(float(dtypes.finfo(value.dtype).eps), 2.0**-10)
    finite = np.abs(value[np.isfinite(value)].astype(np.float64))
    largest = float(finite.max()) if finite.size else 0.0
    return {"rtol": 500 * eps, "atol": 500 * eps * max(largest, 1.0)}
