"""The examples in docstrings run and answer what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import biaskit

ROOT = Path(biaskit.__file__).parent
EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


def test_every_selection_has_an_example() -> None:
    from biaskit import select

    functions = [name for name in select.__all__ if not isinstance(getattr(select, name), type) and name != "budget"]
    assert [name for name in functions if ">>> " not in (getattr(select, name).__doc__ or "")] == []
