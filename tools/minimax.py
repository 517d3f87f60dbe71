"""Minimax polynomials for graphc/loop/scalar_math*.py, fitted with mpmath.

Remez' exchange on a weighted error, in high precision, for any set of powers. Coefficients are
rounded to the target format one after another, lowest power first, and the rest are fitted again
after each rounding, so that the later ones make up for the rounding of the earlier ones.

    python tools/minimax.py exp_f32        # one fit, with its error bound
    python tools/minimax.py --all
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath as mp
import numpy as np

mp.mp.dps = 90
Fn = Callable[[mp.mpf], mp.mpf]


def round_to(value: mp.mpf, bits: int) -> mp.mpf:
    """``value`` rounded to a float of 24 or 53 bits (or any other number of them)."""
    if value == 0:
        return value
    _, exponent = mp.frexp(value)
    scaled = mp.nint(mp.ldexp(value, bits - exponent))
    return mp.ldexp(scaled, exponent - bits)


def _grid(lo: mp.mpf, hi: mp.mpf, count: int) -> list[mp.mpf]:
    mid, half = (lo + hi) / 2, (hi - lo) / 2
    return [mid - half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def _extrema(errors: Sequence[mp.mpf], want: int) -> list[int]:
    """Indices of ``want`` alternating extrema of the error, the largest run of them."""
    picks: list[int] = []
    for i, e in enumerate(errors):
        if picks and (e > 0) == (errors[picks[-1]] > 0):
            if abs(e) > abs(errors[picks[-1]]):
                picks[-1] = i
        else:
            picks.append(i)
    while len(picks) > want:
        ends = (abs(errors[picks[0]]), abs(errors[picks[-1]]))
        picks.pop(0 if ends[0] < ends[1] else -1)
    return picks


def remez(
    points: Sequence[mp.mpf],
    values: Sequence[mp.mpf],
    weights: Sequence[mp.mpf],
    powers: Sequence[int],
) -> tuple[list[mp.mpf], mp.mpf]:
    """Coefficients for the powers and the largest weighted error on the points."""
    n = len(powers)
    basis = [[x**p for p in powers] for x in points]
    if n == 0:
        return [], max(abs(v * w) for v, w in zip(values, weights, strict=True))
    last = len(points) - 1
    angles = [mp.pi * (i + mp.mpf("0.5")) / (n + 1) for i in range(n + 1)]
    refs = [round(last * (1 - mp.cos(angle)) / 2) for angle in angles]
    best: tuple[list[mp.mpf], mp.mpf] | None = None
    for _ in range(30):
        a = mp.matrix(n + 1, n + 1)
        b = mp.matrix(n + 1, 1)
        for row, i in enumerate(refs):
            for col in range(n):
                a[row, col] = basis[i][col]
            a[row, n] = (-1) ** row / weights[i]
            b[row] = values[i]
        solution = mp.lu_solve(a, b)
        coefs = [solution[k] for k in range(n)]
        errors = [
            (v - mp.fdot(coefs, row)) * w for v, w, row in zip(values, weights, basis, strict=True)
        ]
        worst = max(abs(e) for e in errors)
        if best is None or worst < best[1]:
            best = (coefs, worst)
        level = abs(solution[n])
        if worst <= level * mp.mpf("1.005"):
            break
        picks = _extrema(errors, n + 1)
        if len(picks) < n + 1:
            break
        refs = picks
    assert best is not None
    return best


@dataclass(frozen=True)
class Fit:
    """``f(x) ~ sum c_p x**p`` on [lo, hi]; the error is weighed by ``weight``."""

    f: Fn
    lo: object
    hi: object
    powers: Sequence[int]
    weight: Fn
    bits: int


def fit(job: Fit, rounded: bool = True) -> tuple[list[mp.mpf], mp.mpf]:
    """The rounded coefficients and the weighted error that remains."""
    lo, hi = mp.mpf(job.lo), mp.mpf(job.hi)
    points = _grid(lo, hi, max(400, 40 * len(job.powers)))
    values = [job.f(x) for x in points]
    weights = [abs(job.weight(x)) for x in points]
    out: list[mp.mpf] = []
    powers = list(job.powers)
    coefs, worst = remez(points, values, weights, powers)
    if not rounded:
        return coefs, worst
    while powers:
        c = round_to(coefs[0], job.bits)
        out.append(c)
        p = powers.pop(0)
        if not powers:
            left = zip(values, weights, points, strict=True)
            return out, max(abs((v - c * x**p) * w) for v, w, x in left)
        # What is left vanishes at 0 with x**q: divided out, the basis is a Chebyshev system again.
        q = powers[0]
        values = [(v - c * x**p) / x**q for v, x in zip(values, points, strict=True)]
        weights = [w * abs(x) ** q for w, x in zip(weights, points, strict=True)]
        powers = [k - q for k in powers]
        kept = coefs[1:]
        worst = max(
            abs((v - sum(a * x**k for a, k in zip(kept, powers, strict=True))) * w)
            for v, w, x in zip(values, weights, points, strict=True)
        )
        try:
            refit = remez(points, values, weights, powers)
        except ZeroDivisionError:  # degenerate at this precision: what there is will do
            refit = kept, worst
        coefs, worst = min((kept, worst), refit, key=lambda pair: pair[1])
    return out, worst


def show(name: str, job: Fit) -> None:
    """Print the coefficients as Python literals, and log2 of the error bound."""
    coefs, worst = fit(job)
    kind = np.float32 if job.bits == 24 else np.float64
    print(f"{name}: error 2**{float(mp.log(worst, 2)):.2f}")
    for c in coefs:
        print(f"    {np.format_float_scientific(kind(float(c)), unique=True)!s},")


FITS: dict[str, Fit] = {}


def main() -> None:
    """Print the named fits."""
    import minimax_fits

    names = list(minimax_fits.FITS) if sys.argv[1:] == ["--all"] else sys.argv[1:]
    for name in names:
        show(name, minimax_fits.FITS[name])


if __name__ == "__main__":
    main()
