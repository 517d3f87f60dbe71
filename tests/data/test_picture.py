"""Pictures: the PNG file is right to the pixel, the drawing is where it should be."""

from __future__ import annotations

import string
import struct
import zlib

import numpy as np
import pytest

from graphc.data import font, training_picture
from graphc.data.canvas import Canvas, write_png
from graphc.data.picture import Axis


def read_png(path):
    """Decode what write_png writes: 8-bit RGB rows with filter 2, checking every checksum."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, {}
    while place < len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack(">I", content[place + 8 + size : place + 12 + size])
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        place += 12 + size
    width, height, depth, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colours) == (8, 2)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * 3)
    assert (rows[:, 0] == 2).all()
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).reshape(height, width, 3)


def test_a_png_holds_the_pixels(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (7, 5, 3)).astype(np.uint8)
    path = tmp_path / "new" / "folder" / "a.png"
    write_png(path, pixels)
    np.testing.assert_array_equal(read_png(path), pixels)
    assert [other.name for other in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match="expected uint8"):
        write_png(path, pixels[..., 0:1])


def test_lines_cover_their_width():
    canvas = Canvas(20, 20)
    canvas.line([(5, 10), (18, 10)], (0, 0, 0), width=4)
    column = 255 - canvas.pixels()[:, 10, 0].astype(float)
    assert column.sum() / 255 == pytest.approx(4, abs=0.05)
    assert column[8:12].tolist() == [255] * 4
    assert canvas.pixels()[:, 0].min() == 255


def test_drawing_outside_is_clipped():
    canvas = Canvas(10, 10)
    canvas.line([(-50, -50), (-20, 5)], (0, 0, 0))
    canvas.line([(100, 100)], (0, 0, 0), width=8)
    canvas.text(40, 4, "outside", 12, (0, 0, 0))
    canvas.line([], (0, 0, 0))
    assert canvas.pixels().min() == 255
    canvas.text(-3, 6, "W", 12, (0, 0, 0))
    assert canvas.pixels().min() < 128


def test_every_letter_is_drawn_and_no_two_alike():
    seen = {}
    for character in string.ascii_letters + string.digits + "?.,:;!'\"-_+=<>/\\|%()[]*#×→·":
        canvas = Canvas(40, 50)
        canvas.text(10, 35, character, 24, (0, 0, 0))
        pixels = canvas.pixels()
        assert pixels.min() < 64, character
        drawn = pixels.tobytes()
        if character not in "|lI":
            assert drawn not in seen, (character, seen.get(drawn))
            seen[drawn] = character
    assert font.strokes("\N{SNOWMAN}") == font.strokes("?")
    assert font.strokes(" ") == ()


def test_text_is_anchored():
    ends = {}
    for anchor in ("left", "middle", "right"):
        canvas = Canvas(200, 30)
        canvas.text(100, 20, "H12H", 12, (0, 0, 0), anchor)
        inked = np.flatnonzero(canvas.pixels().min(axis=(0, 2)) < 128)
        ends[anchor] = (inked[0], inked[-1])
    assert abs(ends["left"][0] - 100) <= 2
    assert abs(ends["right"][1] - 100) <= 2
    assert abs(sum(ends["middle"]) / 2 - 100) <= 2


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 10, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Axis(0, 999, 0, 1), [0, 200, 400, 600, 800]),
        (Axis(-0.3, 0.3, 0, 1), [-0.2, 0, 0.2]),
        (Axis(0.004, 3, 0, 1, True), [0.01, 0.1, 1]),
        (Axis(0.3, 6, 0, 1, True), [0.5, 1, 2, 5]),
    ],
)
def test_ticks_are_round(axis, expected):
    assert axis.ticks(5) == pytest.approx(expected, abs=1e-12)


def test_axes_place_values():
    assert Axis(0, 10, 100, 200).place([0, 5, 10]).tolist() == [100, 150, 200]
    places = Axis(0.01, 1, 300, 100, True).place([0.01, 0.1, 1, 1e-9])
    assert places == pytest.approx([300, 200, 100, 300])


@pytest.mark.parametrize(
    "losses",
    [
        2.3 * np.exp(-np.arange(5000) / 300) + 1e-3,
        [1.0, np.nan, np.inf, 0.5],
        [0.25],
        [0.0, 0.0],
        np.linspace(-5, 5, 50),
        [],
        [np.nan],
    ],
    ids=["long", "not finite", "one", "zero", "negative", "none", "only nan"],
)
def test_any_losses_can_be_drawn(tmp_path, digits, losses):
    test = digits.test
    path = training_picture(tmp_path / "a.png", losses, test.images, test.labels, test.labels)
    pixels = read_png(path)
    assert pixels.shape[2] == 3
    assert pixels.std() > 10


def test_right_is_green_and_wrong_is_red(tmp_path, digits):
    test = digits.test
    wrong = test.labels.copy()
    wrong[200] = (wrong[200] + 1) % 10

    def reddish(predictions, name):
        path = tmp_path / name
        training_picture(path, [2, 1], test.as_float(), test.labels, predictions, title=name)
        pixels = read_png(path).astype(int)
        return ((pixels[..., 0] - pixels[..., 1] > 100) & (pixels[..., 0] > 180)).sum()

    assert reddish(test.labels, "right.png") == 0
    assert reddish(wrong, "wrong.png") > 20


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_images_are_enough(tmp_path, digits, count):
    test = digits.test
    none_right = test.labels[:count] + 1
    path = tmp_path / "a.png"
    training_picture(path, [1, 2], test.images[:count], test.labels[:count], none_right)
    assert path.exists()


def test_what_does_not_belong_together_is_refused(tmp_path, digits):
    test = digits.test
    with pytest.raises(ValueError, match=r"\(360, 8, 8\), \(360,\) and \(3,\)"):
        training_picture(tmp_path / "a.png", [1], test.images, test.labels, test.labels[:3])
