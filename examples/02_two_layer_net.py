"""A two-layer ReLU network on random data, in each of the three modes, beside NumPy.

What it teaches:

* the same graph runs compiled as one program (``static``), op by op through the same kernels
  (``eager``), or by the NumPy definition of every op (``reference``): one argument of Session;
* ``gc.gradients`` and ``assign_sub``: what an optimizer does, written out;
* a fetch may be a dictionary, and a group of updates is one operation.

The network is the field's small classic: N = 64 rows, D_in = 1000 inputs, H = 100 hidden units,
D_out = 10 outputs, the sum of squared differences as loss, gradient descent for 500 steps. The
loss of every step and the final weights are compared with NumPy in float64.

With ``--rate 1e-6`` the loss falls from 26 million to 0.00007, below what the rounding of a
float32 prediction alone makes of it: the weights agree as well as before, but the relative
difference of such a loss says nothing, in any framework. ``--dtype float64`` follows it down.

    python examples/02_two_layer_net.py --mode static
    python examples/02_two_layer_net.py --dtype float64 --rate 1e-6
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import graphc as gc


def random_problem(args: argparse.Namespace) -> tuple[np.ndarray, ...]:
    """Inputs, targets and starting weights, in float64."""
    generator = np.random.RandomState(args.seed)
    n, d_in, h, d_out = args.sizes
    shapes = [(n, d_in), (n, d_out), (d_in, h), (h, d_out)]
    return tuple(generator.standard_normal(shape) for shape in shapes)


def with_numpy(
    problem: tuple[np.ndarray, ...], steps: int, rate: float
) -> tuple[np.ndarray, ...]:
    """Losses and weights, by NumPy in float64 with gradients worked out by hand."""
    x, y, w1, w2 = (array.copy() for array in problem)
    losses = np.empty(steps)
    for step in range(steps):
        hidden = x @ w1
        active = np.maximum(hidden, 0)
        difference = active @ w2 - y
        losses[step] = np.square(difference).sum()
        by_output = 2.0 * difference
        by_hidden = (by_output @ w2.T) * (hidden > 0)
        w2 -= rate * (active.T @ by_output)
        w1 -= rate * (x.T @ by_hidden)
    return losses, w1, w2


def with_graphc(
    problem: tuple[np.ndarray, ...], steps: int, rate: float, mode: str, dtype: str
) -> tuple[tuple[np.ndarray, ...], float]:
    """The same by graphc, and the seconds per step after the first."""
    x_value, y_value, w1_value, w2_value = (array.astype(dtype) for array in problem)
    with gc.Graph().as_default(), gc.Session(mode=mode) as sess:
        x = gc.placeholder(dtype, x_value.shape, name="x")
        y = gc.placeholder(dtype, y_value.shape, name="y")
        w1 = gc.Variable(w1_value, name="w1")
        w2 = gc.Variable(w2_value, name="w2")
        prediction = gc.matmul(gc.nn.relu(gc.matmul(x, w1)), w2)
        loss = gc.reduce_sum(gc.square(prediction - y))
        by_w1, by_w2 = gc.gradients(loss, [w1, w2])
        update = gc.group(w1.assign_sub(rate * by_w1), w2.assign_sub(rate * by_w2))

        sess.run(gc.global_variables_initializer())
        feeds = {x: x_value, y: y_value}
        losses = np.empty(steps)
        started = time.perf_counter()
        for step in range(steps):
            losses[step] = sess.run({"loss": loss, "update": update}, feeds)["loss"]
            if step == 0:
                # The first run compiles, or loads what an earlier process has compiled.
                started = time.perf_counter()
        seconds = (time.perf_counter() - started) / max(1, steps - 1)
        w1_found, w2_found = sess.run([w1, w2])
    return (losses, w1_found, w2_found), seconds


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The difference of two arrays, relative to the size of the second."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mode", choices=["static", "eager", "reference"], default="static")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rate", type=float, default=3e-7, help="the learning rate")
    parser.add_argument("--sizes", type=int, nargs=4, default=[64, 1000, 100, 10],
                        metavar=("N", "D_IN", "H", "D_OUT"))  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the random data")
    args = parser.parse_args()

    problem = random_problem(args)
    expected = with_numpy(problem, args.steps, args.rate)
    found, seconds = with_graphc(problem, args.steps, args.rate, args.mode, args.dtype)
    print(f"{args.mode} {args.dtype}: {args.steps} steps, {seconds * 1e6:.0f} us each")
    print(f"loss {found[0][0]:.6g} at first, {found[0][-1]:.6g} at last")
    print("relative differences to NumPy in float64:")
    print(f"  loss {np.abs(found[0] / expected[0] - 1).max():.1e} in the worst of all steps")
    print(f"  w1   {relative(found[1], expected[1]):.1e}")
    print(f"  w2   {relative(found[2], expected[2]):.1e}")


if __name__ == "__main__":
    main()
