"""What the documents say is so: their code runs, prints what they show, and their links lead on."""

from __future__ import annotations

import fnmatch
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and text."""
    return BLOCK.findall(text_of(page))


def run(command: list[str], folder: Path, root: Path = ROOT) -> str:
    """What a command prints that is run in a folder, with graphc from ``root``."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same_output(found: str, expected: str) -> bool:
    """Whether two texts agree in their words, and in their numbers up to a fifth.

    Targets may differ in the last bits, and what training makes of these shows further up.
    """
    if NUMBER.sub("#", found).split() != NUMBER.sub("#", expected).split():
        return False
    pairs = zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True)
    return all(float(a) == pytest.approx(float(b), rel=0.2) for a, b in pairs)


def scripts(page: str) -> Iterator[tuple[str, str | None]]:
    """The Python blocks of a page, each with the block of text right under it."""
    found = blocks(page)
    for (language, text), (after, printed) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "python":
            yield text, printed if after == "text" else None


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_code_prints_what_the_page_shows(page, tmp_path):
    parts = list(scripts(page))
    assert parts
    mark = "=== the next block ==="
    program = f"\nprint({mark!r})\n".join(code for code, _ in parts)
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    printed = run([sys.executable, "-W", "error", "page.py"], tmp_path).split(mark + "\n")
    assert len(printed) == len(parts)
    for (code, expected), found in zip(parts, printed, strict=True):
        assert same_output(found, expected or ""), f"{code}\nprints\n{found}\nnot\n{expected}"


def test_the_readme_script_is_about_twenty_lines():
    (code, printed), *rest = scripts("README.md")
    assert not rest
    assert printed is not None
    assert len(code.split("\n\n", 1)[1].replace("\n\n", "\n").splitlines()) <= 20


def test_other_outputs_are_not_the_same():
    assert same_output("loss 2.1e-05\n", "loss 2e-05")
    assert not same_output("loss 3e-05", "loss 2e-05")
    assert not same_output("gain 2e-05", "loss 2e-05")
    assert not same_output("[1. 2. 3.]", "[1. 2.]")


# --- the worked example of CONTRIBUTING.md --------------------------------------------------------

WORKED = "graphc/ops/elementwise_logcosh.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the repository's code and tests."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("graphc", "kernels", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache", "golden")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def with_op(copy) -> Path:
    """The copy with the one file that CONTRIBUTING.md shows."""
    assert WORKED in text_of("CONTRIBUTING.md")
    ((code, _),) = scripts("CONTRIBUTING.md")
    (copy / WORKED).write_text(code, encoding="utf-8")
    return copy


def test_adding_an_op_touches_one_file(with_op):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q",
               "tests/ops", "tests/formats", "-k", "LogCosh", "-m", "slow or not slow"]  # fmt: skip
    printed = run(command, with_op, with_op)
    found = re.search(r"(\d+) passed", printed)
    assert found, printed
    assert int(found[1]) >= 20
    assert "failed" not in printed
    described = run([sys.executable, "-m", "graphc", "ops", "LogCosh"], with_op, with_op)
    assert "LogCosh, version 1" in described


def test_the_new_op_has_its_place_in_the_reference(with_op):
    run([sys.executable, "docs/generate.py"], with_op, with_op)
    reference = (with_op / "docs" / "ops.md").read_text(encoding="utf-8")
    assert "\n### LogCosh\n" in reference


def test_the_new_op_is_compiled_fused_saved_and_loaded(with_op, tmp_path):
    program = """
import numpy as np
import graphc as gc
from graphc.ops.elementwise_logcosh import log_cosh

x = gc.placeholder(gc.float32, [None], name="x")
loss = gc.reduce_sum(log_cosh(x * 2), name="loss")
(slope,) = gc.gradients(loss, x)
with gc.Session() as sess:
    plan = {s.name: s.text for s in gc.inspect.compile_stages(sess, loss)}["fuse"]
    print(plan.count("kernel"), "kernel")
    value, tangent = sess.run([loss, slope], {x: [-100.0, 0.5, 100.0]})
    np.testing.assert_allclose(value, 400 + np.log(np.cosh(1.0)) - 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(tangent, [-2, 2 * np.tanh(1.0), 2], rtol=1e-6)
    gc.save("m.graphc", sess, [x], [loss])
print(gc.load("m.graphc")(x=[-100.0, 0.5, 100.0]) == value)
"""
    printed = run([sys.executable, "-c", program], tmp_path, with_op)
    assert printed.split() == ["1", "kernel", "True"]


# --- what the pages refer to ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_targets_of_make_exist():
    makefile = text_of("Makefile")
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", page.read_text("utf-8"), re.M):
            assert re.search(rf"^{target}:", makefile, re.M), f"{page.name}: make {target}"


def test_paths_in_the_architecture_exist():
    text = text_of("docs/architecture.md")
    for path in re.findall(r"`((?:graphc|kernels|tests|examples|docs)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


def test_every_room_is_in_the_architecture():
    quoted = re.findall(r"`(?:graphc/)?([\w./*]+)`", text_of("docs/architecture.md"))
    rooms = [p for p in (ROOT / "graphc").iterdir() if not p.name.startswith(("_", "."))]
    missing = [
        room.name for room in rooms
        if room.suffix in ("", ".py")
        and not any(fnmatch.fnmatch(room.name, name.rstrip("/")) for name in quoted)
    ]  # fmt: skip
    assert not missing


# --- generated blocks -----------------------------------------------------------------------------


def explained() -> str:
    """The table of differences that tests/tf1/semantics.py explains."""
    table = runpy.run_path(str(ROOT / "tests" / "tf1" / "semantics.py"))["EXPLAINED"]
    reasons: dict[str, list[str]] = {}
    for (line, part), reason in table.items():
        reasons.setdefault(reason, []).append(f"`{line}` {part}")
    rows = [f"| {', '.join(lines)} | {reason} |" for reason, lines in reasons.items()]
    return "\n".join(["| line and part | why |", "|---|---|", *rows])


def test_explained_differences_are_in_the_docs(request):
    page = ROOT / "docs" / "tf1_differences.md"
    begin, end = "<!-- explained:begin -->\n", "\n<!-- explained:end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    found, _, after = rest.partition(end)
    if request.config.getoption("--update-golden"):
        page.write_text(before + begin + explained() + end + after, encoding="utf-8")
        return
    assert found == explained(), "run this test with --update-golden"


def test_the_benchmark_updates_its_block(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(text_of("README.md"), encoding="utf-8")
    contenders = ["graphc", "graphc-eager", "numpy"]
    chosen = ["--workloads", "x2p1", "two_layer_10", "--contenders", *contenders]
    script = str(ROOT / "benchmarks" / "bench.py")
    folders = ["--out", str(tmp_path / "results"), "--readme", str(readme)]
    printed = run([sys.executable, script, "--quick", "--memory", *chosen, *folders], tmp_path)
    assert "x * 2 + 1 on ten floats" in printed
    assert "resident memory, MB" in printed
    assert readme.read_text(encoding="utf-8") == text_of("README.md")
    (results,) = (tmp_path / "results").glob("*.json")
    run([sys.executable, script, "--update-readme", str(results), *folders], tmp_path)
    updated = readme.read_text(encoding="utf-8")
    block = updated.partition("<!-- bench:begin -->")[2].partition("<!-- bench:end -->")[0]
    assert "two layers, 64x1000-100-10" in block
    assert updated.replace(block, "") == re.sub(
        "(<!-- bench:begin -->).*(<!-- bench:end -->)", r"\1\2", text_of("README.md"), flags=re.S
    )


def test_the_micro_benchmarks_run(tmp_path):
    script = str(ROOT / "benchmarks" / "micro.py")
    out = tmp_path / "micro.json"
    printed = run([sys.executable, script, "--quick", "--json", str(out), "calls"], tmp_path)
    assert "make_callable" in printed
    assert out.exists()
