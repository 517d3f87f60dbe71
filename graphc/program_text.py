"""Programs as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.function import Function, format_function, format_type
from graphc.passes.plan import format_plan
from graphc.program_steps import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Extend,
    Grow,
    Host,
    Loop,
    Program,
    Reserve,
    Rotate,
    Step,
)

KEY_CONSTANT = 1024


def program_key(program: Program) -> str:
    """Text that determines the program's machine code, without building any kernel.

    The operations after all passes, with the constants that kernels spell out or that shape their
    loops; how they are fused; where everything is stored; the sizes that fast versions are for.
    """
    hints = [f"{s}={v}" for s, v in program.hints.items()]
    parts = [
        format_function(program.function), *_values(program.function),
        *map(format_plan, program.plans), format_program(program), *hints,
        *(f"{low.name} {low.tiles}" for low in program.kernels if low.tiles is not None),
    ]  # fmt: skip
    return "\n".join(parts)


def _values(fn: Function) -> Iterable[str]:
    for op in fn.operations:
        if op.type == "Const":
            array = op.attrs["value"]
            if array.nbytes <= KEY_CONSTANT and array.dtype != object:
                yield f"{op.name} {array.dtype} {array.tobytes().hex()}"
        # The name of an op of the user's own does not tell what it computes.
        code = getattr(op.definition, "code_text", None)
        if code is not None:
            yield f"{op.type} {code(op)}"
        for body in op.attrs.get("bodies", ()):
            yield from _values(body)


def format_program(program: Program) -> str:
    """The program as text: symbols, slots, steps."""
    lines = [f"symbols {', '.join(str(s) for s in program.symbols) or 'none'}"]
    lines += [f"assume {g}" for g in program.guards]
    for segment in program.segments[1:]:
        lines.append(f"segment {segment.number}: {', '.join(map(str, segment.symbols))}")
        lines += [f"  assume {g}" for g in segment.guards]
    for s in program.slots:
        where = f" block {s.block}" if s.kind == "temp" else ""
        lines.append(f"slot {s.number}: {s.kind} {s.dtype.code}[{s.size}] {s.name}{where}")
    lines += _steps(program.steps)
    for k, (size, bytes_) in enumerate(program.blocks):
        lines.append(f"block {k}: {size} x {bytes_} bytes")
    lines += [f"input {i.key}: {format_type(i.tensor.type)}" for i in program.inputs]
    return "\n".join(lines) + "\n"


def _steps(steps: Sequence[Step]) -> list[str]:
    lines: list[str] = []
    for step in steps:
        if isinstance(step, Loop):
            lines.append(f"loop while {step.flag}, turns in {step.turns}:")
            lines += ["  test:", *(f"    {line}" for line in _steps(step.test))]
            lines += ["  body:", *(f"    {line}" for line in _steps(step.body))]
        elif isinstance(step, Branch):
            lines.append(f"branch by {step.selector}:")
            for k, case in enumerate(step.cases):
                lines += [f"  case {k}:", *(f"    {line}" for line in _steps(case))]
        else:
            lines.append(_step(step))
    return lines


def _step(step: Step) -> str:
    if isinstance(step, Call):
        low = step.lowered
        writes = set(low.writes)
        args = ", ".join(
            f"{'&' if t in writes else ''}{n}" for t, n in zip(low.buffers, step.slots, strict=True)
        )
        scalars = ", ".join(str(s) for s in low.symbols)
        return f"call {low.name}({args}{'; ' + scalars if scalars else ''})"
    if isinstance(step, Copy):
        return f"{'commit' if step.commit else 'copy'} {step.target} <- {step.source}[:{step.size}]"
    if isinstance(step, Bind):
        sources = ", ".join(f"{s[0]}[{s[1]}]" if isinstance(s, tuple) else str(s)
                            for s in step.sources)  # fmt: skip
        return f"bind {step.segment} <- {sources}"
    if isinstance(step, Grow):
        return f"grow {step.slot} to {step.size}"
    if isinstance(step, Extend):
        return f"extend {step.slot} from {step.before} to {step.size}"
    if isinstance(step, Rotate):
        return f"rotate {', '.join(map(str, step.slots))}"
    if isinstance(step, Reserve):
        return f"reserve row {step.row} of {step.target} at {step.count}"
    if isinstance(step, Append):
        return f"append {step.target} <- {step.source}[:{step.size}] at {step.count}"
    if isinstance(step, Host):
        outputs = ", ".join(f"&{n}" for n in step.outputs)
        return f"host {step.number}: {outputs} <- {', '.join(map(str, step.inputs))}".rstrip()
    assert not isinstance(step, (Loop, Branch))
    return f"publish {step.output} <- {step.source}"
