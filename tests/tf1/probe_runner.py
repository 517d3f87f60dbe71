"""Runs the TF1 probe against a module, statement by statement, so that one name that is missing
hides nothing but itself.

Run as a script by semantics.py:  python probe_runner.py <probe file> <result file>
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Runner:
    """Runs probe functions; collects the lines that they print and the statements that fail."""

    def __init__(self, source: str, path: str) -> None:
        self.path = path
        self.tree = ast.parse(source, path)
        self.module: dict[str, Any] = {"__name__": "probe", "__file__": path}
        exec(compile(self.tree, path, "exec"), self.module)  # noqa: S102
        self.lines: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.raised: dict[str, str] = {}

    def run(self) -> None:
        for function in self.tree.body:
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(d, ast.Name) and d.id == "probe" for d in function.decorator_list
            ):
                self.probe(function)

    def probe(self, function: ast.FunctionDef) -> None:
        self.module["tf"].reset_default_graph()
        self.names = dict(self.module, out=self.out, err=self.err)
        self.missing: dict[str, str] = {}
        self.block(function.body)

    # --- statements -----------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.With):
            self.with_block(node)
        elif isinstance(node, ast.For):
            self.for_loop(node)
        elif isinstance(node, ast.Expr) and self.is_out(node.value):
            self.out_call(node.value)
        else:
            self.execute(node)

    def execute(self, node: ast.stmt) -> bool:
        code = compile(ast.Module([node], []), self.path, "exec")
        try:
            exec(code, self.names)  # noqa: S102
        except Exception as e:  # noqa: BLE001
            self.failed(node, e)
            return False
        return True

    def failed(self, node: ast.AST, error: Exception) -> None:
        text = self.describe(error)
        where = f"line {getattr(node, 'lineno', '?')}"
        self.failures.append(f"{where}: {ast.unparse(node)[:100]}: {text}")
        for target in ast.walk(node):
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                self.missing[target.id] = text
                self.names.pop(target.id, None)

    def with_block(self, node: ast.With) -> None:
        with contextlib.ExitStack() as stack:
            for item in node.items:
                try:
                    value = stack.enter_context(self.value(item.context_expr))
                except Exception as e:  # noqa: BLE001
                    self.failed(item, e)
                    continue
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, value)
            self.block(node.body)
            try:
                stack.close()
            except Exception as e:  # noqa: BLE001
                self.failed(node, e)

    def for_loop(self, node: ast.For) -> None:
        try:
            items = self.items(node.iter)
        except Exception as e:  # noqa: BLE001
            self.failed(node, e)
            return
        for item in items:
            self.assign(node.target, item)
            self.block(node.body)

    def items(self, node: ast.expr) -> list[Any]:
        """The items of a loop; of a tuple that is spelled out, those that can be evaluated."""
        if not isinstance(node, ast.Tuple):
            return list(self.value(node))
        found = []
        for element in node.elts:
            try:
                found.append(self.value(element))
            except Exception as e:  # noqa: BLE001
                self.failed(element, e)
        return found

    def assign(self, target: ast.expr, value: Any) -> None:
        self.names["__value"] = value
        name = ast.Name("__value", ast.Load())
        statement = ast.fix_missing_locations(ast.Assign([target], name, lineno=1))
        self.execute(statement)

    def value(self, node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), self.path, "eval"), self.names)  # noqa: S307

    # --- results --------------------------------------------------------------------------------

    def is_out(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and (node.func.id == "out")
        )

    def out_call(self, node: Any) -> None:
        line = str(self.value(node.args[0]))
        parts = []
        for argument in node.args[1:]:
            try:
                value = self.value(argument)
                parts.append(value if isinstance(value, str) else repr(value))
            except Exception as e:  # noqa: BLE001
                parts.append(f"<error: {self.describe(e)}>")
        self.lines.append({"id": line, "parts": parts})

    def out(self, line: str, *values: Any) -> None:
        parts = [v if isinstance(v, str) else repr(v) for v in values]
        self.lines.append({"id": line, "parts": parts})

    def err(self, fn: Any, n: int = 160) -> str:
        """The probe's ``err``, with the exception's class under TensorFlow's name."""
        try:
            result = fn()
        except Exception as e:  # noqa: BLE001
            first = (str(e).split("\n") or [""])[0]
            return f"{self.class_name(e)}: {first[:n]}"
        return f"no error -> {result!r}"

    def class_name(self, error: Exception) -> str:
        """The exception's name; of a class of ours that TensorFlow has not, its builtin base's."""
        own = type(error)
        if not own.__module__.startswith("graphc") or hasattr(error, "error_code"):
            return own.__name__
        if own.__name__ == "OperatorNotAllowedInGraphError":
            return own.__name__
        for base in own.__mro__:
            if base.__module__ == builtins.__name__:
                self.raised[own.__name__] = base.__name__
                return base.__name__
        return own.__name__

    def describe(self, error: Exception) -> str:
        if isinstance(error, NameError) and error.name in self.missing:
            return self.missing[error.name]
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]


def main() -> None:
    np.set_printoptions(legacy="1.25")  # NumPy 1.18 printed the expected values
    os.environ["TFMOD"] = "graphc"
    probe, result = Path(sys.argv[1]), Path(sys.argv[2])
    runner = Runner(probe.read_text(encoding="utf-8"), str(probe))
    runner.run()
    found = {"lines": runner.lines, "failures": runner.failures, "raised": runner.raised}
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
