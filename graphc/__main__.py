"""The command line: ``python -m graphc run | profile | compile | show | dump | ops | info``."""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import __version__
from graphc.dtypes import string
from graphc.errors import FeedError, GraphcError
from graphc.formats import Model, load, save_kernels
from graphc.formats.kernels import ARCHITECTURES
from graphc.inspect import compile_stages, write_stages
from graphc.inspect.describe import describe_installation, describe_model, describe_op, list_ops
from graphc.runtime.jit import JitError

FAILED, BROKEN_PIPE, INTERRUPTED = 1, 141, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
      0 when all went well, 1 when it failed, 141 when the reader of the output went away; wrong
      usage exits with 2.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as e:
        where = f"{e.filename}: " if e.filename is not None else ""
        return _failed(f"{where}{e.strerror or e}")
    except MemoryError:
        return _failed("out of memory")
    except (GraphcError, JitError, ValueError, TypeError) as e:
        return _failed(str(e))
    return 0


def _failed(message: str) -> int:
    print(f"graphc: {message}", file=sys.stderr)
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphc", description="Run and look at graphc model files, ops and the installation."
    )
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="run a model on arrays from .npy or .npz files")
    _add_model(run)
    run.add_argument(
        "--out", metavar="FILE.npy",
        help="where to write the output (several outputs: FILE-NAME.npy each); or FILE.npz",
    )  # fmt: skip
    _add_device(run)
    run.set_defaults(run=_run)
    profile = commands.add_parser("profile", help="run a model and tell how long its kernels take")
    _add_model(profile)
    profile.add_argument(
        "--runs", type=_positive, default=10, metavar="N",
        help="tell of the fastest of so many runs (10)",
    )  # fmt: skip
    profile.add_argument("--trace", metavar="FILE.json", help="write a trace for ui.perfetto.dev")
    _add_device(profile)
    profile.set_defaults(run=_profile)
    show = commands.add_parser("show", help="print a model's signature, ops, parameters and sizes")
    show.add_argument("model", help="a model file")
    show.set_defaults(run=_show)
    dump = commands.add_parser("dump", help="print every stage of compiling a model")
    dump.add_argument("model", help="a model file")
    dump.add_argument("--stage", help="only this stage (extract, fuse, loops, program, llvm, ...)")
    _add_shapes(dump)
    dump.add_argument("--target", help="avx512, avx2 or generic instead of this machine")
    dump.add_argument("--out", metavar="FOLDER", help="write one file per stage")
    dump.set_defaults(run=_dump)
    compile_ = commands.add_parser(
        "compile", help="compile a model for GPUs, on a machine that need not have one"
    )
    compile_.add_argument("model", help="a model file")
    compile_.add_argument(
        "--arch", action="append", metavar="sm_90",
        help="an architecture, once for each (sm_80, sm_90)",
    )  # fmt: skip
    _add_shapes(compile_)
    compile_.add_argument(
        "--out", metavar="FILE",
        help="where to write the kernels; else they are put in the cache only",
    )  # fmt: skip
    compile_.set_defaults(run=_compile)
    ops = commands.add_parser("ops", help="list the ops, or describe one")
    ops.add_argument("name", nargs="?", help="an op: MatMul")
    ops.set_defaults(run=_ops)
    info = commands.add_parser("info", help="describe the installation: CPU, CUDA, cache")
    info.set_defaults(run=_info)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    """The arguments of what can run on a GPU."""
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="where it runs: cpu, cuda, cuda:1 (cpu)"
    )
    parser.add_argument(
        "--kernels", metavar="FILE",
        help="what `graphc compile --out FILE` has compiled for the GPU",
    )  # fmt: skip


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    """The arguments of what is compiled before anything runs."""
    parser.add_argument(
        "--shape", action="append", default=[], type=_shape, metavar="NAME=8,?,3",
        help="compile for this shape of an input, instead of its declared one",
    )  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments of what runs a model."""
    parser.add_argument("model", help="a model file")
    parser.add_argument(
        "--feed", action="append", default=[], type=_feed, metavar="NAME=FILE.npy",
        help="an input, once for each; or FILE.npz with inputs by name",
    )  # fmt: skip


# --- run ------------------------------------------------------------------------------------------


def _feed(text: str) -> tuple[str | None, str]:
    name, equals, path = text.partition("=")
    if not equals and text.endswith(".npz"):
        return None, text
    if not equals or not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE.npy, nor a FILE.npz")
    return name, path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _profile(args: argparse.Namespace) -> None:
    model = load(args.model, device=args.device, kernels=args.kernels)
    feeds = _feeds(model, args)
    # The first run compiles, and the second still meets cold caches.
    model.run(**feeds)
    best = min((model.profile(**feeds) for _ in range(args.runs)), key=lambda p: p.total)
    print(best)
    if args.trace is not None:
        best.chrome_trace(args.trace)
        print(f"trace -> {args.trace}")


def _feeds(model: Model, args: argparse.Namespace) -> dict[str, Any]:
    """The arrays to feed, by input."""
    feeds: dict[str, Any] = {}
    for name, path in args.feed:
        for key, array in _arrays(name, path).items():
            if key in feeds:
                raise FeedError(f"the input {key!r} is fed twice")
            _check_dtype(model, key, array, path)
            feeds[key] = array
    return feeds


def _run(args: argparse.Namespace) -> None:
    model = load(args.model, device=args.device, kernels=args.kernels)
    values = model.run(**_feeds(model, args))
    if args.out is None:
        for name, value in values.items():
            print(f"{name}: {_described(value)}")
    else:
        _write(values, Path(args.out))


def _arrays(name: str | None, path: str) -> dict[str, np.ndarray]:
    """The array of a .npy file under the given name, or those of a .npz file."""
    with open(path, "rb") as file:
        magic = file.read(6)
        if magic != b"\x93NUMPY" and not magic.startswith(b"PK"):
            raise FeedError(f"{path} is no .npy or .npz file")
        if (name is None) != magic.startswith(b"PK"):
            how = f"NAME={path}: it holds one" if name is None else f"{path}: it holds several"
            raise FeedError(f"feed {how}")
        file.seek(0)
        try:
            loaded = np.load(file, allow_pickle=False)
            return dict(loaded) if name is None else {name: loaded}
        except (ValueError, EOFError, zipfile.BadZipFile) as e:
            pickled = "Object arrays" in str(e)
            reason = "it holds pickled objects, which are never loaded" if pickled else e
            raise FeedError(f"{path} cannot be read as an array: {reason}") from None


def _check_dtype(model: Model, name: str, array: np.ndarray, path: str) -> None:
    """Refuse what would lose its meaning on the way: floats for integers, say."""
    tensor = model.inputs.get(name)
    if tensor is None or tensor.dtype.base_dtype is string:
        return
    wanted = tensor.dtype.base_dtype.numpy
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise FeedError(
            f"the input {name!r} is {wanted}{tensor.shape}; {path} holds "
            f"{array.dtype}{list(array.shape)}"
        )


def _described(value: Any) -> str:
    if value is None:
        return "done"
    array = np.asarray(value)
    dtype = "string" if array.dtype == object else array.dtype
    lines = "\n" if array.ndim > 1 else " "
    return f"{dtype}{list(array.shape)}{lines}{value}"


def _write(values: Mapping[str, Any], path: Path) -> None:
    """Write the outputs to one .npz file or to a .npy file each."""
    arrays = {n: _plain_array(v) for n, v in values.items() if v is not None}
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
        print(f"{', '.join(arrays)} -> {path}")
        return
    path = path if path.suffix == ".npy" else path.with_name(path.name + ".npy")
    for name, array in arrays.items():
        target = path
        if len(arrays) > 1:
            target = path.with_name(f"{path.stem}-{name.replace('/', '_')}.npy")
        np.save(target, array, allow_pickle=False)
        print(f"{name}: {array.dtype}{list(array.shape)} -> {target}")


def _plain_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(bytes) if array.dtype == object else array


# --- the others -----------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> None:
    print(describe_model(load(args.model), args.model), end="")


def _shape(text: str) -> tuple[str, list[int | None]]:
    name, equals, sizes = text.partition("=")
    parts = [p.strip() for p in sizes.split(",")] if sizes.strip() else []
    if not name or not equals or not all(p == "?" or p.isdecimal() for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=8,?,3")
    return name, [None if p == "?" else int(p) for p in parts]


def _dump(args: argparse.Namespace) -> None:
    model = load(args.model)
    feeds = dict.fromkeys(model.inputs.values()) | _shapes(model, args)
    stages = compile_stages(model.session, list(model.outputs.values()), feeds, args.target)
    if args.stage is not None:
        names = list(dict.fromkeys(s.name for s in stages))
        stages = [s for s in stages if s.name == args.stage]
        if not stages:
            raise ValueError(f"there is no stage {args.stage!r}; the stages are {', '.join(names)}")
    if args.out is not None:
        for path in write_stages(stages, args.out):
            print(path)
        return
    for s in stages:
        print(s.text if args.stage is not None else f"=== {s.name}\n{s.text}", end="")


def _shapes(model: Model, args: argparse.Namespace) -> dict[Any, Any]:
    """The shapes that were asked for, by input."""
    shapes: dict[Any, Any] = {}
    for name, shape in args.shape:
        if name not in model.inputs:
            raise FeedError(f"there is no input {name!r}; the model has {model.listed_inputs()}")
        shapes[model.inputs[name]] = shape
    return shapes


def _compile(args: argparse.Namespace) -> None:
    model = load(args.model)
    arch = args.arch or list(ARCHITECTURES)
    save_kernels(args.out, model.session, model.inputs, model.outputs, arch, _shapes(model, args))
    print(f"{', '.join(arch)} -> {'the cache' if args.out is None else args.out}")


def _ops(args: argparse.Namespace) -> None:
    print(list_ops() if args.name is None else describe_op(args.name), end="")


def _info(_: argparse.Namespace) -> None:
    print(describe_installation(__version__), end="")


if __name__ == "__main__":
    sys.exit(main())
