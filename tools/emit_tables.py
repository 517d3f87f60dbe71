"""Print the coefficient tables of scalar_math*.py as Python source.

python tools/emit_tables.py exp expm1 tanh
"""

from __future__ import annotations

import sys

import mpmath as mp
import numpy as np
from minimax import fit
from minimax_fits import FITS


def literal(value: float, bits: int) -> str:
    """The shortest decimal that reads back as the same float."""
    kind = np.float32 if bits == 24 else np.float64
    return repr(kind(value).item()) if bits == 53 else str(kind(value))


def table(name: str) -> str:
    """One table with a row per format."""
    lines = [f"{name.upper()}: Table = {{"]
    for code in ("f32", "f64"):
        job = FITS.get(f"{name}_{code}")
        if job is None:
            continue
        coefs, worst = fit(job)
        lines.append(f'    "{code}": (  # 2**{float(mp.log(worst, 2)):.1f}')
        row = "       "
        for c in coefs:
            word = f" {literal(float(c), job.bits)},"
            if len(row) + len(word) > 98:
                lines.append(row)
                row = "       "
            row += word
        lines += [row, "    ),"]
    return "\n".join([*lines, "}  # fmt: skip"])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(table(name))
