"""Bilinear resampling of maps with `align_corners=False`, in float64."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=1024)
def _interpolation(source: int, target: int) -> NDArray[np.float64]:
    """[target, source] weights of linear interpolation with `align_corners=False`: cell centres at (i + 0.5) / n, edges clamped."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    weights = np.zeros((target, source))
    rows = np.arange(target)
    weights[rows, low] += 1 - (centre - low)
    weights[rows, high] += centre - low
    weights.flags.writeable = False
    return weights


def resample(values: NDArray[Any], rows: int, cols: int) -> NDArray[np.float64]:
    """Bilinear resampling of maps [..., r, c] to [..., rows, cols], `align_corners=False`, in float64.

    Values are densities (attention × N), so a constant map keeps its constant. The same size returns the values unchanged.

    >>> resample(np.array([[1.0, 3.0]]), 1, 4)
    array([[1. , 1.5, 2.5, 3. ]])
    """
    values = np.asarray(values, dtype=np.float64)
    r, c = values.shape[-2:]
    if (r, c) == (rows, cols):
        return values
    result: NDArray[np.float64] = _interpolation(r, rows) @ values @ _interpolation(c, cols).T
    return result
