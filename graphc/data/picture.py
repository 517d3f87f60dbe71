"""The picture at the end of a training: the loss over the steps and what the model now says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.data.canvas import Canvas, Colour

_INK: Colour = (38, 43, 51)
_MUTED: Colour = (122, 130, 142)
_GRID: Colour = (230, 233, 238)
_PANEL: Colour = (255, 255, 255)
_PAGE: Colour = (246, 247, 249)
_CURVE: Colour = (43, 108, 196)
_RIGHT: Colour = (34, 139, 84)
_WRONG: Colour = (206, 52, 52)
_DIGIT: Colour = (28, 32, 40)
_PAPER: Colour = (241, 243, 246)

_WIDTH, _HEIGHT = 1240, 664
_COLUMNS, _ROWS = 7, 4
_CELL_WIDTH, _CELL_HEIGHT = 76, 86
_THUMBNAIL = 64


def training_picture(
    path: str | PathLike[str],
    losses: ArrayLike,
    images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    title: str = "Training",
    subtitle: str = "",
) -> Path:
    """Draw a loss curve beside sample predictions and write it to ``path`` as PNG.

    Args:
      path: the file to write; its folder is made where it does not exist.
      losses: the loss of every step.
      images: test images, of shape [N, height, width] or [N, height, width, 1].
      labels: the right classes, of shape [N].
      predictions: what the model said, of shape [N].
      title: the first line.
      subtitle: the line under it.

    Returns:
      The path, as a ``Path``.

    The first images are shown, and in the last row the first ones that the model got wrong.
    """
    pictures = np.asarray(images)
    if pictures.ndim == 4 and pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    right, said = np.asarray(labels), np.asarray(predictions)
    if pictures.ndim != 3 or right.shape != pictures.shape[:1] or said.shape != right.shape:
        raise ValueError(
            f"expected images [N, height, width] with [N] labels and predictions, got "
            f"{pictures.shape}, {right.shape} and {said.shape}"
        )
    canvas = Canvas(_WIDTH, _HEIGHT, _PAGE)
    canvas.text(40, 54, title, 19, _INK)
    canvas.text(40, 84, subtitle, 11, _MUTED)
    _draw_curve(canvas, np.asarray(losses, np.float64).ravel(), Frame(40, 108, 580, 516))
    _draw_samples(canvas, pictures, right, said, Frame(640, 108, 560, 516))
    canvas.save(path)
    return Path(path)


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Axis:
    """Values on a row of pixels, evenly or by their logarithm, with ticks at round numbers."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """The pixels of ``values``."""
        transformed = self._transform(np.asarray(values, np.float64))
        low, high = self._transform(np.array([self.low, self.high]))
        share = (transformed - low) / ((high - low) or 1.0)
        return np.asarray(self.start + share * (self.stop - self.start))

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round numbers within the axis."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= 3 else (1,)
            places = [step * 10.0**decade for decade in decades for step in steps]
        else:
            step = _round_up((self.high - self.low) / count)
            first = math.ceil(self.low / step)
            places = [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [place for place in places if self.low <= place <= self.high * (1 + 1e-9)]

    def _transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log10(np.maximum(values, self.low)) if self.logarithmic else values


def _draw_curve(canvas: Canvas, losses: NDArray[np.float64], frame: Frame) -> None:
    canvas.rectangle(frame.x, frame.y, frame.width, frame.height, _PANEL)
    canvas.text(frame.x + 20, frame.y + 32, "loss", 11, _INK)
    left, right = frame.x + 72, frame.x + frame.width - 28
    top, bottom = frame.y + 52, frame.y + frame.height - 48
    steps = np.flatnonzero(np.isfinite(losses))
    if not len(steps):
        canvas.text((left + right) / 2, (top + bottom) / 2, "no finite loss", 12, _MUTED, "middle")
        return
    shown = losses[steps]
    across = Axis(0, max(len(losses) - 1, 1), left, right)
    up = _loss_axis(shown, bottom, top)
    for value, y in _placed_ticks(up, 6):
        canvas.line([(left, y), (right, y)], _GRID)
        canvas.text(left - 12, y + 4, _number(value), 9, _MUTED, "right")
    for value, tick in _placed_ticks(across, 6):
        canvas.line([(tick, bottom), (tick, bottom + 5)], _MUTED)
        canvas.text(tick, bottom + 22, _number(value), 9, _MUTED, "middle")
    canvas.line([(left, bottom), (right, bottom)], _MUTED)
    canvas.text(right, bottom + 40, "step", 10, _MUTED, "right")
    room = int(right - left)
    points = _thinned(np.stack([steps, shown], axis=1), room)
    smooth = _smoothed(points[:, 1])
    x = across.place(points[:, 0])
    canvas.line(np.stack([x, up.place(points[:, 1])], axis=1), _CURVE, 1.0, opacity=0.28)
    line = np.stack([x, up.place(smooth)], axis=1)
    canvas.line(line, _CURVE, 2.4)
    canvas.line(line[-1:], _CURVE, 8.0)
    label = f"{_number(float(smooth[-1]), digits=3)} at the end"
    canvas.text(right, frame.y + 32, label, 11, _CURVE, "right")


def _draw_samples(
    canvas: Canvas,
    images: NDArray[Any],
    labels: NDArray[Any],
    predictions: NDArray[Any],
    frame: Frame,
) -> None:
    canvas.rectangle(frame.x, frame.y, frame.width, frame.height, _PANEL)
    canvas.text(frame.x + 20, frame.y + 32, "predictions", 11, _INK)
    wrong = np.flatnonzero(labels != predictions)[:_COLUMNS]
    rows = _ROWS if len(wrong) else _ROWS + 1
    if len(wrong) and len(images) <= _COLUMNS * rows:
        rows, wrong = _ROWS + 1, wrong[:0]
    top = frame.y + 50
    light = float(images.max()) if images.size else 1.0
    normalised = images / (light or 1.0)
    left = frame.x + (frame.width - _COLUMNS * _CELL_WIDTH) / 2
    for place in range(min(len(images), rows * _COLUMNS)):
        row, column = divmod(place, _COLUMNS)
        x, y = left + column * _CELL_WIDTH, top + row * _CELL_HEIGHT
        _draw_sample(canvas, normalised[place], labels[place], predictions[place], x, y)
    if len(wrong):
        y = top + _ROWS * _CELL_HEIGHT
        canvas.text(frame.x + 20, y + 15, "mistakes", 11, _INK)
        for column, place in enumerate(wrong):
            x = left + column * _CELL_WIDTH
            _draw_sample(canvas, normalised[place], labels[place], predictions[place], x, y + 26)


def _draw_sample(
    canvas: Canvas, image: NDArray[Any], label: Any, prediction: Any, x: float, y: float
) -> None:
    scale = max(_THUMBNAIL // max(image.shape), 1)
    height, width = image.shape
    left = round(x + (_CELL_WIDTH - width * scale) / 2)
    top = round(y + (_THUMBNAIL - height * scale) / 2)
    canvas.image(left, top, image, scale, _DIGIT, _PAPER)
    correct = bool(label == prediction)
    answer = f"{prediction}" if correct else f"{prediction}, not {label}"
    colour = _RIGHT if correct else _WRONG
    canvas.text(x + _CELL_WIDTH / 2, y + _THUMBNAIL + 15, answer, 9, colour, "middle")


def _loss_axis(losses: NDArray[np.float64], bottom: float, top: float) -> Axis:
    low, high = float(losses.min()), float(losses.max())
    typical = float(np.percentile(losses, 2))
    if typical > 0 and high / typical > 15:
        # A single step near zero must not squeeze the rest: six decades are enough for a picture.
        floor = max(low, typical / 10, high * 1e-6)
        return Axis(floor / 1.2, high * 1.2, bottom, top, logarithmic=True)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return Axis(0.0 if 0 <= low < high / 2 else low - margin, high + margin, bottom, top)


def _placed_ticks(axis: Axis, count: int) -> list[tuple[float, float]]:
    ticks = axis.ticks(count)
    return list(zip(ticks, axis.place(ticks).tolist(), strict=True))


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A bell-shaped average over a few hundredths of the values around each one."""
    spread = len(values) / 100
    reach = int(3 * spread)
    if reach == 0:
        return values
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    weight = np.convolve(np.ones_like(values), window, mode="same")
    smooth: NDArray[np.float64] = np.convolve(values, window, mode="same") / weight
    return smooth


def _thinned(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The points, at most ``count``: runs of them are replaced by their means."""
    if len(points) <= count:
        return points
    runs = np.array_split(points[1:-1], count - 2)
    return np.stack([points[0], *(run.mean(axis=0) for run in runs), points[-1]])


def _round_up(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def _number(value: float, digits: int = 6) -> str:
    return f"{value:.{digits}g}"
