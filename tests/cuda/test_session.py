"""Sessions on a device: what they give is what the CPU gives, and nothing is lost."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import graphc as gc
from graphc import errors
from graphc.__main__ import main
from graphc.codegen import cuda
from graphc.runtime.cuda_device import Device

RNG = np.random.default_rng(11)
X = RNG.standard_normal((9, 40)).astype(np.float32)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def both(device: Device, work) -> None:
    """Fail unless ``work(session)`` gives the same on the device and on the CPU."""
    results = []
    for place in ("cpu", device):
        with gc.Session(device=place) as session:
            results.append(work(session))
    for found, wanted in zip(*results, strict=True):
        assert np.asarray(found).dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_a_training_run_is_that_of_the_cpu(device):
    x = gc.placeholder(gc.float32, [None, 40])
    w = gc.Variable(gc.random_normal([40, 8], seed=4))
    b = gc.Variable(gc.zeros([8]))
    hidden = gc.nn.relu(gc.matmul(x, w) + b)
    loss = gc.reduce_mean(gc.square(gc.nn.softmax(hidden) - 0.5))
    step = gc.train.AdamOptimizer(0.01).minimize(loss)
    initialize = gc.global_variables_initializer()

    def work(session):
        session.run(initialize)
        losses = [session.run([step, loss], {x: X[:n]})[1] for n in (9, 9, 4)]
        return [*losses, *session.run([w, b])]

    both(device, work)


def test_random_numbers_are_those_of_the_cpu(device):
    draws = [gc.random_uniform([33], seed=3), gc.random_normal([5, 7], seed=2)]
    integers = gc.random_uniform([64], maxval=1000, dtype=gc.int32, seed=9)
    results = []
    for place in ("cpu", device):
        with gc.Session(device=place) as session:
            results.append([session.run([*draws, integers]) for _ in range(2)])
    for found, wanted in zip(*results, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [gc.float16, gc.bfloat16, gc.float32, gc.float64])
def test_elementwise_results_are_the_cpus_to_the_bit(dtype, device):
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 88.7, -103.0, 1e30, 5e4]
    with np.errstate(over="ignore"):
        values = np.concatenate([RNG.standard_normal(2000) * 8, special])
        values = values.astype(dtype.as_numpy_dtype)
    x, p = gc.placeholder(dtype, [None]), gc.placeholder(dtype, [None])
    unary = (
        gc.exp, gc.tanh, gc.sin, gc.cos, gc.tan, gc.erf, gc.sigmoid, gc.atan, gc.expm1, gc.asinh,
        gc.nn.elu, gc.nn.softplus, gc.sign, gc.floor, gc.rint, gc.negative, gc.square,
    )  # fmt: skip
    positive = (gc.log, gc.log1p, gc.sqrt, gc.rsqrt, gc.acosh)
    fetches = [f(x) for f in unary] + [f(p) for f in positive]
    fetches += [gc.pow(p, x), x / p, gc.maximum(x, 1 / p), gc.cast(x, gc.int32)]
    fetches += [gc.cast(x, t) for t in (gc.float16, gc.bfloat16, gc.float32, gc.float64)]
    both = []
    for place in ("cpu", device):
        with gc.Session(device=place) as session:
            both.append(session.run(fetches, {x: values, p: np.abs(values)}))
    for fetch, found, wanted in zip(fetches, *both, strict=True):
        bits = np.dtype(f"u{wanted.dtype.itemsize}")
        nan = (found != found) & (wanted != wanted)
        same = nan | (found.view(bits) == wanted.view(bits))
        assert same.all(), (fetch.op.type, values[~same][:5], found[~same][:5], wanted[~same][:5])


def test_loops_and_branches(device):
    x = gc.placeholder(gc.float32, [None, 40])
    turns = gc.placeholder(gc.int32, [])

    def body(k, a):
        return k + 1, gc.cond(gc.equal(k % 2, 0), lambda: a * 1.5, lambda: a - 1.0)

    _, last = gc.while_loop(lambda k, _: k < turns, body, [gc.constant(0), x])
    (slope,) = gc.gradients(gc.reduce_sum(last * last), [x])
    stacked = gc.map_fn(gc.reduce_max, x)
    both(device, lambda s: s.run([last, slope, stacked], {x: X, turns: 5}))


def test_a_turn_of_a_loop_costs_one_download(shim):
    x = gc.placeholder(gc.float32, [None])
    last = gc.while_loop(lambda a: gc.reduce_sum(a) < 1000.0, lambda a: [a * 2.0], [x])
    with gc.Session(device=shim) as session:
        assert session.run(last, {x: [1, 1]}).tolist() == [512, 512]
        before = shim.uploads, shim.downloads
        session.run(last, {x: [1, 1]})
        # The feed; the condition 10 times and the fetch.
        assert (shim.uploads, shim.downloads) == (before[0] + 1, before[1] + 11)


def test_sizes_that_a_run_decides(device):
    x = gc.placeholder(gc.float32, [None, 40])
    positive = gc.boolean_mask(x, x > 0.3)
    both(device, lambda s: s.run([positive, gc.reduce_sum(positive), gc.where(x > 1.0)], {x: X}))


@pytest.mark.parametrize("size", [0, 1, 4096, 9001])
def test_positions_of_true_elements(size, device):
    x = gc.placeholder(gc.float32, [None])
    values = RNG.standard_normal(size).astype(np.float32)
    both(device, lambda s: s.run([gc.where(x > 0.2), gc.boolean_mask(x, x < -0.5)], {x: values}))


def test_python_in_the_middle_of_a_run(device):
    x = gc.placeholder(gc.float32, [None, 40])
    sorted_ = gc.py_func(lambda a: np.sort(a, axis=None), [x * 2.0], gc.float32)
    sorted_.set_shape([None])
    both(device, lambda s: s.run([gc.reduce_max(sorted_), sorted_ + 1.0], {x: X}))


def test_a_new_size_compiles_nothing(shim):
    x = gc.placeholder(gc.float32, [None, None])
    y = gc.nn.softmax(gc.matmul(x, x, transpose_b=True))
    with gc.Session(device=shim) as session:
        for n in (3, 8, 5):
            found = session.run(y, {x: X[:n]})
            assert found.shape == (n, n)
        assert session.compilations == 1
        assert len(shim.texts) == 1


def test_variables_stay_on_the_device(shim):
    v = gc.Variable(np.zeros(300, np.float32))
    add = gc.assign_add(v, gc.ones([300]))
    with gc.Session(device=shim) as session:
        session.run(v.initializer)
        session.run(add.op)
        before = shim.uploads, shim.downloads
        for _ in range(3):
            session.run(add.op)
        assert (shim.uploads, shim.downloads) == before
        np.testing.assert_array_equal(session.run(v), np.full(300, 4.0))
        v.load(np.full(300, 7.0, np.float32), session)
        np.testing.assert_array_equal(session.run(v), np.full(300, 7.0))


def test_a_failed_run_changes_no_variable(device):
    v = gc.Variable(np.arange(4, dtype=np.float32))
    at = gc.placeholder(gc.int32, [None])
    picked = gc.gather(v, at)
    with gc.control_dependencies([picked]):
        change = gc.assign(v, v * 2.0)
    with gc.Session(device=device) as session:
        session.run(v.initializer)
        with pytest.raises(errors.InvalidArgumentError, match=r"= 4 is not in \[0, 4\)") as caught:
            session.run(change, {at: [1, 4]})
        assert caught.value.op.name == picked.op.name
        assert session.run(v).tolist() == [0, 1, 2, 3]
        session.run(change, {at: [1, 3]})
        assert session.run(v).tolist() == [0, 2, 4, 6]


def test_what_has_no_cuda_spelling_names_the_operation_before_anything_runs(shim, monkeypatch):
    x = gc.placeholder(gc.float32, [3], name="x")
    y = gc.sqrt(x, name="root")
    monkeypatch.delitem(cuda_ops_same(), "sqrt")
    with gc.Session(device=shim) as session:
        with pytest.raises(errors.UnimplementedError, match="cannot compute Sqrt") as caught:
            session.run(y, {x: [1, 2, 3]})
        assert caught.value.op.name == "root"
        assert "test_session.py" in str(caught.value)
    assert shim.launches == 0


def cuda_ops_same() -> dict[str, str]:
    from graphc.codegen import cuda_ops

    return cuda_ops._SAME


def test_a_saved_model_runs_on_the_device(shim, tmp_path):
    x = gc.placeholder(gc.float32, [None, 40], name="x")
    w = gc.Variable(RNG.standard_normal((40, 3)).astype(np.float32))
    y = gc.matmul(x, w)
    with gc.Session() as session:
        session.run(w.initializer)
        expected = session.run(y, {x: X})
        gc.save(tmp_path / "m.graphc", session, {"x": x}, {"y": y})
    model = gc.load(tmp_path / "m.graphc", device=shim)
    np.testing.assert_allclose(model(x=X), expected, rtol=1e-5)
    assert shim.launches


# --- without a device -----------------------------------------------------------------------------


@pytest.fixture
def no_device():
    """There is no CUDA device, as far as CuPy can tell."""
    cupy = pytest.importorskip("cupy")
    if cupy.is_available():
        pytest.skip("there is a CUDA device")


def test_without_a_device_the_error_says_so(no_device):
    with pytest.raises(errors.UnavailableError, match="needs a CUDA driver and a device"):
        gc.Session(device="cuda")


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(errors.UnavailableError, match=r"graphc\[cuda13\]"):
        gc.Session(device="cuda")


def test_other_devices_and_modes_are_refused(shim):
    with pytest.raises(gc.errors.GraphError, match=r"'cpu' or 'cuda', .* not 'tpu'"):
        gc.Session(device="tpu")
    with pytest.raises(gc.errors.GraphError, match="not '/device:TPU:0'"):
        gc.Session(device="/device:TPU:0")
    with pytest.raises(gc.errors.GraphError, match="mode 'eager' runs on device 'cpu' only"):
        gc.Session(device=shim, mode="eager")


def test_the_command_line_says_so_too(no_device, tmp_path, capsys):
    x = gc.placeholder(gc.float32, [2], name="x")
    with gc.Session() as session:
        gc.save(tmp_path / "m.graphc", session, {"x": x}, {"y": x + 1.0})
    np.save(tmp_path / "x.npy", np.zeros(2, np.float32))
    arguments = ["run", str(tmp_path / "m.graphc"), "--feed", f"x={tmp_path / 'x.npy'}"]
    assert main([*arguments, "--device", "cuda"]) != 0
    assert "needs a CUDA driver and a device" in capsys.readouterr().err
    assert main([*arguments, "--device", "cpu"]) == 0


def test_kernels_for_cpus_are_refused():
    from graphc.loop.parser import parse_kernel

    with pytest.raises(errors.CompileError, match="Lets and block loops"):
        cuda.print_kernel(parse_kernel("kernel k(x: f32[4]):\n  x[0] = 1.0f32\n"))
