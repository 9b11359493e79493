"""How well maps [..., rows, cols] follow exp(k·i) over the flattened index: slope and share of variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float64]

TOKENS = 576
"""Tokens of LLaVA-1.5, whose index is the unit of slopes: index i of N corresponds to (TOKENS − 1) · i / (N − 1)."""

_FLOOR = 1e-6
"""Smallest cell value, as a share of the map's mean, before the logarithm; smaller cells are raised to it."""


def _logarithm(maps: Maps) -> Maps:
    """Logarithm of maps [..., rows, cols] divided by their means, with cells near 0 raised to a floor."""
    level = maps.mean(axis=(-2, -1), keepdims=True)
    result: Maps = np.log(np.maximum(maps / np.where(level > 0, level, 1.0), _FLOOR))
    return result


def _places(rows: int, cols: int) -> Maps:
    """Index of each cell on the scale of 576 tokens: [rows, cols]."""
    return np.arange(rows * cols, dtype=np.float64).reshape(rows, cols) * ((TOKENS - 1) / (rows * cols - 1))


def slope(maps: Maps) -> Maps:
    """Slope k of maps [..., rows, cols] with two rows or more, by least squares through the row means of the logarithm: [...].

    Example:
        >>> round(float(slope(np.exp(2e-3 * np.arange(576)).reshape(24, 24))), 6)
        0.002
    """
    place = _places(*maps.shape[-2:]).mean(axis=-1)
    centred = place - place.mean()
    result: Maps = _logarithm(maps).mean(axis=-1) @ centred / (centred @ centred)
    return result


def explained(maps: Maps) -> Maps:
    """1 − residual / total sum of squares of the logarithm, of maps [..., rows, cols]: [...]. 0 for a flat map.

    Example:
        >>> round(float(explained(np.exp(2e-3 * np.arange(576)).reshape(24, 24))), 6)
        1.0
    """
    log = _logarithm(maps)
    log = log - log.mean(axis=(-2, -1), keepdims=True)
    place = _places(*maps.shape[-2:])
    line = slope(maps)[..., None, None] * (place - place.mean())
    total = (log**2).sum(axis=(-2, -1))
    rest = ((log - line) ** 2).sum(axis=(-2, -1))
    result: Maps = np.where(total > 1e-18, 1 - rest / np.where(total > 1e-18, total, 1.0), 0.0)
    return result
