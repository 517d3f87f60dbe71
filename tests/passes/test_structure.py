"""fold, cse, dce, decompose: golden texts, and that every pass keeps every value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from pass_support import applied, extracted, sections
from random_graphs import cases, tolerances

import graphc as gc
from graphc import modes, nn
from graphc.errors import CompileError, VerifyError
from graphc.function import with_expanded
from graphc.passes.basic import CommonSubexpressions, DeadCode, Decompose
from graphc.passes.extract import extract
from graphc.passes.pipeline import default_pipeline, run_nested, run_passes
from graphc.passes.simplify import Fold, Simplify
from graphc.passes.verify import verify_function


def x(*shape: Any, dtype: str = "float32", name: str = "x") -> Any:
    return gc.placeholder(dtype, shape or [None, 3], name=name)


FOLDED = {
    "constants": lambda: x() + gc.sqrt(gc.constant(4.0)) * 3.0,
    "a shape": lambda: gc.reduce_sum(gc.reshape(x(2, 6), [3, gc.size(x(2, 6)) // 3])),
    "not what is large": lambda: gc.zeros([300, 300]) + x(300, 300),
    "not what can fail": lambda: gc.gather(gc.constant([1.0, 2.0]), 1) + x(),
}
SHARED = {
    "equal operations": lambda: gc.exp(x()) + gc.exp(x(name="y")),
    "a chain": lambda: twice(x()),
    "attributes differ": lambda: [
        gc.reduce_sum(v := x(), 1), gc.reduce_sum(v, 1, keepdims=True), gc.reduce_sum(v, 0)
    ],
    "constants": lambda: (x() + 2.0) * gc.constant(2.0) - gc.constant(2.0),
    "not random numbers": lambda: gc.random_uniform([3]) + gc.random_uniform([3]),
}  # fmt: skip
DEAD = {
    "an update that nobody sees is kept": lambda: [
        gc.exp(x()), gc.Variable(1.0).assign_add(2.0)
    ],
    "a shape does not need the values": lambda: gc.zeros_like(gc.exp(x())),
    "what can fail is kept": lambda: [
        gc.gather(x(), gc.placeholder("int32", [None])).op, x() + 1.0
    ],
}  # fmt: skip
COMPOSITES = {
    "softmax": lambda: nn.softmax(x()),
    "log_softmax": lambda: nn.log_softmax(x()),
    "layer_norm": lambda: nn.layer_normalization(
        x(), gc.Variable(np.ones(3, "f")), gc.Variable(np.zeros(3, "f"))
    ),
    "the gradient of broadcasting": lambda: gc.gradients(
        gc.reduce_sum(x() * (v := gc.Variable(np.ones((1, 3), "f")))), [v]
    ),
}


def twice(v: Any) -> Any:
    return [gc.tanh(gc.exp(v) + 1.0), gc.tanh(gc.exp(v) + 1.0) * 2.0]


def test_fold(golden):
    golden("fold", sections(list(FOLDED.items()), Fold(), DeadCode()))


def test_cse(golden):
    golden("cse", sections(list(SHARED.items()), CommonSubexpressions()))


def test_dce(golden):
    golden("dce", sections(list(DEAD.items()), DeadCode()))


def test_decompose(golden):
    golden("decompose", sections(list(COMPOSITES.items()), Decompose(), DeadCode()))


def test_passes_are_idempotent():
    for rows, p in ((FOLDED, Fold()), (SHARED, CommonSubexpressions()), (DEAD, DeadCode()),
                    (COMPOSITES, Decompose())):  # fmt: skip
        for build in rows.values():
            once = applied(extracted(build), p, DeadCode())
            again = applied(once, p, DeadCode())
            assert [o.type for o in again.operations] == [o.type for o in once.operations]


def test_the_users_graph_is_not_changed():
    graph = gc.Graph()
    with graph.as_default():
        v = gc.placeholder("float32", [None])
        y = nn.softmax(gc.reshape(v * 1.0, [1, -1]))
        count = len(graph.get_operations())
        shapes = [[t.shape.as_list() for t in o.outputs] for o in graph.get_operations()]
        with gc.Session() as session:
            session.run(y, {v: [1.0, 2.0]})
    assert len(graph.get_operations()) == count
    assert shapes == [[t.shape.as_list() for t in o.outputs] for o in graph.get_operations()]


def test_every_pass_keeps_every_value():
    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(cases())
    def check(case):
        with gc.Session(graph=case.graph, mode="reference") as session:
            session.run([v.initializer for v in case.variables])
            shapes = {t: a.shape for t, a in case.feeds.items()}
            fn = extract(case.fetches, case.updates, shapes, session._variable_state)
            inputs = {t.name: a for t, a in case.feeds.items()}
            for i in fn.inputs:
                if i.kind == "variable":
                    inputs[i.key] = session._state.cell(i).array
            expected = modes.run_reference(verify_function(fn), inputs)
            for p in default_pipeline():
                fn = verify_function(p.run(fn))
                for a, b in zip(modes.run_reference(fn, inputs), expected, strict=True):
                    assert a.dtype == b.dtype
                    np.testing.assert_allclose(
                        a, b, **tolerances(b), equal_nan=True, err_msg=f"after {p.name}"
                    )

    check()


# --- the manager ----------------------------------------------------------------------------------


def in_branches_of_loops():
    def branch(s):
        return gc.cond(gc.reduce_sum(s) > 1.0, lambda: gc.sin(s) * 2.0, lambda: s + 1.0)

    return gc.while_loop(lambda i, s: i < 5, lambda i, s: (i + 1, branch(s)), [0, x()])[1]


def test_a_pass_that_finds_nothing_gives_the_function_that_it_was_given():
    fn = run_passes(extracted(in_branches_of_loops), default_pipeline())
    for p in (Fold(), Simplify(), CommonSubexpressions(), DeadCode()):
        assert run_nested(p, fn) is fn
    found = next(o for o in fn.operations if o.type == "While")
    other = run_nested(Sines(), fn)
    assert other is not fn
    loop = next(o for o in other.operations if o.type == "While")
    same = [a is b for a, b in zip(found.attrs["bodies"], loop.attrs["bodies"], strict=True)]
    assert sorted(same) == [False, True]


class Sines:
    """Cosines in the place of sines."""

    name = "sines"

    def run(self, fn):
        sines = {o for o in fn.operations if o.type == "Sin"}
        return with_expanded(fn, sines, lambda _, inputs: [gc.cos(inputs[0])])


class Breaks:
    name = "breaks"

    def run(self, fn):
        raise KeyError("something")


class Forges:
    """Claims another type for an operation."""

    name = "forges"

    def run(self, fn):
        exp = next(o for o in fn.operations if o.type == "Exp")
        fn = with_expanded(fn, {exp}, lambda _, inputs: [gc.sin(inputs[0])])
        t = next(o for o in fn.operations if o.type == "Sin").outputs[0]
        t._type = t._type._replace(dtype=gc.float64)
        return fn


def test_a_failing_pass_is_blamed():
    with pytest.raises(CompileError, match="pass 'breaks' failed: KeyError"):
        run_passes(extracted(lambda: gc.exp(x())), [Breaks()])


def test_a_pass_that_breaks_a_rule_is_named_when_verifying(monkeypatch):
    fn = extracted(lambda: gc.exp(x()))
    monkeypatch.delenv("GRAPHC_VERIFY", raising=False)
    run_passes(fn, [Forges()])
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with pytest.raises(VerifyError, match="after pass 'forges'"):
        run_passes(extracted(lambda: gc.exp(x())), [Forges()])


def test_the_text_after_every_pass_is_dumped(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path))
    run_passes(extracted(lambda: nn.softmax(x())), default_pipeline())
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names[0] == "00-extract.txt"
    assert len(names) == len(default_pipeline()) + 1
    assert "Softmax(" in (tmp_path / "00-extract.txt").read_text()
    assert "Softmax(" not in (tmp_path / names[-1]).read_text()
