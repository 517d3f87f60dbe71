"""The device as CuPy shows it: every call that is made of CuPy, with a CuPy that is none."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cuda_support import has_compiler

import graphc as gc
from graphc import errors
from graphc.inspect.describe import cuda_status
from graphc.runtime import cuda_cupy
from graphc.runtime.cuda_cupy import CupyDevice
from graphc.runtime.cuda_device import CaptureError

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
PATH = Path(__file__).parent / "fake_cupy.py"
X = np.random.default_rng(2).standard_normal((6, 10)).astype(np.float32)


def load_fake():
    """The module beside this file."""
    found = sys.modules.get("cuda_fake_cupy")
    if found is None:
        spec = importlib.util.spec_from_file_location("cuda_fake_cupy", PATH)
        found = importlib.util.module_from_spec(spec)
        sys.modules["cuda_fake_cupy"] = found
        spec.loader.exec_module(found)
    return found


@pytest.fixture
def fake(monkeypatch):
    """In the place of CuPy, on a machine whose second device is chosen."""
    cupy = load_fake().FakeCupy(number=1)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_cupy, "cached_cubin", lambda text, arch: text.encode())
    # A real one would take what the shim has for addresses of a GPU.
    monkeypatch.setattr(cuda_cupy, "cublas_library", lambda: cupy.cublas)
    with gc.Graph().as_default():
        yield cupy
    assert cupy.devices == [0]
    assert cupy.streams == [cupy.user]
    assert cupy.current is cupy.user


def test_training_on_a_device_that_is_not_the_current_one(fake):
    x = gc.placeholder(gc.float32, [None, 10])
    v = gc.Variable(np.ones((10, 3), np.float32))
    at = gc.placeholder(gc.int32, [None])
    loss = gc.reduce_mean(gc.square(gc.gather(gc.matmul(x, v), at) - 1.0))
    step = gc.train.GradientDescentOptimizer(0.1).minimize(loss)
    results = []
    for place in ("cpu", "cuda:1"):
        with gc.Session(device=place) as session:
            session.run(v.initializer)
            losses = [session.run([step, loss], {x: X, at: [0, 3]})[1] for _ in range(4)]
            with pytest.raises(errors.InvalidArgumentError, match="= 6 is not in"):
                session.run(step, {x: X, at: [0, 6]})
            results.append([losses, session.run(v)])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert fake.shim.graphs >= 3


def test_the_device_is_found_by_its_number(fake):
    assert cuda_cupy.cuda_names() == ["cuda:0", "cuda:1"]
    assert cuda_cupy.cuda_device(1).name == "cuda:1"
    assert cuda_cupy.cuda_device(1).arch == "sm_80"
    assert cuda_cupy.cuda_device().name == "cuda:0"
    with pytest.raises(errors.UnavailableError, match="no device cuda:2; there are cuda:0, cuda:1"):
        gc.Session(device="cuda:2")
    with gc.Session() as session:
        assert [d.device_type for d in session.list_devices()] == ["CPU", "GPU", "GPU"]


def test_the_installation_is_described(fake):
    assert cuda_status() == (
        "cupy 14.2.0 finds cuda:0: Fake (sm_90, 141 GiB); cuda:1: Fake (sm_90, 142 GiB)"
    )


def test_users_arrays_and_streams(fake):
    module = load_fake()
    x = gc.placeholder(gc.float32, [6, 10])
    with gc.Session(device="cuda:1") as session:
        device = session._device
        call = session.make_callable(x * 2.0, [x], on_device=True)
        first = call(X)
        assert isinstance(first, module.Array)
        assert fake.waits == [(fake.user, device.stream)]
        fake.waits.clear()
        second = call(first)
        # Our stream waits for the user's before the run, and the user's for ours behind it.
        assert fake.waits == [(device.stream, fake.user), (fake.user, device.stream)]
        np.testing.assert_array_equal(session.run(x, {x: second}), X * 4)
        fake.waits.clear()
        del first
        # What the user's stream does with the memory is done before it is given out again.
        assert fake.waits == [(device.stream, fake.user)]

        class Dlpack:
            def __init__(self, array, kind):
                self.array, self.kind = array, kind

            def __dlpack_device__(self):
                return self.kind, 1

            def __dlpack__(self, stream=None):
                raise AssertionError

            def __array__(self, dtype=None, copy=None):
                return X

        for kind, wanted in ((2, X * 4), (13, X * 4), (1, X)):
            found = session.run(x + 0.0, {x: Dlpack(second, kind)})
            np.testing.assert_array_equal(found, wanted)
        v = gc.Variable(np.zeros((6, 10), np.float32))
        session.run(v.initializer)
        add = gc.assign_add(v, x).op
        wait, waits = device.wait, []
        device.wait = lambda: (waits.append(len(fake.shim.queue)), wait())
        for _ in range(3):
            session.run(add, {x: second})
        assert not waits
        # The streams of another library are not known: the run is done when it returns.
        for _ in range(3):
            session.run(add, {x: Dlpack(second, 2)})
        assert len(waits) == 3
        assert all(waits)
        second.device.id = 0
        with pytest.raises(errors.FeedError, match="on cuda:0, and the session runs on cuda:1"):
            session.run(x + 0.0, {x: second})


def test_what_cuda_refuses_is_an_error_of_the_run(fake):
    module = load_fake()
    v = gc.Variable(np.ones(3, np.float32))
    with gc.Session(device="cuda:1") as session:
        session.run(v.initializer)
        for kind in (module.CUDARuntimeError, module.CUDADriverError):
            fake.refusal = kind(700)
            with pytest.raises(errors.InternalError, match="cuda:1: cudaErrorIllegalAddress"):
                session.run(v * 2.0)
        fake.refusal = None


def test_out_of_memory_gives_the_pools_blocks_back(monkeypatch):
    cupy = load_fake().FakeCupy(number=0, limit=1 << 20)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_cupy, "cached_cubin", lambda text, arch: text.encode())
    with gc.Graph().as_default(), gc.Session(device="cuda") as session:
        x = gc.placeholder(gc.float32, [None])
        with pytest.raises(errors.ResourceExhaustedError, match="feed, 1000000 x float32"):
            session.run(x * 2.0, {x: np.ones(1_000_000, np.float32)})
        assert cupy.frees == 1


def test_nothing_is_allocated_in_a_capture(fake):
    """The pool would give memory that a replay writes to when it is somebody else's."""
    device = CupyDevice(fake, 1)
    with device.active():
        device.begin_capture()
        with pytest.raises(CaptureError, match="allocates"):
            device.allocate(4)
        device.end_capture()
        device.allocate(4)


def test_a_forked_process_cannot_use_the_device(fake, monkeypatch):
    x = gc.constant([1.0])
    with gc.Session(device="cuda:1") as session:
        session.run(x * 2.0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(errors.UnavailableError, match="forked"):
                session.run(x * 2.0)
        assert session.run(x * 2.0).tolist() == [2]


def test_other_threads_do_not_enter_a_capture(fake):
    """What they ask for is done, and not recorded: fetches, constants, arrays that are freed."""
    x = gc.placeholder(gc.float32, [6, 10])
    done = []
    with gc.Session(device="cuda:1") as session:
        device = session._device
        call = session.make_callable(x * 2.0, [x], on_device=True)
        given = [call(X)]

        def meanwhile():
            with device.active():
                memory = device.allocate(4)
                device.write(memory.address, np.array([7], np.int32))
                found = np.zeros(1, np.int32)
                device.read(memory.address, found)
                device.event().wait()
            device.join()
            given.clear()
            done.append(found[0])

        def start():
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join()

        fake.meanwhile = start
        y = gc.cumsum(x)
        for k in range(4):
            wanted = np.cumsum(X * k, 0)
            np.testing.assert_allclose(session.run(y, {x: X * k}), wanted, rtol=1e-5, atol=1e-5)
        assert done == [7]


def test_a_stream_that_the_caller_uses_is_used_again(fake):
    x = gc.placeholder(gc.float32, [6, 10])
    other = load_fake().UserStream(fake)
    other.use()
    with gc.Session(device="cuda:1") as session:
        device = session._device
        call = session.make_callable(x * 2.0, [x], on_device=True)
        for _ in range(3):
            found = call(X)
            assert fake.current is other
        assert set(fake.waits) == {(other, device.stream), (device.stream, other)}
        fake.user.use()
        fake.waits.clear()
        # Its memory was given to the stream that was current then.
        del found
        assert fake.waits == [(device.stream, other)]


@pytest.mark.parametrize("what", ["begin", "launch", "memcpy", "end"])
@pytest.mark.parametrize("kind", ["CUDARuntimeError", "CUDADriverError"])
def test_what_cuda_refuses_in_a_capture_goes_step_by_step(fake, what, kind):
    x = gc.placeholder(gc.float32, [6, 10])
    with gc.Session(device="cuda:1") as session:
        y = gc.cumsum(x)
        first = session.run(y, {x: X})

        def refuse(name, anywhere=False):
            capturing = any(s.capturing for s in fake.pointers.values())
            if name == what and (capturing or name in ("begin", "end")):
                raise getattr(load_fake(), kind)(900)

        fake.refuse = refuse
        for _ in range(3):
            np.testing.assert_array_equal(session.run(y, {x: X}), first)
        assert not fake.shim.graphs


@pytest.mark.parametrize("what", ["pinned", "module", "graph", "end"])
def test_no_memory_for_what_cuda_keeps_itself(fake, what):
    """The run begins anew without recordings; where that does not help, it is an OOM."""
    x = gc.placeholder(gc.float32, [6, 10])
    refusals = []

    def refuse(name, anywhere=False):
        if name == what and len(refusals) < limit:
            refusals.append(name)
            raise load_fake().CUDARuntimeError(2)

    fake.refuse, limit = refuse, 1
    with gc.Session(device="cuda:1") as session:
        y = gc.cumsum(x)
        wanted = np.cumsum(X, 0)
        if what == "module":
            with pytest.raises(errors.ResourceExhaustedError, match="out of memory"):
                session.run(y, {x: X})
        for _ in range(4):
            np.testing.assert_allclose(session.run(y, {x: X}), wanted, rtol=1e-5, atol=1e-5)
    assert refusals


@pytest.mark.parametrize("n", [10, 100_000])
def test_a_feed_in_pinned_memory_may_change_after_the_run(fake, n):
    x = gc.placeholder(gc.float32, [n])
    v = gc.Variable(np.zeros(n, np.float32))
    add = gc.assign_add(v, x).op
    feed = np.frombuffer(fake.alloc_pinned_memory(4 * n), np.float32)
    with gc.Session(device="cuda:1") as session:
        session.run(v.initializer)
        for k in range(1, 6):
            feed[:] = k
            session.run(add, {x: feed})
            feed[:] = np.nan
        assert session.run(v).tolist() == [15] * n
        device, found = session._device, np.zeros(n, np.float32)
        with device.active():
            memory = device.allocate(4 * n)
            feed[:] = 1
            device.write(memory.address, feed)
            feed[:] = np.nan
            device.read(memory.address, found)
        assert (found == 1).all()


def test_a_device_that_cannot_be_opened(fake):
    fake.refused = {"stream": load_fake().CUDARuntimeError(2)}
    with pytest.raises(errors.UnavailableError, match=r"'cuda:1' cannot be opened: .*memory"):
        gc.Session(device="cuda:1")


def test_a_device_that_works_no_more_is_no_fault_of_a_feed(fake):
    x = gc.placeholder(gc.float32, [6, 10])
    module = load_fake()
    with gc.Session(device="cuda:1") as session:
        call = session.make_callable(x * 2.0, [x], on_device=True)
        array = call(X)
        for status, error in (
            (700, errors.InternalError), (2, errors.ResourceExhaustedError), (1, errors.FeedError),
        ):  # fmt: skip
            fake.refused = {"event": module.CUDARuntimeError(status)}
            with pytest.raises(error, match=r"cuda:1|taken from its device"):
                call(array)
        # What orders the user's stream behind the run can fail, too.
        fake.refused = {"event": module.CUDARuntimeError(700)}
        with pytest.raises(errors.InternalError, match="cuda:1: cudaErrorIllegalAddress"):
            call(X)
        at = gc.placeholder(gc.int32, [None])
        y = session.make_callable(gc.gather(gc.constant([1.0, 2.0]), at), [at], on_device=True)
        with pytest.raises(errors.InvalidArgumentError, match="= 5 is not in"):
            y(np.array([5], np.int32))
        fake.refused = {}


def test_the_fastest_that_the_device_can_be(fake, monkeypatch):
    monkeypatch.setattr(cuda_cupy, "COPIED", 1 << 16)
    device = CupyDevice(fake, 1)
    with device.active():
        flops, bandwidth = device.peak()
    assert flops == 2.0 * 64 * 100 * 1e9
    assert bandwidth > 0


def test_the_fake_has_what_cupy_has():
    """Names, at least: signatures of compiled functions cannot be asked for."""
    cupy = pytest.importorskip("cupy")
    fake = load_fake().FakeCupy()
    for name in vars(fake.cuda):
        assert hasattr(cupy.cuda, name), name
    for name in vars(fake.cuda.runtime):
        assert hasattr(cupy.cuda.runtime, name), name
    stream = cupy.cuda.Stream
    for name in ("synchronize", "record", "wait_event", "begin_capture", "end_capture"):
        ours = list(inspect.signature(getattr(load_fake().Stream, name)).parameters)
        assert ours == list(inspect.signature(getattr(stream, name)).parameters), name
    for name in ("from_dlpack", "asarray", "ascontiguousarray", "get_default_memory_pool"):
        assert hasattr(cupy, name)
