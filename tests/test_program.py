"""Programs: what the planner makes keeps the rules and computes what the ops' references say."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import dims, dtypes
from graphc.compiler import plan_function, size_hints
from graphc.errors import FeedError, InvalidArgumentError, VerifyError
from graphc.function import Function, Guard
from graphc.graph import Operation
from graphc.loop import ir
from graphc.op import REGISTRY, Op, SpecialOp, evaluate_reference
from graphc.passes.assume import RanksNeeded, ValuesNeeded
from graphc.passes.extract import VariableState, extract
from graphc.passes.pipeline import default_pipeline
from graphc.passes.verify import verify_function
from graphc.program import Call, Copy, Program, build_program
from graphc.program_interpret import GuardFailed, run_program
from graphc.program_verify import verify_program
from graphc.runtime import jit

if "ops_support" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "ops_support", Path(__file__).parent / "ops" / "support.py"
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["ops_support"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["ops_support"])

from ops_support import Case, cases, op_dtypes, row_id

TARGET = jit.named_target("avx2")
OPS = sorted((op for op in REGISTRY.values() if not isinstance(op, SpecialOp)), key=row_id)


def state(op: Operation) -> VariableState:
    return VariableState(op.outputs[0].dtype.base_dtype, tuple(op.outputs[0].shape.as_list()), True)


def planned(fetches: Any, targets: Any, feeds: dict[Any, Any], seen: Any = None) -> Program:
    """A program, with every level verified on the way."""
    fn = verify_function(extract(fetches, targets, feeds, state))
    for p in default_pipeline():
        fn = verify_function(p.run(fn))
    return verify_program(build_program(fn, TARGET, size_hints(fn, seen or {})))


# --- every op ---------------------------------------------------------------------------------


def check_case(case: Case, known: str) -> None:
    declared = case.declare(known, gc.Graph())
    feeds = {t: tuple(t.shape.as_list()) for t in declared.feeds}
    seen = {t: v.shape for t, v in declared.feeds.items()}
    try:
        program = planned(declared.op.outputs, [], feeds, seen)
        arrays = {t.name: v for t, v in declared.feeds.items()}
        found = run_program(program, arrays)
        again = run_program(program, arrays, fast=False)
    except (RanksNeeded, ValuesNeeded, GuardFailed):
        return  # a session compiles again for these values or sizes
    expected = evaluate_reference(declared.op, case.values)
    for value, other, wanted in zip(found, again, expected, strict=True):
        case.check(value, wanted, "program")
        case.check(other, wanted, "program without fast versions")


def samples(op: Op) -> tuple[list[Case], list[Case]]:
    """Four of the op's samples: those of few elements, and those that take the interpreter long."""
    rows = sorted(islice(cases(op, op_dtypes(op)[0]), 4), key=elements)
    few = [row for row in rows if elements(row) <= 4096] or rows[:1]
    return few, rows[len(few) :]


def elements(case: Case) -> int:
    return sum(np.size(v) for v in case.values)


LONG = tuple(op for op in OPS if samples(op)[1])


@pytest.mark.parametrize("op", OPS, ids=row_id)
def test_programs_of_every_op(op: Op):
    for case, known in product(samples(op)[0], ("shape", "rank")):
        check_case(case, known)


@pytest.mark.slow
@pytest.mark.parametrize("op", LONG, ids=row_id)
def test_programs_of_many_elements(op: Op):
    for case, known in product(samples(op)[1], ("shape", "rank")):
        check_case(case, known)


# --- training ---------------------------------------------------------------------------------


def declare() -> tuple[Any, Any, Any, Any]:
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    t = gc.placeholder(gc.float32, [None, 2], name="t")
    w = gc.Variable(np.full((3, 2), 0.5, np.float32), name="w")
    loss = gc.reduce_mean(gc.square(gc.tanh(gc.matmul(x, w)) - t), name="loss")
    return x, t, loss, gc.train.MomentumOptimizer(0.1, 0.9).minimize(loss)


def trained() -> Program:
    """A training step for any batch."""
    with gc.Graph().as_default():
        x, t, loss, step = declare()
        return planned([loss], [step], {x: (None, 3), t: (None, 2)})


def batch(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {"x:0": rng.normal(size=(n, 3)), "t:0": rng.normal(size=(n, 2))}


@pytest.mark.parametrize("n", [1, 5, 64])
def test_a_training_step_is_what_the_session_runs(n):
    program = trained()
    variables = {"w": np.full((3, 2), 0.5, np.float32), "w/Momentum": np.zeros((3, 2), np.float32)}
    with gc.Graph().as_default():
        _, _, loss, step = declare()
        session = gc.Session()
        session.run(gc.global_variables_initializer())
        for _ in range(3):
            expected, _ = session.run([loss, step], batch(n))
            (found,) = run_program(program, batch(n), variables)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
            for key, value in variables.items():
                np.testing.assert_allclose(value, session.run(f"{key}:0"), rtol=1e-5, atol=1e-7)


def test_a_failing_run_commits_nothing():
    with gc.Graph().as_default():
        v = gc.Variable([1.0, 2.0], name="v")
        i = gc.placeholder(gc.int32, [], name="i")
        picked = gc.gather(gc.constant([5.0, 6.0]), i)
        program = planned([picked], [v.assign_add([1.0, 1.0]).op], {i: ()})
    value = np.array([1, 2], np.float32)
    with pytest.raises(InvalidArgumentError, match=r"7.*is not in"):
        run_program(program, {"i:0": 7}, {"v": value})
    np.testing.assert_array_equal(value, [1, 2])
    assert run_program(program, {"i:0": 1}, {"v": value})[0] == 6
    np.testing.assert_array_equal(value, [2, 3])


def test_sizes_and_guards_are_checked():
    with gc.Graph().as_default():
        x, y = (gc.placeholder(gc.float32, [None], name=n) for n in "xy")
        program = planned([x + y], [], {x: (None,), y: (None,)})
    np.testing.assert_array_equal(run_program(program, {"x:0": [1], "y:0": [2]})[0], [3])
    with pytest.raises(GuardFailed, match="s0 == s1: 2 and 1"):
        run_program(program, {"x:0": [1, 2], "y:0": [2]})
    with pytest.raises(FeedError, match="no value was given for the feed 'y:0'"):
        run_program(program, {"x:0": [1, 2]})
    with pytest.raises(FeedError, match="rank 2, expected 1"):
        run_program(program, {"x:0": [[1]], "y:0": [2]})


@pytest.mark.parametrize("n", [0, 4])
def test_fast_versions_are_for_the_sizes_seen_first(n):
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None, 3], name="x")
        product = gc.matmul(x, gc.constant(np.ones((3, 2), np.float32)))
        program = planned([product], [], {x: (None, 3)}, {x: (n, 3)})
    assert calls(program)[0].lowered.fast is not None
    for rows in (n, 7):
        (found,) = run_program(program, {"x:0": np.ones((rows, 3))})
        np.testing.assert_array_equal(found, np.full((rows, 2), 3.0))
    fast = calls(program)[0].lowered
    fast._fast = ir.Kernel("other", fast.fast.params[:-1], (), ir.Block(()))
    with pytest.raises(VerifyError, match="other takes 2 buffers and 0 scalars"):
        verify_program(program)


# --- planted mistakes -------------------------------------------------------------------------


def chain() -> Program:
    """Reductions and products whose temporaries share blocks, an update and a commit."""
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None, 4], name="x")
        w = gc.Variable(np.ones((4, 4), np.float32), name="w")
        u = gc.Variable(np.ones((4, 4), np.float32), name="u")
        h = gc.matmul(gc.matmul(gc.matmul(x, w), w), u)
        y = gc.gather(h, gc.constant([0, 0]))
        new = gc.matmul(gc.matmul(w, u), w)
        return planned([y], [u.assign(w).op, w.assign(new).op], {x: (None, 4)})


def test_the_program_to_plant_mistakes_in():
    program = chain()
    kinds = {s.kind for s in program.slots}
    assert kinds >= {"input", "output", "variable", "temp"}
    assert any(isinstance(s, Copy) and s.commit for s in program.steps)
    assert any(c.lowered.fallible for c in calls(program))
    temps = [s.block for s in program.slots if s.kind == "temp"]
    assert len(set(temps)) < len(temps)


def calls(program: Program) -> list[Call]:
    return [s for s in program.steps if isinstance(s, Call)]


def slots(program: Program, kind: str) -> list[Any]:
    return [s for s in program.slots if s.kind == kind]


def fallible_last(program: Program) -> None:
    call = next(c for c in calls(program) if c.lowered.fallible)
    program.steps.remove(call)
    program.steps.append(call)


def uncommitted(program: Program) -> None:
    next(s for s in program.steps if isinstance(s, Copy) and s.commit).commit = False


def from_a_changed_one(program: Program) -> None:
    commit = next(s for s in program.steps if isinstance(s, Copy) and s.commit)
    program.steps.append(Copy(commit.source, commit.target, commit.size, commit=True))


def one_block(program: Program) -> None:
    size, bytes_ = program.blocks[0]
    program.blocks[0] = (size * 8 + 1000, bytes_)
    for slot in slots(program, "temp"):
        slot.block = 0


def rebuilt(kernel: ir.Kernel, body: ir.Block) -> ir.Kernel:
    return ir.Kernel(kernel.name, kernel.params, kernel.scalars, body, kernel.grain)


def broken_kernel(program: Program) -> None:
    low = calls(program)[0].lowered
    stray = ir.Store(low.kernel.params[0], ir.Var("nowhere"), ir.const(0, dtypes.float32))
    low._kernel = rebuilt(low.kernel, ir.Block((stray,)))


def writes_its_input(program: Program) -> None:
    target = slots(program, "input")[0]
    program.steps.insert(1, Copy(target.number, calls(program)[0].slots[-1], target.size))


def early(program: Program) -> None:
    program.steps.insert(0, program.steps.pop(program.steps.index(calls(program)[1])))


def same_name(program: Program) -> None:
    other = copy.copy(program.kernels[0])
    other.__dict__["_kernel"] = replace(other.kernel)
    program.kernels.append(other)


def hidden_failure(program: Program) -> None:
    next(c for c in calls(program) if c.lowered.fallible).lowered.fallible = False


MISTAKES: dict[str, tuple[Callable[[Program], Any], str]] = {
    "symbol": (lambda p: p.symbols.append(dims.fresh().as_symbol), "not the sizes of the inputs"),
    "symbol twice": (lambda p: p.symbols.append(p.symbols[0]), "one stands twice"),
    "guard": (lambda p: p.guards.append(Guard(dims.fresh(), 1)), "guard .*no input binds"),
    "work": (lambda p: setattr(p, "work", dims.fresh()), "the work: no input binds"),
    "number": (lambda p: p.slots.reverse(), "its number is not its place"),
    "slot size": (lambda p: setattr(slots(p, "output")[0], "size", 3), "elements|is no f32"),
    "slot dtype": (
        lambda p: setattr(slots(p, "temp")[0], "dtype", dtypes.float64), "is f32, slot|needs"
    ),
    "string": (lambda p: setattr(slots(p, "output")[0], "dtype", dtypes.string), "of string"),
    "no block": (lambda p: setattr(slots(p, "temp")[0], "block", -1), "alone, live in a block"),
    "unknown block": (lambda p: setattr(slots(p, "temp")[0], "block", 99), "there is no block"),
    "small block": (lambda p: p.blocks.__setitem__(0, (1, 4)), r"needs .* bytes, block 0 has 4"),
    "input dtype": (lambda p: setattr(slots(p, "input")[0], "dtype", dtypes.int32), "its input is"),
    "input source": (lambda p: setattr(slots(p, "input")[0], "source", None), "no such input"),
    "one block": (one_block, r"slots \d+ and \d+ are in block 0 both at step"),
    "kernel": (broken_kernel, "not in scope|already in scope"),
    "unlisted": (lambda p: p.kernels.pop(0), "is called and is not among the kernels"),
    "same name": (same_name, "two kernels are named k0"),
    "slots of a call": (lambda p: calls(p)[0].slots.pop(), "buffers, 2 slots"),
    "one slot twice": (
        lambda p: calls(p)[0].slots.__setitem__(0, calls(p)[0].slots[-1]),
        "that is written is the slot of another",
    ),
    "writes an input": (writes_its_input, "it writes slot 0, of kind input"),
    "early": (early, "is read before it is written"),
    "writes less": (lambda p: calls(p)[0].lowered.writes.clear(), "writes other buffers than it"),
    "hidden failure": (hidden_failure, "can fail, and does not say so"),
    "no site": (lambda p: p.sites.clear(), "names an error site that does not exist"),
    "scalars": (
        lambda p: next(c for c in calls(p) if c.lowered.symbols).lowered.symbols.clear(), "scalars"
    ),
    "fallible after commit": (fallible_last, "it can fail, and step .* has changed a variable"),
    "copy for commit": (uncommitted, "variables, and they alone, change by commits"),
    "changed source": (from_a_changed_one, "variable . was changed before it is copied"),
    "not updated": (lambda p: p.updated.clear(), "is not listed as updated"),
    "result slot": (lambda p: setattr(p.results[0], "slot", 0), r"they are in the slots \[0\]"),
    "result shape": (lambda p: setattr(p.results[0], "sizes", (9,)), r"is no f32\[9\]"),
    "unwritten result": (
        lambda p: p.steps.remove(next(s for s in p.steps if p.results[0].slot in getattr(
            s, "slots", [getattr(s, "target", -1)]))), "nothing writes slot",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plant", "match"), MISTAKES.values(), ids=MISTAKES)
def test_planted_mistakes_are_found(plant, match):
    program = chain()
    plant(program)
    with pytest.raises(VerifyError, match=match):
        verify_program(program)


def test_one_value_for_two_variables_is_written_in_the_place_of_one():
    """The slots of Adam begin with the same zeros, say."""
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [], name="x")
        a, b = (gc.Variable(np.ones(40000, np.float32), name=n) for n in "ab")
        zeros = gc.fill([40000], x)
        program = planned([], [a.assign(zeros).op, b.assign(zeros).op], {x: ()})
        with gc.Session() as s:
            s.run(gc.global_variables_initializer())
            s.run([a.assign(zeros).op, b.assign(zeros).op], {x: 3})
            assert (np.array(s.run([a, b])) == 3).all()
    (commit,) = (s for s in program.steps if isinstance(s, Copy))
    assert {program.slots[n].kind for n in (commit.source, commit.target)} == {"variable"}


def test_the_message_shows_the_step():
    program = chain()
    early(program)
    with pytest.raises(VerifyError) as error:
        verify_program(program)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("step 0: slot")
    at = next(k for k, line in enumerate(lines) if line.startswith("^ step 0: "))
    assert lines[at - 1].startswith("call ")


def test_two_temporaries_in_one_block_give_a_wrong_answer():
    program, broken = chain(), chain()
    one_block(broken)
    x = {"x:0": np.random.default_rng(0).normal(size=(3, 4))}
    variables = {k: np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32) for k in "wu"}
    copies = [{k: v.copy() for k, v in variables.items()} for _ in range(2)]
    (right,) = run_program(program, x, copies[0])
    (wrong,) = run_program(broken, x, copies[1])
    assert np.isfinite(right).all()
    assert np.isnan(wrong).any() or np.isnan(copies[1]["w"]).any()


def test_plan_function_is_what_is_verified():
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None], name="x")
        fn: Function = extract([gc.tanh(x)], [], {x: (None,)}, state)
    verify_program(plan_function(fn, TARGET))
