"""Measures of a bias map of any rows × cols: shares of mass, centre of mass, evenness, order, peaks.

A map [rows, cols] of attention is read as a density on the unit square, cell (r, c) covering [r/rows, (r+1)/rows] × [c/cols, (c+1)/cols].
A region's share counts the cells it cuts by the fraction covered, so that a uniform map gives the region's area on every grid and maps of
different sizes compare. All measures ignore the map's scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.prior.bias.correlation import pearson, spearman
from biaskit.prior.bias.jackknife import Replicates
from biaskit.prior.bias.law import explained, slope

Array = NDArray[Any]
Maps = NDArray[np.float64]

RING = 1 / 8  # width of the outer ring on each side, as a fraction of that side
TOP_PERCENT = 0.01  # the strongest cells that may be sinks: 1% of them, at least one


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: the measure of the prior's mean map.
        low, high: 95% interval over images (`biaskit.prior.bias.jackknife`), clipped to the measure's range and extended to include
            `value`; None if the prior has fewer than two groups of images.
        uniform: the measure of a uniform map; None if that is not defined.
    """

    value: float
    low: float | None = None
    high: float | None = None
    uniform: float | None = None

    @property
    def ratio(self) -> float | None:
        """`value` in multiples of uniform; None if uniform is 0 or not defined."""
        return self.value / self.uniform if self.uniform else None

    def to_json(self) -> dict[str, float | None]:
        """Return the fields and the ratio as plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "uniform": self.uniform, "ratio": self.ratio}


def band(size: int, start: float, stop: float) -> NDArray[np.float64]:
    """[size] fraction of each of `size` equal cells that lies between `start` and `stop` (fractions of the side).

    >>> band(4, 0.0, 0.375)
    array([1. , 0.5, 0. , 0. ])
    """
    edges = np.arange(size + 1, dtype=np.float64)
    covered = np.minimum(edges[1:], stop * size) - np.maximum(edges[:-1], start * size)
    result: NDArray[np.float64] = np.clip(covered, 0.0, 1.0)
    return result


def share(maps: Maps, rows: Array, cols: Array) -> Maps:
    """Share of the mass of maps [..., rows, cols] under the product of row weights and column weights: [...]; 0 for an empty map.

    >>> float(share(np.array([[1.0, 1.0], [3.0, 3.0]]), band(2, 0.5, 1.0), np.ones(2)))
    0.75
    """
    total = maps.sum(axis=(-2, -1))
    part = (maps @ cols) @ rows
    result: Maps = np.where(total > 0, part / np.where(total > 0, total, 1.0), 0.0)
    return result


def strip(maps: Maps, top: float = 0.0, bottom: float = 1.0, left: float = 0.0, right: float = 1.0) -> Maps:
    """Share of the mass of maps [..., rows, cols] in a box given in fractions of the sides: [...].

    >>> float(strip(np.array([[1.0, 1.0], [3.0, 3.0]]), top=0.5))
    0.75
    """
    rows, cols = maps.shape[-2:]
    return share(maps, band(rows, top, bottom), band(cols, left, right))


def _centre(maps: Maps, axis: int) -> Maps:
    """Centre of mass along rows (axis 0) or cols (axis 1) as a fraction of that side."""
    rows, cols = maps.shape[-2:]
    place = [(np.arange(size) + 0.5) / size for size in (rows, cols)]
    return share(maps, place[0], np.ones(cols)) if axis == 0 else share(maps, np.ones(rows), place[1])


def _flat(maps: Maps) -> Maps:
    """Maps [..., rows, cols] in raster order: [..., N]."""
    return maps.reshape(*maps.shape[:-2], -1)


def _effective_share(maps: Maps) -> Maps:
    """exp(entropy) / N: the fraction of the cells over which a map of the same entropy could spread its mass evenly."""
    flat = _flat(maps)
    total = flat.sum(axis=-1, keepdims=True)
    p = flat / np.where(total > 0, total, 1.0)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    result: Maps = np.exp(entropy) / flat.shape[-1]
    return result


def _recency(maps: Maps) -> Maps:
    flat = _flat(maps)
    return spearman(flat, np.broadcast_to(np.arange(flat.shape[-1]), flat.shape))


def _ramp_fit(maps: Maps) -> Maps:
    """R² of a straight line through the row means."""
    profile = maps.mean(axis=-1)
    return pearson(profile, np.broadcast_to(np.arange(profile.shape[-1]), profile.shape)) ** 2


def _peak(maps: Maps) -> Maps:
    flat = _flat(maps)
    mean = flat.mean(axis=-1)
    result: Maps = np.where(mean > 0, flat.max(axis=-1) / np.where(mean > 0, mean, 1.0), 1.0)
    return result


def top_percent(cells: int) -> int:
    """Return 1% of a number of cells, rounded up.

    >>> top_percent(100), top_percent(576)
    (1, 6)
    """
    return max(1, -(-cells // round(1 / TOP_PERCENT)))


def _top_share(maps: Maps) -> Maps:
    flat = _flat(maps)
    total = flat.sum(axis=-1)
    top = np.sort(flat, axis=-1)[..., -top_percent(flat.shape[-1]) :].sum(axis=-1)
    result: Maps = np.where(total > 0, top / np.where(total > 0, total, 1.0), 0.0)
    return result


@dataclass(frozen=True)
class Measure:
    """A statistic of maps [..., rows, cols] → [...], its value for a uniform map, its range and one line of documentation.

    `smooth` is False for ranks and extremes, whose intervals are wider (`Replicates.interval`) and still only approximate: noise changes
    the order of nearly equal cells, and resampling images cannot correct that.
    """

    of: Callable[[Maps], Maps]
    uniform: float | Callable[[int], float] | None  # a callable takes the number of cells
    low: float
    high: float
    about: str
    smooth: bool = True


MEASURES: dict[str, Measure] = {
    "bottom_third": Measure(lambda m: strip(m, top=2 / 3), 1 / 3, 0, 1, "share of mass in the bottom third"),
    "top_third": Measure(lambda m: strip(m, bottom=1 / 3), 1 / 3, 0, 1, "share of mass in the top third"),
    "centre_box": Measure(lambda m: strip(m, 1 / 4, 3 / 4, 1 / 4, 3 / 4), 1 / 4, 0, 1, "share of mass in the central half × half"),
    "outer_ring": Measure(
        lambda m: 1 - strip(m, RING, 1 - RING, RING, 1 - RING),
        1 - (1 - 2 * RING) ** 2,
        0,
        1,
        "share of mass within 1/8 of a side from the border",
    ),
    "centre_row": Measure(lambda m: _centre(m, 0), 0.5, 0, 1, "centre of mass, 0 top to 1 bottom"),
    "centre_col": Measure(lambda m: _centre(m, 1), 0.5, 0, 1, "centre of mass, 0 left to 1 right"),
    "effective_share": Measure(_effective_share, 1.0, 0, 1, "exp(entropy) / cells: 1 is flat"),
    "recency": Measure(_recency, 0.0, -1, 1, "Spearman correlation with token (raster) order", smooth=False),
    "ramp_fit": Measure(_ramp_fit, None, 0, 1, "R² of a straight line through the row means"),
    "slope": Measure(slope, 0.0, -np.inf, np.inf, "k of the recency law exp(k·i), per token of 576"),
    "law": Measure(explained, None, -np.inf, 1, "share of the variance of the map's logarithm that the recency law explains"),
    "peak": Measure(_peak, 1.0, 1, np.inf, "strongest cell over the mean", smooth=False),
    "top_share": Measure(
        _top_share, lambda cells: top_percent(cells) / cells, 0, 1, "share of mass in the strongest 1% of the cells", smooth=False
    ),
}


def estimate(name: str, replicates: Replicates) -> Estimate:
    """One of `MEASURES` on a map, with its interval over images if there are groups of images."""
    measure = MEASURES[name]
    value = float(measure.of(replicates.mean))
    uniform = measure.uniform(replicates.mean.size) if callable(measure.uniform) else measure.uniform
    return _bracket(value, replicates.interval(measure.of, measure.smooth), measure.low, measure.high, uniform)


def estimates(replicates: Replicates) -> dict[str, Estimate]:
    """All `MEASURES` of a map, and `split_half` if there are two groups of images or more."""
    found = {name: estimate(name, replicates) for name in MEASURES}
    halves = replicates.split_half()
    if halves is not None:
        found["split_half"] = _bracket(halves[0], halves[1], -1, 1, None)
    return found


def _bracket(value: float, interval: tuple[float, float] | None, low: float, high: float, uniform: float | None) -> Estimate:
    """Clip the interval to the measure's range and extend it to include the value."""
    if interval is None:
        return Estimate(value, None, None, uniform)
    return Estimate(value, min(value, max(low, interval[0])), max(value, min(high, interval[1])), uniform)
