"""Kernels compiled for named GPUs without one, and models that devices and CPUs exchange."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from cuda_support import has_compiler, has_nvrtc

import graphc as gc
from graphc import errors
from graphc.__main__ import main
from graphc.runtime import cuda_device
from graphc.runtime.cuda_device import cached_cubin

needs_nvrtc = pytest.mark.skipif(not has_nvrtc(), reason="no NVRTC: graphc[test] installs it")
needs_shim = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
X = np.random.default_rng(2).standard_normal((6, 10)).astype(np.float32)


@pytest.fixture(autouse=True)
def graph(monkeypatch):
    monkeypatch.setattr(cuda_device, "_provided", {})
    with gc.Graph().as_default():
        yield


def declare():
    """A classifier and its training step: (x, y, v, outputs)."""
    x = gc.placeholder(gc.float32, [None, 10], name="x")
    v = gc.Variable(gc.random_normal([10, 4], seed=3), name="v")
    y = gc.nn.softmax(gc.matmul(x, v), name="y")
    optimizer = gc.train.AdamOptimizer(0.01)
    step = optimizer.minimize(gc.reduce_mean(gc.square(y - 0.25)))
    return x, y, v, {"y": y, "step": step}


@pytest.fixture
def saved(tmp_path):
    """A model file, whose session was on the CPU."""
    x, _, _, outputs = declare()
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        gc.save(tmp_path / "m.graphc", session, {"x": x}, outputs)
    return tmp_path / "m.graphc"


@needs_nvrtc
@needs_shim
def test_a_machine_with_the_gpu_compiles_nothing(saved, shim, tmp_path, monkeypatch):
    model = gc.load(saved)
    where = tmp_path / "m.kernels"
    gc.save_kernels(where, model.session, model.inputs, model.outputs, arch=["sm_80", "sm_90"])
    there = gc.load(saved, device=shim, kernels=where)
    there.run(x=X)
    there.run(x=X[:3])
    (text,) = shim.texts

    def missing(*_):
        raise errors.UnavailableError(None, None, "there is no NVRTC")

    monkeypatch.setattr(cuda_device, "nvrtc", missing)
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "another"))
    for arch in ("sm_80", "sm_90"):
        assert cached_cubin(text, arch)[:4] == b"\x7fELF"
    with pytest.raises(errors.UnavailableError):
        cached_cubin(text, "sm_75")
    with pytest.raises(errors.UnavailableError):
        cached_cubin(text + "//", "sm_80")


@needs_nvrtc
def test_what_the_file_has_not_is_compiled(saved, tmp_path):
    model = gc.load(saved)
    gc.save_kernels(tmp_path / "k", model.session, model.inputs, model.outputs, arch="sm_80")
    assert gc.load_kernels(tmp_path / "k") == ["sm_80"]
    text = 'extern "C" __global__ void other(int* x) { *x = 1; }'
    assert cached_cubin(text, "sm_90")[:4] == b"\x7fELF"


@needs_nvrtc
@needs_shim
def test_the_cache_is_filled_without_a_file(saved, shim, monkeypatch):
    assert main(["compile", str(saved), "--arch", "sm_80"]) == 0
    gc.load(saved, device=shim).run(x=X)
    monkeypatch.setattr(cuda_device, "compile_cubin", None)
    assert cached_cubin(shim.texts[0], "sm_80")[:4] == b"\x7fELF"


@needs_nvrtc
def test_the_command_line_compiles(saved, tmp_path, capsys):
    out = tmp_path / "m.kernels"
    command = ["compile", str(saved), "--arch", "sm_90", "--shape", "x=8,10", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"sm_90 -> {out}\n"
    assert gc.load_kernels(out) == ["sm_90"]
    assert main(["compile", str(saved), "--shape", "z=8,10"]) == 1
    assert "there is no input 'z'" in capsys.readouterr().err
    assert main(["compile", str(saved), "--shape", "x=8,11"]) == 1


def test_wrong_arguments(tmp_path):
    x, y, _, _ = declare()
    axis = gc.placeholder(gc.int32, [], name="axis")
    anything = gc.placeholder(gc.float32, name="anything")
    with gc.Session() as session:
        with pytest.raises(errors.GraphError, match="called 'sm_90', not 'hopper'"):
            gc.save_kernels(None, session, x, y, arch="hopper")
        with pytest.raises(errors.GraphError, match="not 'sm_90a'"):
            gc.save_kernels(None, session, x, y, arch=["sm_80", "sm_90a"])
        with pytest.raises(errors.GraphError, match="not among the inputs"):
            gc.save_kernels(None, session, [], y)
        with pytest.raises(errors.GraphError, match="unknown rank"):
            gc.save_kernels(None, session, anything, anything + 1.0)
        with pytest.raises(errors.UnimplementedError, match="values that only a run tells"):
            gc.save_kernels(None, session, [x, axis], gc.reduce_sum(x, axis))
        with pytest.raises(errors.DTypeError, match="not a Session"):
            gc.save_kernels(None, None, x, y)


@needs_nvrtc
def test_files_that_are_no_kernels(saved, tmp_path):
    with pytest.raises(errors.FileFormatError, match="not one with kernels"):
        gc.load_kernels(saved)
    model = gc.load(saved)
    path = tmp_path / "k"
    gc.save_kernels(path, model.session, model.inputs, model.outputs, arch="sm_80")
    data = bytearray(path.read_bytes())
    with pytest.raises(errors.FileFormatError, match="not one with a graphc graph"):
        gc.load(path)
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.FileFormatError, match="checksum"):
        gc.load_kernels(path)
    assert cuda_device._provided == {}


# --- from one kind of device to the other ---------------------------------------------------------


@needs_shim
@pytest.mark.parametrize("first", ["cpu", "device"])
def test_a_model_goes_on_where_it_is_loaded(first, shim, tmp_path):
    places = ["cpu", shim] if first == "cpu" else [shim, "cpu"]
    x, _, v, outputs = declare()
    with gc.Session(device=places[0]) as session:
        session.run(gc.global_variables_initializer())
        for _ in range(3):
            session.run(outputs, {x: X})
        gc.save(tmp_path / "m.graphc", session, {"x": x}, outputs)
        expected = [session.run(outputs, {x: X})["y"] for _ in range(3)]
        last = session.run(v)
    model = gc.load(tmp_path / "m.graphc", device=places[1])
    for wanted in expected:
        np.testing.assert_allclose(model.run(x=X)["y"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.session.run(model.graph.get_tensor_by_name("v:0")), last, rtol=1e-5, atol=1e-6
    )
    assert shim.launches


@needs_shim
@pytest.mark.parametrize("first", ["cpu", "device"])
def test_values_go_on_where_they_are_loaded(first, shim):
    places = ["cpu", shim] if first == "cpu" else [shim, "cpu"]
    x, _, v, outputs = declare()
    variables = gc.global_variables()
    with gc.Session(device=places[0]) as session:
        session.run(gc.global_variables_initializer())
        for _ in range(3):
            session.run(outputs, {x: X})
        values = session.read_variables([u.op for u in variables])
        expected = [session.run(outputs, {x: X})["y"] for _ in range(3)]
        last = session.run(v)
    with gc.Session(device=places[1]) as session:
        # What is on the device already is replaced.
        session.run(gc.global_variables_initializer())
        for _ in range(3):
            session.run(outputs, {x: X})
        for u, value in zip(variables, values, strict=True):
            u.load(value, session)
        for wanted in expected:
            found = session.run(outputs, {x: X})["y"]
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(session.run(v), last, rtol=1e-5, atol=1e-6)


@needs_shim
def test_a_model_that_asks_for_a_gpu_runs_where_it_is_loaded(shim, tmp_path):
    with gc.device("/gpu:0"):
        x = gc.placeholder(gc.float32, [None], name="x")
        y = x * 2.0
    with gc.Session(device=shim) as session:
        gc.save(tmp_path / "m.graphc", session, {"x": x}, {"y": y})
    assert gc.load(tmp_path / "m.graphc")(x=[1, 2]).tolist() == [2, 4]


@needs_nvrtc
def test_kernels_compile_where_cupy_finds_no_driver(saved, tmp_path):
    """In a process of its own, that has neither a device nor a cache."""
    environment = {"PATH": "/usr/bin:/bin", "GRAPHC_CACHE": "off", "CUDA_VISIBLE_DEVICES": ""}
    out = tmp_path / "k"
    command = [sys.executable, "-m", "graphc", "compile", str(saved), "--out", str(out)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert gc.load_kernels(out) == ["sm_80", "sm_90"]
