"""Linear and logistic regression: the smallest graphs that learn something.

What it teaches:

* a graph is declared first (placeholders, variables, expressions) and run afterwards;
* ``gc.train`` adds gradients and updates to the graph: one ``run`` is one step of the descent;
* a ``None`` in a placeholder's shape is any size, so the same program takes one row or a thousand;
* ``gc.gradients`` gives gradients as tensors, which one can fetch and look at.

    python examples/01_linear_and_logistic_regression.py
"""

from __future__ import annotations

import argparse

import numpy as np

import graphc as gc


def linear_regression(steps: int, rows: int = 200) -> tuple[float, float]:
    """Fit y = slope * x + intercept to noisy points; returns what was found."""
    generator = np.random.RandomState(0)
    xs = generator.uniform(-1, 1, rows)
    ys = 3.0 * xs + 0.5 + generator.normal(scale=0.1, size=rows)

    with gc.Graph().as_default(), gc.Session() as sess:
        x = gc.placeholder(gc.float32, [None], name="x")
        y = gc.placeholder(gc.float32, [None], name="y")
        slope = gc.Variable(0.0, name="slope")
        intercept = gc.Variable(0.0, name="intercept")
        loss = gc.reduce_mean(gc.square(slope * x + intercept - y))
        update = gc.train.GradientDescentOptimizer(0.3).minimize(loss)

        sess.run(gc.global_variables_initializer())
        for step in range(steps):
            # The loss and the update come from one program; the loss is that before the update.
            value, _ = sess.run([loss, update], {x: xs, y: ys})
            if step % max(1, steps // 4) == 0:
                print(f"  step {step:4}  loss {value:.4f}")
        found = sess.run([slope, intercept])
        gradient = sess.run(gc.gradients(loss, slope), {x: xs, y: ys})[0]

    expected = np.polyfit(xs, ys, 1)
    print(f"  y = {found[0]:.4f} x + {found[1]:.4f}; "
          f"least squares gives {expected[0]:.4f} x + {expected[1]:.4f}")  # fmt: skip
    print(f"  the loss changes with the slope by {gradient:.1e}: a minimum")
    return float(found[0]), float(found[1])


def logistic_regression(steps: int) -> float:
    """Tell the ten digits apart with one matrix; returns the accuracy on the test images."""
    digits = gc.data.digits()
    rows = {
        "train": digits.train.as_float().reshape(-1, 64),
        "test": digits.test.as_float().reshape(-1, 64),
    }

    with gc.Graph().as_default(), gc.Session() as sess:
        x = gc.placeholder(gc.float32, [None, 64], name="x")
        label = gc.placeholder(gc.int64, [None], name="label")
        weights = gc.Variable(gc.zeros([64, 10]), name="weights")
        biases = gc.Variable(gc.zeros([10]), name="biases")
        logits = gc.matmul(x, weights) + biases
        loss = gc.reduce_mean(
            gc.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)
        )
        correct = gc.equal(gc.argmax(logits, 1), label)
        accuracy = gc.reduce_mean(gc.cast(correct, gc.float32))
        update = gc.train.AdamOptimizer(0.05).minimize(loss)

        sess.run(gc.global_variables_initializer())
        train = {x: rows["train"], label: digits.train.labels}
        for step in range(steps):
            value, _ = sess.run([loss, update], train)
            if step % max(1, steps // 4) == 0:
                print(f"  step {step:4}  loss {value:.4f}")
        found = float(sess.run(accuracy, {x: rows["test"], label: digits.test.labels}))
        # The placeholder has a None, so that one image goes through as well as 360 do.
        image = rows["test"][:1]
        said = int(sess.run(gc.argmax(logits, 1), {x: image})[0])
    print(f"  {found:.1%} of {len(digits.test)} test images right")
    print(f"  the first one is a {digits.test.labels[0]}, the model says {said}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of the descent")
    args = parser.parse_args()
    print("linear regression")
    linear_regression(args.steps)
    print("logistic regression")
    logistic_regression(args.steps)


if __name__ == "__main__":
    main()
