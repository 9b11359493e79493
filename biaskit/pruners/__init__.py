"""Pruners: one module per method, looked up by name. Each computes on `Signals` and knows no model; the engine applies the decision."""

from __future__ import annotations

from typing import Any

from biaskit.errors import BiaskitError
from biaskit.pruners.attention import AttentionPruner
from biaskit.pruners.base import Pruner, Stage, param
from biaskit.registry import Registry, did_you_mean, named_arguments


def _keep_class(cls: type[Pruner]) -> type[Pruner]:
    return cls


pruners: Registry[type[Pruner]] = Registry("pruner", __name__, _keep_class, Pruner)

__all__ = ["AttentionPruner", "Pruner", "Stage", "get_pruner", "param", "pruners"]


@named_arguments
def get_pruner(name: str, *, preset: str | None = None, model_type: str | None = None, **parameters: Any) -> Pruner:
    """Build a pruner from its name and parameters, such as `get_pruner("d2pruner", retention=0.1, preset="localization")`.

    Args:
        name: as `biaskit pruners list` prints it.
        preset: one of the pruner's `presets`; `parameters` override it.
        model_type: of the model to be pruned: selects the preset's values for its family, where the paper gives different ones.
        parameters: as `biaskit pruners show` prints them.

    Example:
        >>> get_pruner("d2pruner", retention=0.1, preset="localization").alpha
        0.5

    Raises:
        BiaskitError: unknown name, preset or parameter (the hint offers the nearest), or a value the pruner refuses.
    """
    cls = pruners.get(name)
    if preset is not None:
        preset = cls.family_presets.get(model_type or "", {}).get(preset, preset)
        if preset not in cls.presets:
            hint = did_you_mean(preset, cls.presets) if cls.presets else f"{name} has no presets"
            raise BiaskitError(f"unknown preset {preset!r} of {name}", hint)
        parameters = {**cls.presets[preset], **parameters}
    known = [parameter.name for parameter in cls.parameters()]
    for given in parameters:
        if given not in known:
            raise BiaskitError(f"{name} has no parameter {given!r}", did_you_mean(given, [*known, "preset", "model_type"]))
    return cls(**parameters)
