"""biaskit: measure, show and remove positional bias in multimodal LLMs.

Importing this package changes nothing and loads neither torch, transformers nor matplotlib: public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "BiaskitError": "errors",
    "Layout": "grid",
    "Plane": "grid",
    "Prior": "prior.value",
    "bias_report": "prior.bias.report",
    "calibrate": "calibration.run",
    "get_pruner": "pruners",
    "heatmap": "figures.heatmap",
    "load_model": "families.checkpoints.load",
    "load_prior": "prior.store",
    "open_source": "images",
    "prune": "engine.prune",
    "record_attention": "engine.attention",
    "validate": "validation.ask.runner",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'biaskit' has no attribute {name!r}")
    return getattr(import_module(f"biaskit.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
