"""graphc's half of `gpu.py`: what each kind of row measures.

Every function takes a device, the row's arguments, and whether few calls are enough.  It returns
figures by their units.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import gpu_clock
import graphs
import numpy as np
from gpu_models import MAKERS, Sizes, decoder, decoder_data, encoder_data, is_wide

import graphc as gc
from graphc.runtime.cuda_device import Device

Figures = dict[str, float]
FLOATS = {"float32": gc.float32, "tf32": gc.float32, "bfloat16": gc.bfloat16}


def seconds(device: Device, work: Callable[[], Any], quick: bool) -> float:
    """The median time of one call, of several that follow each other."""
    with device.active():
        return gpu_clock.seconds(work, device.wait, quick)


@contextlib.contextmanager
def session(device: Device) -> Iterator[gc.Session]:
    """A session of a graph of its own."""
    with gc.Graph().as_default(), gc.Session(device=device) as found:
        yield found


def copy(device: Device, quick: bool, elements: int) -> Figures:
    """Bytes per second of a copy, read and written ones."""
    nbytes = 4 * elements
    with device.active():
        a, b = device.allocate(nbytes), device.allocate(nbytes)
        device.clear(b.address, nbytes)
    spent = seconds(device, lambda: device.copy(a.address, b.address, nbytes), quick)
    return {"ms": spent * 1e3, "GB/s": 2 * nbytes / spent / 1e9}


# --- bound by memory ------------------------------------------------------------------------------


def gelu(v: Any, _: Any, b: Any) -> Any:
    z = v + b
    return gc.assign(v, 0.5 * z * (1 + gc.erf(z * 0.7071067811865476)) * b)


# By name: of a tensor [elements / 1024, 1024] and two of its rows; how many bytes of each element.
MEMORY: dict[str, tuple[Callable[[Any, Any, Any], Any], float]] = {
    "tanh": (lambda v, *_: gc.assign(v, gc.tanh(v) + 0.5), 8),
    "gelu": (gelu, 8),
    "softmax": (lambda v, *_: gc.assign(v, gc.nn.softmax(v)), 8),
    "layer norm": (lambda v, g, b: gc.assign(v, gc.nn.layer_normalization(v, g, b)), 8),
    "sum of columns": (lambda v, *_: gc.reduce_sum(v, 0), 4),
    "sum of everything": (lambda v, *_: gc.reduce_sum(v), 4),
    "transpose": (lambda v, *_: gc.assign(v, gc.reshape(gc.transpose(v), v.shape)), 8),
}  # fmt: skip


def memory(device: Device, quick: bool, what: str, elements: int) -> Figures:
    """A pass over a large tensor."""
    build, each = MEMORY[what]
    with session(device) as s:
        v = gc.Variable(gc.random_uniform([elements // 1024, 1024], seed=1))
        g, b = (gc.Variable(gc.random_uniform([1024], seed=k)) for k in (2, 3))
        fetch = build(v, g, b)
        op = fetch if "sum" in what else fetch.op
        s.run(gc.global_variables_initializer())
        spent = seconds(device, lambda: s.run(op), quick)
    return {"ms": spent * 1e3, "GB/s": each * elements / spent / 1e9}


# --- products -------------------------------------------------------------------------------------


def operands(s: gc.Session, side: int, dtype: str) -> tuple[Any, Any, Any]:
    """Variables: two square matrices and one for their product."""
    random = np.random.default_rng(0)
    if dtype == "int8":
        values = [random.integers(-128, 128, (side, side), np.int8) for _ in "ab"]
        return (*(variable(s, value) for value in values), zeros(s, [side, side], gc.int32))
    short = FLOATS[dtype].as_numpy_dtype
    values = [random.standard_normal((side, side), np.float32).astype(short) for _ in "ab"]
    return (*(variable(s, value) for value in values), zeros(s, [side, side], FLOATS[dtype]))


def variable(s: gc.Session, value: np.ndarray, name: str | None = None) -> Any:
    """A variable with a value that is no part of the graph."""
    found = gc.Variable(gc.zeros(value.shape, value.dtype), name=name)
    found.load(value, s)
    return found


def zeros(s: gc.Session, shape: list[int], dtype: Any) -> Any:
    """A variable for results."""
    return variable(s, np.zeros(shape, dtype.as_numpy_dtype))


def product(device: Device, quick: bool, side: int, dtype: str) -> Figures:
    """A product of square matrices; of int8 with sums of int32."""
    with session(device) as s, gc.compile_options(tf32=dtype == "tf32"):
        a, b, c = operands(s, side, dtype)
        op = gc.assign(c, gc.matmul(a, b, output_type=c.dtype.base_dtype)).op
        spent = seconds(device, lambda: s.run(op), quick)
    return {"ms": spent * 1e3, "TFLOP/s": 2 * side**3 / spent / 1e12}


def epilogue(device: Device, quick: bool, side: int, dtype: str) -> Figures:
    """relu(a b + bias) in one run, beside the product alone and the rest alone."""
    with session(device) as s, gc.compile_options(tf32=dtype == "tf32"):
        a, b, c = operands(s, side, dtype)
        bias = zeros(s, [side], FLOATS[dtype])
        ops = (
            gc.assign(c, gc.nn.relu(gc.matmul(a, b) + bias)).op, gc.assign(c, gc.matmul(a, b)).op,
            gc.assign(c, gc.nn.relu(c + bias)).op,
        )  # fmt: skip
        fused, alone, rest = (seconds(device, lambda op=op: s.run(op), quick) for op in ops)
    return {
        "ms": fused * 1e3, "TFLOP/s": 2 * side**3 / fused / 1e12, "ms, product": alone * 1e3,
        "ms, pass": rest * 1e3,
    }  # fmt: skip


# --- whole runs -----------------------------------------------------------------------------------


def small(device: Device, quick: bool) -> Figures:
    """x * 2 + 1 of eight floats: fed and fetched, by a callable, and without a fetch."""
    with session(device) as s:
        x = gc.placeholder(gc.float32, [8])
        v = gc.Variable(np.zeros(8, np.float32))
        y, add = x * 2.0 + 1.0, gc.assign_add(v, x).op
        s.run(v.initializer)
        values = np.ones(8, np.float32)
        fetch, change = s.make_callable(y, [x]), s.make_callable(add, [x])
        return {
            "us": 1e6 * seconds(device, lambda: s.run(y, {x: values}), quick),
            "us, callable": 1e6 * seconds(device, lambda: fetch(values), quick),
            "us, no fetch": 1e6 * seconds(device, lambda: change(values), quick),
        }


def on_host(array: Any) -> np.ndarray:
    """The elements of an array on a device, or of one of NumPy's."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def magnitude(value: np.ndarray) -> float:
    """The mean of the absolute values."""
    return float(np.abs(value.astype(np.float32)).mean(dtype=np.float64))


def on_device(s: gc.Session, feeds: list[Any], values: list[np.ndarray]) -> list[Any]:
    """The values as arrays on the session's device."""
    same = s.make_callable([x * 1 for x in feeds], feeds, on_device=True)
    found: list[Any] = same(*values)
    return found


def timed_steps(
    device: Device, quick: bool, s: gc.Session, fetches: list[Any], fed: dict[Any, np.ndarray]
) -> Figures:
    """The time of a run whose feeds and fetches are on the device, and its first two values.

    The first fetch is a value; of training the second is a step, so that its second value says
    whether gradients and optimizer agree with another's.
    """
    feeds, values = list(fed), list(fed.values())
    near = on_device(s, feeds, values)
    call = s.make_callable(fetches, feeds, on_device=True)
    found = [magnitude(on_host(call(*near)[0])) for _ in range(2)]
    spent = seconds(device, lambda: call(*near), quick)
    return {"ms": spent * 1e3, "value": found[0], "value, second": found[1]}


def model(device: Device, quick: bool, name: str, **sizes: int) -> Figures:
    """A training step of a workload of `workloads.py`, fed on the device and from the host."""
    with session(device) as s:
        fetches, fed = built(name, MAKERS[name](**sizes))
        s.run(gc.global_variables_initializer())
        found = timed_steps(device, quick, s, fetches, fed)
        far = s.make_callable(fetches, list(fed))
        spent = seconds(device, lambda: far(*fed.values()), quick)
    return {**found, "ms, fed by the host": spent * 1e3}


def built(name: str, data: dict[str, np.ndarray]) -> tuple[list[Any], dict[Any, np.ndarray]]:
    """The fetches of a workload, and its feeds."""
    placeholders = {k: gc.placeholder(data[k].dtype, data[k].shape) for k in "xy"}
    fetches, used = graphs.BUILDERS[name](gc, data, placeholders)
    return fetches, {placeholders[k]: data[k] for k in used}


def transformer(
    device: Device, quick: bool, what: str, sizes: Sizes, train: bool, dtype: str = "bfloat16"
) -> Figures:
    """The encoder or the decoder: a step of Adam, or the output alone."""
    with session(device) as s:
        run = encoder_run if what == "encoder" else decoder_run
        fetches, fed = run(s, sizes, train, FLOATS[dtype])
        found = timed_steps(device, quick, s, fetches, fed)
    return {**found, "TFLOP/s": sizes.flops(train) / found["ms"] / 1e9}


def loaded(s: gc.Session, data: dict[str, np.ndarray], kept: Any) -> dict[str, Any]:
    """Variables of the weights, of a dtype but for norms'; the graph has none of their values."""
    found = {}
    for name, value in data.items():
        if name[0] in "wb":
            dtype = gc.float32 if is_wide(name) else kept
            found[name] = variable(s, value.astype(dtype.as_numpy_dtype), f"v_{name}")
    return found


def encoder_run(
    s: gc.Session, sizes: Sizes, train: bool, dtype: Any
) -> tuple[list[Any], dict[Any, np.ndarray]]:
    """What is fetched of the encoder, and what is fed."""
    data = encoder_data(sizes)
    x = gc.placeholder(gc.float32, data["x"].shape)
    weights = loaded(s, data, gc.float32 if train else dtype)
    output = graphs.encoded(gc, weights, gc.cast(x, dtype))
    fed = {x: data["x"]}
    if not train:
        return [output], fed
    y = gc.placeholder(gc.float32, data["y"].shape)
    loss = gc.reduce_mean(gc.square(gc.cast(output, gc.float32) - y))
    return trained(s, loss, list(weights.values())), {**fed, y: data["y"]}


def decoder_run(
    s: gc.Session, sizes: Sizes, train: bool, dtype: Any
) -> tuple[list[Any], dict[Any, np.ndarray]]:
    """What is fetched of the decoder, and what is fed."""
    data = decoder_data(sizes)
    x = gc.placeholder(gc.int32, data["x"].shape)
    weights = loaded(s, data, gc.float32 if train else dtype)
    logits = decoder(gc, sizes, weights, x, dtype)
    if not train:
        return [logits], {x: data["x"]}
    y = gc.placeholder(gc.int64, data["y"].shape)
    entropy = gc.nn.sparse_softmax_cross_entropy_with_logits(
        labels=gc.reshape(y, [-1]), logits=gc.cast(logits, gc.float32)
    )
    fed = {x: data["x"], y: data["y"]}
    return trained(s, gc.reduce_mean(entropy), list(weights.values())), fed


def trained(s: gc.Session, loss: Any, weights: list[Any]) -> list[Any]:
    """The loss and a step of Adam, whose own variables are ready."""
    step = gc.train.AdamOptimizer(1e-3).minimize(loss, var_list=weights)
    others = [v for v in gc.global_variables() if all(v is not w for w in weights)]
    s.run(gc.variables_initializer(others))
    return [loss, step]


# --- first runs -----------------------------------------------------------------------------------


def first(device: Device, _: bool, name: str, **sizes: int) -> Figures:
    """Seconds of the first run of a training step: nothing in the cache, and all of it."""
    found = {}
    data = MAKERS[name](**sizes)
    with own_cache():
        for unit in ("s, cold", "s, cached"):
            with session(fresh(device)) as s:
                fetches, fed = built(name, data)
                s.run(gc.global_variables_initializer())
                start = time.perf_counter()
                s.run(fetches, fed)
                found[unit] = time.perf_counter() - start
    return found


def fresh(device: Device) -> Device:
    """The same device, with no module loaded."""
    again: Device = type(device)(*getattr(device, "made_of", ()))
    return again


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """A context with an empty cache of compiled code."""
    before = os.environ.get("GRAPHC_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHC_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("GRAPHC_CACHE")
            if before is not None:
                os.environ["GRAPHC_CACHE"] = before


KINDS: dict[str, Callable[..., Figures]] = {
    "copy": copy, "memory": memory, "product": product, "epilogue": epilogue, "small": small,
    "model": model, "transformer": transformer, "first": first,
}  # fmt: skip
