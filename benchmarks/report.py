"""Results as text and as a picture: what bench.py prints, draws, and writes into README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workloads import BY_NAME

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
TITLES = {
    "graphc": "graphc",
    "graphc-eager": "graphc, eager",
    "numpy": "NumPy",
    "torch": "PyTorch eager",
    "torch-compile": "PyTorch compiled",
    "onnxruntime": "ONNX Runtime",
    "jax": "JAX jit",
    "tensorflow": "TF 2 function",
    "tensorflow-xla": "TF 2 XLA",
    "tensorflow1": "TF 1 Session",
}
Results = dict[str, Any]


def duration(seconds: float) -> str:
    """A time with three digits."""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit = next((u for u, scale in units.items() if seconds >= scale), "µs")
    value = seconds / units[unit]
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def ratio(value: float) -> str:
    """How many times, with up to three digits."""
    if value < 0.1:
        return f"{value:.1g}x"
    return f"{value:.0f}x" if value >= 10 else f"{value:.1f}x" if value >= 1 else f"{value:.2f}x"


def contenders(results: Results) -> list[str]:
    """Who has done anything, in the order of the columns."""
    return [c for c in TITLES if any(c in row for row in results["workloads"].values())]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table with its first column to the left and the others to the right."""
    widths = [max(len(line[k]) for line in [header, *rows]) for k in range(len(header))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(header), line(rule), *map(line, rows)])


def table(results: Results) -> str:
    """The time of one call by contender, and how many times graphc's that is."""
    columns = contenders(results)
    rows = []
    for name, found in results["workloads"].items():
        ours = found.get("graphc", {}).get("time")
        cells = [BY_NAME[name].title]
        for c in columns:
            if c not in found:
                cells.append("")
                continue
            cell = duration(found[c]["time"])
            if ours and c != "graphc":
                cell += f" ({ratio(found[c]['time'] / ours)})"
            cells.append(cell)
        rows.append(cells)
    return markdown(["", *(TITLES[c] for c in columns)], rows)


def best(found: Results) -> str | None:
    """The fastest that is not graphc, in either mode."""
    others = [c for c in found if c not in ("graphc", "graphc-eager")]
    return min(others, key=lambda c: found[c]["time"], default=None)


def summary(results: Results) -> str:
    """graphc's time of one call, and that of the fastest other."""
    rows = []
    for name, found in results["workloads"].items():
        ours, other = found.get("graphc"), best(found)
        if ours is None or other is None:
            continue
        theirs = found[other]["time"]
        times = [duration(ours["time"]), duration(theirs), TITLES[other]]
        rows.append([BY_NAME[name].title, *times, ratio(theirs / ours["time"])])
    return markdown(["", "graphc", "fastest other", "which", "times graphc's"], rows)


def gaps(results: Results) -> str:
    """Who left a workload out, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, found in results.get("gaps", {}).items():
        for contender, why in found.items():
            reasons.setdefault((contender, why), []).append(name)
    lines = [f"{TITLES[c]} lacks {', '.join(names)}: {why}." for (c, why), names in reasons.items()]
    return "\n".join(lines)


def floor_seconds(name: str, machine: Results) -> float:
    """The least time that the machine could do a workload in."""
    work = BY_NAME[name]
    return max(work.flops / machine["gflops"], work.bytes / machine["gbytes"]) / 1e9


def details(results: Results) -> str:
    """What else there is to know of graphc: compile times, nearness to the machine, memory."""
    machine = results["machine"]
    peers = [c for c in contenders(results) if c not in ("graphc", "graphc-eager", "numpy")]
    rows = []
    for name, found in results["workloads"].items():
        if "graphc" not in found:
            continue
        ours, floor = found["graphc"], floor_seconds(name, machine)
        rows.append([
            BY_NAME[name].title,
            duration(ours["first"]),
            duration(ours["cached"]) if "cached" in ours else "",
            f"{floor / ours['time']:.0%}" if floor else "",
            f"{ours['megabytes']:.0f} MB",
            *(duration(found[c]["first"]) if c in found else "" for c in peers),
        ])  # fmt: skip
    header = ["graphc", "first call, cold", "cached", "of the machine's peak", "memory",
              *(f"{TITLES[c]}: first" for c in peers)]  # fmt: skip
    return markdown(header, rows)


def memory(results: Results) -> str:
    """The most that a process has resident, its libraries included.

    In brackets: by how much it grows after its library has been imported; some load most of it
    only then.
    """
    columns = contenders(results)
    rows = []
    for name, found in results["workloads"].items():
        cells = [BY_NAME[name].title]
        for c in columns:
            row = found.get(c, {})
            process, grown = row.get("process_megabytes"), row.get("megabytes")
            cells.append("" if process is None or grown is None else f"{process:.0f} ({grown:.0f})")
        rows.append(cells)
    return markdown(["resident memory, MB", *(TITLES[c] for c in columns)], rows)


def caption(results: Results) -> str:
    """What was measured where."""
    machine, columns = results["machine"], contenders(results)
    versions = dict.fromkeys(
        next(r[c]["version"] for r in results["workloads"].values() if c in r) for c in columns
    )
    others = ", ".join(TITLES[c] for c in columns if c not in ("graphc", "graphc-eager"))
    return (
        f"Time of one call, and of the fastest of {others}; medians of "
        f"{results['settings']['rounds']} interleaved rounds on {machine['threads']} threads of "
        f"{machine['cpu']} ({machine['gflops']:.0f} GFLOP/s, {machine['gbytes']:.0f} GB/s "
        f"measured), float32, {results['date']}. {', '.join(versions)}."
    )


def update_readme(path: Path, results: Results) -> None:
    """Put the table between the two marks of a README."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} lacks {BEGIN} ... {END}")
    block = f"{BEGIN}\n{summary(results)}\n\n{caption(results)}\n{END}"
    path.write_text(before + block + after, encoding="utf-8")
    print(f"updated {path}")


def plot(results: Results, path: Path) -> None:
    """Bars of the contenders' times relative to graphc's, on a logarithmic axis."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed (pip install graphc[examples])")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = [c for c in contenders(results) if c != "graphc"]
    names = [n for n, row in results["workloads"].items() if "graphc" in row]
    if not columns or not names:
        return
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.16 * len(names) * (len(columns) + 1)))
    height = 0.85 / len(columns)
    for k, c in enumerate(columns):
        places, ratios = [], []
        for row, name in enumerate(names):
            found = results["workloads"][name]
            if c in found:
                places.append(row + (k - (len(columns) - 1) / 2) * height)
                ratios.append(found[c]["time"] / found["graphc"]["time"])
        widths = [value - 1 for value in ratios]
        axes.barh(places, widths, height * 0.9, left=1, label=TITLES[c])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), [BY_NAME[n].title for n in names])
    axes.invert_yaxis()
    axes.set_xlabel("time of one call, relative to graphc's (1)")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=min(5, len(columns)), fontsize="small"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"drew {path}")
