"""Find an architecture by name."""

from __future__ import annotations

from typing import Any

from biaskit.demo.training.architecture import Architecture
from biaskit.errors import BiaskitError

NAMES = ("llava", "qwen")


def find(name: str) -> Architecture:
    """Return the architecture of that name, or of that model type.

    Raises:
        BiaskitError: an unknown name.
    """
    from biaskit.demo.training.llava import Llava
    from biaskit.demo.training.qwen import Qwen

    for each in (Llava(), Qwen()):
        if name in (each.name, each.model_type):
            return each
    raise BiaskitError(f"no embedded model has the architecture {name!r}", f"choose one of {', '.join(NAMES)}")


def architecture_of(model: Any) -> Architecture:
    """Return the architecture of a stock model."""
    return find(model.config.model_type)
