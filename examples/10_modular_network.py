"""A modular network: every example assembles its own layers, and all of them are trained together.

What it shows:

* an example is a handwritten digit and a program of 0 to 4 commands: of a 7 and the program
  "add 1, times 3" the answer is 4, the last digit of 24;
* ``gc.switch_case`` in ``gc.while_loop`` in ``gc.map_fn``: for every example, for every command,
  the branch of its module runs, and the others cost nothing;
* gradients through all three: the reader of digits and the modules learn end to end from the
  answers alone; nobody tells the network which digit it sees, or what a command means;
* programs of another length in the test: the loop has as many turns as an example has commands.

    python examples/10_modular_network.py

prints at the end::

    2, times 3, add 1: 7, said 7
    accuracy 98.22% on 1800 test examples of 0 to 4 commands
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gc

CLASSES = 10
# What the commands mean is for making data; the network has a module for each and must find out.
COMMANDS: list[tuple[str, Callable[[Any], Any]]] = [
    ("add 1", lambda digit: digit + 1),
    ("times 3", lambda digit: digit * 3),
    ("times 7", lambda digit: digit * 7),
    ("from 9", lambda digit: 9 - digit),
]
MOST = 4  # commands of a training example


# --- examples ---------------------------------------------------------------------------------


def programs(count: int, fewest: int, most: int, random: np.random.RandomState) -> Any:
    """Commands [count, most] and how many of them each example has."""
    commands = random.randint(len(COMMANDS), size=(count, most)).astype(np.int32)
    return commands, random.randint(fewest, most + 1, size=count).astype(np.int32)


def answers(digits: np.ndarray, commands: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The last digit of what the programs make of the digits."""
    found = digits.copy()
    for place in range(commands.shape[1]):
        for number, (_, meaning) in enumerate(COMMANDS):
            now = (commands[:, place] == number) & (place < lengths)
            found[now] = meaning(found[now]) % 10
    return found


# --- the network ------------------------------------------------------------------------------


def dense(x: Any, units: int, name: str) -> Any:
    """A fully connected layer, without its activation; its weights are made once per name."""
    with gc.variable_scope(name, reuse=gc.AUTO_REUSE):
        weights = gc.get_variable("weights", [x.shape.as_list()[-1], units])
        biases = gc.get_variable("biases", [units], initializer=gc.zeros_initializer())
        return gc.matmul(x, weights) + biases


def modular_network(images: Any, commands: Any, lengths: Any, units: int) -> Any:
    """The logits of the answers, for images [batch, pixels] and commands [batch, places]."""
    thoughts = gc.nn.relu(dense(images, 4 * units, "reader/hidden"))
    thoughts = gc.tanh(dense(thoughts, units, "reader/thought"))

    def module(number: int, thought: Any) -> Any:
        hidden = gc.nn.relu(dense(thought, 4 * units, f"module{number}/hidden"))
        return gc.tanh(dense(hidden, units, f"module{number}/thought"))

    def run(example: Any) -> Any:
        """One example's thought after the modules that its commands name."""
        thought, program, length = example

        def body(place: Any, thought: Any) -> Any:
            branches = {
                number: lambda number=number: module(number, thought)
                for number in range(len(COMMANDS))
            }
            return place + 1, gc.switch_case(program[place], branches)

        _, thought = gc.while_loop(
            lambda place, _: place < length, body, (gc.constant(0), thought[gc.newaxis])
        )
        return thought[0]

    thoughts = gc.map_fn(run, (thoughts, commands, lengths), dtype=gc.float32)
    return dense(thoughts, CLASSES, "answer")


# --- training ---------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> tuple[float, float]:
    """Train and test; the accuracy with programs as long as in training, and with longer ones."""
    dataset = gc.data.digits()
    pixels = dataset.train.as_float().reshape(-1, 64)
    random = np.random.RandomState(args.seed)
    gc.set_random_seed(args.seed)
    images = gc.placeholder(gc.float32, [None, 64], name="images")
    commands = gc.placeholder(gc.int32, [None, None], name="commands")
    lengths = gc.placeholder(gc.int32, [None], name="lengths")
    right = gc.placeholder(gc.int64, [None], name="right")
    logits = modular_network(images, commands, lengths, args.units)
    said = gc.argmax(logits, 1)
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=right, logits=logits)
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
        train_step = sess.make_callable([loss, update], [images, commands, lengths, right])
        losses = []
        started = time.perf_counter()
        with gc.data.Progress(args.steps, label="training", unit="step") as progress:
            for _ in range(args.steps):
                chosen = random.randint(len(pixels), size=args.batch)
                program = programs(args.batch, 0, MOST, random)
                truth = answers(dataset.train.labels[chosen], *program)
                losses.append(float(train_step(pixels[chosen], *program, truth)[0]))
                progress.update(loss=losses[-1])
        seconds = time.perf_counter() - started
        print(f"{args.steps} steps in {seconds:.1f} s, loss {np.mean(losses[-100:]):.4f}")
        results = []
        for fewest, most in ((0, MOST), (MOST + 1, 2 * MOST)):
            results.append(tested(sess, said, (images, commands, lengths), fewest, most, random))
    return results[0], results[1]


def tested(
    sess: gc.Session, said: Any, inputs: Any, fewest: int, most: int, random: np.random.RandomState
) -> float:
    """The accuracy with the test images, each with five programs."""
    test = gc.data.digits().test
    pixels, digits = test.as_float().reshape(-1, 64).repeat(5, axis=0), test.labels.repeat(5)
    program = programs(len(digits), fewest, most, random)
    truth = answers(digits, *program)
    found = sess.run(said, dict(zip(inputs, (pixels, *program), strict=True)))
    accuracy = float(np.mean(found == truth))
    shown = ", ".join(COMMANDS[k][0] for k in program[0][0, : program[1][0]])
    print(f"{digits[0]}, {shown or 'no command'}: {truth[0]}, said {found[0]}")
    print(f"accuracy {accuracy:.2%} on {len(digits)} test examples of {fewest} to {most} commands")
    return accuracy


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line unless they are given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of the training")
    parser.add_argument("--batch", type=int, default=64, help="examples per step")
    parser.add_argument("--units", type=int, default=24, help="of every thought")
    parser.add_argument("--rate", type=float, default=5e-3, help="the learning rate at the start")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the examples")
    return parser.parse_args(arguments)


def main() -> None:
    train(parse())


if __name__ == "__main__":
    main()
