"""Host steps that show something: Print, PrintV2, and Assert's failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from graphc import logging
from graphc.errors import InvalidArgumentError
from graphc.graph import Operation, Tensor
from graphc.op import Attr, Gradients, InferContext, register
from graphc.ops.host import ANY, HostOp, ResultType
from graphc.ops.host_text import edges, summary


@register
class Print(HostOp):
    """The first operand as it is; a run shows ``data`` on the standard error stream.

    ``first_n`` is how many times it does so (-1: always), ``summarize`` how many elements it
    shows of each tensor.
    """

    name = "Print"
    inputs = f"input: {ANY}, data: N*{ANY}"
    attrs: ClassVar[dict[str, Attr]] = {
        "message": Attr("str", ""),
        "first_n": Attr("int", -1),
        "summarize": Attr("int", 3),
    }
    passes = True
    differentiable = True

    def result_types(self, ctx: InferContext) -> Sequence[ResultType]:
        """The type of the first operand."""
        return [(ctx.dtype(0), ctx.sizes(0))]

    def compute(self, op: Operation, arrays: Sequence[Any]) -> Sequence[Any]:
        """Show the data, so long as that is wanted."""
        shown = op.graph.scratch.setdefault("prints shown", {})
        count = shown.get(op.name, 0)
        if count < op.attrs["first_n"] or op.attrs["first_n"] < 0:
            shown[op.name] = count + 1
            show(op.attrs, arrays[1:])
        return ()

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The output's, for the operand that it is."""
        return [grads[0], *[None] * (len(op.inputs) - 1)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Show the data; the first operand."""
        show(attrs, inputs[1:])
        return inputs[0]


def show(attrs: dict[str, Any], arrays: Sequence[Any]) -> None:
    """One line on the standard error stream."""
    parts = [f"[{summary(a, attrs['summarize'])}]" for a in arrays]
    sys.stderr.write(attrs["message"] + "".join(parts) + "\n")
    sys.stderr.flush()


@register
class PrintV2(HostOp):
    """A run writes the attribute ``template``, its placeholders replaced by the operands.

    ``raw``: strings without quotes.
    """

    name = "PrintV2"
    inputs = f"data: N*{ANY}"
    attrs: ClassVar[dict[str, Attr]] = {
        "template": Attr("str"),
        "placeholder": Attr("str"),
        "output_stream": Attr("str", "stderr"),
        "end": Attr("str", "\n"),
        "summarize": Attr("int", 3),
        "raw": Attr("bool", False),
    }

    def result_types(self, ctx: InferContext) -> Sequence[ResultType]:
        """Nothing comes out."""
        return []

    def compute(self, op: Operation, arrays: Sequence[Any]) -> Sequence[Any]:
        """Write the text to the stream."""
        write(op.attrs, arrays)
        return ()

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Write the text to the stream."""
        write(attrs, inputs)
        return ()


def write(attrs: dict[str, Any], arrays: Sequence[Any]) -> None:
    """The text, to where it is to go."""
    first, *rest = attrs["template"].split(attrs["placeholder"])
    texts = [edges(a, attrs["summarize"]) for a in arrays]
    if attrs["raw"]:
        texts = [summary(a, -1) for a in arrays]
    text = first + "".join(a + b for a, b in zip(texts, rest, strict=True))
    stream = attrs["output_stream"]
    if stream.startswith("file://"):
        with open(stream.removeprefix("file://"), "a", encoding="utf-8") as file:
            file.write(text + attrs["end"])
    elif stream.startswith("log("):
        logging.log(LEVELS[stream], "%s", text)
    else:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.write(text + attrs["end"])
        target.flush()


LEVELS = {
    "log(info)": logging.INFO,
    "log(warning)": logging.WARN,
    "log(error)": logging.ERROR,
}


@register
class Assert(HostOp):
    """Fails with ``data`` where ``condition`` is false; ``summarize`` elements of each are shown.

    ``gc.Assert`` puts it into a branch that is taken only then.
    """

    name = "Assert"
    inputs = f"condition: bool, data: N*{ANY}"
    attrs: ClassVar[dict[str, Attr]] = {"summarize": Attr("int", 3)}

    def result_types(self, ctx: InferContext) -> Sequence[ResultType]:
        """Nothing comes out."""
        if ctx.sizes(0) not in (None, ()):
            raise ctx.error("The condition must be a scalar")
        return []

    def compute(self, op: Operation, arrays: Sequence[Any]) -> Sequence[Any]:
        """Fail, if the condition does not hold."""
        self.check(op.attrs, arrays, op)
        return ()

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Fail, if the condition does not hold."""
        self.check(attrs, inputs, None)
        return ()

    def check(self, attrs: dict[str, Any], arrays: Sequence[Any], op: Operation | None) -> None:
        """Raise the error that shows the data, unless the condition holds."""
        if not bool(arrays[0]):
            shown = " ".join(f"[{summary(a, attrs['summarize'])}]" for a in arrays[1:])
            node = None if op is None else op.node_def
            raise InvalidArgumentError(node, op, f"assertion failed: {shown}")
