"""The colour maps and scale rules of all figures: ratios on a log2 scale centred on 1, blue below and red above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.colors import Colormap, ListedColormap
from numpy.typing import NDArray

from biaskit.errors import BiaskitError

Scale = Literal["panel", "shared"]
SCALES = ("panel", "shared")
RELATIVE, RATIO = "vlag", "PuOr_r"
"""Attention over uniform; one map over another."""

ROBUST = 99.0  # percentile of |log2| in a map that the colours must reach; values beyond are clipped and marked at the colour bar
HEADROOM = 0.15  # log2 above it, so that a slightly stronger cell is not drawn as a sink
FAINTEST, STRONGEST = 1.25, 8.0  # bounds of the colour scale's end, in multiples of uniform: a flat map should look flat
_FINE = ((0.45, (1 / 1.25, 1 / 1.1, 1.0, 1.1, 1.25)), (1.6, (0.5, 1 / 1.5, 1 / 1.25, 1.0, 1.25, 1.5, 2.0)))  # up to |log2| → ticks


def check_scale(scale: str) -> Scale:
    """Return the scale unchanged.

    Raises:
        BiaskitError: it is neither `panel` nor `shared`.

    Example:
        >>> check_scale("panel")
        'panel'
    """
    if scale not in SCALES:
        raise BiaskitError(f"unknown scale {scale!r}", "panel: each map has its own; shared: one for all, to compare strengths")
    return scale  # type: ignore[return-value]


def colours(cmap: str | Colormap | None = None, default: str = RELATIVE) -> Colormap:
    """Return a colour map for log2 values, with darker colours beyond its limits.

    Args:
        cmap: a colour map or its name; by default the one of `default`, which is safe for all kinds of colour blindness.

    Raises:
        BiaskitError: there is no colour map of that name.

    Example:
        >>> colours("viridis").name
        'viridis'
    """
    if cmap is None:
        found: Colormap = sns.color_palette(default, as_cmap=True)
        if default == RELATIVE:
            return found.with_extremes(over="#5a0f16", under="#0b2a52")
        inner = ListedColormap(found(np.linspace(0.1, 0.9, 256)), name=default)  # the ends are for values beyond the limits
        return inner.with_extremes(over="#4a2004", under="#1d0030")
    if isinstance(cmap, Colormap):
        return cmap
    try:
        return matplotlib.colormaps[cmap]
    except KeyError:
        raise BiaskitError(f"unknown colour map {cmap!r}", "give the name of one of matplotlib's, such as RdBu_r, or omit it") from None


def colour_limit(maps: Sequence[NDArray[np.float64]]) -> float:
    """Half-width of the colour scale of log2 maps: reaches the 99th percentile of every map, so a map's few sinks do not set it.

    Example:
        >>> round(2 ** colour_limit([np.zeros((4, 4))]), 2)
        1.25
    """
    robust = max(float(np.percentile(np.abs(values), ROBUST, method="lower")) for values in maps)
    wide = math.ceil((robust + HEADROOM) * 4) / 4
    return min(max(wide, math.log2(FAINTEST)), math.log2(STRONGEST))


def colour_ticks(limit: float, fine: bool) -> list[float]:
    """Multiples of uniform to label on a log2 scale of ± limit; a short colour bar has no space for fine ones.

    >>> colour_ticks(1.0, fine=True)
    [0.5, 0.6666666666666666, 0.8, 1.0, 1.25, 1.5, 2.0]
    """
    for reach, ticks in _FINE:
        if limit <= reach and (fine or limit < 1):
            return [tick for tick in ticks if abs(math.log2(tick)) <= limit + 1e-9]
    top = math.floor(limit + 1e-9)
    return [2.0**power for power in range(-top, top + 1)]


def beyond(maps: Sequence[NDArray[np.float64]], limit: float) -> Literal["neither", "min", "max", "both"]:
    """Return at which ends of a scale of ± limit log2 maps are clipped.

    Example:
        >>> beyond([np.array([[-2.0, 0.5]])], 1.0)
        'min'
    """
    low = min(float(values.min()) for values in maps) < -limit
    high = max(float(values.max()) for values in maps) > limit
    return "both" if low and high else "min" if low else "max" if high else "neither"


def multiple(tick: float) -> str:
    """A multiple of uniform in few characters.

    >>> multiple(1.5), multiple(0.125)
    ('1.5', '0.125')
    """
    return f"{tick:.2f}".rstrip("0").rstrip(".") if tick >= 0.2 else f"{tick:.3g}"
