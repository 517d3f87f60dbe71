"""Files and functions stay small enough to read."""

from __future__ import annotations

import ast

FILE_LIMIT, FILE_AIM = 500, 400
FUNCTION_LIMIT, FUNCTION_AIM = 80, 60


def listed(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


def long_files(sources) -> list[str]:
    return [
        f"{source.path} has {lines} lines: at most {FILE_LIMIT}, the aim is {FILE_AIM}"
        for source in sources
        if (lines := source.text.count("\n")) > FILE_LIMIT and not only_names(source.tree)
    ]


def only_names(tree: ast.Module) -> bool:
    """Whether a file is a list of the names that a package offers: nothing there to understand."""
    names = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    return all(isinstance(node, names) for node in tree.body) and any(
        isinstance(node, ast.ImportFrom) for node in tree.body
    )


def long_functions(sources) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: {node.name} has {lines} lines: "
        f"at most {FUNCTION_LIMIT}, the aim is {FUNCTION_AIM}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := code_lines(node)) > FUNCTION_LIMIT
    ]


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function from its name on, without its docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_files_are_short(sources):
    faults = long_files(sources)
    assert not faults, listed(faults)


def test_functions_are_short(sources):
    faults = long_functions(sources)
    assert not faults, listed(faults)


def test_long_ones_are_found(make_source):
    body = "    pass\n" * FUNCTION_LIMIT
    assert long_functions([make_source("a.py", f"def f():\n{body}")])
    assert not long_functions([make_source("a.py", f"def f():\n{body[9:]}")])
    docstring = '    """One.\n\n    Two.\n    """\n'
    assert not long_functions([make_source("a.py", f"def f():\n{docstring}{body[9:]}")])
    assert long_files([make_source("a.py", "pass\n" * (FILE_LIMIT + 1))])
    assert not long_files([make_source("a.py", "pass\n" * FILE_LIMIT)])
    names = "from a import b\n" * (FILE_LIMIT + 1)
    assert not long_files([make_source("a.py", names)])
    assert long_files([make_source("a.py", names + "def f(): pass\n")])
