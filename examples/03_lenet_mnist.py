"""LeNet on handwritten digits: a convolutional network from data to saved model.

What it teaches:

* a network as a function of tensors, built from ``gc.nn`` and ``gc.Variable``;
* a learning rate that is part of the graph, so that a training step is one native call;
* ``Session.make_callable``, the quickest way to run one fetch many times;
* a batch size that is not fixed: the 10,000 test images go through the program of the
  training batches' network in pieces of another size, with nothing compiled again;
* a progress bar, a picture and a saved file.

MNIST is read from the folder that GRAPHC_DATA names or from the cache of ``gc.data.mnist()``;
without it, the 8x8 digits of the package are enlarged and used instead.

    python examples/03_lenet_mnist.py --picture out/demo.png --save out/lenet.graphc
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

import graphc as gc

CLASSES = 10


def load(quick: bool) -> tuple[gc.data.Dataset, np.ndarray, np.ndarray]:
    """MNIST where it is on this machine, else the built-in digits; images as [N, 28, 28, 1]."""
    try:
        dataset = gc.data.digits() if quick else gc.data.mnist(download=False)
    except gc.data.DataNotFoundError:
        print("MNIST is not on this machine (set GRAPHC_DATA): using the built-in 8x8 digits.")
        dataset = gc.data.digits()
    return dataset, enlarged(dataset.train.as_float()), enlarged(dataset.test.as_float())


def enlarged(images: np.ndarray) -> np.ndarray:
    """8x8 images as 28x28 ones: every pixel three by three, and a frame of two."""
    if images.shape[1] == 28:
        return images
    tripled = images.repeat(3, axis=1).repeat(3, axis=2)
    return np.pad(tripled, ((0, 0), (2, 2), (2, 2), (0, 0)))


def weights(shape: list[int], inputs: int, name: str) -> gc.Variable:
    """Random weights of a layer with ``inputs`` inputs per output, scaled for ReLU."""
    start = gc.truncated_normal(shape, stddev=math.sqrt(2.0 / inputs))
    return gc.Variable(start, name=f"{name}/weights")


def biases(size: int, name: str) -> gc.Variable:
    """Biases that start at zero."""
    return gc.Variable(gc.zeros([size]), name=f"{name}/biases")


def convolution(x: gc.Tensor, filters: int, name: str) -> gc.Tensor:
    """5x5 filters, ReLU, and the largest of every 2x2 block."""
    channels = x.shape.as_list()[-1]
    kernel = weights([5, 5, channels, filters], 25 * channels, name)
    maps = gc.nn.conv2d(x, kernel, strides=[1, 1, 1, 1], padding="VALID")
    maps = gc.nn.relu(gc.nn.bias_add(maps, biases(filters, name)))
    return gc.nn.max_pool(maps, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID")


def dense(x: gc.Tensor, size: int, name: str) -> gc.Tensor:
    """A fully connected layer, without its activation."""
    inputs = x.shape.as_list()[-1]
    return gc.matmul(x, weights([inputs, size], inputs, name)) + biases(size, name)


def lenet(images: gc.Tensor) -> gc.Tensor:
    """The logits of LeNet: two convolutions of 20 and 50 filters, 500 units, 10 classes."""
    x = convolution(images, 20, "conv1")
    x = convolution(x, 50, "conv2")
    x = gc.reshape(x, [-1, 4 * 4 * 50])
    x = gc.nn.relu(dense(x, 500, "dense1"))
    return dense(x, CLASSES, "dense2")


def train(args: argparse.Namespace) -> tuple[float, np.ndarray]:
    """Train, test, save and draw.

    Returns:
      The accuracy on the test images, and the probabilities that each is given.
    """
    dataset, train_images, test_images = load(args.quick)
    print(dataset)
    if args.epochs is None:
        args.epochs = 3 if len(train_images) > 10_000 else 30
    steps = args.epochs * (len(train_images) // args.batch)

    gc.set_random_seed(args.seed)
    images = gc.placeholder(gc.float32, [None, 28, 28, 1], name="images")
    labels = gc.placeholder(gc.int64, [None], name="labels")
    logits = lenet(images)
    probability = gc.nn.softmax(logits, name="probability")
    digit = gc.argmax(logits, 1, name="digit")
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    step = gc.train.get_or_create_global_step()
    rate = gc.train.polynomial_decay(args.rate, step, steps, end_learning_rate=0.0)
    update = gc.train.MomentumOptimizer(rate, 0.9).minimize(loss, global_step=step)

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

        predict = sess.make_callable([digit, probability], [images])
        pieces = np.array_split(test_images, max(1, len(test_images) // 1000))
        answers = [predict(piece) for piece in pieces]
        said = np.concatenate([digits for digits, _ in answers])
        accuracy = float(np.mean(said == dataset.test.labels))
        print(f"{steps} steps in {seconds:.1f} s, loss {np.mean(losses[-100:]):.4f}")
        print(f"test accuracy {accuracy:.2%}")
        if args.save:
            Path(args.save).parent.mkdir(parents=True, exist_ok=True)
            gc.save(args.save, sess, [images], [digit, probability])
            print(f"saved {args.save}")
    if args.picture:
        path = gc.data.training_picture(
            args.picture, losses, dataset.test.images, dataset.test.labels, said,
            title=f"LeNet on {dataset.name}",
            subtitle=f"{accuracy:.2%} of {len(said):,} test images right after "
                     f"{args.epochs} epochs in {seconds:.0f} s",
        )  # fmt: skip
        print(f"drew {path}")
    return accuracy, np.concatenate([shares for _, shares in answers])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line unless they are given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, help="times through the training images; 3 of "
                        "MNIST, 30 of the digits by default")  # fmt: skip
    parser.add_argument("--batch", type=int, default=64, help="images per training step")
    parser.add_argument("--rate", type=float, default=0.05, help="the learning rate at the start")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the order")
    parser.add_argument("--picture", metavar="PATH", help="draw the loss and some predictions")
    parser.add_argument("--save", metavar="PATH", help="save the trained network")
    parser.add_argument("--quick", action="store_true", help="use the built-in digits in any case")
    return parser.parse_args(arguments)


def main() -> None:
    train(parse())


if __name__ == "__main__":
    main()
