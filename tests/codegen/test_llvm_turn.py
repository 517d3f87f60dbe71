"""Columns of local tiles: turned in registers, not gathered."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc.codegen import llvm
from graphc.codegen.llvm_text import Emitter, Val
from graphc.codegen.llvm_turn import column
from graphc.dtypes import as_dtype
from graphc.loop.parser import parse_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import compile_object, load_object, named_target

TARGETS = ("avx512", "avx2", "generic")
FOUR_ROWS = """
kernel t(x: f32[16], y: f32[{}]):
  local tile: f32[16]
  unrolled i in 4:
    vectorized l in 4:
      tile[i * 4 + l] = x[i * 4 + l]
"""
CODES = ("i8", "u16", "bf16", "f32", "f64", "b1")


def transposing(code: str, size: int, pitch: int, start: int = 0) -> str:
    """A kernel that reads a tile by its columns; the tile's text needs all of its rows."""
    length = size * pitch + start
    return f"""
kernel t(x: {code}[{size * size}], y: {code}[{size * size}]):
  local tile: {code}[{length}]
  unrolled i in {size}:
    vectorized l in {size}:
      tile[i * {pitch} + l + {start}] = x[i * {size} + l]
  unrolled i in {size}:
    vectorized l in {size}:
      y[i * {size} + l] = tile[l * {pitch} + i + {start}]
"""


def computed(text: str, target: str, x: np.ndarray, count: int) -> np.ndarray:
    """What the kernel stores to its second parameter, of ``count`` elements."""
    cpu = named_target(target)
    if not cpu.is_host:
        pytest.skip(f"this machine cannot run {target}")
    kernel = verify_kernel(parse_kernel(text))
    loaded = load_object(compile_object(llvm.module([llvm.print_kernel(kernel, cpu)]), cpu))
    y, status = np.zeros(count, x.dtype), np.zeros(8, np.int64)
    table = np.array([a.ctypes.data for a in (x, y, status)], np.int64)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    entry(loaded.address(kernel.name))(table.ctypes.data, 0, 1)
    assert not status.any()
    return y


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("code", CODES)
def test_a_tile_is_turned_without_gathers(code: str, size: int, target: str) -> None:
    for pitch, start in ((size, 0), (size + 1, 0), (2 * size, size), (size + 3, 5)):
        text = transposing(code, size, pitch, start)
        printed = llvm.print_kernel(parse_kernel(text), named_target(target))
        if start % size == 0:  # else it seems to be several tiles
            assert "gather" not in printed
            # Each stage of the network has as many shuffles as there are rows, and none twice.
            assert printed.count("shufflevector") == size * (size.bit_length() - 1)
        dtype = as_dtype(code).numpy
        x = np.arange(size * size).astype(dtype)
        y = computed(text, target, x, size * size)
        np.testing.assert_array_equal(y.reshape(size, size), x.reshape(size, size).T)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("lanes", "pitch", "at", "gathers"),
    [
        (4, 5, 0, True),  # the last row of the tile would end behind the buffer
        (4, 5, 3, False),  # this one does not
        (8, 3, 0, True), (8, 7, 0, True), (6, 7, 1, True), (4, 0, 2, False),
    ],
)  # fmt: skip
def test_other_strides_of_local_memory(
    lanes: int, pitch: int, at: int, gathers: bool, target: str
) -> None:
    """What is no tile, or would be read beyond its end, is gathered as before."""
    length = (lanes - 1) * pitch + at + 1
    text = f"""
kernel t(x: f32[{length}], y: f32[{lanes}]):
  local tile: f32[{length}]
  unrolled i in {length}:
    tile[i] = x[i]
  vectorized l in {lanes}:
    y[l] = tile[l * {pitch} + {at}]
"""
    printed = llvm.print_kernel(parse_kernel(text), named_target(target))
    assert ("gather" in printed) == gathers
    x = np.arange(length, dtype=np.float32)
    y = computed(text, target, x, lanes)
    np.testing.assert_array_equal(y, x[np.arange(lanes) * pitch + at])


def test_a_tile_that_changes_is_turned_again() -> None:
    text = (
        FOUR_ROWS.format(32)
        + """\
  unrolled i in 4:
    vectorized l in 4:
      y[i * 4 + l] = tile[l * 4 + i]
    tile[i * 5] = 100.0f32
  unrolled i in 4:
    vectorized l in 4:
      y[16 + i * 4 + l] = tile[l * 4 + i]
"""
    )
    x = np.arange(16, dtype=np.float32)
    y = computed(text, "generic", x, 32)
    # The diagonal changes row by row, each one behind the column that is read.
    tile = x.reshape(4, 4).copy()
    for i in range(4):
        np.testing.assert_array_equal(y[:16].reshape(4, 4)[i], tile[:, i])
        tile[i, i] = 100
    np.testing.assert_array_equal(y[16:].reshape(4, 4), tile.T)


@pytest.mark.parametrize("target", TARGETS)
def test_lanes_without_a_place_keep_what_stands_for_them(target: str) -> None:
    """A masked column: the others' values, and memory that is no one's, do not come in."""
    text = (
        FOUR_ROWS.format(16)
        + """\
  unrolled i in 4:
    vectorized l in 4:
      y[i * 4 + l] = guard(x[l] < 2.0f32, tile[l * 4 + i], 7.0f32)
"""
    )
    x = np.arange(16, dtype=np.float32)
    expected = np.where(x[:4] < 2, x.reshape(4, 4).T, 7)
    np.testing.assert_array_equal(computed(text, target, x, 16).reshape(4, 4), expected)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 64])
def test_the_network_by_itself(lanes: int, size: int) -> None:
    """Evaluated shuffle by shuffle, for elements of every size."""
    e = Emitter(named_target("generic"))
    held = {f"%r{i}": [(i, lane) for lane in range(lanes)] for i in range(lanes)}
    rows = [Val(name, "i8", lanes) for name in held]

    def shuffle(a: Val, b: Val, picks: list[int]) -> Val:
        both = held[a.text] + held[b.text]
        name = f"%s{len(held)}"
        held[name] = [both[p] for p in picks]
        return Val(name, "i8", lanes)

    e.shuffle = shuffle  # type: ignore[method-assign, assignment]
    for number in range(lanes):
        found = held[column(e, rows, size, number).text]
        assert found == [(row, number) for row in range(lanes)]
