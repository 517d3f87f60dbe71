"""Loops over scalars and short vectors, which run in registers: values, ends, errors, calls."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc.runtime import executable, jit
from graphc.runtime.driver_loops import REGISTERS_POLL, SMALL

TURNS = (0, 1, 2, 7, REGISTERS_POLL - 1, REGISTERS_POLL, REGISTERS_POLL + 1, 3 * REGISTERS_POLL)
DTYPES = [gc.int8, gc.uint8, gc.int16, gc.int64, gc.uint32, gc.float16, gc.bfloat16, gc.float64]


@pytest.fixture
def texts(monkeypatch):
    """The LLVM texts that are made meanwhile, and for what they are."""
    found = []
    make = executable.llvm_text

    def note(program, target):
        found.append((make(program, target), target))
        return found[-1][0]

    monkeypatch.setattr(executable, "llvm_text", note)
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    return found


def in_registers(texts):
    """The assembly of the functions that run in registers."""
    text, target = texts[-1]
    assembly = jit.emit_assembly(text, target, comments=False)
    parts = re.split(rf"\n({jit.IN_REGISTERS}\d+):", assembly)
    return [part.split("\n.Lfunc_end")[0] for part in parts[2::2]]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.name)
def test_every_number_of_turns(dtype):
    n = gc.placeholder(gc.int32, [])
    one = gc.constant(1, dtype)
    i, odd = gc.while_loop(
        lambda i, _: i < n, lambda i, v: (i + 1, one - v), [0, gc.zeros([], dtype)]
    )
    with gc.Session() as session:
        for turns in TURNS:
            count, value = session.run([i, odd], {n: turns})
            assert (count, float(value)) == (turns, turns % 2)


def test_nothing_is_called_but_the_poll(texts):
    n = gc.placeholder(gc.int32, [])
    x = gc.placeholder(gc.float32, [])
    y = gc.while_loop(
        lambda i, _: i < n, lambda i, v: (i + 1, gc.cond(v > 1.0, lambda: v * 0.5, lambda: v + x)),
        [0, x],
    )[1]  # fmt: skip
    with gc.Session() as session:
        wanted = np.float32(0.3)
        for _ in range(10):
            wanted = wanted * np.float32(0.5) if wanted > 1 else wanted + np.float32(0.3)
        assert session.run(y, {n: 10, x: 0.3}) == wanted
    (code,) = in_registers(texts)
    called = re.findall(r"\b(?:call\w*|bl)\s+(\S+)", code)
    assert {c.split("@")[0] for c in called} == {"gc_poll"}


def test_counting_has_a_closed_form(texts):
    n = gc.placeholder(gc.int64, [])
    i = gc.while_loop(lambda i: i < n, lambda i: i + 1, [gc.constant(0, gc.int64)])
    with gc.Session() as session:
        # One by one these turns would take seconds.
        assert session.run(i, {n: 1 << 33}) == 1 << 33
    (code,) = in_registers(texts)
    assert len(re.findall(r"\n\s+(j[a-z]+|b\.\w+)\s", code)) <= 8


@pytest.mark.parametrize("size", [2, 3, 5, 8, 16, 17])
@pytest.mark.parametrize("dtype", [gc.float32, gc.float64, gc.int8], ids=lambda t: t.name)
def test_short_vectors(size, dtype, texts):
    n = gc.placeholder(gc.int32, [])
    x = gc.placeholder(dtype, [size])

    def turn(i, a, b):
        total = gc.reduce_sum(b, keepdims=True)
        return i + 1, gc.concat([a[1:], total % 7], 0), gc.reverse(a, [0])

    found = gc.while_loop(lambda i, *_: i < n, turn, [0, x, x + 1])[1:]
    given = np.arange(size).astype(dtype.numpy) % 5
    with gc.Session() as session, gc.Session(mode="reference") as reference:
        for turns in (0, 1, 2, 50):
            values, wanted = (s.run(found, {n: turns, x: given}) for s in (session, reference))
            for v, w in zip(values, wanted, strict=True):
                np.testing.assert_array_equal(v, w)
    assert len(in_registers(texts)) == (size * dtype.size <= SMALL)


def test_variables_and_outer_loops(everywhere):
    v = gc.Variable(2, dtype=gc.int32)
    x = gc.placeholder(gc.int32, [None])

    def digits(k):
        return gc.while_loop(
            lambda a, _: a > 0, lambda a, s: (a // 10, s + a % 10 + v), [x[k], gc.constant(0)]
        )[1]

    y = gc.map_fn(digits, gc.range(gc.shape(x)[0]))
    with gc.control_dependencies([y]):
        changed = v.assign_add(1)
    given = [0, 7, 123, 99999]
    wanted = [sum(map(int, str(k))) + 2 * len(str(k)) if k else 0 for k in given]
    everywhere([y, changed], {x: given}, [np.array(wanted, np.int32), np.int32(3)])


def test_a_variable_that_every_turn_assigns():
    v = gc.Variable(1.0)
    n = gc.placeholder(gc.int32, [])
    i = gc.while_loop(
        lambda i: i < n, lambda i: gc.tuple([i + 1, v.assign(v * 2.0)])[0], [gc.constant(0)]
    )
    with gc.Session() as session:
        session.run(v.initializer)
        for turns, value in ((3, 8.0), (0, 8.0), (1, 16.0)):
            session.run(i, {n: turns})
            assert session.run(v) == value


def test_an_error_in_a_turn_changes_nothing():
    v = gc.Variable(5)
    n, d = gc.placeholder(gc.int32, []), gc.placeholder(gc.int32, [])
    _, q = gc.while_loop(
        lambda i, _: i < n, lambda i, q: (i + 1, q + gc.div(100, d - i)), [0, v.read_value()]
    )
    changed = v.assign(q)
    with gc.Session() as session:
        session.run(v.initializer)
        with pytest.raises(gc.errors.InvalidArgumentError, match="ivision by zero") as e:
            session.run(changed, {n: 10, d: 4})
        assert __file__ in str(e.value)
        assert session.run(v) == 5
        assert session.run(changed, {n: 2, d: 4}) == 5 + 25 + 33


@pytest.mark.parametrize("name", ["generic", "avx2", "avx512"])
def test_every_target(name, monkeypatch):
    if not jit.named_target(name).is_host:
        pytest.skip(f"this machine does not run {name} code")
    monkeypatch.setenv("GRAPHC_TARGET", name)
    x = gc.placeholder(gc.float64, [])
    root = gc.while_loop(
        lambda r: gc.abs(r * r - x) > 1e-12, lambda r: 0.5 * (r + x / r), [x * 1.0]
    )
    with gc.Session() as session:
        assert session.run(root, {x: 2.0}) == pytest.approx(2.0**0.5)


def test_a_traced_run_gives_the_same():
    n = gc.placeholder(gc.int32, [])
    total = gc.while_loop(lambda i, _: i < n, lambda i, s: (i + 1, s + i), [0, 0])[1]
    options, found = gc.RunOptions(trace_level=gc.RunOptions.FULL_TRACE), gc.RunMetadata()
    with gc.Session() as session:
        assert session.run(total, {n: 100}, options=options, run_metadata=found) == 4950
        assert session.run(total, {n: 100}) == 4950
