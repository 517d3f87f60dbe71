"""The command line: ``python -m graphc run | show | dump | ops | info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.formats.model import Model, load
from graphc.inspect.stages import compile_stages, write_stages
from graphc.op import REGISTRY
from graphc.runtime import cache, jit, native


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status (0 good, 1 the run failed, 2 wrong usage)."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        result: int = args.run(args)
    except (GraphcError, OSError, ValueError, TypeError, KeyError) as e:
        print(f"graphc: {e}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphc", description="Run and look at graphc model files, ops and the installation."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="run a model on arrays from .npy files")
    run.add_argument("model", help="a model file")
    run.add_argument("--feed", action="append", default=[], metavar="NAME=FILE.npy",
                     help="an input; once for each")  # fmt: skip
    run.add_argument("--out", metavar="FILE.npy", help="where to write the output (several "
                     "outputs: FILE-NAME.npy each)")  # fmt: skip
    run.set_defaults(run=_run)
    show = commands.add_parser("show", help="print a model's signature, ops, parameters and sizes")
    show.add_argument("model")
    show.set_defaults(run=_show)
    dump = commands.add_parser("dump", help="print every stage of compiling a model")
    dump.add_argument("model")
    dump.add_argument("--stage", help="only this stage (extract, fuse, loops, program, llvm, ...)")
    dump.add_argument("--target", help="avx512, avx2 or generic instead of this machine")
    dump.add_argument("--out", metavar="FOLDER", help="write one file per stage")
    dump.set_defaults(run=_dump)
    ops = commands.add_parser("ops", help="list the ops, or describe one")
    ops.add_argument("name", nargs="?")
    ops.set_defaults(run=_ops)
    info = commands.add_parser("info", help="describe the installation: targets, CUDA, cache")
    info.set_defaults(run=_info)
    return parser


def _run(args: argparse.Namespace) -> int:
    model = load(args.model)
    feeds = {}
    for item in args.feed:
        name, equals, path = item.partition("=")
        if not equals:
            raise ValueError(f"--feed {item}: expected NAME=FILE.npy")
        feeds[name] = np.load(path, allow_pickle=False)
    if missing := model.inputs.keys() - feeds.keys():
        optional = {
            n for n in missing if model.inputs[n].op.type == "PlaceholderWithDefault"
        }
        if missing - optional:
            raise ValueError(f"no --feed for the inputs {sorted(missing - optional)}")
    values = model.run(**feeds)
    for name, value in values.items():
        if args.out is None:
            print(f"{name} = {value}")
            continue
        path = Path(args.out)
        if len(values) > 1:
            path = path.with_name(f"{path.stem}-{name.replace('/', '_')}{path.suffix or '.npy'}")
        np.save(path, value)
        print(f"{name}: {np.asarray(value).dtype}{list(np.shape(value))} -> {path}")
    return 0


def _show(args: argparse.Namespace) -> int:
    model = load(args.model)
    print(f"{args.model}: {Path(args.model).stat().st_size:,} bytes")
    for title, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        print(f"\n{title}")
        for name, t in tensors.items():
            print(f"  {name:24} {t.dtype.name:8} {t.shape}  {t.name}")
    total = _show_variables(model)
    counts: dict[str, int] = {}
    for op in model.graph.get_operations():
        counts[op.type] = counts.get(op.type, 0) + 1
    print(f"\nops ({sum(counts.values())})")
    for type_, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])):
        print(f"  {count:5} {type_}")
    print(f"\n{total:,} parameters")
    return 0


def _show_variables(model: Model) -> int:
    total = 0
    print("\nvariables")
    for v in model.variables:
        value = model.session.read_variable(v.op)
        total += value.size
        print(f"  {v.op.name:32} {value.dtype!s:8} {str(value.shape):16} {value.nbytes:,} bytes"
              f"{'' if v.trainable else '  not trainable'}")  # fmt: skip
    return total


def _dump(args: argparse.Namespace) -> int:
    model = load(args.model)
    outputs = list(model.outputs.values())
    stages = compile_stages(
        model.session, outputs, dict.fromkeys(model.inputs.values()), args.target
    )
    if args.stage is not None:
        stages = [s for s in stages if s.name == args.stage]
        if not stages:
            raise ValueError(f"there is no stage {args.stage!r}")
    if args.out is not None:
        for path in write_stages(stages, args.out):
            print(path)
        return 0
    for s in stages:
        print(f"=== {s.name}\n{s.text}")
    return 0


def _ops(args: argparse.Namespace) -> int:
    if args.name is None:
        for name, op in sorted(REGISTRY.items()):
            print(f"{name:36} {op.family:12} {op.doc.splitlines()[0]}")
        return 0
    found = REGISTRY.get(args.name)
    if found is None:
        raise ValueError(f"there is no op named {args.name!r}")
    print(f"{found.name} (version {found.version}, {found.family})\n\n{found.doc}\n")
    print(f"inputs: {found.inputs or 'none'}")
    for var, types in found.types.items():
        print(f"  {var}: {', '.join(t.name for t in types)}")
    for key, attr in found.attrs.items():
        default = "" if attr.default is ... else f" = {attr.default!r}"
        print(f"attribute {key}: {attr.kind}{default}")
    return 0


def _info(args: argparse.Namespace) -> int:
    from graphc import __version__

    target = jit.host_target()
    print(f"graphc {__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    print(f"target: {target.description}")
    print(f"threads: {native.get_num_threads()}")
    for name in ("avx512", "avx2", "generic"):
        try:
            print(f"  {name}: {jit.named_target(name).description}")
        except (GraphcError, RuntimeError, ValueError) as e:
            print(f"  {name}: not for this machine ({e})")
    print(f"CUDA: {cuda_status()}")
    store = cache.default_cache()
    print(f"cache: {store.stats()}")
    return 0


def cuda_status() -> str:
    """Whether a GPU can be used, or why not."""
    try:
        import cupy
    except ImportError:
        return "no: cupy is not installed (pip install graphc[cuda13] or graphc[cuda12])"
    if not cupy.is_available():
        return f"no: cupy {cupy.__version__} finds no GPU or driver"
    return f"cupy {cupy.__version__} finds a GPU, which this version of graphc does not use yet"



if __name__ == "__main__":
    sys.exit(main())
