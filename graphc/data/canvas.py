"""A small drawing surface with smooth edges, written as PNG: NumPy and zlib are all it needs."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.data import font

Colour = tuple[int, int, int]
_TEXT_WEIGHT = 0.8  # the thickness of a letter's strokes, in units of the font's grid


def write_png(path: str | PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write ``pixels``, of shape [height, width, 3], as a PNG file; folders are made as needed."""
    height, width, channels = pixels.shape
    if channels != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 [height, width, 3], got {pixels.dtype} {pixels.shape}")
    # Filter 2 ("up") stores differences to the row above, which flat pictures make mostly zero.
    flat = pixels.reshape(height, width * 3)
    difference = flat - np.concatenate([np.zeros_like(flat[:1]), flat[:-1]])
    rows = np.concatenate([np.full((height, 1), 2, np.uint8), difference], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".part", dir=target.parent)
    with os.fdopen(handle, "wb") as output:
        output.write(content)
    os.chmod(temporary, 0o644)
    os.replace(temporary, target)


class Canvas:
    """A picture to draw on. Coordinates are pixels from the top left; colours are 0 to 255."""

    def __init__(self, width: int, height: int, background: Colour = (255, 255, 255)) -> None:
        self.width = width
        self.height = height
        self._pixels = np.empty((height, width, 3), np.float32)
        self._pixels[:] = background
        self._glyphs: dict[tuple[str, float], NDArray[np.float32]] = {}

    def pixels(self) -> NDArray[np.uint8]:
        """The picture as unsigned bytes of shape [height, width, 3]."""
        return np.clip(np.rint(self._pixels), 0, 255).astype(np.uint8)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the picture as a PNG file."""
        write_png(path, self.pixels())

    def rectangle(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle, its corners rounded to whole pixels."""
        self._pixels[_clip(y) : _clip(y + height), _clip(x) : _clip(x + width)] = colour

    def line(
        self, points: ArrayLike, colour: Colour, width: float = 1.0, opacity: float = 1.0
    ) -> None:
        """Draw a polyline through ``points``, of shape [N, 2], with round joints and ends."""
        path = np.asarray(points, np.float64).reshape(-1, 2)
        if not len(path):
            return
        low = np.floor(path.min(axis=0) - width).astype(int)
        high = np.ceil(path.max(axis=0) + width).astype(int) + 1
        coverage = _coverage([path - low], width, (high - low)[::-1])
        self._blend(coverage, int(low[0]), int(low[1]), colour, opacity)

    def text(
        self, x: float, y: float, string: str, size: float, colour: Colour, anchor: str = "left"
    ) -> None:
        """Write ``string`` with its baseline at ``y`` and capitals ``size`` pixels high.

        ``anchor`` says which point of the text ``x`` is: ``left``, ``middle`` or ``right``.
        """
        share = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor]
        pen = x - share * self.text_width(string, size)
        unit = size / font.BASELINE
        margin = _margin(size)
        for character in string:
            mask = self._glyph(character, size)
            self._blend(mask, round(pen) - margin, round(y - size) - margin, colour, 1.0)
            pen += font.advance(character) * unit

    @staticmethod
    def text_width(string: str, size: float) -> float:
        """How many pixels ``string`` takes across."""
        unit = size / font.BASELINE
        gap = 1.9 if string and string[-1] != " " else 0.0
        return (sum(map(font.advance, string)) - gap) * unit

    def image(
        self, x: int, y: int, levels: NDArray[Any], scale: int, dark: Colour, light: Colour
    ) -> None:
        """Draw ``levels``, of shape [height, width] in [0, 1], ``scale`` pixels to a dot."""
        share = np.kron(levels, np.ones((scale, scale)))[..., np.newaxis]
        colours = np.asarray(dark) * share + np.asarray(light) * (1 - share)
        height, width = share.shape[:2]
        self._pixels[y : y + height, x : x + width] = colours

    def _glyph(self, character: str, size: float) -> NDArray[np.float32]:
        known = self._glyphs.get((character, size))
        if known is not None:
            return known
        unit, margin = size / font.BASELINE, _margin(size)
        paths = [np.array(stroke) * unit + margin + 0.5 for stroke in font.strokes(character)]
        width = int(np.ceil(font.advance(character) * unit)) + 2 * margin
        height = int(np.ceil(font.DESCENT * unit)) + 2 * margin
        mask = _coverage(paths, max(_TEXT_WEIGHT * unit, 1.1), (height, width))
        self._glyphs[character, size] = mask
        return mask

    def _blend(
        self, coverage: NDArray[np.float32], x: int, y: int, colour: Colour, opacity: float
    ) -> None:
        left, top = max(x, 0), max(y, 0)
        right = min(x + coverage.shape[1], self.width)
        bottom = min(y + coverage.shape[0], self.height)
        if left >= right or top >= bottom:
            return
        share = opacity * coverage[top - y : bottom - y, left - x : right - x, np.newaxis]
        target = self._pixels[top:bottom, left:right]
        target += share * (np.asarray(colour, np.float32) - target)


def _margin(size: float) -> int:
    return int(size // 6) + 2


def _clip(place: float) -> int:
    return max(round(place), 0)


def _coverage(
    paths: Sequence[NDArray[np.float64]], width: float, shape: Sequence[int]
) -> NDArray[np.float32]:
    """How much of every pixel lies within ``width`` / 2 of the paths, from 0 to 1."""
    coverage = np.zeros(tuple(shape), np.float32)
    reach = width / 2 + 0.5
    for path in paths:
        ends = path[1:] if len(path) > 1 else path
        for start, stop in zip(path, ends, strict=False):
            low = np.maximum(np.floor(np.minimum(start, stop) - reach - 0.5).astype(int), 0)
            high = np.ceil(np.maximum(start, stop) + reach + 0.5).astype(int)
            window = coverage[low[1] : high[1], low[0] : high[0]]
            rows, columns = np.indices(window.shape)
            distance = _distance(columns + low[0] + 0.5, rows + low[1] + 0.5, start, stop)
            np.maximum(window, np.clip(reach - distance, 0, 1), out=window)
    return coverage


def _distance(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    start: NDArray[np.float64],
    stop: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The distance of every point (x, y) from the segment between ``start`` and ``stop``."""
    along = stop - start
    length = float(along @ along)
    reached = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (length or 1.0)
    share = np.clip(reached, 0.0, 1.0)
    return np.asarray(np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1]))
