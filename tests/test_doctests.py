"""Every example in a docstring of the package runs, and shows what it says."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "bayes_panns"


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def examples(source):
    """How many lines of examples the docstrings of a module have."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return sum(len(doctest.DocTestParser().get_examples(text)) for text in docstrings if text)


COUNTS = {module_name(path): examples(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("name", [name for name, count in COUNTS.items() if count])
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # An example may write files.
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted == COUNTS[name], "doctest does not reach every example, such as one of an inner function"


def test_examples_are_counted():
    assert examples('def f():\n    """Add.\n\n    >>> 1 + 1\n    2\n    >>> 3\n    3\n    """\nx >>= 1 >> 2') == 2
    assert sum(COUNTS.values()) > 10
