"""Loops that never end answer Ctrl-C; other threads go on while a loop turns."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import graphc as gc

PROGRAM = """
import os, signal, sys, threading, time
import numpy as np
import graphc as gc

# A shell starts what runs in its background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

n = gc.placeholder(gc.float32, [])
v = gc.Variable(np.zeros(SIZE, np.float32))

def body(i):
    with gc.control_dependencies([v.assign_add(np.ones(SIZE, np.float32))]):
        return INNER

y = gc.while_loop(lambda i: i < n, body, [gc.constant(0.0)])
session = gc.Session()
session.run(v.initializer)
print(session.run(y, {n: 1.0}), session.run(v)[0])
sent = []

def interrupt():
    time.sleep(0.5)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
thread.start()
try:
    session.run(y, {n: float("inf")})
except KeyboardInterrupt:
    assert time.monotonic() - sent[0] < 2.0, time.monotonic() - sent[0]
thread.join()
print(session.run(v)[0], session.run(y, {n: 1.0}), session.run(v)[0])
"""

BODIES = {
    "scalar": (1, "i * 0.5 + 0.6"),
    "vector": (100_000, "i * 0.5 + 0.6"),
    "nested": (1, "gc.while_loop(lambda j: j < n, lambda j: j * 0.5 + 0.6, [i])"),
    "branch": (1, "gc.cond(i < n, lambda: i * 0.5 + 0.6, lambda: i)"),
    "growing": (
        1,
        (
            "gc.reduce_sum(gc.while_loop(lambda x: gc.reduce_sum(x) < n, lambda x: gc.concat("
            "[x[-5:] * 0.5, x[:1] * 0.0 + 0.6], 0), [gc.ones([1]) * i], "
            "shape_invariants=[gc.TensorShape([None])]))"
        ),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_an_infinite_loop_answers_ctrl_c(name):
    size, inner = BODIES[name]
    text = PROGRAM.replace("SIZE", str(size)).replace("INNER", inner)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    once = float(first.split()[1])
    assert once > 0
    # Nothing was committed, and the session goes on.
    assert float(last.split()[0]) == once
    assert float(last.split()[2]) == 2 * once
    assert last.split()[1] == first.split()[0]


def test_other_threads_go_on_while_a_loop_turns():
    """A loop that waits for a variable that another thread's session cannot see would never end;
    so this one only counts what the main thread does meanwhile."""
    n = gc.placeholder(gc.int32, [])
    x = gc.constant(np.ones(1000, np.float32))
    y = gc.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, gc.tanh(x)), [0, x])[1]
    session = gc.Session()
    session.run(y, {n: 1})
    ended = threading.Event()

    def work():
        session.run(y, {n: 300_000})
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    counted = 0
    while not ended.wait(0.001):
        counted += 1
    thread.join()
    assert counted > 10
