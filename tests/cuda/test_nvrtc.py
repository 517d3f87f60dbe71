"""Kernels compiled for real GPUs, which needs none: every one of the registry's samples."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cuda_rows import batches, run_together
from cuda_support import Recorded, TextDevice, has_nvrtc
from ops_support import cases

import graphc as gc
from graphc.errors import CompileError
from graphc.runtime import cuda_device
from graphc.runtime.cuda_device import compile_cubin
from graphc.session import Session

pytestmark = pytest.mark.skipif(not has_nvrtc(), reason="no NVRTC: graphc[test] installs it")
ARCHITECTURES = ("sm_80", "sm_90")
MEASURED_BY = (13, 5)


# Of NVRTC's passes only those that code needs: a third of the time.
VERSION = cuda_device.nvrtc().getVersion() if has_nvrtc() else (0, 0)
QUICKLY = ("--Ofast-compile=max",) if VERSION >= (12, 8) else ()


def numbered() -> list[Any]:
    """Each batch quickly for one architecture, in turn; with `slow`, for both as users have it."""
    found = []
    for number, batch in enumerate(batches()):
        for k, arch in enumerate(ARCHITECTURES):
            slow = [pytest.mark.slow]
            whole = pytest.param(arch, *batch.values, (), marks=slow, id=f"{arch}-{batch.id}")
            found.append(whole)
            if (number + k) % 2 == 0:
                name = f"{arch}-{batch.id}-quickly"
                found.append(pytest.param(arch, *batch.values, QUICKLY, marks=batch.marks, id=name))
    return found


@pytest.mark.parametrize(("arch", "batch", "options"), numbered())
def test_kernels_of_ops_compile(arch: str, batch: list[Any], options: tuple[str, ...]):
    rows = [case for op, dtype in batch for case in cases(op, dtype)]
    with pytest.raises(Recorded) as recorded:
        run_together(rows, TextDevice())
    cubin, log = compile_cubin(recorded.value.text, arch, options)
    assert cubin[:4] == b"\x7fELF"
    assert "warning" not in log, log
    for name in recorded.value.functions:
        assert name.encode() in cubin


def test_what_nvrtc_refuses_is_an_error_with_its_words():
    with pytest.raises(CompileError, match='identifier "missing" is undefined'):
        compile_cubin("__global__ void k() { missing(); }", "sm_90")


def test_machine_code_is_kept_on_the_disk(monkeypatch):
    text = 'extern "C" __global__ void kept(int* x) { *x = 1; }'
    code = cuda_device.cached_cubin(text, "sm_90")
    monkeypatch.setattr(cuda_device, "compile_cubin", None)
    assert cuda_device.cached_cubin(text, "sm_90") == code
    with pytest.raises(TypeError):
        cuda_device.cached_cubin(text, "sm_80")


def resources(fetch: Any, feeds: dict[Any, Any], arch: str) -> str:
    """Registers, spills and shared memory of the kernels of a run, as ptxas tells them."""
    with pytest.raises(Recorded) as recorded, Session(device=TextDevice()) as session:
        session.run(fetch, feeds)
    _, log = compile_cubin(recorded.value.text, arch, ("-Xptxas=-v",))
    lines = []
    for name, spills, used in re.findall(
        r"Function properties for (\w+)\n(.*)\n.*: Used (.*?), used \d+ barriers", log
    ):
        stack, stores, loads = re.findall(r"(\d+) bytes", spills)
        shared = re.search(r"Function properties for " + name + r"\n.*\n.*?(\d+) bytes smem", log)
        lines.append(
            f"{name}: {used}, {shared[1] if shared else 0} bytes of shared memory, "
            f"{stack} of stack, {stores} + {loads} of spills"
        )
    return "\n".join(sorted(lines))


def mixed(x: Any) -> Any:
    """Attention of 16-bit floats to themselves, the softmax in float32."""
    scores = gc.cast(gc.matmul(x, x, transpose_b=True), gc.float32) * 0.125
    return gc.matmul(gc.cast(gc.nn.softmax(scores), x.dtype), x)


def attention_gradient(q: gc.Tensor) -> gc.Tensor:
    """The gradient of what attention with queries, keys and values that are the same gives."""
    y = gc.matmul(gc.nn.softmax(gc.matmul(q, q, transpose_b=True)), q)
    (found,) = gc.gradients(gc.reduce_sum(y * y), [q])
    return found


def mixed_gradients(q: Any, k: Any, v: Any, mask: Any) -> list[gc.Tensor]:
    """The gradients of attention of 16-bit floats, the softmax in float32."""
    scores = gc.cast(gc.matmul(q, k, transpose_b=True), gc.float32) * 0.125 + mask
    y = gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)
    return gc.gradients(gc.reduce_sum(y * y), [q, k, v])


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    "name",
    [
        "add", "erf", "softmax", "sum", "tiles", "large-tiles", "variance", "tensor-bf16",
        "tensor-f16-unknown", "tensor-tf32", "tensor-u8", "attention", "attention-bf16",
        "attention-f16-unknown", "attention-gradient", "attention-gradient-bf16",
        "attention-gradient-f16-unknown",
    ],
)  # fmt: skip
def test_registers_and_shared_memory(name, arch, golden):
    if VERSION != MEASURED_BY:
        pytest.skip(f"the golden texts are of NVRTC {MEASURED_BY}")
    with gc.Graph().as_default():
        x, y = gc.placeholder(gc.float32, [None, 1000]), gc.placeholder(gc.float32, [1000, None])
        z = gc.placeholder(gc.float32, [1024, 1024])
        ones = np.ones((64, 1000), np.float32)
        h = gc.placeholder(gc.float16, [None, None])
        q = gc.placeholder(gc.float32, [4, 512, 64])
        short, byte = gc.cast(z, gc.bfloat16), gc.cast(z, gc.int8)
        square = np.ones((1024, 1024), np.float32)
        feeds = {x: ones, y: ones.T.copy(), z: square, h: square.astype(np.float16)}
        feeds[q] = np.ones((4, 512, 64), np.float32)
        wide = gc.placeholder(gc.bfloat16, [4, 1024, 64])
        long = gc.placeholder(gc.float16, [None, None, 128])
        heads = [gc.placeholder(gc.bfloat16, [4, 1024, 64]) for _ in range(3)]
        for t, width in ((wide, 64), (long, 128), *((t, 64) for t in heads)):
            feeds[t] = np.ones((4, 1024, width), t.dtype.as_numpy_dtype)
        fetch, used = {
            "add": lambda: (x + 1.0, [x]),
            "erf": lambda: (gc.erf(x), [x]),
            "softmax": lambda: (gc.nn.softmax(x), [x]),
            "sum": lambda: (gc.reduce_sum(x), [x]),
            "tiles": lambda: (gc.matmul(x, y), [x, y]),
            "large-tiles": lambda: (gc.matmul(z, z), [z]),
            "variance": lambda: (gc.nn.moments(x, [1])[1], [x]),
            "tensor-bf16": lambda: (gc.nn.relu(gc.matmul(short, short)), [z]),
            "tensor-f16-unknown": lambda: (gc.matmul(h, h), [h]),
            "attention": lambda: (
                gc.matmul(gc.nn.softmax(gc.matmul(q, q, transpose_b=True)), q), [q]
            ),
            "attention-bf16": lambda: (mixed(wide), [wide]),
            "attention-f16-unknown": lambda: (mixed(long), [long]),
            "attention-gradient": lambda: (attention_gradient(q), [q]),
            "attention-gradient-bf16": lambda: (mixed_gradients(*heads, z), [*heads, z]),
            "attention-gradient-f16-unknown": lambda: (
                mixed_gradients(long, long, long, 0.0), [long]
            ),
            "tensor-tf32": lambda: (gc.matmul(z, z), [z]),
            "tensor-u8": lambda: (
                gc.matmul(gc.cast(z, gc.uint8), byte, output_type=gc.int32), [z]
            ),
        }[name]()
        with gc.compile_options(tf32=name == "tensor-tf32"):
            text = resources(fetch, {t: feeds[t] for t in used}, arch)
        golden(f"resources-{name}-{arch}", text)
