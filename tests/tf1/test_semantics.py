"""The comparison with TensorFlow 1 itself: on a made-up probe it tells what agrees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = '''
"""A probe."""
import importlib, os
import numpy as np
tf = importlib.import_module(os.environ["TFMOD"])
P = []
def probe(f): P.append(f); return f
def err(fn, n=160): return "the runner has its own"
def S(): return tf.Session()
def out(i, *v): raise RuntimeError("the runner has its own")

@probe
def first():
    a = tf.constant(1.0); b = tf.missing(a); c = a + 1
    out("names.first", a.name, b.name, c.name)
    with S() as s:
        for f, k in ((abs, 1), (tf.nothing, 2), (float, 3)): out("names.loop%d" % k, s.run(c), k)
        with tf.nothing(): d = 3
        out("var.err", err(lambda: tf.Variable()), err(lambda: tf.missing), s.run(a), d)
    out("data.later", 1)
@probe
def second():
    out("var.names", tf.constant(1.0).name, np.array([1., 2.]))
'''
EXPECTED = """names.first: Const:0 | Missing:0 | add:0
names.loop1: 2.0 | 1
names.loop2: 2.0 | 2
names.loop3: 2.0 | 3
var.err: ValueError: initial_value must be specified. | no error | 1.0 | 3
data.later: 2
var.names: Const:0 | array([1.,
       2.])
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    (folder / "semantics_probe.py").write_text(PROBE)
    (folder / "semantics_tf115.txt").write_text(EXPECTED)
    return compare(folder)


def compare(folder: Path | None, *options: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    environment = dict(os.environ, PYTHONPATH=str(root))
    environment.pop("GRAPHC_TF1_PROBE", None)
    if folder is not None:
        environment["GRAPHC_TF1_PROBE"] = str(folder)
    script = Path(__file__).with_name("semantics.py")
    return subprocess.run(
        [sys.executable, str(script), "--failures", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_name_hides_nothing_but_itself(report):
    assert "names.first[1]" in report.stdout
    assert "<error: AttributeError: module 'graphc' has no attribute 'missing'>" in report.stdout
    assert "names.first[0]" not in report.stdout
    assert "names.first[2]" not in report.stdout


def test_what_cannot_be_evaluated_is_left_out_of_a_loop(report):
    assert "names.loop2[0]" in report.stdout
    assert "<not printed>" in report.stdout
    assert "names.loop1" not in report.stdout
    assert "names.loop3" not in report.stdout


def test_classes_that_derive_from_tensorflows_count_as_equal(report):
    assert "var.err[0]" not in report.stdout
    assert "GraphError -> ValueError" in report.stdout
    assert "AttributeError: module 'graphc' has no attribute 'missing'" in report.stdout


def test_the_body_of_a_scope_that_cannot_be_opened_is_run(report):
    assert "var.err[3]" not in report.stdout


def test_lines_of_later_versions_do_not_count(report):
    assert "data.later" not in report.stdout


def test_differences_without_a_reason_fail(report):
    assert "var.names[1]" in report.stdout
    assert report.returncode == 1
    # names.first[1], names.loop2 (two parts), var.err[1], var.names[1]
    assert "10 parts agree, 0 differ for a reason, 5 differ, 0 explanations" in report.stdout


def test_without_a_probe_it_says_what_it_needs():
    done = compare(None)
    assert done.returncode == 2
    assert "GRAPHC_TF1_PROBE must name a folder" in done.stdout
