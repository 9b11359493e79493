"""Tiny random checkpoints of every family, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from biaskit.families.checkpoints.tiny import TINY, save_tiny, tiny_model


@cache
def built(name: str, **options: Any) -> tuple[Any, Any, Any]:
    return tiny_model(name, **options)


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """(model, processor, family) of each family in turn, under sdpa."""
    return built(request.param)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name → directory of a tiny checkpoint, saved as hub repositories are."""

    @cache
    def make(name: str) -> Path:
        return save_tiny(name, tmp_path_factory.mktemp("checkpoints") / name)

    return make
