"""A character LSTM: a network that reads a text and then writes one, inside the graph.

What it shows:

* ``gc.nn.dynamic_rnn`` over a text; 64 characters of every training step go back through time;
* a state that is carried from step to step in variables, so that the network remembers further
  back than its gradients reach;
* Adam with a learning rate that is part of the graph, and gradients clipped by their global norm;
* a validation text of any length in one run: the loop's turns are a size like any other;
* sampling by ``gc.while_loop``: every character is drawn by ``gc.multinomial`` and fed to the next
  step within the graph, so that a sample of 500 characters is one native call.

The text is ``--text``, or tinyshakespeare/input.txt in the folder that GRAPHC_DATA names, or else
sums in English words, which the script makes itself.

    python examples/08_char_lstm.py --sample 500

prints on tinyshakespeare, whose budget is twice through the text, 2 CPU cores and two minutes::

    epoch 2: training loss 1.549, validation loss 1.646 nats per character, 54 s
    --- a sample of 500 characters, one native call
    ROMEO:
    Cart wrong-my can with the dears and pressedard.
    One we will for the father Procour man with him;
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc

LARGEST_NORM = 5.0  # of all gradients together: a rare steep step must not undo many others
FORGETFUL = 0.1  # the share of texts that begin anew at a step: or nothing learns how to begin
VALIDATION_STREAMS = 50

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
        "nineteen"]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


# --- the text ---------------------------------------------------------------------------------


def load(path: str | None, generated: bool) -> tuple[gc.data.Text, str]:
    """The text, and what it is called."""
    if not generated:
        try:
            return gc.data.text(path), path or "tinyshakespeare"
        except gc.data.DataNotFoundError:
            if path is not None:
                raise
            print("tinyshakespeare is not on this machine (set GRAPHC_DATA): using sums in words.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sums.txt")
        file.write_text(sums(2000), encoding="utf-8")
        return gc.data.text(file), "sums in words"


def sums(lines: int) -> str:
    """Sums of two numbers below fifty, in words: a text with a grammar and a meaning."""
    pairs = np.random.RandomState(0).randint(50, size=(lines, 2))
    return "".join(f"{words(a)} and {words(b)} make {words(a + b)}.\n" for a, b in pairs.tolist())


def words(number: int) -> str:
    """A number below a hundred in words."""
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")


def streams(ids: np.ndarray, count: int) -> np.ndarray:
    """A text as ``count`` texts side by side, [time, count]; what is left over is dropped."""
    steps = len(ids) // count
    return np.ascontiguousarray(ids[: steps * count].reshape(count, steps).T)


# --- the network ------------------------------------------------------------------------------


class Network:
    """Characters in, the logits of the next character out; made once, used three times."""

    def __init__(self, characters: int, units: int) -> None:
        self.units = units
        self.embedding = gc.get_variable(
            "embedding", [characters, units // 4],
            initializer=gc.random_uniform_initializer(-0.5, 0.5),
        )  # fmt: skip
        self.cell = gc.nn.rnn_cell.BasicLSTMCell(units)
        self.weights = gc.get_variable("output/weights", [units, characters])
        self.biases = gc.get_variable(
            "output/biases", [characters], initializer=gc.zeros_initializer()
        )

    def read(self, ids: gc.Tensor, state: Any) -> tuple[gc.Tensor, Any]:
        """The logits after each of ``ids``, [time, batch], and the state at the end."""
        outputs, state = gc.nn.dynamic_rnn(
            self.cell, gc.gather(self.embedding, ids), initial_state=state, time_major=True
        )
        return self.logits(gc.reshape(outputs, [-1, self.units])), state

    def step(self, ids: gc.Tensor, state: Any) -> tuple[gc.Tensor, Any]:
        """The logits after one character of every text, ids [batch], and the state."""
        output, state = self.cell(gc.gather(self.embedding, ids), state)
        return self.logits(output), state

    def logits(self, outputs: gc.Tensor) -> gc.Tensor:
        return gc.matmul(outputs, self.weights) + self.biases

    def loss(self, ids: gc.Tensor, state: Any) -> tuple[gc.Tensor, Any]:
        """Nats per character of ``ids`` [time + 1, batch], each foretold from those before it."""
        logits, state = self.read(ids[:-1], state)
        right = gc.reshape(ids[1:], [-1])
        each = gc.nn.sparse_softmax_cross_entropy_with_logits(labels=right, logits=logits)
        return gc.reduce_mean(each), state


@dataclass
class Graph:
    """What the script runs."""

    ids: Any  # [time + 1, batch], fed
    loss: Any
    update: Any
    forget: Any  # sets the carried state to zeros
    validation: Any
    prompt: Any  # [time], fed
    length: Any  # a scalar, fed
    sample: Any


def build(characters: int, steps: int, args: argparse.Namespace) -> Graph:
    """The graph of training, validation and sampling, with shared weights."""
    gc.set_random_seed(args.seed)
    network = Network(characters, args.units)
    ids = gc.placeholder(gc.int32, [None, None], name="ids")

    # Training: the state is read from variables and written back with the update.
    carried = [
        gc.get_variable(
            name, [args.batch, args.units], initializer=gc.zeros_initializer(), trainable=False
        )
        for name in ("carried_c", "carried_h")
    ]
    known = gc.floor(gc.random_uniform([args.batch, 1]) + (1.0 - FORGETFUL))
    loss, after = network.loss(ids, gc.nn.rnn_cell.LSTMStateTuple(*(x * known for x in carried)))
    step = gc.train.get_or_create_global_step()
    rate = gc.train.polynomial_decay(args.rate, step, steps, args.rate / 3)
    optimizer = gc.train.AdamOptimizer(rate)
    weights = gc.trainable_variables()
    gradients, _ = gc.clip_by_global_norm(gc.gradients(loss, weights), LARGEST_NORM)
    update = optimizer.apply_gradients(zip(gradients, weights, strict=True), global_step=step)
    with gc.control_dependencies([loss]):
        kept = [gc.assign(to, value) for to, value in zip(carried, after, strict=True)]

    start = network.cell.zero_state(gc.shape(ids)[1], gc.float32)
    validation, _ = network.loss(ids, start)
    prompt = gc.placeholder(gc.int32, [None], name="prompt")
    length = gc.placeholder(gc.int32, [], name="length")
    return Graph(
        ids=ids,
        loss=loss,
        update=gc.group(update, *kept),
        forget=gc.variables_initializer(carried),
        validation=validation,
        prompt=prompt,
        length=length,
        sample=sampled(network, prompt, length, args.temperature),
    )


def sampled(
    network: Network, prompt: gc.Tensor, length: gc.Tensor, temperature: float
) -> gc.Tensor:
    """``length`` characters after ``prompt``, each drawn and fed to the next step."""
    _, state = network.read(prompt[:, gc.newaxis], network.cell.zero_state(1, gc.float32))
    written = gc.TensorArray(gc.int32, size=length, element_shape=[])

    def body(i: Any, logits: Any, state: Any, written: Any) -> Any:
        drawn = gc.multinomial(logits / temperature, 1, output_dtype=gc.int32)[:, 0]
        following, state = network.step(drawn, state)
        return i + 1, following, state, written.write(i, drawn[0])

    first = (gc.constant(0), network.logits(state.h), state, written)
    *_, written = gc.while_loop(lambda i, *_: i < length, body, first)
    return written.stack()


# --- training ---------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> tuple[float, str]:
    """Train, validate and write.

    Returns:
      The validation loss in nats per character, and the sample.
    """
    text, name = load(args.text, args.quick)
    print(f"{name}: {text}")
    border = len(text) - len(text) // 10
    training = streams(text.ids[:border], args.batch)
    validation = streams(text.ids[border:], VALIDATION_STREAMS)
    starts = range(0, len(training) - args.steps, args.steps)
    if args.epochs is None:
        args.epochs = 2 if len(text) > 500_000 else 20
    graph = build(len(text.vocabulary), args.epochs * len(starts), args)

    with gc.Session() as sess:
        sess.run(gc.global_variables_initializer())
        train_step = sess.make_callable([graph.loss, graph.update], [graph.ids])
        started = time.perf_counter()
        total = args.epochs * len(starts)
        with gc.data.Progress(total, label="training", unit="step") as progress:
            for epoch in range(args.epochs):
                sess.run(graph.forget)
                losses = []
                for start in starts:
                    ids = training[start : start + args.steps + 1]
                    losses.append(float(train_step(ids)[0]))
                    progress.update(epoch=epoch + 1, loss=losses[-1])
                found = float(sess.run(graph.validation, {graph.ids: validation}))
                print(
                    f"epoch {epoch + 1}: training loss {np.mean(losses):.3f}, validation loss "
                    f"{found:.3f} nats per character, {time.perf_counter() - started:.0f} s",
                    flush=True,
                )
        prompt = text.encode(args.prompt if name != "sums in words" else "two and two make")
        ids = sess.run(graph.sample, {graph.prompt: prompt, graph.length: args.sample})
    sample = text.decode(prompt) + text.decode(ids)
    print(f"--- a sample of {args.sample} characters, one native call\n{sample}")
    return found, sample


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line unless they are given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", metavar="PATH", help="a UTF-8 text to learn")
    parser.add_argument("--units", type=int, default=256, help="of the LSTM")
    parser.add_argument("--batch", type=int, default=32, help="texts side by side")
    parser.add_argument("--steps", type=int, default=64, help="characters of a training step")
    parser.add_argument("--epochs", type=int, help="times through the text; 2 of "
                        "tinyshakespeare, 20 of a short one by default")  # fmt: skip
    parser.add_argument("--rate", type=float, default=4e-3, help="the learning rate at the start")
    parser.add_argument("--sample", type=int, default=300, help="characters to write at the end")
    parser.add_argument("--prompt", default="ROMEO:\n", help="what the sample goes on from")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the drawing: below 1 "
                        "the likely characters become likelier")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the sample")
    parser.add_argument("--quick", action="store_true", help="learn the sums in any case")
    return parser.parse_args(arguments)


def main() -> None:
    train(parse())


if __name__ == "__main__":
    main()
