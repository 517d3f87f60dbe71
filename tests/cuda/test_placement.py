"""``gc.device``: names as TensorFlow 1.15 has them, and on which device a session runs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from cuda_support import LateDevice, has_compiler

import graphc as gc
from graphc import errors, placement
from graphc.graph import parse_device


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture
def two_gpus(monkeypatch):
    """Two devices that CuPy would show; the numbers that were asked for."""
    if not has_compiler():
        pytest.skip("no C++ compiler")
    asked = []

    def found(number=None):
        asked.append(number)
        if number is not None and number > 1:
            raise errors.UnavailableError(None, None, f"there is no device cuda:{number}")
        device = LateDevice()
        device.name = f"cuda:{number or 0}"
        return device

    monkeypatch.setattr(placement, "cuda_device", found)
    return asked


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a GPU."""

    def none(number=None):
        raise errors.UnavailableError(None, None, "there is no driver")

    monkeypatch.setattr(placement, "cuda_device", none)


# What TensorFlow 1.15.5 gives for ``with tf.device(name): tf.constant(1).device``.
NAMES = {
    "/cpu:0": "/device:CPU:0", "/gpu:0": "/device:GPU:0", "/device:GPU:1": "/device:GPU:1",
    "gpu:0": "/device:GPU:0", "cpu": "/device:CPU:*", "GPU": "/device:GPU:*",
    "/device:GPU:*": "/device:GPU:*", "/gpu:*": "/device:GPU:*", "/CPU:0": "/device:CPU:0",
    "/job:localhost/replica:0/task:0/device:GPU:0": "/job:localhost/replica:0/task:0/device:GPU:0",
    "/job:localhost/gpu:0": "/job:localhost/device:GPU:0", "/device:TPU:0": "/device:TPU:0",
    "/device:FOO:3": "/device:FOO:3", "": "", "/job:ps": "/job:ps",
    "/device:gpu:0": "/device:GPU:0", "/job:ps/task:0": "/job:ps/task:0",
    "//gpu:0": "/device:GPU:0",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_tensorflow(name):
    with gc.device(name):
        assert gc.constant(1).device == NAMES[name]
    assert str(parse_device(NAMES[name])) == NAMES[name]


@pytest.mark.parametrize(
    "name", ["foo", "/foo:0", "/gpu:x", "/gpu:0/cpu:0", "/XLA_GPU:0", "/gpu:-1", "gpu:0x"]
)
def test_what_is_no_name_is_refused_where_it_is_said(name):
    with pytest.raises(errors.GraphError), gc.device(name):
        pass
    with pytest.raises(errors.DTypeError, match="not 3"), gc.device(3):
        pass


def test_devices_inside_of_devices():
    with gc.device("/job:ps"):
        with gc.device("/gpu:0"):
            assert gc.constant(1).device == "/job:ps/device:GPU:0"
            with gc.device(None):
                assert gc.constant(1).device == ""
        with gc.device("/cpu:0"), gc.device("/gpu:1"):
            assert gc.constant(1).device == "/job:ps/device:GPU:1"
    with gc.device(lambda op: f"/gpu:{len(op.name)}"):
        assert gc.constant(1, name="abc").device == "/device:GPU:3"
    with gc.device("/gpu:0"), gc.device(lambda op: "/cpu:0"):
        assert gc.constant(1).device == "/device:CPU:0"
    with gc.device(lambda op: op.device or "/gpu:7"), gc.device("/cpu:0"):
        assert gc.constant(1).device == "/device:CPU:0"
    with gc.device(lambda op: None):
        assert gc.constant(1).device == ""


@pytest.mark.parametrize(
    ("name", "number"),
    [("/gpu:0", 0), ("/device:GPU:1", 1), ("/job:localhost/replica:0/task:0/device:GPU:1", 1),
     ("gpu", None)],
)  # fmt: skip
def test_a_graph_that_asks_for_a_gpu_runs_there(name, number, two_gpus):
    with gc.device("/cpu:0"):
        x = gc.placeholder(gc.float32, [None])
    with gc.device(name):
        v = gc.Variable(np.ones(3, np.float32))
        y = x * v
    with gc.Session() as session:
        session.run(v.initializer)
        for _ in range(3):
            assert session.run(y, {x: [1, 2, 3]}).tolist() == [1, 2, 3]
        assert two_gpus == [number]
        assert session._device.launches
        v.load(np.full(3, 2.0, np.float32), session)
        assert session.run(y, {x: [1, 2, 3]}).tolist() == [2, 4, 6]
        assert session.read_variable(v.op).tolist() == [2, 2, 2]


def test_a_graph_that_asks_for_none_runs_on_the_cpu(two_gpus):
    with gc.device("/cpu:0"):
        x = gc.constant([1.0, 2.0])
    with gc.Session() as session:
        assert session.run(x * 2.0).tolist() == [2, 4]
        assert session._device is None
    assert two_gpus == []


def test_a_session_that_is_given_a_device_runs_there(two_gpus):
    with gc.device("/gpu:0"):
        x = gc.constant([1.0, 2.0]) * 3.0
    for name in ("cpu", "/cpu:0"):
        with gc.Session(device=name) as session:
            assert session.run(x).tolist() == [3, 6]
            assert [d.device_type for d in session.list_devices()] == ["CPU"]
    assert two_gpus == []
    for name in ("cuda:1", "/gpu:1", "/device:GPU:1", "gpu:1"):
        with gc.Session(device=name) as session:
            assert session.run(x).tolist() == [3, 6]
            listed = session.list_devices()[-1]
            assert listed.name.endswith("/device:GPU:1")
    assert two_gpus == [1] * 4
    with pytest.raises(errors.UnavailableError, match="no device cuda:2"):
        gc.Session(device="cuda:2")


def test_two_gpus_in_one_graph(two_gpus):
    with gc.device("/gpu:1"):
        x = gc.constant([1.0, 2.0], name="first")
    with gc.device("/gpu:0"):
        y = gc.add(x, x, name="second")
    with gc.Session() as session:
        with pytest.raises(errors.InvalidArgumentError, match=r"(?s)second.*first") as caught:
            session.run(y)
        assert caught.value.op is y.op
        assert "test_placement.py" in str(caught.value)
    with gc.Session(config=gc.ConfigProto(allow_soft_placement=True)) as session:
        assert session.run(y).tolist() == [2, 4]
    assert two_gpus == [1]
    # Any GPU is as good as the one that is named.
    with gc.Graph().as_default():
        with gc.device("/gpu:*"):
            a = gc.constant([1.0])
        with gc.device("/gpu:1"):
            b = a + 1.0
        with gc.Session() as session:
            assert session.run(b).tolist() == [2]
    assert two_gpus == [1, 1]


def test_what_asks_for_a_gpu_when_the_session_has_begun(two_gpus):
    x = gc.constant([1.0, 2.0])
    with gc.Session() as session, gc.Session(
        config=gc.ConfigProto(allow_soft_placement=True)
    ) as soft:
        for s in (session, soft):
            s.run(x)
        with gc.device("/gpu:0"):
            y = gc.add(x, 1.0, name="later")
        with pytest.raises(errors.InvalidArgumentError, match="begun on the CPU already"):
            session.run(y)
        assert soft.run(y).tolist() == [2, 3]


def test_without_a_gpu(no_gpu):
    with gc.device("/gpu:0"):
        v = gc.Variable([1.0], name="v")
    match = r"Cannot assign a device for operation v.*there is no driver.*allow_soft_placement"
    with gc.Session() as session:
        for work in (lambda: session.run(v.initializer), lambda: session.read_variable(v.op)):
            with pytest.raises(errors.InvalidArgumentError, match=match) as caught:
                work()
            assert "test_placement.py" in str(caught.value)
    with gc.Session(config=gc.ConfigProto(allow_soft_placement=True)) as session:
        session.run(v.initializer)
        assert session.run(v).tolist() == [1]


def test_a_session_that_hides_the_gpus(two_gpus):
    with gc.device("/gpu:0"):
        x = gc.constant([1.0]) + 1.0
    config = gc.ConfigProto(device_count={"GPU": 0}, allow_soft_placement=True)
    with gc.Session(config=config) as session:
        assert session.run(x).tolist() == [2]
    config.allow_soft_placement = False
    refused = pytest.raises(errors.InvalidArgumentError, match="device_count")
    with gc.Session(config=config) as session, refused:
        session.run(x)
    assert two_gpus == []


def test_kinds_of_devices_that_there_are_not(two_gpus):
    with gc.device("/device:TPU:0"):
        x = gc.constant([1.0], name="x")
    refused = pytest.raises(errors.InvalidArgumentError, match="no such kind of device")
    with gc.Session() as session, refused:
        session.run(x)
    with gc.Session(config=gc.ConfigProto(allow_soft_placement=True)) as session:
        assert session.run(x).tolist() == [1]


def test_other_modes_are_for_the_cpu(two_gpus):
    with gc.device("/gpu:0"):
        x = gc.constant([1.0]) + 1.0
    for mode in ("eager", "reference"):
        with gc.Session(mode=mode) as session:
            assert session.run(x).tolist() == [2]
    assert two_gpus == []


def test_threads_that_begin_at_once_begin_one_session(two_gpus):
    with gc.device("/gpu:0"):
        v = gc.Variable(np.zeros(3, np.float32))
        add = gc.assign_add(v, gc.ones([3])).op
    session = gc.Session()
    start = threading.Barrier(4)

    def begin():
        start.wait()
        session.run(v.initializer)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    session.run(add)
    assert session.run(v).tolist() == [1, 1, 1]
    assert two_gpus == [0]


def test_a_closed_session_that_was_never_used(no_gpu):
    with gc.device("/gpu:0"):
        gc.constant(1)
    session = gc.Session()
    session.close()
    with pytest.raises(errors.FinalizedError):
        session.run("Const:0")
