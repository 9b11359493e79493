"""biaskit: measure, show and remove positional bias in multimodal LLMs.

Importing this package has no side effects and loads neither torch, transformers nor matplotlib: public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from biaskit.files import VERSION

__version__ = VERSION

_PUBLIC = {
    "BiaskitError": "errors",
    "Layout": "grid",
    "Plane": "grid",
    "Prior": "prior.value",
    "bias_report": "prior.bias.report",
    "calibrate": "calibration.run",
    "calibrate_schedule": "calibration.schedule",
    "get_pruner": "pruners",
    "heatmap": "figures.heatmap",
    "load_model": "families.checkpoints.load",
    "load_prior": "prior.store",
    "open_source": "images",
    "prune": "engine.prune",
    "record_attention": "engine.attention",
    "validate": "validation.ask.runner",
    "wrap_model": "families.checkpoints.wrap",
}
_MODULES = ("families", "pruners", "select", "signals", "tasks", "testing")
"""Public modules, imported on first use as well."""

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:  # what type checkers and editors see; at run time `__getattr__` imports the same
    from biaskit import families as families
    from biaskit import pruners as pruners
    from biaskit import select as select
    from biaskit import signals as signals
    from biaskit import tasks as tasks
    from biaskit import testing as testing
    from biaskit.calibration.run import calibrate as calibrate
    from biaskit.calibration.schedule import calibrate_schedule as calibrate_schedule
    from biaskit.engine.attention import record_attention as record_attention
    from biaskit.engine.prune import prune as prune
    from biaskit.errors import BiaskitError as BiaskitError
    from biaskit.families.checkpoints.load import load_model as load_model
    from biaskit.families.checkpoints.wrap import wrap_model as wrap_model
    from biaskit.figures.heatmap import heatmap as heatmap
    from biaskit.grid import Layout as Layout
    from biaskit.grid import Plane as Plane
    from biaskit.images import open_source as open_source
    from biaskit.prior.bias.report import bias_report as bias_report
    from biaskit.prior.store import load_prior as load_prior
    from biaskit.prior.value import Prior as Prior
    from biaskit.pruners import get_pruner as get_pruner
    from biaskit.validation.ask.runner import validate as validate
else:

    def __getattr__(name: str) -> object:
        """Import a public name on first use."""
        if name in _PUBLIC:
            return getattr(import_module(f"biaskit.{_PUBLIC[name]}"), name)
        if name in _MODULES:
            return import_module(f"biaskit.{name}")
        hint = ""
        if not name.startswith("_"):
            from biaskit.registry import did_you_mean

            hint = f"; {did_you_mean(name, (*_PUBLIC, *_MODULES))}"
        raise AttributeError(f"module 'biaskit' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, *_MODULES])
