"""The arguments of a model's forward pass: by name, and on the host as far as layouts are computed from them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from biaskit.device import fetch


def by_name(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a module's forward pass by their names."""
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def on_the_host(*several: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Copy tokens, padding, sizes and grids to the host with one synchronisation; pixels remain on their device."""
    moved = {id(value): value for given in several for name, value in given.items() if _is_wanted(name, value)}
    found = dict(zip(moved, map(torch.from_numpy, fetch(list(moved.values()))), strict=True))
    return [{name: found.get(id(value), value) for name, value in given.items()} for given in several]


def _is_wanted(name: str, value: Any) -> bool:
    """True if layouts are computed from this argument: tokens, padding, sizes, grids; not pixels and positions."""
    if not isinstance(value, Tensor) or value.is_floating_point():
        return False
    return name == "input_ids" or (name == "attention_mask" and value.ndim == 2) or value.numel() < 1 << 12
