"""Every rule of simplify, and the driver that applies rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pass_support import applied, extracted, sections

import graphc as gc
from graphc.build import create, single
from graphc.errors import CompileError
from graphc.function import format_function
from graphc.passes.basic import DeadCode
from graphc.passes.simplify import RULES, Simplify
from graphc.rewrite import Counts, Driver, Rule, any_, number, op


def x(*shape: Any, dtype: str = "float32") -> Any:
    return gc.placeholder(dtype, shape or [None, 3], name="x")


def call(name: str, *inputs: Any, **attrs: Any) -> Any:
    return single(create(name, inputs, attrs))


# For every rule: graphs that it changes.
CHANGED = {
    "identity": [
        lambda: gc.identity(x()) + 1.0, lambda: gc.stop_gradient(x()) + 1.0,
        lambda: call("PreventGradient", x()) + 1.0,
    ],
    "x * 1": [lambda: gc.exp(x()) * 1.0, lambda: 1 * x(4, dtype="int32")],
    "x / 1": [lambda: gc.exp(x()) / 1.0],
    "x / 2**k": [lambda: x() / 8.0, lambda: x() / -0.25],
    "x - 0": [lambda: gc.exp(x()) - 0.0],
    "x + 0": [lambda: x(4, dtype="int32") + 0, lambda: 0 + x(4, dtype="int32")],
    "--x": [lambda: gc.negative(gc.negative(x()))],
    "x ** 1": [lambda: gc.exp(x()) ** 1.0],
    "x ** 2": [lambda: x() ** 2.0],
    "x ** 3": [lambda: x() ** 3.0, lambda: x(4, dtype="int32") ** 3],
    "1 + erf(x)": [lambda: 1 + gc.erf(x()), lambda: gc.erf(x()) + 1.0],
    "cast to itself": [lambda: call("Cast", gc.exp(x()), DstT=gc.float32)],
    "fit to itself": [lambda: call("FitLike", gc.exp(a := x()), gc.tanh(a))],
    "reshape to itself": [lambda: call("Reshape", gc.exp(x(2, 3)), [2, 3])],
    "reshape twice": [lambda: gc.reshape(gc.reshape(gc.exp(x()), [-1]), [3, -1])],
    "transpose to itself": [lambda: gc.transpose(gc.exp(x()), [0, 1])],
    "transpose twice": [
        lambda: gc.transpose(gc.transpose(x(None, 3, 4), [1, 2, 0]), [1, 0, 2]),
        lambda: gc.transpose(gc.transpose(x())),
    ],
    "broadcast to itself": [lambda: gc.broadcast_to(gc.exp(x(2, 3)), [2, 3])],
    "sum to itself": [lambda: call("SumToShape", gc.exp(x(2, 3)), x(2, 3))],
    "reduce nothing": [
        lambda: gc.reduce_sum(gc.exp(x(None, 1)), 1),
        lambda: gc.reduce_max(gc.exp(x(None, 1)), 1, keepdims=True),
        lambda: gc.reduce_mean(gc.exp(x(None, 3)), []),
    ],
    "tile by one": [lambda: call("Tile", gc.exp(x(2, 3)), [1, 1])],
}  # fmt: skip
# Graphs that look like it and must stay as they are.
KEPT = {
    "x + 0 of a float would lose a sign": lambda: gc.exp(x()) + 0.0,
    "x * 0 may be NaN": lambda: gc.exp(x()) * 0.0,
    "0 - x is not x": lambda: 0.0 - x(),
    "1 / x": lambda: 1.0 / x(),
    "x / 3": lambda: x() / 3.0,
    "x / 0": lambda: x() / 0.0,
    "a number that broadcasts": lambda: gc.exp(x(3)) * np.ones((2, 3), np.float32),
    "x ** 2 of another shape": lambda: x(3) ** np.full((2, 3), 2.0, np.float32),
    "1 + erf(x) of 64 bits": lambda: 1 + gc.erf(x(dtype="float64")),
    "1 + erf(x) of another shape": lambda: gc.erf(x(3)) + np.ones((2, 3), np.float32),
    "2 + erf(x)": lambda: 2 + gc.erf(x()),
    "x ** 3 of 16 bits": lambda: x(3, dtype="float16") ** 3.0,
    "another permutation": lambda: gc.transpose(x()),
    "a true reduction": lambda: gc.reduce_sum(x(None, 1), 0),
    "a cast": lambda: gc.cast(x(), "float64"),
    "a -1 that the inner reshape tells": lambda: gc.reshape(gc.reshape(x(), [2, 3]), [-1]),
}


def test_every_rule_has_a_graph():
    own = {"default"}  # extraction has done it already
    assert {r.name for r in RULES} == set(CHANGED) | own


def test_rules(golden):
    rows = [(name, build) for name, builds in CHANGED.items() for build in builds]
    golden("simplify", sections(rows, Simplify(), DeadCode()))


@pytest.mark.parametrize("name", CHANGED)
def test_a_rule_is_applied(name):
    for build in CHANGED[name]:
        counts = Counts()
        Simplify(counts=counts).run(extracted(build))
        assert counts.by_rule.get(name, 0) >= 1, counts


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_simplified(name):
    before = extracted(KEPT[name])
    assert format_function(applied(before, Simplify())) == format_function(before)


def test_names_and_locations_are_carried_over():
    fn = extracted(lambda: gc.pow(x(), 2.0, name="power"))
    after = applied(fn, Simplify(), DeadCode())
    (square,) = [o for o in after.operations if o.type == "Square"]
    assert square.name.startswith("power")
    assert square.location == next(o for o in fn.operations if o.type == "Pow").location
    assert after.origin[square.name].name == "power"


def test_reshapes_in_a_row_of_an_unknown_size():
    """The inner one tells the size, and whether the run is right."""
    rows = x()
    flat = gc.reshape(gc.reshape(rows, [2, 1, 3]), [-1, 3])
    session = gc.Session()
    value = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(session.run(flat, {rows: value}), value)
    with pytest.raises(gc.errors.InvalidArgumentError, match="with 15 values"):
        session.run(flat, {rows: np.ones((5, 3))})


# --- the driver -----------------------------------------------------------------------------------


def drive(rule: Rule, build: Any) -> Any:
    return Driver(extracted(build), [rule]).run()


def test_a_rule_that_makes_more_work_is_refused():
    grows = Rule("grow", op("Exp", any_("x")), lambda m: call("Exp", call("Exp", m["x"])))
    same = Rule("same", op("Exp", any_("x")), lambda m: call("Exp", m["x"]))
    for rule in (grows, same):
        with pytest.raises(CompileError, match=f"rewrite {rule.name!r} does not make .* cheaper"):
            drive(rule, lambda: gc.exp(x()))


def test_a_rule_that_changes_the_type_is_refused():
    dtype = Rule("dtype", op("Exp", any_("x")), lambda m: call("Cast", m["x"], DstT=gc.float64))
    shape = Rule("shape", op("Sum", any_("x"), any_("a")), lambda m: m["x"])
    with pytest.raises(CompileError, match="rewrite 'dtype' turned"):
        drive(dtype, lambda: gc.exp(x()))
    with pytest.raises(CompileError, match="rewrite 'shape' turned"):
        drive(shape, lambda: gc.reduce_sum(x()))


def test_a_rule_may_decline():
    rule = Rule("never", op("Exp", any_("x")), lambda m: None)
    assert [o.type for o in drive(rule, lambda: gc.exp(x())).operations] == ["Placeholder", "Exp"]


def test_rules_are_applied_until_none_fits():
    rule = Rule("--x", op("Neg", op("Neg", any_("x"))), lambda m: m["x"])

    def six() -> Any:
        v = x()
        for _ in range(6):
            v = gc.negative(v)
        return v

    fn = DeadCode().run(drive(rule, six))
    assert [o.type for o in fn.operations] == ["Placeholder"]


def test_patterns():
    rule = Rule(
        "a * 2 + a", op("Add|AddV2", op("Mul", any_("a"), number(2)), any_("a")),
        lambda m: call("Mul", m["a"], np.float32(3)),
    )  # fmt: skip
    a, b = None, None

    def twice(swapped: bool, same: bool) -> Any:
        nonlocal a, b
        a, b = x(), gc.placeholder("float32", [None, 3])
        product = 2.0 * a if swapped else a * 2.0
        other = a if same else b
        return other + product if swapped else product + other

    for swapped in (False, True):
        types = [o.type for o in drive(rule, lambda s=swapped: twice(s, True)).operations]
        assert "Const" in types
        assert types.count("Mul") == 2
        types = [o.type for o in drive(rule, lambda s=swapped: twice(s, False)).operations]
        assert types.count("Mul") == 1


def test_a_uniform_constant_is_a_number():
    rule = Rule("* 3", op("Mul", any_("x"), number(3)), lambda m: m["x"])
    for three in (3.0, np.full(3, 3, "f"), np.full((1, 3), 3, "f")):
        assert "Mul" not in [
            o.type for o in DeadCode().run(drive(rule, lambda t=three: x() * t)).operations
        ]
    for other in (np.float32([3, 3, 4]), np.float32(2)):
        assert "Mul" in [
            o.type for o in DeadCode().run(drive(rule, lambda t=other: x() * t)).operations
        ]
