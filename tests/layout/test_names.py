"""Public names are documented, nothing is left for later, and the version is one."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import tokenize
import tomllib

import pytest

import graphc

PUBLIC_MODULES = (
    "graphc",
    "graphc.data",
    "graphc.nn",
    "graphc.train",
    "graphc.layers",
    "graphc.errors",
)
LEFT_OVER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def listed(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


def undocumented(names: dict[str, object]) -> list[str]:
    return [name for name, value in names.items() if not is_documented(value)]


def is_documented(value: object) -> bool:
    """A docstring of its own; a value (a dtype, a number) is documented where it is made."""
    if inspect.isclass(value):
        return bool(value.__dict__.get("__doc__"))
    if inspect.ismodule(value) or callable(value):
        return bool(inspect.getdoc(value))
    return True


def left_overs(sources) -> list[str]:
    faults = []
    for source in sources:
        faults += [
            f"{source.path}:{token.start[0]}: {token.string}"
            for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
            if token.type == tokenize.COMMENT and LEFT_OVER.search(token.string)
        ]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
                    faults.append(f"{source.path}:{node.lineno}: raises NotImplementedError")
    return faults


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_names_are_documented(module, package):
    if module not in {source.module for source in package}:
        pytest.skip(f"there is no {module}")
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", ())
    assert len(set(names)) == len(names)
    bare = undocumented({name: getattr(loaded, name) for name in names})
    assert not bare, listed(bare)


def test_every_module_is_documented(package):
    missing = [source.path for source in package if not ast.get_docstring(source.tree)]
    assert not missing, listed(missing)


def test_nothing_is_left_for_later(package):
    faults = left_overs(package)
    assert not faults, listed(faults)


def test_the_version_is_one(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if hasattr(graphc, "__version__"):
        assert graphc.__version__ == project["version"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{project['version']}]" in changelog


def test_left_overs_and_undocumented_names_are_found(make_source):
    texts = ("# TODO: two", "raise NotImplementedError", "raise NotImplementedError(1)")
    assert all(left_overs([make_source("a.py", text)]) for text in texts)
    assert not left_overs([make_source("a.py", "x = NotImplemented  # the reason")])

    class Bare(ValueError):
        pass

    assert undocumented({"bare": Bare, "error": ValueError, "one": 1}) == ["bare"]
