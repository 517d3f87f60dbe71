"""Right operands of products of 8-bit integers in words: which, their values, their kernels."""

import numpy as np
import pytest
from pass_support import applied, extracted

import graphc as gc
from graphc.function import format_function
from graphc.loop.printer import format_kernel
from graphc.passes.basic import DeadCode
from graphc.passes.pipeline import default_pipeline, run_passes
from graphc.passes.prepare import Prepare
from graphc.passes.words import Words
from graphc.program import build_program
from graphc.runtime import jit
from graphc.runtime.executable import PREPARATIONS


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def bytes_of(*shape, seed=0, dtype=np.int8):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def product(rows=3, shape=(64, 96), dtype="int8", constant=False, left=None, **flags):
    x = gc.placeholder(dtype, left or [rows, shape[1 if flags.get("transpose_b") else 0]], name="x")
    w = bytes_of(*shape)
    y = gc.constant(w) if constant else gc.Variable(w)
    return gc.matmul(x, y, output_type=gc.int32, **flags)


CASES = {
    "uint8": {"dtype": "uint8"},
    "int8": {},
    "constant": {"constant": True},
    "one row": {"rows": 1, "shape": (64, 128), "dtype": "uint8"},
    "one row, other columns": {"rows": 1},
    "one row for two threads": {"rows": 1, "shape": (1024, 640), "dtype": "uint8"},
    "any rows": {"rows": None},
    "many rows": {"rows": 70, "shape": (516, 160), "dtype": "uint8"},
    "long": {"rows": 5, "shape": (2100, 32)},
    "transposed": {"shape": (96, 64), "transpose_b": True},
    "several": {"left": [2, 3, 64]},
}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_what_is_in_words(name, size):
    options = CASES[name]
    fn = applied(extracted(lambda: product(**options)), Words(size), DeadCode(), Prepare())
    # What is widened where it is read pays for some rows.
    few_or_many = size == 2 and options.get("rows", 3) in (1, 70)
    assert ("WordsMatMul" in {op.type for op in fn.operations}) != few_or_many
    assert "PackWords" not in {op.type for op in fn.operations}
    y = product(**options)
    x = y.graph.get_tensor_by_name("x:0")
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(gc.global_variables_initializer())
        for rows in (7, 1) if options.get("rows", 0) is None else (1,):
            shape = [rows if n is None else n for n in x.shape.as_list()]
            value = bytes_of(*shape, seed=1, dtype=x.dtype.as_numpy_dtype)
            wanted = reference.run(y, {x: value})
            np.testing.assert_array_equal(s.run(y, {x: value}), wanted)


LEFT = {
    "rest of a word": {"shape": (66, 96)},
    "columns that make no panels": {"shape": (64, 90)},
    "nothing": {"shape": (0, 96)},
    "left transposed": {"left": [64, 3], "transpose_a": True},
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left(name):
    fn = applied(extracted(lambda: product(**LEFT[name])), Words())
    assert "WordsMatMul" not in {op.type for op in fn.operations}


def test_left_are_fed_matrices_and_moved_left_operands():
    def fed():
        x, y = gc.placeholder(gc.uint8, [3, 64]), gc.placeholder(gc.int8, [64, 96])
        return gc.matmul(x, y, output_type=gc.int32)

    def moved():
        x = gc.transpose(gc.placeholder(gc.uint8, [64, 3]))
        return gc.matmul(x, gc.constant(bytes_of(64, 96)), output_type=gc.int32)

    for build in (fed, moved):
        fn = applied(extracted(build), Words())
        assert "WordsMatMul" not in {op.type for op in fn.operations}


def kernels(target, **options):
    chosen = jit.named_target(target)
    passes = default_pipeline(chosen.word, chosen.lanes(4))
    fn = run_passes(extracted(lambda: product(**options)), passes)
    program = build_program(fn, chosen)
    return fn, "".join(format_kernel(k.kernel) for k in program.kernels)


def test_words_are_read_as_they_lie():
    fn, text = kernels("avx512vnni", rows=30, dtype="uint8")
    assert "WordsMatMul" in format_function(fn)
    assert "dp4a" in text
    assert "rhs_panel" not in text
    assert "lhs_" not in text


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("target", ["generic", "avx2", "avx512"])
def test_pairs_are_widened_as_they_are_read(target, dtype):
    fn, text = kernels(target, rows=30, dtype=dtype, shape=(66, 96))
    assert "WordsMatMul" in format_function(fn)
    assert "BitwiseXor" not in format_function(fn)
    assert "madd16" in text
    assert "rhs_panel" not in text


def test_other_cpus_have_other_products():
    fn = run_passes(extracted(lambda: product(rows=30, dtype="uint8")), default_pipeline())
    assert "WordsMatMul" not in format_function(fn)


def test_words_follow_the_variable():
    x = gc.placeholder(gc.int8, [2, 64])
    first, second = bytes_of(64, 96), bytes_of(64, 96, seed=5)
    w = gc.Variable(first)
    y = gc.matmul(x, w, output_type=gc.int32)
    value = bytes_of(2, 64, seed=2)
    with gc.Session() as s:
        s.run(w.initializer)
        for matrix in (first, second):
            s.run(w.assign(matrix))
            wanted = value.astype(np.int32) @ matrix.astype(np.int32)
            np.testing.assert_array_equal(s.run(y, {x: value}), wanted)


def test_what_is_of_constants_is_prepared_once_for_all():
    x = gc.placeholder(gc.uint8, [2, 64])
    w = gc.Variable(1)
    y = gc.matmul(x, gc.constant(bytes_of(64, 96)), output_type=gc.int32)
    value = bytes_of(2, 64, dtype=np.uint8)
    with gc.Session() as s:
        s.run(w.initializer)
        before = PREPARATIONS["runs"]
        wanted = s.run(y, {x: value})
        s.run(w.assign_add(1))
        np.testing.assert_array_equal(s.run(y, {x: value}), wanted)
        assert PREPARATIONS["runs"] <= before + 1
        plans = [e for p in s._plans.values() for e in p.executables.values() if e.feeds]
        # Nothing of Python lies between a callable and the program.
        assert [e.is_plain for e in plans] == [True]


def test_extreme_values():
    for a, b in ((-128, -128), (127, -128), (-128, 127)):
        x = gc.placeholder(gc.int8, [3, 64])
        y = gc.matmul(x, gc.constant(np.full((64, 32), b, np.int8)), output_type=gc.int32)
        with gc.Session() as s:
            found = s.run(y, {x: np.full((3, 64), a, np.int8)})
        np.testing.assert_array_equal(found, np.full((3, 32), 64 * a * b))


@pytest.mark.parametrize("word", [2, 4])
def test_a_loop_reads_words_that_are_made_before_it(word):
    w = bytes_of(64, 64)

    def loop():
        weights = gc.placeholder(gc.int8, [64, 64])

        def body(i, h):
            total = gc.matmul(h, weights, output_type=gc.int32)
            return i + 1, gc.cast(gc.mod(total, 127), gc.int8)

        x = gc.placeholder(gc.int8, [8, 64])
        return gc.while_loop(lambda i, _: i < 3, body, [0, x])[1], weights, x

    fn = run_passes(extracted(lambda: loop()[0]), default_pipeline(word))
    (owner,) = [op for op in fn.operations if op.type == "While"]
    inside = [op.type for op in owner.attrs["bodies"][1].operations]
    assert "WordsMatMul" in inside
    assert "PackWords" not in inside
    assert "PackWords" in [op.type for op in fn.operations]
    y, weights, x = loop()
    h = bytes_of(8, 64, seed=1)
    with gc.Session() as s:
        found = s.run(y, {weights: w, x: h})
    for _ in range(3):
        h = np.mod(h.astype(np.int32) @ w.astype(np.int32), 127).astype(np.int8)
    np.testing.assert_array_equal(found, h)
