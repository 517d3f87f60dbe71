"""The progress bar: its line, its silence away from a terminal."""

from __future__ import annotations

import io

import pytest

from graphc.data import Progress, progress, track


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class OldTerminal(Terminal):
    encoding = "ascii"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_it_is_silent_away_from_a_terminal():
    stream = io.StringIO()
    with Progress(2, stream=stream) as bar:
        bar.update(2)
    assert stream.getvalue() == ""


def test_it_writes_lines_when_forced(clock):
    stream = io.StringIO()
    with Progress(100, label="step", stream=stream, force=True) as bar:
        for _ in range(100):
            clock[0] += 0.1
            bar.update(loss=0.5)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[-1].startswith("step 100% ")
    assert lines[-1].endswith("100/100 [00:10<00:00, 10 it/s]  loss 0.5")


def test_the_line_of_a_known_total(clock):
    bar = Progress(200, label="epoch 1", stream=Terminal())
    bar.update(50, loss=1 / 3)
    line = bar.line(10.0, 100)
    assert line == (
        "epoch 1  25% │█████████▌                            │ 50/200 "
        "[00:10<00:30, 5.0 it/s]  loss 0.3333"
    )
    assert len(bar.line(10.0, 30)) <= 30
    ascii_bar = Progress(2, stream=OldTerminal())
    ascii_bar.update(1)
    assert "[" + "#" * 19 + "." * 19 + "]" in ascii_bar.line(3700.0, 100)
    assert "1:01:40<1:01:40" in ascii_bar.line(3700.0, 100)


def test_the_line_of_an_unknown_total(clock):
    bar = Progress(label="data", unit="B", stream=Terminal())
    bar.update(3_500_000)
    assert bar.line(2.0, 100) == "data 3.5 MB [00:02, 1.8 MB/s]"
    slow = Progress(stream=Terminal())
    slow.update()
    assert slow.line(4.0, 100) == "1 [00:04, 4.0 s/it]"


def test_a_terminal_is_drawn_over_and_not_too_often(clock):
    stream = Terminal()
    with Progress(1000, stream=stream) as bar:
        for _ in range(1000):
            clock[0] += 0.001
            bar.update()
    drawn = stream.getvalue()
    assert drawn.count("\r") in (10, 11)
    assert drawn.endswith("\n")
    assert drawn.count("\n") == 1


def test_it_closes_once_and_after_errors():
    stream = Terminal()
    with pytest.raises(KeyError), Progress(2, stream=stream) as bar:
        raise KeyError
    bar.close()
    assert stream.getvalue().count("\n") == 1
    empty = Progress(0, stream=stream)
    assert empty.line(1.0, 80).startswith("0 [")


def test_track_counts_what_has_a_length(capsys):
    assert list(track(range(3), label="all", force=True)) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
    assert list(track(iter("ab"), force=True)) == ["a", "b"]
    assert "2 [" in capsys.readouterr().err


def test_a_whole_run_looks_right(clock, golden):
    bar = Progress(8, label="epoch", stream=Terminal())
    lines = []
    for step in range(8):
        bar.update(loss=2.0 / (step + 1))
        lines.append(bar.line(0.25 * (step + 1), 79))
    golden("progress", "\n".join(lines))


def test_another_golden_text_is_refused(request, golden):
    if request.config.getoption("--update-golden"):
        pytest.skip("golden texts are being written")
    with pytest.raises(pytest.fail.Exception, match="--update-golden"):
        golden("progress", "another text")
    with pytest.raises(pytest.fail.Exception, match="--update-golden"):
        golden("no such text", "a text")
