"""Names of devices as TensorFlow 1 writes them: ``/device:GPU:0``, ``/job:worker/device:CPU:0``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from graphc.errors import DTypeError, GraphError

_SHORT = {"CPU": "CPU", "GPU": "GPU", "CUDA": "GPU"}


@dataclass(frozen=True)
class DeviceName:
    """The parts of a name; None for what it leaves open.

    ``index`` is None for ``*`` too, which ``kind`` alone asks for.
    """

    job: str | None = None
    replica: int | None = None
    task: int | None = None
    kind: str | None = None
    index: int | None = None

    def over(self, outer: DeviceName) -> DeviceName:
        """This name, with what it leaves open as the one around says."""
        if self.kind is not None:
            outer = replace(outer, kind=None, index=None)
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(outer, **{k: v for k, v in parts.items() if v is not None})

    def __str__(self) -> str:
        parts = [f"/{name}:{value}" for name in ("job", "replica", "task")
                 if (value := getattr(self, name)) is not None]  # fmt: skip
        if self.kind is not None:
            parts.append(f"/device:{self.kind}:{'*' if self.index is None else self.index}")
        return "".join(parts)


def parse_device(text: str) -> DeviceName:
    """The parts of a name.

    Raises:
      GraphError: (a ValueError) it is none.
    """
    found: dict[str, Any] = {}
    for part in text.split("/"):
        if not part:
            continue
        name, *rest = part.split(":")
        if name == "job" and len(rest) == 1:
            found["job"] = rest[0]
        elif name in ("replica", "task") and len(rest) == 1:
            found[name] = _number(rest[0], text)
        elif name.upper() in _SHORT and len(rest) <= 1:
            _kind(found, _SHORT[name.upper()], rest, text)
        elif name == "device" and len(rest) in (1, 2) and not rest[0].isdecimal():
            _kind(found, rest[0].upper(), rest[1:], text)
        else:
            raise GraphError(
                f"Unknown attribute: {name!r} in {text!r}: a device is called '/gpu:0', "
                "'/device:GPU:1', '/cpu:0', '/job:worker/task:0/device:GPU:0'"
            )
    return DeviceName(**found)


def _kind(found: dict[str, Any], kind: str, rest: Sequence[str], text: str) -> None:
    if "kind" in found:
        raise GraphError(f"Cannot specify multiple device types: {text}")
    found["kind"] = _SHORT.get(kind, kind)
    found["index"] = _number(rest[0], text) if rest and rest[0] != "*" else None


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise GraphError(f"{text!r} is no number of a device in {name!r}")
    return int(text)


def asked_device(stack: Sequence[Any], op: Any) -> str:
    """The device that ``with device(...)`` around an operation ask for, the innermost first.

    Args:
      stack: names, functions of the operation that give one, and None, which hides those around.
      op: the operation; the functions see in its ``device`` what those inside of them have asked.
    """
    op.device = ""
    for entry in reversed(stack):
        if entry is None:
            break
        if callable(entry):
            op.device = device_text(entry(op))
        else:
            op.device = str(parse_device(op.device).over(entry))
    return str(op.device)


def device_text(value: Any) -> str:
    """The canonical name of a device: of a string, or of what has ``to_string()``.

    Raises:
      DTypeError: (a TypeError) it is neither.
      GraphError: (a ValueError) it is no name of a device.
    """
    if value is None:
        return ""
    text = value.to_string() if hasattr(value, "to_string") else value
    if not isinstance(text, str):
        raise DTypeError(f"a device is a name like '/gpu:0', a function or None, not {value!r}")
    return str(parse_device(text))
