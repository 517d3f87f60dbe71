"""What the compiler makes of a graph, stage by stage, as text.

What it teaches:

* a graph is extracted, rewritten by passes, cut into fused groups, lowered to loops, scheduled,
  and printed as LLVM IR; ``gc.inspect.compile_stages`` gives the text of every stage;
* softmax(x @ w + b) * 2 becomes two kernels: the product with the bias added in its epilogue,
  and one pass over the rows for everything else;
* the sizes that the placeholder leaves open stay symbols down to the loops' bounds.

The command line shows the same of a saved model: ``python -m graphc dump model.graphc``.

    python examples/05_reading_the_compiler.py --stage loops
    python examples/05_reading_the_compiler.py --all
"""

from __future__ import annotations

import argparse

import numpy as np

import graphc as gc

TITLES = {
    "extract": "The graph that the fetch needs, variables and feeds as its inputs",
    "fuse": "The fusion plan: which operations become one kernel",
    "loops": "The kernels as loops, scheduled for this CPU",
    "program": "The program: kernel calls over planned buffers",
    "llvm": "LLVM IR",
    "assembly": "Assembly",
}
# Where the extract of a long text begins: at the second kernel, which is the shorter one.
STARTS = {"loops": "kernel k1(", "llvm": "define void @k1(", "assembly": "k1:"}


def stages() -> list[gc.inspect.Stage]:
    """The stages of softmax(x @ w + b) * 2 with any number of rows."""
    with gc.Graph().as_default(), gc.Session() as sess:
        x = gc.placeholder(gc.float32, [None, 64], name="x")
        w = gc.Variable(np.full([64, 10], 0.1, np.float32), name="w")
        b = gc.Variable(gc.zeros([10]), name="b")
        y = gc.multiply(gc.nn.softmax(gc.matmul(x, w) + b), 2.0, name="y")
        sess.run(gc.global_variables_initializer())
        return gc.inspect.compile_stages(sess, y)


def extract(stage: gc.inspect.Stage, lines: int) -> str:
    """Some lines of a stage, each cut to the width of a page, and how many there are in all."""
    every = stage.text.rstrip("\n").splitlines()
    start = STARTS.get(stage.name, "")
    first = next((k for k, line in enumerate(every) if line.startswith(start)), 0)
    shown = [line if len(line) <= 100 else line[:97] + "..." for line in every[first:][:lines]]
    if len(shown) < len(every):
        shown.append(f"({len(shown)} of {len(every)} lines)")
    return "\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stage", help="show this stage only, whole")
    parser.add_argument("--all", action="store_true", help="show every stage, whole")
    parser.add_argument("--lines", type=int, default=30, help="lines to show of each stage")
    args = parser.parse_args()

    found = stages()
    if args.stage and args.stage not in {stage.name for stage in found}:
        parser.error(f"no stage {args.stage!r}; there are {[stage.name for stage in found]}")
    last_graph = ""
    for stage in found:
        whole = args.all or args.stage == stage.name
        if args.stage and not whole:
            continue
        # A pass is shown where it has changed the graph.
        if not whole and stage.name not in TITLES and stage.text == last_graph:
            print(f"--- {stage.name}: nothing to do\n")
            continue
        last_graph = stage.text
        print(f"--- {TITLES.get(stage.name, 'The graph after the pass ' + stage.name)}")
        print(stage.text if whole else extract(stage, args.lines))
        print()


if __name__ == "__main__":
    main()
