"""Kernels compiled for named GPUs where there is none, in a file of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.cuda_runner import source_text
from graphc.errors import DTypeError, FileFormatError, GraphError, UnimplementedError
from graphc.feeding import FetchTree
from graphc.formats import safetensors
from graphc.formats.closure import needed_operations
from graphc.formats.safetensors import parse_json, shown
from graphc.formats.save import check_inputs, signature
from graphc.graph import Tensor
from graphc.passes.assume import RanksNeeded, ValuesNeeded
from graphc.passes.extract import extract
from graphc.runner import make_plan
from graphc.runtime.cuda_device import cached_cubin, kernel_key, provide_cubin
from graphc.session import Session

FORMAT = "graphc-kernels"
FORMAT_VERSION = 1
ARCHITECTURES = ("sm_80", "sm_90")
_ARCH = re.compile(r"sm_\d{2,3}")


def save_kernels(
    path: Any, sess: Session, inputs: Any, outputs: Any, arch: Sequence[str] | str = ARCHITECTURES,
    shapes: Mapping[Any, Any] | None = None,
) -> None:  # fmt: skip
    """Compile what computes ``outputs`` from ``inputs`` for GPUs; save the machine code.

    This needs NVRTC, but no GPU and no driver.  A process that has loaded the file
    (``gc.load(..., kernels=path)``, :func:`load_kernels`) compiles nothing for the same fetches and
    feeds on such a GPU.  What the file does not have is compiled as ever: another architecture,
    another version of graphc, shapes that need kernels of their own.

    Args:
      path: the file to write; None fills the cache of compiled code only.
      sess: the session whose graph it is, and whose variables have values.
      inputs, outputs: as for :func:`~graphc.save`.
      arch: architectures: ``"sm_90"`` for an H100 or H200.
      shapes: shapes to compile for, by input, instead of the declared ones; None is any size.
    Raises:
      ValueError, TypeError: as for :func:`~graphc.save`; an architecture that is none.
      UnimplementedError: what is computed depends on values that only a run tells.
      UnavailableError: there is no NVRTC.
      OSError: the file cannot be written; an old one is left as it was.
    """
    names = [arch] if isinstance(arch, str) else [str(name) for name in arch]
    for name in names:
        if not _ARCH.fullmatch(name):
            # A device asks for code by its compute capability, without the letters of variants.
            raise GraphError(f"an architecture is called 'sm_90', not {name!r}")
    functions = [(name, _text(sess, inputs, outputs, name, shapes or {})) for name in names]
    arrays = {
        f"{name}:{kernel_key(text, name)}": np.frombuffer(cached_cubin(text, name), np.uint8)
        for name, text in functions
        if text
    }
    if path is None:
        return
    description = json.dumps({"format_version": FORMAT_VERSION, "architectures": names})
    metadata = {
        "format": FORMAT, "graphc": description,
        "sha256": safetensors.checksum(arrays, description),
    }  # fmt: skip
    safetensors.write(path, arrays, metadata)


def _text(
    sess: Session, inputs: Any, outputs: Any, arch: str, shapes: Mapping[Any, Any]
) -> str:
    """The source text of the kernels; empty where there are none."""
    if not isinstance(sess, Session):
        raise DTypeError(f"save_kernels(path, sess, inputs, outputs): {sess!r} is not a Session")
    ins = signature(sess.graph, inputs, "inputs", operations=False)
    outs = signature(sess.graph, outputs, "outputs", operations=True)
    check_inputs(needed_operations(ins.values(), outs.values()), ins)
    asked = {sess.graph.as_graph_element(k): shape for k, shape in shapes.items()}
    if other := [t for t in asked if t not in ins.values()]:
        raise GraphError(f"shapes: {other[0]!r} is not among the inputs")
    plan = make_plan(FetchTree(sess.graph, outs), list(ins.values()))
    declared = {t: _sizes(t, asked.get(t)) for t in plan.numeric}
    try:
        fn = extract(plan.computed, plan.targets, declared, sess._variable_state)
    except (RanksNeeded, ValuesNeeded):
        raise UnimplementedError(
            None, None, "what is computed depends on values that only a run tells (axes, ranks): "
            "it can be compiled in that run only",
        ) from None  # fmt: skip
    return source_text(fn, arch)


def _sizes(tensor: Tensor, shape: Any) -> tuple[int | None, ...]:
    if shape is None and tensor.sizes is None:
        raise GraphError(
            f"{tensor.name} has a shape of unknown rank (declared at {tensor.op.location}): "
            "shapes must say for which one it is to be compiled"
        )
    merged = tensor.shape.merge_with(tensor.shape if shape is None else list(shape))
    return tuple(merged.as_list())


def load_kernels(path: Any) -> list[str]:
    """Let this process use the machine code that :func:`save_kernels` wrote, on any GPU that fits.

    It is code: load files that you trust.

    Returns:
      The architectures.
    Raises:
      FileFormatError: (a ValueError) a file that is truncated, altered or too new.
      OSError: it cannot be read.
    """
    arrays, metadata = safetensors.read(path)
    text = metadata.get("graphc")
    if text is None or metadata.get("format") != FORMAT:
        raise FileFormatError(f"{path}: a safetensors file, but not one with kernels of graphc")
    description = parse_json(path, text, "the description")
    version = description.get("format_version") if isinstance(description, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: its format version is {shown(version)}; this graphc reads up to "
            f"{FORMAT_VERSION}: upgrade graphc to read it"
        )
    if metadata.get("sha256") != safetensors.checksum(arrays, text):
        raise FileFormatError(f"{path}: the checksum is wrong: the file was altered")
    found = set()
    for name, array in arrays.items():
        arch, _, key = name.partition(":")
        if array.dtype != np.uint8 or array.ndim != 1 or not _ARCH.fullmatch(arch):
            raise FileFormatError(f"{path}: {shown(name)} is no machine code")
        found.add(arch)
        provide_cubin(key, array.tobytes())
    return sorted(found)
