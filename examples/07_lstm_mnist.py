"""An LSTM that reads handwritten digits row by row, 28 steps of 28 pixels.

What it shows:

* ``gc.nn.dynamic_rnn``: a loop in the graph, forward and backward, in one native call per step of
  the training; the compiled code does not grow with the steps;
* the last state of the loop as the input of a classifier;
* a training rate that falls to zero, and gradients clipped by their global norm;
* a batch size that is not fixed: all test images go through the network in pieces of 1000.

MNIST is read from the folder that GRAPHC_DATA names or from the cache of ``gc.data.mnist()``;
without it, the 8x8 digits of the package are read as 8 steps of 8.

    python examples/07_lstm_mnist.py --picture out/lstm.png

prints on MNIST, after 3 epochs on 2 cores::

    2811 steps in 40.7 s, loss 0.0269
    test accuracy 98.80%
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import graphc as gc

CLASSES = 10
LARGEST_NORM = 1.0  # of all gradients together


def load(quick: bool) -> tuple[gc.data.Dataset, np.ndarray, np.ndarray]:
    """MNIST where it is on this machine, else the built-in digits; images as [N, steps, pixels]."""
    try:
        dataset = gc.data.digits() if quick else gc.data.mnist(download=False)
    except gc.data.DataNotFoundError:
        print("MNIST is not on this machine (set GRAPHC_DATA): using the built-in 8x8 digits.")
        dataset = gc.data.digits()
    return dataset, dataset.train.as_float()[..., 0], dataset.test.as_float()[..., 0]


def network(images: gc.Tensor, units: int) -> gc.Tensor:
    """The logits of the digits: what an LSTM knows after the last row, through one matrix."""
    # Rows first: the loop then takes whole blocks of memory, one per step.
    rows = gc.transpose(images, [1, 0, 2])
    cell = gc.nn.rnn_cell.BasicLSTMCell(units)
    _, state = gc.nn.dynamic_rnn(cell, rows, dtype=gc.float32, time_major=True)
    weights = gc.get_variable("output/weights", [units, CLASSES])
    biases = gc.get_variable("output/biases", [CLASSES], initializer=gc.zeros_initializer())
    return gc.matmul(state.h, weights) + biases


def minimize(loss: gc.Tensor, rate: float, steps: int) -> gc.Operation:
    """One step of Adam, its rate falling to zero over ``steps``, on clipped gradients."""
    step = gc.train.get_or_create_global_step()
    optimizer = gc.train.AdamOptimizer(gc.train.cosine_decay(rate, step, steps))
    weights = gc.trainable_variables()
    gradients, _ = gc.clip_by_global_norm(gc.gradients(loss, weights), LARGEST_NORM)
    return optimizer.apply_gradients(zip(gradients, weights, strict=True), global_step=step)


def train(args: argparse.Namespace) -> float:
    """Train, test and draw; returns the accuracy on the test images."""
    dataset, train_images, test_images = load(args.quick)
    print(dataset)
    if args.epochs is None:
        args.epochs = 3 if len(train_images) > 10_000 else 60
    steps = args.epochs * (len(train_images) // args.batch)

    gc.set_random_seed(args.seed)
    images = gc.placeholder(gc.float32, [None, *train_images.shape[1:]], name="images")
    labels = gc.placeholder(gc.int64, [None], name="labels")
    logits = network(images, args.units)
    digit = gc.argmax(logits, 1, name="digit")
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    update = minimize(loss, args.rate, steps)

    with gc.Session() as sess:
        sess.run(gc.global_variables_initializer())
        train_step = sess.make_callable([loss, update], [images, labels])
        losses = []
        started = time.perf_counter()
        with gc.data.Progress(steps, label="training", unit="step") as progress:
            for epoch in range(args.epochs):
                for batch in gc.data.batches(
                    (train_images, dataset.train.labels), args.batch,
                    seed=[args.seed, epoch], drop_remainder=True,
                ):  # fmt: skip
                    losses.append(float(train_step(*batch)[0]))
                    progress.update(epoch=epoch + 1, loss=losses[-1])
        seconds = time.perf_counter() - started

        predict = sess.make_callable(digit, [images])
        pieces = np.array_split(test_images, max(1, len(test_images) // 1000))
        said = np.concatenate([predict(piece) for piece in pieces])
    accuracy = float(np.mean(said == dataset.test.labels))
    print(f"{steps} steps in {seconds:.1f} s, loss {np.mean(losses[-100:]):.4f}")
    print(f"test accuracy {accuracy:.2%}")
    if args.picture:
        path = gc.data.training_picture(
            args.picture, losses, dataset.test.images, dataset.test.labels, said,
            title=f"An LSTM reads {dataset.name} row by row",
            subtitle=f"{accuracy:.2%} of {len(said):,} test images right after "
                     f"{args.epochs} epochs in {seconds:.0f} s",
        )  # fmt: skip
        print(f"drew {path}")
    return accuracy


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line unless they are given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, help="times through the training images; 3 of "
                        "MNIST, 60 of the digits by default")  # fmt: skip
    parser.add_argument("--units", type=int, default=128, help="of the LSTM")
    parser.add_argument("--batch", type=int, default=64, help="images per training step")
    parser.add_argument("--rate", type=float, default=4e-3, help="the learning rate at the start")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the order")
    parser.add_argument("--picture", metavar="PATH", help="draw the loss and some predictions")
    parser.add_argument("--quick", action="store_true", help="use the built-in digits in any case")
    return parser.parse_args(arguments)


def main() -> None:
    train(parse())


if __name__ == "__main__":
    main()
