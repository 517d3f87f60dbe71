"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.__main__ import main
from graphc.formats import save
from graphc.op import REGISTRY

ROOT = Path(gc.__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a model of two inputs and two outputs, and arrays to feed."""
    monkeypatch.chdir(tmp_path)
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None, 3], name="x")
        scale = gc.placeholder_with_default(np.int32(2), [], name="scale")
        w = gc.Variable(np.array([1.0, 2.0, 3.0], np.float32), name="w")
        steps = gc.Variable(0, trainable=False, name="steps")
        y = gc.reduce_sum(x * w, 1, name="y")
        z = gc.multiply(gc.cast(y, gc.int32), scale, name="scope/z")
        step = steps.assign_add(1).op
        session = gc.Session()
        session.run(gc.global_variables_initializer())
        save("m.graphc", session, [x, scale], {"y": y, "scope/z": z, "step": step})
        save("one.graphc", session, x, y)
        any_rank = gc.placeholder(gc.float32, name="any")
        save("any.graphc", session, any_rank, gc.tanh(any_rank, name="t"))
    np.save("x.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    np.save("scale.npy", np.array(3))
    return tmp_path


def fails(capsys, *argv: str) -> str:
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("graphc: ")
    assert "Traceback" not in err
    return err


# --- profile ----------------------------------------------------------------------------------


def test_profile(folder, capsys):
    argv = ["profile", "m.graphc", "--feed", "x=x.npy", "--runs", "2", "--trace", "t.json"]
    assert main(argv) == 0
    head, columns, *rows, last = capsys.readouterr().out.splitlines()
    assert " in all, " in head
    assert columns.split()[:3] == ["step", "calls", "time"]
    assert any(row.startswith("k0 ") and "y" in row for row in rows)
    assert last == "trace -> t.json"
    events = json.loads(Path("t.json").read_text(encoding="utf-8"))["traceEvents"]
    assert [e for e in events if e["ph"] == "X"]


def test_profile_refuses(folder, capsys):
    assert "x" in fails(capsys, "profile", "m.graphc")
    assert "missing/t.json" in run_fails_late(["--trace", "missing/t.json"], capsys)
    for runs in ("0", "many"):
        with pytest.raises(SystemExit, match="2"):
            main(["profile", "m.graphc", "--runs", runs])
        assert f"'{runs}' is not a positive number" in capsys.readouterr().err


def run_fails_late(options: list[str], capsys) -> str:
    assert main(["profile", "m.graphc", "--feed", "x=x.npy", *options]) == 1
    return capsys.readouterr().err


# --- run --------------------------------------------------------------------------------------


def test_run_prints(folder, capsys):
    assert main(["run", "m.graphc", "--feed", "x=x.npy"]) == 0
    assert capsys.readouterr().out == (
        "y: float32[2] [ 8. 26.]\nscope/z: int32[2] [16 52]\nstep: done\n"
    )


def test_run_writes_a_file_each(folder, capsys):
    assert main(["run", "m.graphc", "--feed", "x=x.npy", "--feed", "scale=scale.npy",
                 "--out", "out.npy"]) == 0  # fmt: skip
    assert capsys.readouterr().out == (
        "y: float32[2] -> out-y.npy\nscope/z: int32[2] -> out-scope_z.npy\n"
    )
    np.testing.assert_array_equal(np.load("out-y.npy"), [8, 26])
    np.testing.assert_array_equal(np.load("out-scope_z.npy"), [24, 78])
    assert main(["run", "one.graphc", "--feed", "x=x.npy", "--out", "one"]) == 0
    assert capsys.readouterr().out == "y: float32[2] -> one.npy\n"
    np.testing.assert_array_equal(np.load("one.npy"), [8, 26])


def test_run_reads_and_writes_archives(folder, capsys):
    np.savez("in.npz", x=np.load("x.npy"), scale=np.load("scale.npy"))
    assert main(["run", "m.graphc", "--feed", "in.npz", "--out", "out.npz"]) == 0
    assert capsys.readouterr().out == "y, scope/z -> out.npz\n"
    with np.load("out.npz") as out:
        np.testing.assert_array_equal(out["scope/z"], [24, 78])


def test_any_rank_may_be_fed(folder, capsys):
    for value in (np.float32(0.5), np.zeros((1, 2, 3), np.float32)):
        np.save("a.npy", value)
        assert main(["run", "any.graphc", "--feed", "any=a.npy", "--out", "t.npy"]) == 0
        np.testing.assert_allclose(np.load("t.npy"), np.tanh(value), rtol=1e-6)


def test_bad_feeds(folder, capsys):
    np.save("wide.npy", np.zeros((2, 4), np.float32))
    np.save("float.npy", np.array(0.5))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("in.npz", x=np.zeros((2, 3)))
    Path("text.npy").write_text("1, 2, 3")
    Path("empty.npy").write_bytes(b"")
    Path("zip.npz").write_bytes(b"PK\x03\x04 and no more")
    cut = Path("x.npy").read_bytes()
    Path("cut.npy").write_bytes(cut[:-4])
    huge = cut.replace(b"(2, 3), }" + b" " * 14, b"(99999999999999, 3), } ", 1)
    assert len(huge) == len(cut)
    Path("huge.npy").write_bytes(huge)
    signature = "the model has x: float32(?, 3), scale: int32()"
    for feeds, expected in [
        ([], f"no value was given for the input 'x'; {signature}"),
        (["z=x.npy"], f"there is no input 'z'; {signature}"),
        (["x=x.npy", "x=x.npy"], "the input 'x' is fed twice"),
        (["x=wide.npy"], "Cannot feed value of shape (2, 4) for Tensor 'x:0', which has shape"),
        (["x=x.npy", "scale=float.npy"], "the input 'scale' is int32(); float.npy holds float64[]"),
        (["x=objects.npy"], "objects.npy cannot be read as an array: it holds pickled objects"),
        (["x=text.npy"], "text.npy is no .npy or .npz file"),
        (["x=empty.npy"], "empty.npy is no .npy or .npz file"),
        (["zip.npz"], "zip.npz cannot be read as an array"),
        (["x=cut.npy"], "cut.npy cannot be read as an array"),
        (["x=in.npz"], "feed in.npz: it holds several"),
        (["x=nothing.npy"], "nothing.npy: No such file or directory"),
    ]:
        argv = [a for f in feeds for a in ("--feed", f)]
        assert expected in fails(capsys, "run", "m.graphc", *argv), feeds
    assert main(["run", "m.graphc", "--feed", "x=huge.npy"]) == 1


@pytest.mark.parametrize("argv", [
    [], ["walk"], ["run"], ["run", "m.graphc", "--feed", "x"], ["run", "m.graphc", "--feed", "=f"],
    ["dump", "m.graphc", "--shape", "x=a"], ["run", "m.graphc", "--fed", "x=x.npy"],
])  # fmt: skip
def test_wrong_usage_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "usage: graphc" in capsys.readouterr().err


def test_bad_models(folder, capsys):
    Path("text.graphc").write_text("no model at all")
    for command in ("run", "show", "dump"):
        assert "nothing.graphc: No such file" in fails(capsys, command, "nothing.graphc")
        assert "text.graphc: the header claims" in fails(capsys, command, "text.graphc")
        assert "is a folder, not a model file" in fails(capsys, command, ".")


def test_an_output_that_cannot_be_written(folder, capsys):
    argv = ["run", "one.graphc", "--feed", "x=x.npy", "--out", "nowhere/y.npy"]
    assert "nowhere/y.npy: No such file or directory" in fails(capsys, *argv)


# --- show, dump -------------------------------------------------------------------------------


def test_show(folder, capsys):
    assert main(["show", "m.graphc"]) == 0
    out = capsys.readouterr().out
    size = Path("m.graphc").stat().st_size
    assert out.startswith(f"m.graphc: {size:,} bytes\n\ninputs\n")
    assert "  x      float32  (?, 3)  x:0\n" in out
    assert "  scale  int32    ()      scale:0  may be left out\n" in out
    assert "  step     operation        AssignAdd\n" in out
    assert "  w      float32  (3,)  12 bytes\n" in out
    assert "  steps  int32    ()    4 bytes   not trainable\n" in out
    assert "      1 Sum\n" in out
    assert out.endswith("\n4 parameters, 3 of them trainable, 16 bytes\n")


def test_show_of_a_variable_without_a_value(tmp_path, capsys):
    with gc.Graph().as_default():
        v = gc.Variable([1.0, 2.0], name="v")
        middle = gc.tanh(v, name="middle")
        save(tmp_path / "m", gc.Session(), middle, gc.add(middle, 1.0, name="y"))
    assert main(["show", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert "  v  float32  (2,)    no value\n" in out
    assert "0 parameters" in out


def test_dump(folder, capsys):
    assert main(["dump", "m.graphc", "--target", "avx2"]) == 0
    out = capsys.readouterr().out
    heads = [line[4:] for line in out.splitlines() if line.startswith("=== ")]
    assert heads[0] == "extract"
    assert heads[-5:] == ["fuse", "loops", "program", "llvm", "assembly"]
    assert {"simplify", "decompose", "fold", "cse", "dce"} <= set(heads)
    assert main(["dump", "m.graphc", "--stage", "program"]) == 0
    assert capsys.readouterr().out.startswith("symbols s0\n")
    assert main(["dump", "m.graphc", "--target", "avx2", "--out", "stages"]) == 0
    written = capsys.readouterr().out.split()
    assert written == sorted(f"stages/{name}" for name in os.listdir("stages"))
    assert written[0] == "stages/00-extract.txt"
    assert len(written) == len(heads)


def test_dump_for_a_shape(folder, capsys):
    assert main(["dump", "any.graphc", "--shape", "any=2,?", "--stage", "extract"]) == 0
    assert capsys.readouterr().out.startswith("feed %any_0: f32[2, s0]  # any:0\n")
    assert main(["dump", "any.graphc", "--shape", "any=", "--stage", "extract"]) == 0
    assert capsys.readouterr().out.startswith("feed %any_0: f32[]  # any:0\n")
    assert "any:0 has a shape of unknown rank" in fails(capsys, "dump", "any.graphc")
    assert "there is no input 'y'" in fails(capsys, "dump", "any.graphc", "--shape", "y=1")
    assert "must be equal" in fails(capsys, "dump", "m.graphc", "--shape", "x=2,4")


def test_dump_of_what_there_is_not(folder, capsys):
    err = fails(capsys, "dump", "m.graphc", "--stage", "parse")
    assert "there is no stage 'parse'; the stages are extract, dce, simplify, " in err
    assert "unknown CPU target 'z80'" in fails(capsys, "dump", "m.graphc", "--target", "z80")


# --- ops, info --------------------------------------------------------------------------------


def test_ops(capsys):
    assert main(["ops"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(REGISTRY)
    for name, op in REGISTRY.items():
        assert main(["ops", name]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{name}, version {op.version}, {op.family}\n")
        assert all(a.name in out for a in op.args)
        assert all(key in out for key in op.attrs)
    assert "close to it: MatMul" in fails(capsys, "ops", "matmull")
    assert "`graphc ops` lists all" in fails(capsys, "ops", "qqqqqqqqq")


def test_info_of_a_target_that_cannot_be(capsys, monkeypatch):
    monkeypatch.setenv("GRAPHC_TARGET", "abacus")
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "unknown CPU target 'abacus'" in text
    assert "GRAPHC_TARGET may name" in text


def test_info(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "graphc", "CPU", "compiler", "targets", "threads", "CUDA", "cache",
    ]  # fmt: skip
    assert max(map(len, lines)) < 200
    assert lines[-1].startswith(f"cache     {tmp_path / 'cache'}: 0 programs, 0.0 MB of ")
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert main(["info"]) == 0
    assert capsys.readouterr().out.endswith("cache     off\n")


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"graphc {gc.__version__}\n"


# --- as a process -----------------------------------------------------------------------------


def process(*argv: str, **options: object) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "graphc", *argv]
    return subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_a_process(folder):
    with process("run", "m.graphc", "--feed", "x=x.npy", "--out", "y.npz") as p:
        out, err = p.communicate(timeout=60)
    assert (p.returncode, out, err) == (0, "y, scope/z -> y.npz\n", "")
    with process("run", "m.graphc") as p:
        out, err = p.communicate(timeout=60)
    assert (p.returncode, out) == (1, "")
    assert err.startswith("graphc: no value was given for the input 'x'")


def test_a_reader_that_goes_away(folder):
    with process("dump", "m.graphc") as p:
        assert p.stdout is not None
        assert p.stderr is not None
        p.stdout.readline()
        p.stdout.close()
        err = p.stderr.read()
        p.wait(timeout=60)
    assert p.returncode in (0, 141)
    assert err == ""
