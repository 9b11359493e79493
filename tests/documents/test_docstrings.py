"""The examples in docstrings run and answer what they say."""

from __future__ import annotations

import doctest
import traceback
import types
from importlib import import_module
from pathlib import Path

import pytest

import biaskit

PACKAGE = Path(biaskit.__file__).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def without_notes(kind, error):
    """What Python shows of an error, without its hint: Python 3.11's doctest would take the last line for the message."""
    return [line for line in traceback.format_exception_only(kind, error) if not line.startswith("hint: ")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctest, "traceback", types.SimpleNamespace(**{**vars(traceback), "format_exception_only": without_notes}))
    name = ".".join(["biaskit", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    found = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed


def test_every_selection_has_an_example():
    from biaskit import select

    functions = [name for name in select.__all__ if callable(getattr(select, name)) and not isinstance(getattr(select, name), type)]
    assert [name for name in functions if name != "budget" and ">>> " not in (getattr(select, name).__doc__ or "")] == []


@pytest.mark.parametrize("module", ["", "select", "select.kept", "testing", "signals", "pruners", "families", "tasks", "images"])
def test_every_public_function_has_an_example(module):
    """Where one is possible without a download, which is everywhere."""
    public = import_module(f"biaskit.{module}".rstrip("."))
    functions = {name: getattr(public, name) for name in public.__all__ if isinstance(getattr(public, name), types.FunctionType)}
    assert [name for name, function in functions.items() if ">>> " not in (function.__doc__ or "")] == []
