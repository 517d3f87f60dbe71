"""Newton's iteration and the Mandelbrot set: loops in the graph, which end when the values say so.

What it shows:

* ``gc.while_loop`` whose condition depends on what it computes: square roots, by as many
  turns as they need, and their derivatives by ``gc.gradients`` through the loop;
* Newton's iteration for z^3 = 1 from every point of a picture at once, until every point is at a
  root; colours are the root that is reached, shades how soon;
* the Mandelbrot set: a loop over blocks of rows, and in it a loop that ends as soon as every point
  of the block has escaped.

Each is one native call, with the loops inside.

    python examples/06_newton_mandelbrot.py --picture out/fractals.png

prints, among others::

    sqrt(1e-06) = 0.001000000000000 in 14 turns, off by 0.0e+00, slope off by 0.0e+00
    z^3 = 1: 262144 points at a root after 57 turns, shares 0.345 0.327 0.327
    Mandelbrot set: area 1.514 by 16618170 turns of points in 0.04 s
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.data.canvas import write_png

ROOTS = [(1.0, 0.0), (-0.5, math.sqrt(0.75)), (-0.5, -math.sqrt(0.75))]  # of z^3 = 1
COLOURS = np.array([(214, 73, 51), (44, 110, 180), (240, 176, 46)], np.float64)
CLOSE = 1e-3  # to a root: from there Newton's iteration goes to this root
ESCAPED = 16.0  # the square of a radius from which no point comes back


# --- the graphs -------------------------------------------------------------------------------


def square_root(number: gc.Tensor) -> tuple[gc.Tensor, gc.Tensor]:
    """Newton's iteration x -> (x + a / x) / 2 until x no longer falls; and how many turns it took.

    From the right of the root the iteration falls until rounding stops it: no tolerance is needed.
    """
    start = (number + 1.0) / 2.0

    def better(x: Any) -> Any:
        return (x + number / x) / 2.0

    root, _, turns = gc.while_loop(
        lambda x, following, _: following < x,
        lambda _, following, turns: (following, better(following), turns + 1),
        (start, better(start), gc.constant(0)),
    )
    return root, turns


def basins(re: gc.Tensor, im: gc.Tensor, most: int) -> tuple[gc.Tensor, gc.Tensor, gc.Tensor]:
    """Newton's iteration for z^3 = 1 from every point until all are at a root.

    Returns:
      The number of the root nearest to each point's last place, the turns that each point took,
      and the turns of the loop.
    """

    def distances(x: Any, y: Any) -> Any:
        return gc.stack([gc.square(x - a) + gc.square(y - b) for a, b in ROOTS])

    def body(x: Any, y: Any, taken: Any, _: Any) -> Any:
        away = gc.reduce_min(distances(x, y), 0) > CLOSE**2
        # z - (z^3 - 1) / (3 z^2) = (2 z + 1 / z^2) / 3, and 1 / z^2 = conj(z)^2 / |z|^4.
        share = 1.0 / gc.maximum(gc.square(gc.square(x) + gc.square(y)), 1e-12)
        following = (
            (2.0 * x + (x * x - y * y) * share) / 3.0,
            (2.0 * y - 2.0 * x * y * share) / 3.0,
        )
        x, y = gc.where(away, following[0], x), gc.where(away, following[1], y)
        return x, y, taken + gc.to_int32(away), gc.reduce_any(away)

    x, y, taken, _ = gc.while_loop(
        lambda *values: values[-1],
        body,
        (re, im, gc.zeros_like(re, gc.int32), gc.constant(True)),
        maximum_iterations=most,
    )
    return gc.argmin(distances(x, y), 0), taken, gc.reduce_max(taken)


def mandelbrot(re: gc.Tensor, im: gc.Tensor, most: int) -> gc.Tensor:
    """The turns that z -> z^2 + c takes to escape, ``most`` within the set.

    Args:
      re: the real parts of c of a row, [width].
      im: the imaginary parts of the rows, [blocks, rows of a block].
      most: the most turns.
    Returns:
      [blocks, rows of a block, width].
    """

    def block(rows: Any) -> Any:
        """A block of rows: where all points have escaped early, its loop ends early."""
        c_im = gc.tile(rows[:, gc.newaxis], [1, gc.size(re)])

        def body(x: Any, y: Any, taken: Any, _: Any) -> Any:
            inside = gc.square(x) + gc.square(y) < ESCAPED
            # A point that has escaped stays where it is, or it would soon be infinite.
            following = x * x - y * y + re
            y = gc.where(inside, 2.0 * x * y + c_im, y)
            x = gc.where(inside, following, x)
            return x, y, taken + gc.to_int32(inside), gc.reduce_any(inside)

        zeros = gc.zeros_like(c_im)
        _, _, taken, _ = gc.while_loop(
            lambda *values: values[-1],
            body,
            (zeros, zeros, gc.zeros_like(c_im, gc.int32), gc.constant(True)),
            maximum_iterations=most,
        )
        return taken

    return gc.map_fn(block, im, dtype=gc.int32)


# --- what is done with them -------------------------------------------------------------------


def show_square_roots(numbers: list[float]) -> None:
    """Print roots and how far they and their derivatives are from the true ones."""
    with gc.Graph().as_default(), gc.Session() as sess:
        number = gc.placeholder(gc.float64, [], name="number")
        root, turns = square_root(number)
        run = sess.make_callable([root, turns, *gc.gradients(root, number)], [number])
        for a in numbers:
            found, count, slope = run(np.float64(a))
            print(f"sqrt({a:g}) = {found:.15f} in {count} turns, off by "
                  f"{abs(found - math.sqrt(a)):.1e}, slope off by "
                  f"{abs(slope - 0.5 / math.sqrt(a)):.1e}")  # fmt: skip


def newton_picture(size: int) -> np.ndarray:
    """Which root every point of a square goes to, as colours [size, size, 3]."""
    with gc.Graph().as_default(), gc.Session() as sess:
        re = gc.placeholder(gc.float32, [None, None], name="re")
        im = gc.placeholder(gc.float32, [None, None], name="im")
        fetches = basins(re, im, 200)
        # An even number of points, so that none is at 0, from where there is no next one.
        axis = np.linspace(-1.5, 1.5, size + size % 2, dtype=np.float32)
        x, y = np.meshgrid(axis, -axis)
        root, taken, turns = sess.run(fetches, {re: x, im: y})
    shares = " ".join(f"{np.mean(root == k):.3f}" for k in range(3))
    print(f"z^3 = 1: {root.size} points at a root after {turns} turns, shares {shares}")
    shade = 0.25 + 0.75 * 0.9 ** taken[..., np.newaxis]
    return COLOURS[root] * shade


def mandelbrot_picture(size: int, most: int, block: int = 8) -> np.ndarray:
    """The Mandelbrot set, white, in colours of the turns that points around it take."""
    size += -size % block
    with gc.Graph().as_default(), gc.Session() as sess:
        re = gc.placeholder(gc.float32, [None], name="re")
        im = gc.placeholder(gc.float32, [None, None], name="im")
        taken = mandelbrot(re, im, most)
        x = np.linspace(-2.1, 0.7, size, dtype=np.float32)
        y = np.linspace(1.4, -1.4, size, dtype=np.float32).reshape(-1, block)
        sess.run(taken, {re: x[:1], im: y[:1]})  # compiles; what follows is measured
        started = time.perf_counter()
        turns = sess.run(taken, {re: x, im: y}).reshape(size, size)
        seconds = time.perf_counter() - started
    within = turns == most
    area = 2.8**2 * np.mean(within)
    print(f"Mandelbrot set: area {area:.3f} by {turns.sum()} turns of points in {seconds:.2f} s")
    phase = np.log1p(turns)[..., np.newaxis] * 1.3 + np.array([2.6, 3.1, 3.9])
    colours = 255 * (0.5 + 0.5 * np.cos(phase))
    return np.asarray(np.where(within[..., np.newaxis], 255.0, colours))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels of each picture's side")
    parser.add_argument("--most", type=int, default=300, help="turns after which no point escapes")
    parser.add_argument("--picture", metavar="PATH", help="draw both, side by side")
    args = parser.parse_args()

    show_square_roots([2.0, 10.0, 1e-6, 12345.678])
    newton = newton_picture(args.size)
    fractal = mandelbrot_picture(args.size, args.most)
    if args.picture:
        height = max(len(newton), len(fractal))
        both = np.zeros((height, newton.shape[1] + fractal.shape[1], 3), np.uint8)
        both[: len(newton), : len(newton)] = np.clip(newton, 0, 255)
        both[: len(fractal), len(newton) :] = np.clip(fractal, 0, 255)
        write_png(Path(args.picture), both)
        print(f"drew {args.picture}")


if __name__ == "__main__":
    main()
