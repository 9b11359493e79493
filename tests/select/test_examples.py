"""The examples in the docstrings of the selection mathematics run and say what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import biaskit.select

MODULES = [module.name for module in pkgutil.iter_modules(biaskit.select.__path__) if not module.ispkg]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"biaskit.select.{name}")).failed == 0
