"""Compares what graphc does with what TensorFlow 1.15 does, line by line (make tf1-semantics).

GRAPHC_TF1_PROBE names a folder with ``semantics_probe.py``, a script whose functions print
``<line>: <part> | <part> ...``, and ``semantics_tf115.txt``, what it prints under TensorFlow
1.15.5.  The lines that this version of graphc is to agree on are compared part by part; a part
that differs must be explained in EXPLAINED.  The exit status is 1 if one is not, or if a part that
is explained agrees.

    python tests/tf1/semantics.py [--later] [--failures]

--later also shows the lines that are left to later versions; --failures the statements of the
probe that raise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

GROUPS = (
    "names", "repr", "shape", "dtype", "fetch", "feed", "var", "vs", "coll", "grad", "ctrl",
    "graph", "finalize", "reset", "seed.attrs", "isess", "clip", "ema", "opt", "cond", "while",
    "rnn", "py_func", "assert",
)  # fmt: skip
LATER = ("coll.losses",)

_SPARSE = (
    "sparse tensors and IndexedSlices are for a later version; the gradient of gather is dense"
)
_TWO_STEPS = (
    "one run takes two steps of one optimizer: both read the powers of the betas as they were "
    "before the run, so these advance once; in TensorFlow the second read races with the first "
    "assignment and sees it here (with t = 1, 3, 5 for 1, 2, 3 the formula gives its numbers)"
)

# (line, index of the part) -> why it differs.
EXPLAINED: dict[tuple[str, int], str] = {
    ("shape.conv", 5): "tf.layers is for a later version",
    ("dtype.err", 4): "strings cannot be added, and the message names the operand that is one",
    ("fetch.scalar", 14): "NumPy 2 has renamed its scalar type bool_ to bool",
    ("fetch.composite", 0): _SPARSE,
    ("fetch.composite", 1): _SPARSE,
    ("fetch.composite", 2): _SPARSE,
    ("feed.err", 6): "the words are NumPy's, which says more today",
    ("feed.sparse", 0): _SPARSE,
    ("feed.string", 1): "operations on strings are for a later version",
    ("grad.sparse", 0): _SPARSE,
    ("grad.sparse", 1): _SPARSE,
    ("grad.sparse", 3): _SPARSE,
    ("opt.AdamOptimizer", 0): _TWO_STEPS,
    ("opt.AdamOptimizer", 1): _TWO_STEPS,
    ("opt.FtrlOptimizer", 0): (
        "FTRL sets a weight whose linear term is zero to zero; with a dense gradient that holds "
        "for the rows that were not looked up too, as it does in TensorFlow"
    ),
    ("rnn.names", 2): "dynamic_rnn's loop needs no counter besides its time, so it has one less",
    ("seed.attrs", 0): (
        "random_shuffle and multinomial are made of other random ops; the rest agrees"
    ),
}


def expected_lines(text: str) -> dict[str, list[str]]:
    """The parts of every line; a line that starts with a space continues the one before."""
    records: list[str] = []
    for line in text.splitlines():
        if re.match(r"[A-Za-z_][\w.]*: ?", line):
            records.append(line)
        else:
            records[-1] += "\n" + line
    pairs = (record.partition(":") for record in records)
    return {line: rest.removeprefix(" ").split(" | ") for line, _, rest in pairs}


def in_this_version(line: str) -> bool:
    if line in LATER:
        return False
    return any(line == g or line.startswith(g + ".") for g in GROUPS)


def run_probe(folder: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        probe = folder / "semantics_probe.py"
        command = [sys.executable, str(HERE / "probe_runner.py"), str(probe), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if not result.exists():
            sys.stdout.write(done.stdout + done.stderr)
            raise SystemExit("the probe did not come to its end")
        return json.loads(result.read_text(encoding="utf-8"))


class Report:
    """Counts and prints what agrees, what is explained and what is not."""

    def __init__(self) -> None:
        self.agree = self.explained = self.unexplained = self.stale = 0

    def say(self, text: str = "") -> None:
        sys.stdout.write(text + "\n")

    def compare(self, line: str, wanted: list[str], found: list[str] | None) -> None:
        found = ["<not printed>"] * len(wanted) if found is None else found
        if len(found) != len(wanted):
            wanted, found = [" | ".join(wanted)], [" | ".join(found)]
        for i, (expected, got) in enumerate(zip(wanted, found, strict=True)):
            reason = EXPLAINED.get((line, i))
            if expected == got:
                self.agree += 1
                if reason is not None:
                    self.stale += 1
                    self.say(f"{line}[{i}] agrees: remove its explanation")
                continue
            if reason is None:
                self.unexplained += 1
            else:
                self.explained += 1
            self.say(f"{line}[{i}]")
            self.say(f"  TensorFlow: {expected}")
            self.say(f"  graphc:     {got}")
            self.say(f"  {'because: ' + reason if reason else 'NOT EXPLAINED'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--later", action="store_true", help="show lines of later versions too")
    parser.add_argument("--failures", action="store_true", help="show statements that raise")
    options = parser.parse_args()
    folder = os.environ.get("GRAPHC_TF1_PROBE")
    if not folder or not (Path(folder) / "semantics_probe.py").is_file():
        sys.stdout.write(
            "GRAPHC_TF1_PROBE must name a folder with semantics_probe.py and semantics_tf115.txt\n"
        )
        return 2
    expected = expected_lines((Path(folder) / "semantics_tf115.txt").read_text(encoding="utf-8"))
    result = run_probe(Path(folder))
    found = {line["id"]: line["parts"] for line in result["lines"]}
    report, later = Report(), Report()
    for line, wanted in expected.items():
        if in_this_version(line):
            report.compare(line, wanted, found.get(line))
    if options.later:
        later.say("\nLines of later versions:")
        for line, wanted in expected.items():
            if not in_this_version(line):
                later.compare(line, wanted, found.get(line))
    if options.failures:
        report.say("\nStatements that raise:\n" + "\n".join(result["failures"]))
    classes = ", ".join(f"{ours} -> {theirs}" for ours, theirs in sorted(result["raised"].items()))
    report.say(
        f"\n{report.agree} parts agree, {report.explained} differ for a reason, "
        f"{report.unexplained} differ, {report.stale} explanations are out of date.\n"
        f"A class of graphc that derives from what TensorFlow raises counts as that: {classes}."
    )
    return 1 if report.unexplained or report.stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
