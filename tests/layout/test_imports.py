"""Imports go one way through the package, and stand at the top of their files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

import pytest

# A unit (a top-level module or folder of graphc) may import the units of the rows above its own
# and, within its own row, those to its left.
ROWS = """
    errors dtypes dims shapes nest logging config options
    loop
    codegen
    graph
    op build backward
    ops
    gradients interpret initializers variables variable_scope
    tensor_array branches control_flow functional script_ops logging_ops cases check_ops check_types
    debugging custom_gradient own_ops defun
    tensor_array branches control_flow function rewrite
    passes
    kernels
    lower_operands lower_attention lower_twins lower_loops lower_template lower_cost lower_gpu
    lower_host lower
    program_steps program_arena program_text program_updates program_function
    program_control program program_verify program_interpret
    runtime
    compiler
    feeding modes
    runner cuda_runner callables placement
    session
    eager
    nn losses layers train math random linalg hessian
    data summary quantize compress distributed formats inspect
    tf1
    __init__
    __main__
"""
# Where the rows alone would allow too much.
NARROWER = {
    "codegen": {"errors", "dtypes", "dims", "shapes", "loop"},
    "kernels": {"errors", "dtypes", "dims", "shapes", "loop", "graph", "op", "build", "ops"},
}
ONLY_FOR = {
    # The printers serve the compiler, and whoever shows or ships what it printed.
    "codegen": {"runtime", "compiler", "eager", "formats", "inspect", "tf1", "__main__"},
}
# What a unit may name in annotations only (under `if TYPE_CHECKING:`) although it stands above.
TYPES_ONLY = {("graph", "op")}
# Packages that are imported where they are first used, with an error that names the extra.
OPTIONAL = {
    "cuda", "cupy", "cupy_backends", "jax", "llvmlite", "matplotlib", "mpi4py", "nvmath", "onnx",
    "tensorflow", "torch",
}  # fmt: skip

ORDER = ROWS.split()


def listed(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


class Import(NamedTuple):
    """An imported module, where, and whether in a function or for annotations only."""

    target: str
    line: int
    in_function: bool
    types_only: bool


def imports(tree: ast.AST, modules: set[str] = frozenset()) -> Iterator[Import]:
    """Every import below ``tree``; ``from a import b`` is of ``a.b`` where that is a module."""

    def visit(node: ast.AST, in_function: bool, types_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function, types_only)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                target = whole if whole in modules else base
                yield Import(target, node.lineno, in_function, types_only)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, in_function, True)
            for child in node.orelse:
                yield from visit(child, in_function, types_only)
        else:
            inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside, types_only)

    yield from visit(tree, False, False)


def unit(module: str) -> str:
    """The top-level unit of a module of graphc."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def allowed(importer: str, imported: str, types_only: bool) -> bool:
    """Whether one unit may import the other."""
    if importer == imported or (types_only and (importer, imported) in TYPES_ONLY):
        return True
    if importer in NARROWER:
        return imported in NARROWER[importer]
    if importer not in ONLY_FOR.get(imported, {importer}):
        return importer == "__init__"
    return ORDER.index(imported) < ORDER.index(importer)


def border_faults(package) -> list[str]:
    modules = {source.module for source in package}
    faults = []
    for source in package:
        importer = unit(source.module)
        for found in imports(source.tree, modules):
            if found.target.split(".")[0] != "graphc":
                continue
            imported = unit(found.target)
            if importer not in ORDER or imported not in ORDER:
                continue
            if not allowed(importer, imported, found.types_only):
                faults.append(f"{source.path}:{found.line}: {importer} may not import {imported}")
    return faults


def late_imports(package) -> list[str]:
    return [
        f"{source.path}:{found.line}: {found.target} is imported inside a function"
        for source in package
        for found in imports(source.tree)
        if found.in_function and found.target.split(".")[0] not in OPTIONAL
    ]


def kernels_imports(sources) -> list[str]:
    return [
        f"{source.path}:{found.line}: import graphc.kernels, never kernels"
        for source in sources
        for found in imports(source.tree)
        if found.target.split(".")[0] == "kernels"
    ]


def test_imports_go_one_way(package):
    faults = border_faults(package)
    assert not faults, listed(faults)


def test_every_unit_has_its_place(package):
    unknown = {unit(source.module) for source in package} - set(ORDER)
    assert not unknown, f"give {sorted(unknown)} a place in ROWS of {__file__}"


def test_no_import_inside_a_function(package):
    faults = late_imports(package)
    assert not faults, listed(faults)


def test_kernels_is_never_imported_by_its_top_level_name(sources):
    faults = kernels_imports(sources)
    assert not faults, listed(faults)


def test_imports_are_absolute(package):
    relative = [
        f"{source.path}:{found.line}"
        for source in package
        for found in imports(source.tree)
        if found.target.startswith(".")
    ]
    assert not relative, listed(relative)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("graphc/loop/ir.py", "import graphc.graph"),
        ("graphc/loop/ir.py", "from graphc import session"),
        ("graphc/loop/ir.py", "def f():\n    from graphc.session import Session"),
        ("graphc/codegen/llvm.py", "from graphc.graph import Graph"),
        ("graphc/ops/state.py", "from graphc.codegen.llvm import emit"),
        ("graphc/graph.py", "import graphc"),
        ("graphc/graph.py", "from graphc.op import Op"),
        ("graphc/shapes.py", "if TYPE_CHECKING:\n    from graphc.graph import Tensor"),
        ("kernels/matmul.py", "from graphc.runtime import cpu"),
    ],
)
def test_a_wrong_border_is_found(make_source, path, text):
    known = [make_source("graphc/session.py", ""), make_source("graphc/graph.py", "")]
    assert len(border_faults([make_source(path, text), *known])) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("graphc/lower.py", "from graphc.kernels import matmul"),
        ("graphc/graph.py", "if TYPE_CHECKING:\n    from graphc.op import Op"),
        ("graphc/__main__.py", "import graphc as gc"),
        ("graphc/compiler.py", "from graphc.codegen import llvm"),
        ("graphc/train/adam.py", "from graphc.nn import moments"),
    ],
)
def test_a_right_border_is_not_reported(make_source, path, text):
    assert border_faults([make_source(path, text)]) == []


def test_late_and_kernels_imports_are_found(make_source):
    late = make_source("graphc/graph.py", "def f():\n    import json\n    import cupy\n")
    assert len(late_imports([late])) == 1
    wrong = make_source("examples/a.py", "from kernels.matmul import tile")
    assert len(kernels_imports([wrong])) == 1
