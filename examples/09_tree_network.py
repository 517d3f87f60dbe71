"""A recursive network over expression trees of different shapes, batched, by a stack in the graph.

What it shows:

* recursion without recursion: a tree in postfix order, (2 + 3) * 4 as 2 3 + 4 *, is read by
  ``gc.while_loop`` with an explicit stack, a loop variable of shape [batch, depth, units];
* trees of different shapes in one batch: every tree has its own height of the stack, and the
  shorter ones wait for the longest;
* gradients back through the stack: leaves and operators learn from the root's answer alone;
* any number of steps by one program: it is trained on trees of up to 6 leaves and then reads
  trees of up to 12, which it has never seen.

The task: the value of the expression modulo 3, of which the network is told nothing but answers.

    python examples/09_tree_network.py

prints at the end::

    (((9 * 8) - (((8 - 6) - 0) + 7)) + (0 - 3)) + (4 - 0) mod 3 = 1, said 1
    accuracy 100.00% on 2000 trees of 7 to 12 leaves (46% by the commonest answer)
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import graphc as gc

MODULUS = 3
SIGNS = "+-*"
NUMBERS = 10  # the leaves are 0 to 9; the signs are the tokens 10 to 12
PADDING = NUMBERS + len(SIGNS)


# --- expressions ------------------------------------------------------------------------------


def expression(leaves: int, random: np.random.RandomState) -> tuple[list[int], int]:
    """A random tree in postfix order, and its value."""
    if leaves == 1:
        number = int(random.randint(NUMBERS))
        return [number], number
    left = int(random.randint(1, leaves))
    (first, a), (second, b) = expression(left, random), expression(leaves - left, random)
    sign = int(random.randint(len(SIGNS)))
    return [*first, *second, NUMBERS + sign], (a + b, a - b, a * b)[sign]


def expressions(
    count: int, fewest: int, most: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [count, steps], padded at the end, and the values modulo 3."""
    tokens = np.full((count, 2 * most - 1), PADDING, np.int32)
    values = np.zeros(count, np.int32)
    for k in range(count):
        postfix, value = expression(int(random.randint(fewest, most + 1)), random)
        tokens[k, : len(postfix)] = postfix
        values[k] = value % MODULUS
    return tokens, values


def infix(postfix: np.ndarray) -> str:
    """An expression as one writes it."""
    stack: list[str] = []
    for token in postfix[postfix != PADDING].tolist():
        if token < NUMBERS:
            stack.append(str(token))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(f"({left} {SIGNS[token - NUMBERS]} {right})")
    return stack[0].removeprefix("(").removesuffix(")") if len(stack[0]) > 1 else stack[0]


# --- the network ------------------------------------------------------------------------------


def dense(x: Any, units: int, name: str) -> Any:
    """A fully connected layer, without its activation."""
    with gc.variable_scope(name):
        weights = gc.get_variable("weights", [x.shape.as_list()[-1], units])
        biases = gc.get_variable("biases", [units], initializer=gc.zeros_initializer())
        return gc.matmul(x, weights) + biases


def tree_network(tokens: gc.Tensor, units: int) -> gc.Tensor:
    """The logits of the values of postfix expressions, tokens [batch, steps]."""
    batch, steps = gc.unstack(gc.shape(tokens))
    depth = (steps + 1) // 2  # the most that n leaves and n - 1 signs can need
    places = gc.range(depth)[gc.newaxis]
    meaning = gc.get_variable(
        "meaning", [PADDING + 1, units], initializer=gc.random_uniform_initializer(-1.0, 1.0)
    )
    by_step = gc.transpose(tokens)

    def at(stack: Any, height: Any) -> Any:
        """What lies at a height of each tree's stack; zeros below its bottom."""
        here = gc.to_float(gc.equal(places, height[:, gc.newaxis]))
        return gc.reduce_sum(stack * here[:, :, gc.newaxis], 1)

    def body(step: Any, stack: Any, height: Any) -> Any:
        token = by_step[step]
        read = gc.gather(meaning, token)
        is_sign = gc.greater_equal(token, NUMBERS)
        both = gc.concat([at(stack, height - 2), at(stack, height - 1), read], 1)
        hidden = gc.nn.relu(dense(both, 4 * units, "hidden"))
        joined = gc.tanh(dense(hidden, units, "joined"))
        value = gc.where(is_sign, joined, read)
        # A number goes on top; a sign takes the place of the two that it joins.
        place = gc.where(is_sign, height - 2, height)
        pushed = gc.where(
            gc.tile(gc.equal(places, place[:, gc.newaxis])[:, :, gc.newaxis], [1, 1, units]),
            gc.tile(value[:, gc.newaxis], [1, depth, 1]),
            stack,
        )
        over = gc.equal(token, PADDING)
        return step + 1, gc.where(over, stack, pushed), gc.where(over, height, place + 1)

    _, stack, _ = gc.while_loop(
        lambda step, *_: step < steps,
        body,
        (gc.constant(0), gc.zeros([batch, depth, units]), gc.zeros([batch], gc.int32)),
    )
    return dense(stack[:, 0], MODULUS, "answer")


# --- training ---------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> tuple[float, float]:
    """Train and test; the accuracy on trees of the sizes trained on, and on larger ones."""
    random = np.random.RandomState(args.seed)
    gc.set_random_seed(args.seed)
    tokens = gc.placeholder(gc.int32, [None, None], name="tokens")
    values = gc.placeholder(gc.int32, [None], name="values")
    logits = tree_network(tokens, args.units)
    said = gc.argmax(logits, 1, output_type=gc.int32)
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=values, logits=logits)
    )
    step = gc.train.get_or_create_global_step()
    rate = gc.train.cosine_decay(args.rate, step, args.steps)
    weights = gc.trainable_variables()
    gradients, _ = gc.clip_by_global_norm(gc.gradients(loss, weights), 1.0)
    update = gc.train.AdamOptimizer(rate).apply_gradients(
        zip(gradients, weights, strict=True), global_step=step
    )

    with gc.Session() as sess:
        sess.run(gc.global_variables_initializer())
        train_step = sess.make_callable([loss, update], [tokens, values])
        losses = []
        started = time.perf_counter()
        with gc.data.Progress(args.steps, label="training", unit="step") as progress:
            for _ in range(args.steps):
                losses.append(float(train_step(*expressions(args.batch, 1, 6, random))[0]))
                progress.update(loss=losses[-1])
        seconds = time.perf_counter() - started
        print(f"{args.steps} steps in {seconds:.1f} s, loss {np.mean(losses[-100:]):.4f}")

        results = []
        for fewest, most in ((1, 6), (7, 12)):
            trees, right = expressions(2000, fewest, most, random)
            answers = sess.run(said, {tokens: trees})
            results.append(float(np.mean(answers == right)))
            print(f"{infix(trees[0])} mod {MODULUS} = {right[0]}, said {answers[0]}")
            print(f"accuracy {results[-1]:.2%} on 2000 trees of {fewest} to {most} leaves "
                  f"({np.bincount(right).max() / len(right):.0%} by the commonest answer)"
                  )  # fmt: skip
    return results[0], results[1]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line unless they are given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of the training")
    parser.add_argument("--batch", type=int, default=64, help="trees per step")
    parser.add_argument("--units", type=int, default=16, help="of every subtree's meaning")
    parser.add_argument("--rate", type=float, default=5e-3, help="the learning rate at the start")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the trees")
    return parser.parse_args(arguments)


def main() -> None:
    train(parse())


if __name__ == "__main__":
    main()
