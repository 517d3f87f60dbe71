"""The settings and the log of TensorFlow scripts."""

from __future__ import annotations

import logging

import pytest

import graphc as gc


def test_settings_are_taken_and_kept():
    options = gc.GPUOptions(per_process_gpu_memory_fraction=0.5)
    config = gc.ConfigProto(allow_soft_placement=True, gpu_options=options, device_count={"GPU": 0})
    config.gpu_options.allow_growth = True
    config.graph_options.optimizer_options.global_jit_level = gc.OptimizerOptions.ON_1
    assert config.gpu_options.per_process_gpu_memory_fraction == 0.5
    assert not gc.ConfigProto().gpu_options.allow_growth
    run = gc.RunOptions(trace_level=gc.RunOptions.FULL_TRACE)
    with gc.Graph().as_default(), gc.Session(config=config) as session:
        assert session.run(gc.constant(1), options=run, run_metadata=gc.RunMetadata()) == 1


def test_a_setting_that_there_is_not():
    with pytest.raises(TypeError, match="allow_softplacement"):
        gc.ConfigProto(allow_softplacement=True)  # type: ignore[call-arg]
    config = gc.ConfigProto()
    with pytest.raises(AttributeError):
        config.allow_softplacement = True  # type: ignore[attr-defined]


@pytest.fixture
def verbosity():
    before = gc.logging.get_verbosity()
    yield
    gc.logging.set_verbosity(before)


def test_messages_by_level(verbosity, capsys, monkeypatch):
    # pytest has handlers of its own, which would take the messages.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert gc.logging.get_verbosity() == gc.logging.WARN
    gc.logging.info("quiet")
    gc.logging.warn("%d of %s", 1, "two")
    gc.logging.set_verbosity(gc.logging.INFO)
    gc.logging.info("heard")
    gc.logging.debug("quiet")
    for _ in range(5):
        gc.logging.log_every_n(gc.logging.ERROR, "often", 2)
        gc.logging.log_first_n(gc.logging.ERROR, "seldom", 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["WARNING:graphc:1 of two", "INFO:graphc:heard"]
    assert sorted(lines[2:]) == ["ERROR:graphc:often"] * 3 + ["ERROR:graphc:seldom"]


def test_messages_come_once_where_a_script_has_its_own_log(caplog):
    gc.logging.error("once")
    assert [r.getMessage() for r in caplog.records] == ["once"]
