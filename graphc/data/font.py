"""Letters for pictures, as strokes of a pen on a small grid.

A point is two digits: x from the left, y from the top. Capitals stand from y = 0 to the baseline
at y = 6, small letters begin at y = 2, and descenders end at y = 8. A glyph is one or more
strokes; corners of up to 45 degrees are rounded, sharper ones are kept.
"""

from __future__ import annotations

import math
from functools import cache

BASELINE = 6
DESCENT = 8
Point = tuple[float, float]

_STROKES = {
    " ": "",
    "0": "10 30 41 45 36 16 05 01 10",
    "1": "01 20 26",
    "2": "01 10 30 41 42 06 46",
    "3": "01 10 30 41 42 33 13, 33 44 45 36 16 05",
    "4": "36 30 04 44",
    "5": "40 00 03 12 32 43 45 36 16 05",
    "6": "41 30 10 01 05 16 36 45 44 33 13 04",
    "7": "00 40 16",
    "8": "13 02 01 10 30 41 42 33 13 04 05 16 36 45 44 33",
    "9": "42 33 13 02 01 10 30 41 45 36 16 05",
    "A": "06 20 46, 14 34",
    "B": "06 00 30 41 42 33 03, 33 44 45 36 06",
    "C": "41 30 10 01 05 16 36 45",
    "D": "00 30 41 45 36 06 00",
    "E": "40 00 06 46, 03 33",
    "F": "40 00 06, 03 33",
    "G": "41 30 10 01 05 16 36 45 43 23",
    "H": "00 06, 40 46, 03 43",
    "I": "00 06",
    "J": "30 35 26 16 05",
    "K": "00 06, 40 04, 22 46",
    "L": "00 06 46",
    "M": "06 00 24 40 46",
    "N": "06 00 46 40",
    "O": "10 40 51 55 46 16 05 01 10",
    "P": "06 00 30 41 42 33 03",
    "Q": "10 40 51 55 46 16 05 01 10, 34 56",
    "R": "06 00 30 41 42 33 03, 23 46",
    "S": "41 30 10 01 02 13 33 44 45 36 16 05",
    "T": "00 40, 20 26",
    "U": "00 05 16 36 45 40",
    "V": "00 26 40",
    "W": "00 16 22 36 40",
    "X": "00 46, 40 06",
    "Y": "00 23 40, 23 26",
    "Z": "00 40 06 46",
    "a": "33 22 12 03 05 16 26 35, 32 36",
    "b": "00 06, 03 12 22 33 35 26 16 05",
    "c": "33 22 12 03 05 16 26 35",
    "d": "33 22 12 03 05 16 26 35, 30 36",
    "e": "04 34 33 22 12 03 05 16 26 35",
    "f": "20 11 16, 02 22",
    "g": "33 22 12 03 05 16 26 35, 32 37 28 18 07",
    "h": "00 06, 03 12 22 33 36",
    "i": "02 06, 00 00",
    "j": "12 17 08, 10 10",
    "k": "00 06, 32 05, 14 36",
    "l": "00 06",
    "m": "02 06, 03 12 23 26, 23 32 43 46",
    "n": "02 06, 03 12 22 33 36",
    "o": "12 22 33 35 26 16 05 03 12",
    "p": "02 08, 03 12 22 33 35 26 16 05",
    "q": "33 22 12 03 05 16 26 35, 32 38",
    "r": "02 06, 03 12 22",
    "s": "33 22 12 03 14 24 35 26 16 05",
    "t": "10 15 26, 02 22",
    "u": "02 05 16 26 35, 32 36",
    "v": "02 26 42",
    "w": "02 16 23 36 42",
    "x": "02 36, 32 06",
    "y": "02 26, 42 18",
    "z": "02 32 06 36",
    ".": "06 06",
    ",": "16 07",
    ":": "03 03, 06 06",
    ";": "13 13, 16 07",
    "!": "00 04, 06 06",
    "?": "01 10 30 41 42 23 24, 26 26",
    "'": "00 02",
    '"': "00 02, 20 22",
    "-": "03 33",
    "_": "07 47",
    "+": "03 43, 21 25",
    "=": "02 42, 04 44",
    "<": "41 03 45",
    ">": "01 43 05",
    "/": "30 06",
    "\\": "00 36",
    "|": "00 08",
    "%": "40 06, 01 00 10 11 01, 35 45 46 36 35",
    "(": "10 01 06 17",
    ")": "00 11 16 07",
    "[": "10 00 07 17",
    "]": "00 10 17 07",
    "*": "12 34, 32 14, 03 43",
    "#": "10 16, 30 36, 02 42, 04 44",
    "×": "02 35, 32 05",
    "→": "03 53, 31 53 35",
    "·": "03 03",
}


def advance(character: str) -> float:
    """How far the pen moves on after ``character``, in grid units."""
    if character == " ":
        return 3.0
    return max((x for stroke in strokes(character) for x, _ in stroke), default=0.0) + 1.9


@cache
def strokes(character: str) -> tuple[tuple[Point, ...], ...]:
    """The strokes of ``character``, each a row of points; an unknown one is drawn as ``?``."""
    parts = _STROKES.get(character, _STROKES["?"]).split(",")
    lines = (tuple((float(point[0]), float(point[1])) for point in part.split()) for part in parts)
    return tuple(_rounded(line) for line in lines if line)


def _rounded(line: tuple[Point, ...]) -> tuple[Point, ...]:
    """Replace every gentle corner by an arc (a quadratic curve between the middles around it)."""
    closed = len(line) > 2 and line[0] == line[-1]
    if closed:
        line = line[:-1]
    rounded: list[Point] = []
    for place, corner in enumerate(line):
        inner = closed or 0 < place < len(line) - 1
        before, after = line[place - 1], line[(place + 1) % len(line)]
        if not inner or _turn(before, corner, after) > math.radians(64):
            rounded.append(corner)
            continue
        start, stop = _toward(corner, before), _toward(corner, after)
        rounded += [_curve(start, corner, stop, step / 4) for step in range(5)]
    return tuple(rounded + rounded[:1]) if closed else tuple(rounded)


def _turn(before: Point, corner: Point, after: Point) -> float:
    incoming = math.atan2(corner[1] - before[1], corner[0] - before[0])
    outgoing = math.atan2(after[1] - corner[1], after[0] - corner[0])
    return abs(math.remainder(outgoing - incoming, math.tau))


def _toward(corner: Point, other: Point) -> Point:
    """The point up to three quarters of a unit from the corner, at most half of the way."""
    length = math.dist(corner, other)
    share = min(0.5, 0.75 / length) if length else 0.0
    return corner[0] + share * (other[0] - corner[0]), corner[1] + share * (other[1] - corner[1])


def _curve(start: Point, control: Point, stop: Point, at: float) -> Point:
    a, b, c = (1 - at) ** 2, 2 * at * (1 - at), at**2
    return a * start[0] + b * control[0] + c * stop[0], a * start[1] + b * control[1] + c * stop[1]
