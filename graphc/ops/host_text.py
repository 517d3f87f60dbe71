"""Tensors as text: what Print, tf.print and Assert show, as TensorFlow's runtime writes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import is_float


def summary(array: Any, entries: int) -> str:
    """The first ``entries`` elements, in nested brackets but for the outermost; -1 for all."""
    array = np.asarray(array)
    limit = array.size if entries < 0 else min(entries, array.size)
    rest = "..." if array.size > limit else ""
    if array.ndim == 0:
        return (element(array[()]) if limit else "") + rest
    flat = iter(array.reshape(-1))
    return _row(array.shape, 0, limit, [0], flat) + rest


def _row(shape: tuple[int, ...], d: int, limit: int, shown: list[int], flat: Any) -> str:
    """One row of dimension ``d``; ``shown`` counts the elements so far."""
    text = ""
    for i in range(shape[d]):
        if shown[0] >= limit:
            last = d == len(shape) - 1
            return text + ("..." if last and d else "")
        if d < len(shape) - 1:
            text += f"[{_row(shape, d + 1, limit, shown, flat)}]"
        else:
            text += (" " if i else "") + element(next(flat))
            shown[0] += 1
    return text


def edges(array: Any, count: int) -> str:
    """The first and the last ``count`` elements of every dimension, in brackets; -1 for all."""
    array = np.asarray(array)
    return _edges(array, count if count >= 0 else max(1, *array.shape, 1), 0, array.ndim)


def _edges(array: np.ndarray, count: int, depth: int, rank: int) -> str:
    if array.ndim == 0:
        return element(array[()], quoted=True)
    between = " " if array.ndim == 1 else "\n" * (rank - depth - 1) + " " * (depth + 1)
    size = len(array)
    parts = [_edges(a, count, depth + 1, rank) for a in array[:count]]
    if size > 2 * count:
        parts.append("...")
    parts += [_edges(a, count, depth + 1, rank) for a in array[max(count, size - count) :]]
    return f"[{between.join(parts)}]"


def element(value: Any, quoted: bool = False) -> str:
    """One element."""
    if isinstance(value, (bytes, str)):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{text}"' if quoted else text
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if is_float(np.asarray(value).dtype):
        return _float(value)
    return str(int(value))


def _float(value: np.floating[Any]) -> str:
    """The shortest of two precisions that gives the number back."""
    kind = np.float64 if value.dtype == np.float64 else np.float32
    short, long = (15, 17) if kind is np.float64 else (6, 9)
    number = float(value)
    text = f"{number:.{short}g}"
    return text if kind(text) == value or np.isnan(value) else f"{number:.{long}g}"
