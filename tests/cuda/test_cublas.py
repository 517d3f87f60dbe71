"""Products that cuBLAS computes: what it is asked for, and when it is chosen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cuda_fake_cublas import BlasDevice
from cuda_rows import chosen_rows, run_together
from cuda_support import folder, has_compiler
from ops_support import cases

import graphc as gc
from graphc import errors
from graphc.kernels import grid_library
from graphc.op import ContractionOp, evaluate_reference
from graphc.runtime import cuda_products

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
RNG = np.random.default_rng(7)
KINDS = {
    "f32": (gc.float32, 68, {}), "tf32": (gc.float32, 77, {}), "f64": (gc.float64, 70, {}),
    "f16": (gc.float16, 68, {}), "bf16": (gc.bfloat16, 68, {}),
    "i8": (gc.int8, 72, {"output_type": gc.int32}),
}  # fmt: skip


def whole(*shape: int) -> np.ndarray:
    """Small integers: sums are exact in every dtype and order."""
    return RNG.integers(-3, 4, shape).astype(np.float64)


@pytest.fixture(autouse=True)
def graph(monkeypatch, tmp_path):
    folder()  # where compiled kernels are is not what the tests change
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_products, "_found", {})
    # Fibers take their time.
    monkeypatch.setattr(cuda_products, "MOST_REPEATS", 2)
    monkeypatch.setattr(grid_library, "LEAST", 1 << 13)
    with gc.Graph().as_default():
        yield


@pytest.fixture
def priced():
    """A device whose times a test sets."""
    found = BlasDevice()
    yield found
    with found.active():
        found.wait()


def always(tf32=False):
    return gc.compile_options(cublas="always", tf32=tf32)


@pytest.mark.parametrize(("kind", "known"), [*((kind, True) for kind in KINDS), ("f32", False)])
def test_every_transposition(kind, known, priced):
    dtype, compute, more = KINDS[kind]
    fetches, feeds, expected = [], {}, []
    for left, right in itertools.product((False, True), repeat=2):
        a, b = whole(12, 8), whole(8, 20)
        pair = []
        for value, turn in ((a, left), (b, right)):
            value = value.T.copy() if turn else value
            pair.append(gc.placeholder(dtype, value.shape if known else [None, None]))
            feeds[pair[-1]] = value.astype(dtype.as_numpy_dtype)
        fetches.append(gc.matmul(*pair, transpose_a=left, transpose_b=right, **more))
        expected.append(a @ b)
    with gc.Session(device=priced) as session, always(kind == "tf32"):
        for _ in range(3):
            for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
                np.testing.assert_array_equal(np.asarray(found, np.float64), wanted)
    # By columns the operands change places: b is m x k there, and a k x n.
    turns = {call[:2] for call in priced.cublas.calls}
    assert turns == set(itertools.product((False, True), repeat=2))
    assert {call[2:6] for call in priced.cublas.calls} == {(20, 12, 8, 1)}
    assert set(priced.cublas.computes) == {compute}
    assert priced.cublas.math == 16
    # Asked for in the first run and in the recording, done in all three.
    assert len(priced.cublas.calls) == 8
    assert priced.cublas.done == 12


@pytest.mark.parametrize(
    ("left", "right", "count", "rows", "known"),
    [
        ((3, 5, 8), (3, 8, 6), 3, 5, True), ((2, 3, 5, 8), (2, 3, 8, 6), 6, 5, False),
        # The same matrix for all is one product with more rows, but not on the left.
        ((3, 5, 8), (8, 6), 1, 15, False), ((3, 5, 8), (1, 8, 6), 1, 15, True),
        ((5, 8), (3, 8, 6), 3, 5, True), ((1, 5, 8), (1, 8, 6), 1, 5, False),
    ],
)  # fmt: skip
def test_batches(left, right, count, rows, known, priced):
    a, b = whole(*left), whole(*right)
    x, y = (
        gc.placeholder(gc.float32, [s if known or s == 1 else None for s in v.shape])
        for v in (a, b)
    )
    with gc.Session(device=priced) as session, always():
        found = session.run(gc.matmul(x, y), {x: a, y: b})
    np.testing.assert_array_equal(found, a @ b)
    ((_, _, n, m, k, batches, _),) = priced.cublas.calls
    assert (n, m, k, batches) == (6, rows, 8, count)


@pytest.mark.parametrize("others", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_registry(others, priced, monkeypatch):
    """Every sample of a contraction, of which cuBLAS computes what it can."""
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    first, rest = chosen_rows()
    few = [row for row in first if "MatMul" in row[0].name]
    rows = [row for row in [*first, *rest] if row not in few] if others else few
    samples = [c for op, t in rows if isinstance(op, ContractionOp) for c in cases(op, t)]
    with always():
        for case, found in run_together(samples, priced):
            expected = evaluate_reference(case.declare().op, case.values)
            for value, wanted in zip(found, expected, strict=True):
                case.check(value, wanted, "cuda")
    assert len(priced.cublas.calls) > 10


def test_batches_that_are_not_evenly_spaced_are_ours(priced):
    a, b = whole(2, 3, 5, 8), whole(2, 1, 8, 6)
    x, y = (gc.placeholder(gc.float32, v.shape) for v in (a, b))
    with gc.Session(device=priced) as session, always():
        np.testing.assert_array_equal(session.run(gc.matmul(x, y), {x: a, y: b}), a @ b)
    assert not priced.cublas.calls


def test_sizes_of_a_run(priced):
    """Symbolic sizes compile once; nothing of size 0 is asked for."""
    a, b = (gc.placeholder(gc.float32, [None, None, None]) for _ in range(2))
    y = gc.matmul(a, b)
    sizes = [(1, 17, 16, 16), (3, 4, 4, 1), (2, 1, 15, 9), (0, 2, 2, 2), (2, 2, 0, 2), (1, 1, 1, 1)]
    with gc.Session(device=priced) as session, always():
        for batch, m, k, n in sizes:
            left, right = whole(batch, m, k), whole(batch, k, n)
            for _ in range(2):
                found = session.run(y, {a: left, b: right})
                np.testing.assert_array_equal(found, left @ right)
        assert session.compilations <= 2
    assert len({call[2:6] for call in priced.cublas.calls}) == 4


def test_slices_and_transposes_are_read_where_they_are(priced):
    x = gc.placeholder(gc.float32, [12, 30])
    w = gc.placeholder(gc.float32, [30, 30])
    a = whole(12, 30)
    b = whole(30, 30)
    y = [
        gc.matmul(x[2:10, 4:20], w[10:26, 5:12]),
        gc.matmul(gc.transpose(x)[3:11], x[:, 7:16]),
        gc.reshape(gc.matmul(gc.reshape(x, [4, 3, 30]), w), [12, 30]),
        gc.matmul(x[::2], w),
    ]
    wanted = [a[2:10, 4:20] @ b[10:26, 5:12], a.T[3:11] @ a[:, 7:16], a @ b, a[::2] @ b]
    with gc.Session(device=priced) as session, always():
        for found, value in zip(session.run(y, {x: a, w: b}), wanted, strict=True):
            np.testing.assert_array_equal(found, value)
    assert len(priced.cublas.calls) == 4


def test_what_blas_cannot_read_is_ours(priced):
    x = gc.placeholder(gc.float32, [12, 30])
    a = whole(12, 30)
    k = gc.placeholder(gc.int32, [4])
    y = [
        gc.matmul(x[:, ::2], x[:, 1::2], transpose_b=True),
        gc.matmul(gc.nn.relu(x), x, transpose_b=True),
        gc.matmul(gc.gather(x, k), x, transpose_b=True),
        gc.matmul(gc.reverse(x, [0]), x, transpose_b=True),
    ]
    with gc.Session(device=priced) as session, always():
        found = session.run(y, {x: a, k: [3, 1, 1, 0]})
    wanted = a[:, ::2] @ a[:, 1::2].T, np.maximum(a, 0) @ a.T, a[[3, 1, 1, 0]] @ a.T, a[::-1] @ a.T
    for one, value in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, value)


def test_convolutions_of_one_by_one_and_their_gradients(priced):
    a, b = whole(2, 6, 5, 8), whole(1, 1, 8, 12)
    x, w = (gc.placeholder(gc.float32, v.shape) for v in (a, b))
    y = gc.nn.conv2d(x, w, strides=[1, 1, 1, 1], padding="VALID")
    fetches = [y, *gc.gradients(gc.reduce_sum(y * y), [x, w])]
    with gc.Session() as cpu, gc.Session(device=priced) as session, always():
        wanted = cpu.run(fetches, {x: a, w: b})
        for found, value in zip(session.run(fetches, {x: a, w: b}), wanted, strict=True):
            np.testing.assert_array_equal(found, value)
    assert {call[2:6] for call in priced.cublas.calls} == {
        (12, 60, 8, 1), (8, 60, 12, 1), (12, 8, 60, 1)
    }  # fmt: skip


def test_bytes_must_lie_at_multiples_of_four(priced):
    fetches, feeds, expected = [], {}, []
    for m, k, n in ((8, 8, 8), (8, 6, 8), (8, 8, 6)):
        a, b = whole(m, k), whole(k, n)
        x, y = (gc.placeholder(gc.int8, v.shape) for v in (a, b))
        feeds |= {x: a.astype(np.int8), y: b.astype(np.int8)}
        fetches.append(gc.matmul(x, y, output_type=gc.int32))
        expected.append(a @ b)
    u = gc.placeholder(gc.uint8, [8, 8])
    fetches.append(gc.matmul(u, y[:, :4], output_type=gc.int32))
    feeds[u] = abs(whole(8, 8)).astype(np.uint8)
    expected.append(feeds[u] @ b[:, :4])
    with gc.Session(device=priced) as session, always():
        for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert [call[2:5] for call in priced.cublas.calls] == [(8, 8, 8)]


@pytest.mark.parametrize("known", [True, False])
def test_what_is_fused_behind_goes_over_the_result(known, priced):
    a, b, add, more = whole(10, 6), whole(6, 9), whole(9), whole(10, 9)
    x, w, bias, residual = (
        gc.placeholder(gc.float32, v.shape if known else [None] * v.ndim)
        for v in (a, b, add, more)
    )
    y = gc.nn.relu(gc.matmul(x, w) + bias) + residual
    feeds = {x: a, w: b, bias: add, residual: more}
    with gc.Session(device=priced) as session, always():
        for _ in range(3):
            launches, done = priced.launches, priced.cublas.done
            found = session.run(y, feeds)
            np.testing.assert_array_equal(found, np.maximum(a @ b + add, 0) + more)
            with priced.active():
                priced.wait()
            assert (priced.launches - launches, priced.cublas.done - done) == (1, 1)


def test_several_results_of_one_product(priced):
    """A later result needs the product after an earlier one was stored in its place."""
    a, b = whole(10, 6), whole(6, 9)
    x, w = (gc.placeholder(gc.float32, v.shape) for v in (a, b))
    product = gc.matmul(x, w)
    y = [gc.nn.relu(product), product * 2.0, product]
    for fetches in (y, y[:2]):
        with gc.Session(device=priced) as session, always():
            found = session.run(fetches, {x: a, w: b})
        wanted = [np.maximum(a @ b, 0), 2 * (a @ b), a @ b]
        for one, value in zip(found, wanted, strict=False):
            np.testing.assert_array_equal(one, value)
    assert len(priced.cublas.calls) == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_product_that_no_result_has_room_for_waits_aside(known, priced):
    """Of a variable that is changed in place, and where only another dtype is kept."""
    a, b = whole(10, 6), whole(6, 9)
    x, w = (gc.placeholder(gc.float32, v.shape if known else [None, None]) for v in (a, b))
    v = gc.Variable(np.zeros((10, 9), np.float32))
    step = gc.assign_sub(v, 2.0 * gc.matmul(x, w))
    sign = gc.matmul(x, w, transpose_a=False) > 0.0
    with gc.Session(device=priced) as session, always():
        session.run(v.initializer)
        for turn in range(1, 5):
            session.run(step.op, {x: a, w: b})
            np.testing.assert_array_equal(session.run(v), -2 * turn * (a @ b))
            np.testing.assert_array_equal(session.run(sign, {x: a, w: b}), a @ b > 0)
    # Each once step by step, and once recorded.
    assert len(priced.cublas.calls) == 4
    assert priced.cublas.done == 8


def test_rounding_before_what_is_fused_behind_is_ours(priced):
    """Of 16-bit floats the product is rounded first, as in our kernel."""
    a, b = RNG.standard_normal((2, 16, 16)).astype(gc.bfloat16.as_numpy_dtype)
    x, w = (gc.placeholder(gc.bfloat16, [16, 16]) for _ in range(2))
    results = []
    for use in ("never", "always"):
        y = gc.nn.relu(gc.matmul(x, w)) + 1.0
        with gc.Session(device=priced) as session, gc.compile_options(cublas=use):
            results.append(np.asarray(session.run(y, {x: a, w: b}), np.float32))
    assert len(priced.cublas.calls) == 1
    np.testing.assert_allclose(*results, rtol=2**-7)


# --- the choice -----------------------------------------------------------------------------------

SIDE = 20  # of which a product has more operations than a small one


def large(names="xw"):
    """Two matrices, and what to feed: (tensors, feeds, product)."""
    values = [whole(SIDE, SIDE) for _ in names]
    tensors = [gc.placeholder(gc.float32, [None, SIDE], name=n) for n in names]
    return tensors, dict(zip(tensors, values, strict=True)), values[0] @ values[1]


@pytest.mark.parametrize("theirs", [True, False])
def test_the_faster_one_is_taken_and_kept(theirs, monkeypatch):
    prices = (2e-5, 1e-5) if theirs else (1e-5, 2e-5)
    (x, w), feeds, wanted = large()
    y = gc.matmul(x, w)
    asked = []
    for turn in range(4):
        device = BlasDevice(*prices if turn < 2 else prices[::-1])
        if turn == 3:
            # Neither the process nor the disk knows any more.
            monkeypatch.setenv("GRAPHC_CACHE", "off")
        if turn >= 2:
            monkeypatch.setattr(cuda_products, "_found", {})
        with gc.Session(device=device) as session:
            for _ in range(3):
                np.testing.assert_array_equal(session.run(y, feeds), wanted)
            measured, graphs = device.events, device.graphs
            calls = len(device.cublas.calls)
            np.testing.assert_array_equal(session.run(y, feeds), wanted)
            # A replay has what was chosen, and asks nobody.
            assert (device.events, device.graphs) == (measured, graphs + 1)
            assert len(device.cublas.calls) == calls
        asked.append((measured > 0, calls > 0))
    # Measured once; then found in the process, and on the disk; and measured again.
    assert [m for m, _ in asked] == [True, False, False, True]
    assert [c for _, c in asked[1:3]] == [theirs, theirs]


def test_another_gpu_cublas_or_size_is_measured_again():
    (x, w), feeds, wanted = large()
    y = gc.matmul(x, w)
    first, model, version = BlasDevice(), BlasDevice(), BlasDevice()
    model.model = "Other"
    version.cublas.version += 1
    for device in (first, model, version):
        with gc.Session(device=device) as session:
            np.testing.assert_array_equal(session.run(y, feeds), wanted)
            assert device.events
            before, half = device.events, whole(SIDE + 8, SIDE)
            found = session.run(y, {**feeds, x: half})
            np.testing.assert_array_equal(found, half @ feeds[w])
            assert device.events > before


def test_small_products_are_ours_unmeasured(priced):
    for known in (True, False):
        x = gc.placeholder(gc.float32, [12 if known else None, 12])
        a = whole(12, 12)
        with gc.Session(device=priced) as session:
            np.testing.assert_array_equal(session.run(gc.matmul(x, x), {x: a}), a @ a)
    assert not priced.events
    assert not priced.cublas.calls


def test_never(priced):
    (x, w), feeds, wanted = large()
    with gc.Session(device=priced) as session, gc.compile_options(cublas="never"):
        np.testing.assert_array_equal(session.run(gc.matmul(x, w), feeds), wanted)
    assert not priced.events
    assert not priced.cublas.calls
    with pytest.raises(errors.GraphError, match="'auto', 'never' or 'always', not 'often'"):
        gc.compile_options(cublas="often").__enter__()


@pytest.mark.parametrize("theirs", [True, False])
def test_a_measured_run_happens_once(theirs, priced):
    """Variables that are changed in the same kernel change by what one run changes."""
    priced.prices["multiply"] = 1e-6 if theirs else 1e-4
    (x, w), feeds, wanted = large()
    total = gc.Variable(np.zeros((SIDE, SIDE), np.float32))
    count = gc.Variable(np.zeros((SIDE, SIDE), np.float32))
    product = gc.matmul(x, w)
    both = gc.group(gc.assign_add(total, product), gc.assign(count, gc.nn.relu(product) + count))
    with gc.Session(device=priced) as session:
        session.run([total.initializer, count.initializer])
        for turn in range(1, 5):
            found, _ = session.run([product, both], feeds)
            np.testing.assert_array_equal(found, wanted)
            np.testing.assert_array_equal(session.run(total), turn * wanted)
            np.testing.assert_array_equal(session.run(count), turn * np.maximum(wanted, 0))
        assert priced.events
        done = priced.cublas.done
        session.run([product, both], feeds)
        with priced.active():
            priced.wait()
        assert priced.cublas.done - done == int(theirs)


def test_a_run_without_memory_to_measure_takes_ours():
    (x, w), feeds, wanted = large()
    y = gc.matmul(x, w)
    # Operands, result, workspace, and not enough for a second result.
    device = BlasDevice(limit=(4 << 20) + 3 * 4 * SIDE * SIDE + 1024)
    with gc.Session(device=device) as session:
        np.testing.assert_array_equal(session.run(y, feeds), wanted)
    assert not device.events
    assert not device.cublas.calls


def test_a_run_without_memory_aside_takes_ours():
    (x, w), feeds, wanted = large()
    v = gc.Variable(np.zeros((SIDE, SIDE), np.float32))
    step = gc.assign_sub(v, gc.matmul(x, w))
    device = BlasDevice(limit=(4 << 20) + 4 * 4 * SIDE * SIDE + 1024)
    with gc.Session(device=device) as session, always():
        session.run(v.initializer)
        for turn in (1, 2, 3):
            session.run(step.op, feeds)
            np.testing.assert_array_equal(session.run(v), -turn * wanted)
    assert not device.cublas.calls


@pytest.mark.parametrize("answers", [{"create": 1}, {"create": 3}, {"multiply": 15}])
@pytest.mark.parametrize("use", ["auto", "always"])
def test_a_cublas_that_does_not_work_is_not_used(answers, use, priced):
    (x, w), feeds, wanted = large()
    priced.cublas.answers.update(answers)
    with gc.Session(device=priced) as session, gc.compile_options(cublas=use):
        for _ in range(3):
            np.testing.assert_array_equal(session.run(gc.matmul(x, w), feeds), wanted)
    assert not priced.cublas.calls
    # Another cuBLAS may do it: nothing of that is kept.
    assert not cuda_products._found


def test_loops_measure_in_their_first_turn(priced):
    priced.prices["multiply"] = 1e-6
    a = whole(SIDE, SIDE)
    x = gc.placeholder(gc.float32, [SIDE, SIDE])
    _, last = gc.while_loop(
        lambda k, _: k < 3, lambda k, y: (k + 1, gc.matmul(y, x) * 0.0 + x), [gc.constant(0), x]
    )
    with gc.Session(device=priced) as session:
        np.testing.assert_array_equal(session.run(last, {x: a}), a)
        events, done = priced.events, priced.cublas.done
        np.testing.assert_array_equal(session.run(last, {x: a}), a)
    assert events
    assert (priced.events, priced.cublas.done) == (events, done + 3)


def test_a_traced_run_tells_of_it(priced):
    priced.prices["multiply"] = 1e-6
    (x, w), feeds, _ = large()
    y = gc.nn.softmax(gc.matmul(x, w, name="product"))
    metadata = gc.RunMetadata()
    with gc.Session(device=priced) as session:
        session.run(y, feeds)
        session.run(y, feeds, gc.RunOptions(trace=True), metadata)
    (found,) = [r for r in metadata.profile.kernels if "product" in r.ops]
    assert found.name.endswith(" cublas")
    assert " cublas " in str(metadata.profile)
    assert sum("cublas" in r.name for r in metadata.profile.records) == 1
