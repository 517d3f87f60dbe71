"""Hostile bodies: a FileFormatError, never anything else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.build import create
from graphc.errors import FileFormatError, GraphcError
from graphc.formats import load, save
from graphc.inspect import compile_stages

Edit = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    """A loop with a choice in it and its gradient; a choice beside it that gives nothing new."""
    x = gc.placeholder(gc.float32, [3], name="x")
    n = gc.placeholder(gc.int32, [], name="n")
    w = gc.Variable(np.ones(3, np.float32), name="w")

    def body(i: Any, h: Any) -> Any:
        odd = gc.identity(i > 1, name="odd")
        chosen = gc.cond(odd, lambda: gc.exp(h, name="e"), lambda: gc.sin(h, name="s"))
        return i + 1, gc.multiply(chosen, w, name="scaled")

    _, y = gc.while_loop(lambda i, _: gc.less(i, n, name="more"), body, (0, x), name="loop")
    grad = gc.gradients(y, x)[0]
    plain = gc.switch_case(n, [lambda: x, lambda: y], name="plain")
    path = tmp_path / "bodies.graphc"
    with gc.Session() as session:
        session.run(w.initializer)
        save(path, session, [x, n], {"y": y, "grad": grad, "plain": plain})
    return path


def owner(description: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The operation with bodies whose name starts so."""
    return next(
        o
        for o in description["operations"]
        if o["name"].startswith(prefix) and "bodies" in o.get("attrs", {})
    )


def named(description: dict[str, Any], name: str) -> dict[str, Any]:
    """The operation of that name."""
    return next(o for o in description["operations"] if o["name"] == name)


def on_owner(prefix: str, change: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda d, a: change(owner(d, prefix)) and None


def on_body(prefix: str, number: int, change: Callable[[dict[str, Any]], Any]) -> Edit:
    def edit(description: dict[str, Any], _: Any) -> None:
        change(description["regions"][owner(description, prefix)["attrs"]["bodies"][number]])

    return edit


def on_op(name: str, **changes: Any) -> Edit:
    return lambda d, a: named(d, name).update(changes)


def attrs(prefix: str, **changes: Any) -> Edit:
    return on_owner(prefix, lambda o: o["attrs"].update(changes))


def deep(description: dict[str, Any], _: Any) -> None:
    """Choices in choices, as deep as a file may claim."""
    first = len(description["regions"])
    depth = 5000
    for k in range(depth):
        region = {"name": "deep", "parent": first + k - 1} if k else {"name": "deep"}
        description["regions"].append(region)
    for k in reversed(range(depth)):
        entry = {
            "name": f"deep{k}", "op": "Case", "version": 1, "inputs": ["n:0"],
            "attrs": {"bodies": [first + k], "saved": [], "symbols": {"operations": []}},
        }  # fmt: skip
        description["operations"].append(entry | ({"region": first + k - 1} if k else {}))


def orphan(description: dict[str, Any], _: Any) -> None:
    description["regions"].append({"name": "orphan"})


def orphan_with_an_operation(description: dict[str, Any], _: Any) -> None:
    orphan(description, _)
    number = len(description["regions"]) - 1
    late = {"name": "late", "op": "NoOp", "version": 1, "region": number}
    description["operations"].append(late)


def after_the_owner(description: dict[str, Any], _: Any) -> None:
    number = owner(description, "loop/")["attrs"]["bodies"][1]
    late = {"name": "late", "op": "NoOp", "version": 1, "region": number}
    description["operations"].append(late)


def two_owners(description: dict[str, Any], _: Any) -> None:
    second = owner(description, "plain/") | {"name": "second"}
    description["operations"].append(second)


def a_parameter_more(description: dict[str, Any], _: Any) -> None:
    loop = owner(description, "loop/W")
    number = loop["attrs"]["bodies"][1]
    entry = {
        "name": "extra", "op": "Parameter", "version": 1, "region": number,
        "attrs": {"dtype": "float32", "shape": [3]}, "types": [["float32", [3]]],
    }  # fmt: skip
    description["operations"].insert(description["operations"].index(loop), entry)


def a_parameter_of_nothing(description: dict[str, Any], _: Any) -> None:
    a_parameter_more(description, _)
    del named(description, "extra")["region"]


def a_variable_inside(description: dict[str, Any], _: Any) -> None:
    a_parameter_more(description, _)
    named(description, "extra").update(op="VariableV2", types=[["float32_ref", [3]]])


def seen_from_outside(description: dict[str, Any], _: Any) -> None:
    entry = {"name": "spy", "op": "Neg", "version": 1, "inputs": ["loop/cond/e:0"]}
    description["operations"].append(entry | {"types": [["float32", [3]]]})


def waited_for_from_outside(description: dict[str, Any], _: Any) -> None:
    entry = {"name": "spy", "op": "NoOp", "version": 1, "control_inputs": ["loop/cond/e"]}
    description["operations"].append(entry)


def a_wide_condition(description: dict[str, Any], _: Any) -> None:
    """The condition is a vector of bools."""
    loop = owner(description, "loop/W")
    number = loop["attrs"]["bodies"][0]
    entry = {"name": "wide", "op": "IsNan", "version": 1, "region": number, "inputs": ["x:0"]}
    entry |= {"types": [["bool", [3]]]}
    description["operations"].insert(description["operations"].index(loop), entry)
    description["regions"][number]["results"] = ["wide:0"]
    loop["inputs"] += ["x:0"]


def twice(op: dict[str, Any]) -> None:
    op["attrs"]["bodies"] = [op["attrs"]["bodies"][1]] * 2


LOOP, CHOICE, PLAIN = "loop/W", "loop/cond/", "plain/"
EDITS: dict[str, tuple[Edit, str]] = {
    "regions that are no list": (lambda d, a: d.update(regions={}), "regions must be list"),
    "no regions": (lambda d, a: d.update(regions=[]), "no region"),
    "left out": (lambda d, a: d.pop("regions") and None, "unknown or missing"),
    "regions in version 1": (lambda d, a: d.update(format_version=1), "unknown or missing"),
    "a region that is no object": (lambda d, a: d["regions"].append(1), "malformed"),
    "a region with more fields": (on_body(LOOP, 0, lambda r: r.update(code="")), "malformed"),
    "a name that is none": (on_body(LOOP, 0, lambda r: r.update(name=1)), "name must be str"),
    "a long name": (on_body(PLAIN, 0, lambda r: r.update(name="x" * 10**6, params=3)), "params"),
    "its own parent": (lambda d, a: d["regions"][0].update(parent=0), "no region"),
    "a cycle of parents": (lambda d, a: d["regions"][0].update(parent=1), "no region"),
    "a negative parent": (lambda d, a: d["regions"][1].update(parent=-1), "no region"),
    "a huge parent": (lambda d, a: d["regions"][1].update(parent=1 << 70), "no region"),
    "a parent that is a bool": (lambda d, a: d["regions"][1].update(parent=False), "no region"),
    "another parent": (on_body(PLAIN, 0, lambda r: r.update(parent=0)), "not in the region|owner"),
    "too deep": (deep, "more than 100 deep"),
    "no owner": (orphan, "'orphan' has no owner"),
    "operations without an owner": (orphan_with_an_operation, "'orphan' has no owner"),
    "an owner that is gone": (lambda d, a: d["outputs"].pop("plain") and drop(d, PLAIN), "owner"),
    "two owners": (two_owners, "already"),
    "the same body twice": (on_owner(LOOP, twice), "a region twice"),
    "after the owner": (after_the_owner, "after the owner"),
    "an operation's region": (on_op("loop/cond/e", region=99), "no region"),
    "a region that is text": (on_op("loop/cond/e", region="0"), "no region"),
    "an operation in another region": (on_op("loop/odd", region=0), "outside of its region"),
    "at the top level": (on_op("loop/odd", region=None), "outside of its region"),
    "seen from outside": (seen_from_outside, "uses 'loop/cond/e' outside"),
    "waited for from outside": (waited_for_from_outside, "uses 'loop/cond/e' outside"),
    "an output inside": (lambda d, a: d["outputs"].update(y="loop/cond/e:0"), "outside"),
    "an operation inside": (lambda d, a: d["outputs"].update(y="loop/cond/e"), "outside"),
    "an input inside": (lambda d, a: d["inputs"].update(x="loop/cond/e:0"), "outside"),
    "params that are none": (on_body(LOOP, 1, lambda r: r.update(params=["x:0"])), "parameters"),
    "unknown params": (on_body(LOOP, 1, lambda r: r.update(params=["zz:0"])), "no tensor"),
    "params of no list": (on_body(LOOP, 1, lambda r: r.update(params=3)), "params must be list"),
    "fewer params": (on_body(LOOP, 1, lambda r: r["params"].pop()), "parameters"),
    "a param twice": (on_body(LOOP, 1, lambda r: r["params"].append(r["params"][0])), "param"),
    "params in another order": (on_body(LOOP, 1, lambda r: r["params"].reverse()), "type"),
    "a parameter more": (a_parameter_more, "parameters"),
    "a parameter of nothing": (a_parameter_of_nothing, "parameter of no region"),
    "a variable inside": (a_variable_inside, "is in a region"),
    "fewer results": (on_body(LOOP, 1, lambda r: r["results"].pop()), "differ|not what"),
    "no results": (on_body(LOOP, 1, lambda r: r.pop("results")), "differ"),
    "results of another region": (
        on_body(LOOP, 1, lambda r: r["results"].__setitem__(1, "loop/cond/e:0")), "outside",
    ),
    "results of another dtype": (on_body(LOOP, 1, lambda r: r["results"].reverse()), "type"),
    "no condition": (on_body(LOOP, 0, lambda r: r["results"].clear()), "no bool scalar"),
    "a condition of numbers": (
        on_body(LOOP, 0, lambda r: r.update(results=r["params"][:1])), "no bool scalar",
    ),
    "two conditions": (on_body(LOOP, 0, lambda r: r.update(results=r["results"] * 2)), "scalar"),
    "a vector as condition": (a_wide_condition, "no bool scalar"),
    "a condition of fewer params": (on_body(LOOP, 0, lambda r: r["params"].pop()), "parameters"),
    "no bodies": (attrs(LOOP, bodies=[]), "0 bodies"),
    "null bodies": (attrs(LOOP, bodies=None), "null"),
    "missing bodies": (on_owner(LOOP, lambda o: o["attrs"].pop("bodies")), "needs the attribute"),
    "bodies by name": (attrs(LOOP, bodies=["loop"]), "no region"),
    "null as a body": (attrs(LOOP, bodies=[None, 0]), "or none"),
    "one body": (on_owner(LOOP, lambda o: o["attrs"]["bodies"].pop()), "1 bodies, expected 2"),
    "no branches": (attrs(PLAIN, bodies=[]), "0 branches"),
    "one branch of a bool": (on_owner(CHOICE, lambda o: o["attrs"]["bodies"].pop()), "branches"),
    "branches that differ": (on_body(PLAIN, 0, lambda r: r["results"].clear()), "differ"),
    "branches of another dtype": (on_body(PLAIN, 0, lambda r: r.update(results=["n:0"])), "differ"),
    "a selector that is no scalar": (on_owner(PLAIN, lambda o: first(o, "x:0")), "allowed values"),
    "no selector": (on_owner(PLAIN, lambda o: o["inputs"].clear()), "0 operands"),
    "operands more": (on_owner(LOOP, lambda o: o["inputs"].append("x:0")), "not what its bodies"),
    "operands fewer": (on_owner(LOOP, lambda o: o["inputs"].pop()), "not what its bodies"),
    "operands twice": (
        on_owner(LOOP, lambda o: o["inputs"].append(o["inputs"][-1])), "not what its bodies",
    ),
    "no operands": (on_owner(LOOP, lambda o: o["inputs"].clear()), "differ in the loop"),
    "other initial values": (
        on_owner(LOOP, lambda o: o["inputs"].__setitem__(1, o["inputs"][0])), "variable's type",
    ),
    "saved outside": (on_owner(LOOP, lambda o: saving(o, "x:0")), "not in its bodies"),
    "saved deeper": (on_owner(LOOP, lambda o: saving(o, "loop/cond/e:0")), "not in its bodies"),
    "saved of the condition": (on_owner(LOOP, lambda o: saving(o, "loop/more:0")), "not in its"),
    "saved twice": (
        on_owner(LOOP, lambda o: saving(o, o["attrs"]["saved"][0])), "not in its bodies",
    ),
    "saved that is unknown": (on_owner(LOOP, lambda o: saving(o, "zz:0")), "no tensor"),
    "saved of no list": (attrs(LOOP, saved="x:0"), "must be list"),
    "null saved": (attrs(LOOP, saved=None), "null"),
    "fewer saved": (on_owner(LOOP, lambda o: o["attrs"]["saved"].pop()), "types of"),
    "symbols": (attrs(LOOP, symbols={"operations": ["w"]}), "symbols"),
    "fewer outputs": (on_owner(LOOP, lambda o: o["types"].pop()), "types of"),
    "outputs of another dtype": (
        on_owner(LOOP, lambda o: o["types"].__setitem__(0, ["int64", []])), "is saved, it is",
    ),
    "a handle of a variable inside": (lambda d, a: d["variables"][0].update(
        initial_value="loop/cond/e:0"), "no variable"),
}  # fmt: skip


def first(op: dict[str, Any], name: str) -> None:
    op["inputs"][0] = name


def saving(op: dict[str, Any], name: str) -> None:
    op["attrs"]["saved"].append(name)
    op["types"].append(["float32", [None, 3]])


def drop(description: dict[str, Any], prefix: str) -> None:
    description["operations"].remove(owner(description, prefix))


@pytest.mark.parametrize(("edit", "match"), EDITS.values(), ids=EDITS)
def test_hostile_bodies(edit, match, bodies, rewrite):
    path = rewrite(bodies, edit)
    with pytest.raises(FileFormatError, match=match) as error:
        load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_the_edits_are_of_a_file_that_is_loaded(bodies, rewrite):
    model = load(rewrite(bodies, lambda d, a: None))
    assert model.run(x=[0, 1, 2], n=3)["y"].shape == (3,)


def test_what_calls_python_or_writes_files_is_refused(small, rewrite):
    def python(description: dict[str, Any], _: Any) -> None:
        entry = {"name": "p", "op": "PyFunc", "version": 1, "attrs": {"token": "pyfunc_0"}}
        description["operations"].append(entry)

    def host(description: dict[str, Any], _: Any) -> None:
        description["operations"].append({"name": "h", "op": "Host", "version": 1})

    for edit in (python, host):
        with pytest.raises(FileFormatError, match="calls Python code, which no file may"):
            load(rewrite(small, edit))


def test_what_prints_to_a_file_is_neither_saved_nor_loaded(tmp_path, rewrite):
    x = gc.placeholder(gc.float32, [], name="x")
    target = tmp_path / "written"
    with pytest.raises(FileFormatError, match=r"'PrintV2' .* writes to a file when it runs"):
        save(tmp_path / "m", gc.Session(), x, gc.print(x, output_stream=f"file://{target}"))
    save(tmp_path / "m", gc.Session(), x, {"shown": gc.print(x, name="shown")})

    def edit(description: dict[str, Any], _: Any) -> None:
        named(description, "shown")["attrs"]["output_stream"] = f"file://{target}"

    with pytest.raises(FileFormatError, match="'shown' writes to a file when it runs"):
        load(rewrite(tmp_path / "m", edit))
    assert not target.exists()


def test_memory_outside_of_a_tensor_is_not_read(tmp_path):
    """What gradients do unchecked, because they know better, a file may say without reason."""
    x = gc.placeholder(gc.float32, [None, 2], name="x")
    index = gc.placeholder(gc.int64, [], name="index")
    y = create("TakeRow", [x, index], {"checked": False}).outputs[0]
    save(tmp_path / "m", gc.Session(), [x, index], {"y": y})
    model = load(tmp_path / "m")
    for row, expected in [(1, [3, 4]), (2, [0, 0]), (-1, [0, 0]), (1 << 40, [0, 0])]:
        np.testing.assert_array_equal(model([[1, 2], [3, 4]], row), expected)
    np.testing.assert_array_equal(model(np.zeros((0, 2)), 0), [0, 0])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value, as (container, key)."""
    found = []
    stack = [value]
    while stack:
        top = stack.pop()
        items = list(top.items() if isinstance(top, dict) else enumerate(top))
        for key, inner in items:
            found.append((top, key))
            if isinstance(inner, (dict, list)):
                stack.append(inner)
    return found


VALUES: list[Any] = [None, 0, 1, 2, -1, 1 << 40, True, "", "x:0", "n:0", "loop/cond/e:0", [], {}]


@pytest.mark.parametrize("seed", range(100))
def test_random_damage_gives_typed_errors(seed, bodies, rewrite):
    """A value of the description replaced, exchanged with another one, or gone."""
    rng = random.Random(seed)

    def edit(description: dict[str, Any], _: Any) -> None:
        parts = ["regions", "operations"] if seed % 3 else ["regions"]
        all_places = [p for part in parts for p in places(description[part])]
        container, key = rng.choice(all_places)
        how = rng.randrange(3)
        if how == 0:
            container[key] = rng.choice(VALUES)
        elif how == 1:
            other, place = rng.choice(all_places)
            container[key] = other[place]
        else:
            container.pop(key)

    # What is still a graph is compiled, or refused by a typed error; a run of it might not end.
    with contextlib.suppress(FileFormatError):
        model = load(rewrite(bodies, edit))
        with contextlib.suppress(GraphcError):
            compile_stages(model.session, list(model.outputs.values()))
