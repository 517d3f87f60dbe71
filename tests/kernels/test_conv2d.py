"""Convolutions and their gradients against a direct reference in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.dtypes import DType, bfloat16, float16, float32, float64, int8, int32
from graphc.kernels import conv2d
from graphc.kernels.problem import accumulator
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, Var
from graphc.loop.printer import format_kernel
from graphc.runtime.jit import named_target

KINDS = ("forward", "input_gradient", "weight_gradient")
Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """One convolution: image, kernel, and how they meet."""

    image: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "VALID"
    groups: int = 1
    dtype: DType = float32
    symbolic: bool = False

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        if isinstance(self.padding, tuple):
            return self.padding
        if self.padding == "VALID":
            return ((0, 0), (0, 0))
        pads = []
        for axis in (0, 1):
            size, step = self.image[axis + 1], self.strides[axis]
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            needed = max(0, (-(-size // step) - 1) * step + reach - size)
            pads.append((needed // 2, needed - needed // 2))
        return pads[0], pads[1]

    @property
    def output(self) -> tuple[int, int, int, int]:
        spatial = []
        for axis in (0, 1):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            room = self.image[axis + 1] + sum(self.pads[axis]) - reach
            spatial.append(max(0, room // self.strides[axis] + 1))
        return (self.image[0], spatial[0], spatial[1], self.kernel[3])

    def build(self, kind: str, target: str, name: str) -> Kernel:
        (n, *image), (_, *output) = self.image, self.output
        symbols = [Var(s) for s in ("n", "ih", "iw", "oh", "ow")] if self.symbolic else []
        ishape: tuple[Any, ...] = (n, *image)
        oshape: tuple[Any, ...] = (n, *output)
        if symbols:
            ishape = (*symbols[:3], image[-1])
            oshape = (symbols[0], *symbols[3:], output[-1])
        shapes = dict(x=ishape, w=self.kernel, y=oshape)
        result = {"forward": "y", "input_gradient": "x", "weight_gradient": "w"}[kind]
        acc = accumulator(self.dtype)
        out_type = acc if self.dtype.is_integer else self.dtype
        buffers = {
            s: Buffer(s, out_type if s == result else self.dtype, total(shapes[s])) for s in shapes
        }
        element = {s: conv2d.dense(buffers[s], shapes[s]) for s in shapes}
        left, right = dict(y=("x", "w"), x=("y", "w"), w=("x", "y"))[result]
        return conv2d.conv2d_kernel(
            name,
            list(buffers.values()),
            symbols,
            getattr(conv2d, kind),
            conv2d.geometry(
                ishape,
                self.kernel,
                oshape,
                self.strides,
                self.dilations,
                (self.pads[0][0], self.pads[1][0]),
                self.groups,
                padded=any(map(any, self.pads)),
            ),
            element[left],
            element[right],
            conv2d.store_dense(buffers[result], shapes[result]),
            dtype=self.dtype,
            target=named_target(target),
        )

    @property
    def scalars(self) -> list[int]:
        return [*self.image[:3], *self.output[1:3]] if self.symbolic else []


def total(shape: tuple[Any, ...]) -> Expr:
    size: Expr = ir.ONE
    for extent in shape:
        size = ir.mul(size, extent)
    return size


def reference(case: Case, x: Array, w: Array, y: Array) -> dict[str, Array]:
    """All three results, tap by tap and group by group, in a wide type."""
    wide = np.int64 if case.dtype.is_integer else np.float64
    x, w, y = (a.astype(wide) for a in (x, w, y))
    (top, bottom), (left, right) = case.pads
    kh, kw, ic, _ = w.shape
    _, oh, ow, channels = y.shape
    oc = channels // case.groups
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    out, dw, dx = np.zeros_like(y), np.zeros_like(w), np.zeros_like(padded)
    if 0 in y.shape:
        return dict(forward=out, input_gradient=np.zeros_like(x), weight_gradient=dw)
    for i, j, g in np.ndindex(kh, kw, case.groups):
        rows = slice(i * case.dilations[0], None, case.strides[0])
        columns = slice(j * case.dilations[1], None, case.strides[1])
        inner, outer = slice(g * ic, (g + 1) * ic), slice(g * oc, (g + 1) * oc)
        seen = padded[:, rows, columns, inner][:, :oh, :ow]
        out[..., outer] += seen @ w[i, j, :, outer]
        dw[i, j, :, outer] += np.tensordot(seen, y[..., outer], axes=((0, 1, 2), (0, 1, 2)))
        dx[:, rows, columns, inner][:, :oh, :ow] += y[..., outer] @ w[i, j, :, outer].T
    height, width = x.shape[1:3]
    dx = dx[:, top : top + height, left : left + width]
    return dict(forward=out, input_gradient=dx, weight_gradient=dw)


CASES = [
    Case((2, 9, 8, 3), (3, 2, 3, 5)),
    Case((2, 9, 8, 3), (3, 3, 3, 5), padding="SAME"),
    Case((3, 14, 14, 1), (5, 5, 1, 20)),
    Case((2, 12, 12, 20), (5, 5, 20, 33)),
    Case((2, 10, 11, 4), (3, 3, 4, 6), strides=(2, 2), padding="SAME"),
    Case((2, 11, 10, 4), (3, 3, 4, 6), strides=(2, 3), padding="VALID"),
    Case((1, 13, 12, 3), (3, 2, 3, 4), dilations=(2, 3), padding="SAME"),
    Case((1, 13, 12, 18), (2, 2, 18, 17), dilations=(2, 1)),
    Case((2, 7, 9, 5), (3, 3, 5, 7), padding=((2, 0), (0, 3))),
    Case((2, 7, 9, 5), (4, 2, 5, 7), strides=(3, 2), dilations=(1, 2), padding=((1, 2), (2, 1))),
    Case((2, 8, 8, 6), (3, 3, 2, 9), groups=3, padding="SAME"),
    Case((2, 8, 8, 5), (3, 3, 1, 5), groups=5, strides=(2, 2), padding="SAME"),
    Case((3, 6, 6, 17), (1, 1, 17, 35)),
    Case((1, 40, 20, 64), (3, 3, 64, 40), padding="SAME"),
    Case((2, 13, 23, 16), (3, 3, 16, 32)),
    Case((0, 6, 6, 2), (3, 3, 2, 4)),
    Case((2, 2, 6, 2), (3, 3, 2, 4)),
    Case((1, 1, 1, 1), (1, 1, 1, 1)),
]


def check(case: Case, kind: str, arrays: dict[str, Array]) -> None:
    kept = {s: a for s, a in arrays.items() if s != "out"}
    expected = reference(case, **kept)[kind]
    if case.dtype.is_integer:
        np.testing.assert_array_equal(arrays["out"], expected.astype(arrays["out"].dtype))
        return
    scale = reference(case, **{s: np.abs(a) for s, a in kept.items()})[kind]
    steps = 2 + max(np.prod(case.kernel), np.prod(case.output[:3]))
    bound = dtypes.finfo(accumulator(case.dtype).numpy).eps * steps * scale
    bound += float(dtypes.finfo(case.dtype.numpy).eps) * np.abs(expected) + 1e-7
    assert (np.abs(arrays["out"] - expected) <= bound).all(), (case, kind)


def make(case: Case, kind: str, rng: np.random.Generator) -> tuple[list[Array], dict[str, Array]]:
    """The kernel's arguments, and the same by name with the result as ``out``."""
    shapes = dict(x=case.image, w=case.kernel, y=case.output)
    if case.dtype.is_integer:
        arrays = {s: rng.integers(-9, 9, shapes[s]).astype(case.dtype.numpy) for s in shapes}
    else:
        arrays = {s: rng.standard_normal(shapes[s]).astype(case.dtype.numpy) for s in shapes}
    result = {"forward": "y", "input_gradient": "x", "weight_gradient": "w"}[kind]
    acc = accumulator(case.dtype)
    out = np.full(shapes[result], 77, acc.numpy if case.dtype.is_integer else case.dtype.numpy)
    return [out if s == result else arrays[s] for s in shapes], {**arrays, "out": out}


def run_native(batch: Any, cases: list[Case], kind: str) -> None:
    rng = np.random.default_rng(0)
    kernels = [batch.add(c.build(kind, batch.target, f"conv{i}")) for i, c in enumerate(cases)]
    for case, kernel in zip(cases, kernels, strict=True):
        arguments, arrays = make(case, kind, rng)
        batch.run(kernel, arguments, case.scalars)
        check(case, kind, arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_native(batch: Any, kind: str) -> None:
    run_native(batch, CASES, kind)


@pytest.mark.parametrize(
    ("image", "channels"),
    [((32, 34, 34, 16), 16), ((32, 18, 18, 32), 32), ((32, 10, 10, 64), 64), ((8, 58, 58, 64), 64)],
)
@pytest.mark.parametrize("target", ["avx2", "avx512"])
def test_two_threads_share_the_gradient_of_a_small_filter(target, image, channels):
    case = Case(image, (3, 3, image[3], channels))
    loop = case.build("weight_gradient", target, "conv").parallel
    assert loop is not None
    assert isinstance(loop.extent, ir.Const)
    assert -(-loop.extent.value // 2) <= 0.6 * loop.extent.value


@pytest.mark.parametrize("kind", KINDS)
def test_symbolic_batch_and_image(batch: Any, kind: str) -> None:
    cases = [
        Case((n, h, 9, 6), (3, 3, 6, 18), padding=((1, 1), (1, 1)), symbolic=True)
        for n, h in ((3, 8), (1, 17), (0, 5))
    ]
    kernel = batch.add(cases[0].build(kind, batch.target, "conv"))
    for case in cases:
        arguments, arrays = make(case, kind, np.random.default_rng(1))
        batch.run(kernel, arguments, case.scalars)
        check(case, kind, arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes(batch: Any, kind: str) -> None:
    types = (float16, bfloat16, float64, int8, int32)
    shape: Any = ((2, 6, 7, 3), (3, 2, 3, 18))
    run_native(batch, [Case(*shape, padding="SAME", dtype=t) for t in types], kind)


@pytest.mark.parametrize("batch", ["avx512bf16"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_bfloat16(batch: Any, kind: str) -> None:
    shapes: list[Any] = [
        ((2, 9, 10, 32), (3, 3, 32, 40)), ((1, 7, 8, 5), (3, 2, 5, 18)),
        ((3, 8, 8, 16), (1, 1, 16, 33)),
    ]  # fmt: skip
    cases = [replace(case, dtype=bfloat16) for case in CASES]
    cases += [Case(*s, padding=p, dtype=bfloat16) for s in shapes for p in ("SAME", "VALID")]
    run_native(batch, cases, kind)
    if kind == "forward":
        texts = [format_kernel(c.build(kind, "avx512bf16", "conv")) for c in cases[len(CASES) :]]
        assert all("dot2" in text for text in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_interpreted(interpret: Any, kind: str) -> None:
    cases = [CASES[0], CASES[4], CASES[6], CASES[9], CASES[10], CASES[14]]
    cases.append(Case((2, 5, 6, 3), (3, 2, 3, 5), padding="SAME", symbolic=True))
    paired = [Case((1, 5, 6, 5), (3, 2, 5, 9), padding="SAME", dtype=bfloat16, symbolic=s)
              for s in (False, True)]  # fmt: skip
    for case in cases + paired:
        arguments, arrays = make(case, kind, np.random.default_rng(2))
        target = "avx512" if case in cases else "avx512bf16"
        interpret(case.build(kind, target, "conv"), arguments, case.scalars)
        check(case, kind, arrays)


def test_fused_bias_relu_and_activation_of_the_image(batch: Any) -> None:
    case = Case((2, 9, 9, 8), (3, 3, 8, 20), padding="SAME")
    shapes: dict[str, Any] = dict(x=case.image, w=case.kernel, y=case.output, bias=(20,))
    buffers = {s: Buffer(s, float32, total(shapes[s])) for s in shapes}
    x, w = (conv2d.dense(buffers[s], shapes[s]) for s in "xw")
    store = conv2d.store_dense(buffers["y"], case.output)

    def relu(value: Expr) -> Expr:
        return ir.apply("max", value, 0.0)

    def finish(indices: tuple[Expr, ...], value: Expr) -> tuple[ir.Stmt, ...]:
        return store(indices, relu(value + ir.Load(buffers["bias"], indices[3])))

    kernel = conv2d.conv2d_kernel(
        "fused",
        list(buffers.values()),
        [],
        conv2d.forward,
        conv2d.geometry(case.image, case.kernel, case.output, pad=(1, 1)),
        lambda *at: relu(x(*at) + 1.0),
        w,
        finish,
        dtype=float32,
        target=named_target(batch.target),
    )
    rng = np.random.default_rng(3)
    arrays = {s: rng.standard_normal(shapes[s]).astype(np.float32) for s in shapes}
    batch.run(batch.add(kernel), list(arrays.values()))
    image = np.maximum(arrays["x"] + 1, 0)
    out = reference(case, image, arrays["w"], arrays["y"])["forward"]
    expected = np.maximum(out + arrays["bias"], 0)
    np.testing.assert_allclose(arrays["y"], expected, rtol=1e-4, atol=1e-4)
