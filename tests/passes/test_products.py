"""Products of one left operand made one: which, their values, and that slices are not copied."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from pass_support import applied, extracted, program_of

import graphc as gc
from graphc.function import format_function
from graphc.kernels import tiling
from graphc.passes.basic import DeadCode
from graphc.passes.prepare import Prepare
from graphc.passes.products import SMALL_OPERATIONS, MergeProducts
from graphc.program_text import format_program

TOKENS, WIDTH, HEADS = 16, 256, 8


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(count=3, shape=(WIDTH, WIDTH)):
    return [gc.Variable(normal(*shape, seed=k) / 16) for k in range(count)]


def attention(x, tokens=TOKENS, activation=gc.identity, bias_add=False):
    """Queries, keys and values of ``x``, and what attention makes of them."""

    def heads(x):
        return gc.transpose(gc.reshape(x, [-1, tokens, HEADS, WIDTH // HEADS]), [0, 2, 1, 3])

    def dense(w, seed):
        b = gc.Variable(normal(WIDTH, seed=seed))
        y = gc.matmul(x, w)
        return heads(activation(gc.nn.bias_add(y, b) if bias_add else y + b))

    q, k, v = (dense(w, 10 + n) for n, w in enumerate(weights()))
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)


def chains(rows=TOKENS, count=3, between=lambda y, k: y, shape=(WIDTH, WIDTH), **flags):
    """The sum of products, each after ``between``, with matrices of their own."""
    left = (shape[1], rows) if flags.get("transpose_a") else (rows, shape[1 if flags else 0])
    x = gc.placeholder(gc.float32, left if flags else (rows, shape[0]), name="x")
    parts = [
        gc.matmul(between(gc.matmul(x, w, **flags), k), gc.constant(normal(shape[1], 3, seed=k)))
        for k, w in enumerate(weights(count, shape))
    ]
    return gc.add_n(parts)


def merged(build):
    fn = applied(extracted(build), MergeProducts(), DeadCode())
    return any(op.type == "Unpack" for op in fn.operations)


MERGED = {
    "plain": chains,
    "two": lambda: chains(count=2),
    "bias": lambda: chains(between=lambda y, k: y + gc.Variable(normal(WIDTH))),
    "bias first": lambda: chains(between=lambda y, k: gc.Variable(normal(1, WIDTH)) + y),
    "scaled": lambda: chains(between=lambda y, k: 0.5 * y),
    "scales of their own": lambda: chains(between=lambda y, k: y * (k + 0.5)),
    "activation": lambda: chains(between=lambda y, k: gc.nn.relu(y - gc.Variable(1.5 + k))),
    "leaky": lambda: chains(between=lambda y, k: gc.nn.leaky_relu(y, 0.1)),
    "bias_add": lambda: chains(between=lambda y, k: gc.nn.bias_add(y, gc.Variable(normal(WIDTH)))),
    "transposed": lambda: chains(transpose_b=True),
    "both transposed": lambda: chains(transpose_a=True, transpose_b=True),
    "any rows": lambda: chains(rows=None),
}
LEFT = {
    "one": lambda: chains(count=1),
    "many rows": lambda: chains(rows=128),
    "small": lambda: chains(shape=(64, 64)),
    "other activations": lambda: chains(
        between=lambda y, k: (gc.tanh, gc.nn.relu, gc.sigmoid)[k](y)
    ),
    "an epilogue that reads others": lambda: chains(between=lambda y, k: y * gc.exp(y)),
}


@pytest.mark.parametrize("name", MERGED)
def test_what_is_merged(name):
    assert merged(MERGED[name])
    y = MERGED[name]()
    x = y.graph.get_tensor_by_name("x:0")
    value = normal(*(s or TOKENS for s in x.shape.as_list()))
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(gc.global_variables_initializer())
        np.testing.assert_allclose(
            s.run(y, {x: value}), reference.run(y, {x: value}), rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left(name):
    assert not merged(LEFT[name])


def test_left_are_fetches_other_operands_and_sizes():
    def fetched():
        x = gc.placeholder(gc.float32, [TOKENS, WIDTH])
        return [gc.matmul(x, w) for w in weights()]

    def apart():
        return [
            gc.matmul(gc.matmul(gc.placeholder(gc.float32, [TOKENS, WIDTH]), w), normal(WIDTH, 2))
            for w in weights()
        ]

    def sizes():
        x = gc.placeholder(gc.float32, [TOKENS, WIDTH])
        shapes = [(WIDTH, 256), (WIDTH, 288), (WIDTH, 320)]
        return [
            gc.matmul(gc.matmul(x, *weights(1, shape)), normal(shape[1], 2)) for shape in shapes
        ]

    assert not any(merged(build) for build in (fetched, apart, sizes))


def test_a_training_step_is_left():
    def step():
        x = gc.placeholder(gc.float32, [TOKENS, WIDTH])
        return gc.train.GradientDescentOptimizer(0.1).minimize(gc.reduce_sum(attention(x)))

    assert not merged(step)


def test_what_small_means():
    assert SMALL_OPERATIONS == tiling.SERIAL_FLOPS


def test_the_text_of_attention():
    fn = extracted(lambda: attention(gc.placeholder(gc.float32, [TOKENS, WIDTH])))
    text = format_function(applied(fn, MergeProducts(), DeadCode(), Prepare(), DeadCode()))
    before, after = text.split("prepare:\n")
    assert "prepared %MatMul/Prepared: f32[3, 256, 256]" in before
    assert "prepared %MatMul/Prepared_1: f32[3, 1, 256]" in before
    assert "%MatMul/AddV2 = AddV2(%MatMul/BatchMatMulV2, %MatMul/Prepared_1)" in before
    assert ": f32[3, 1, 16, 8, 32]" in before
    assert "%MatMul/Pack = Pack(" in after
    assert before.count("Pack(") == 0


@pytest.mark.parametrize("bias_add", [False, True])
def test_no_kernel_copies_slices(bias_add):
    def build(**options):
        return attention(gc.placeholder(gc.float32, [TOKENS, WIDTH]), **options)

    program = program_of(lambda: build(activation=gc.nn.relu, bias_add=bias_add))
    lines = format_program(program).splitlines()
    # One of the products with bias and activation, and three of attention.
    assert sum(line.strip().startswith("call ") for line in lines) == 4


@pytest.mark.parametrize(("tokens", "fed"), [(TOKENS, TOKENS), (None, TOKENS), (None, 3 * TOKENS)])
def test_values_of_attention(tokens, fed):
    x = gc.placeholder(gc.float32, [tokens, WIDTH])
    y = attention(x)
    w = gc.global_variables()[0]
    value = normal(fed, WIDTH)
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(gc.global_variables_initializer())
        for _ in range(2):
            found, wanted = s.run(y, {x: value}), reference.run(y, {x: value})
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
            for session in (s, reference):
                session.run(w.assign(-w))


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import test_products as t
import graphc as gc
x = gc.placeholder(gc.float32, [t.TOKENS, t.WIDTH])
y = t.attention(x)
with gc.Session() as s:
    s.run(gc.global_variables_initializer())
    found = s.run(y, {{x: t.normal(t.TOKENS, t.WIDTH)}})
print(t.hashlib.sha256(found.tobytes()).hexdigest())
"""


def test_the_same_bits_with_one_thread_and_two():
    here = os.path.dirname(__file__)
    sums = set()
    for count in ("1", "2"):
        environment = os.environ | {"GRAPHC_NUM_THREADS": count}
        command = [sys.executable, "-c", SCRIPT.format(here=here)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        sums.add(done.stdout)
    assert len(sums) == 1
    assert len(sums.pop()) == 2 * hashlib.sha256().digest_size + 1


def test_constants_in_the_body_of_a_loop():
    w = normal(WIDTH, WIDTH) / 16
    x = gc.placeholder(gc.float32, [8, WIDTH])
    _, y = gc.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, gc.matmul(y, gc.constant(w))), [0, x]
    )
    value = normal(8, WIDTH)
    with gc.Session() as s:
        np.testing.assert_allclose(s.run(y, {x: value}), value @ w @ w @ w, rtol=1e-4, atol=1e-4)
