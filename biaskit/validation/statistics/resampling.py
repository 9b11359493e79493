"""Paired bootstrap over samples: how much a mean, difference or ratio of means would vary with other questions of the same kind.

All columns (methods) are resampled by the same draws, so that common variation cancels in differences and ratios. Several questions on one
image are not independent: with `groups`, whole images are drawn (Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
section 3.8). Intervals: percentile, or BCa of B. Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987) 171-185:

    z₀ = Φ⁻¹(share of draws below θ̂),   a = Σ d³ / (6·(Σ d²)^1.5),  d = mean of θ₋ᵢ − θ₋ᵢ (leave one group out)
    ends = quantiles of the draws at Φ(z₀ + (z₀ ± z) / (1 − a·(z₀ ± z)))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Kind = Literal["bca", "percentile"]
Statistic = Callable[[Floats], Any]

RESAMPLES = 10_000
_NORMAL = NormalDist()
_BLOCK = 2_000_000  # random numbers at a time: memory stays small for any number of samples


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """Return it in another unit; factor > 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def excludes(self, value: float) -> bool:
        """Return True if a value is outside the interval."""
        return not self.low <= value <= self.high


@dataclass(frozen=True, eq=False)
class Resampled:
    """Column means: as observed [m], of every resample [B, m], and without each group in turn [G, m].

    `unanimous` [m] is the value that all samples of a column share, NaN if they differ; n is the number of groups.
    """

    observed: Floats
    draws: Floats
    left_out: Floats
    unanimous: Floats
    n: int

    def estimate(self, statistic: Statistic, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return a statistic of the means with its interval; NaN if it is undefined (a ratio to zero).

        Args:
            statistic: takes means [..., m] to values [...]. kind: of the interval. level: its coverage.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(self.observed))
            draws = np.asarray(statistic(self.draws), dtype=np.float64)
            left_out = np.asarray(statistic(self.left_out), dtype=np.float64)
        return Estimate(value if math.isfinite(value) else math.nan, *interval(value, draws, left_out, kind, level))

    def mean(self, column: int, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return one column's mean.

        If all n samples are 0, or all 1, so is every resample, and the bootstrap interval would have width 0: the exact binomial interval
        is used instead, whose other end is (α/2)^(1/n).
        """
        same = float(self.unanimous[column])
        if same in (0.0, 1.0):
            reach = 1 - ((1 - level) / 2) ** (1 / self.n)
            return Estimate(same, max(0.0, same - reach), min(1.0, same + reach))
        return self.estimate(lambda means: means[..., column], kind, level)

    def difference(self, a: int, b: int, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return mean of column a − mean of column b."""
        return self.estimate(lambda means: means[..., a] - means[..., b], kind, level)

    def ratio(self, a: int, b: int, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return mean of column a / mean of column b."""
        return self.estimate(lambda means: means[..., a] / means[..., b], kind, level)


def bootstrap(values: ArrayLike, groups: Sequence[Any] | None = None, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Resample the rows of values [n, m] with replacement, all columns together.

    Args:
        values: one row per sample, one column per method; finite.
        groups: [n], units that are drawn as a whole (the image of each question); None draws rows.
        resamples: B. seed: the same one gives the same draws.

    Raises:
        ValueError: no rows, or groups of another length.

    >>> found = bootstrap([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], resamples=100)
    >>> found.observed.round(3), found.draws.shape
    (array([0.667, 0.333]), (100, 2))
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"values of shape {table.shape} are not samples by methods")
    sums, sizes = grouped(table, groups)
    total, n = sums.sum(axis=0), sizes.sum()
    draws = np.empty((resamples, table.shape[1]))
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(sums))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        weights = _weights(random, count, len(sums))
        draws[start : start + count] = (weights @ sums) / (weights @ sizes)[:, None]
    left_out = (total - sums) / (n - sizes)[:, None] if len(sums) > 1 else np.repeat(total[None] / n, 1, axis=0)
    same = np.where((table == table[0]).all(axis=0), table[0], np.nan)
    return Resampled(total / n, draws, left_out, same, len(sums))


def grouped(table: Floats, groups: Sequence[Any] | None) -> tuple[Floats, Floats]:
    """Return the sums of each group's rows [G, m] and the groups' sizes [G], in order of first appearance."""
    if groups is None:
        return table, np.ones(len(table))
    if len(groups) != len(table):
        raise ValueError(f"{len(groups)} groups for {len(table)} samples")
    numbers: dict[Any, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, index, table)
    return sums, np.bincount(index).astype(np.float64)


def half_width(values: ArrayLike, groups: Sequence[Any] | None = None) -> float:
    """Return the half-width of a mean's 95 % interval without resampling: 1.96 standard errors; nan for a single group.

    Questions on one image are not independent, so the error is that of the mean of groups, V = G/(G − 1)·Σ_g (Σ_i x_gi − n_g·x̄)² / n²
    (W. G. Cochran, "Sampling Techniques", 1977, section 6.3 for a ratio estimate). With groups of one it is the usual s²/n.

    Args:
        values: [n]. groups: [n], the image of each; None: all are independent.

    >>> round(half_width([1.0, 0.0, 1.0, 1.0]), 3), round(half_width([1.0, 0.0, 1.0, 1.0], ["a", "a", "b", "c"]), 3)
    (0.49, 0.367)
    """
    table = np.asarray(values, dtype=np.float64)[:, None]
    sums, sizes = grouped(table, groups)
    if len(sums) < 2:
        return math.nan
    gaps = sums[:, 0] - sizes * table.mean()
    return 1.96 * math.sqrt(len(sums) / (len(sums) - 1) * float((gaps**2).sum())) / len(table)


def _weights(random: np.random.Generator, count: int, n: int) -> Floats:
    """How often each of n groups is drawn in each of `count` resamples of n: [count, n]."""
    drawn = random.integers(0, n, size=(count, n), dtype=np.int64)
    drawn += np.arange(count)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def interval(value: float, draws: Floats, left_out: Floats, kind: Kind = "bca", level: float = 0.95) -> tuple[float, float]:
    """Return the ends of a statistic's interval.

    Args:
        value: θ̂. draws: [B], θ of the resamples; NaN ones are ignored. left_out: [G], θ₋ᵢ; used by BCa only.
        kind: "bca" or "percentile". level: coverage.

    Returns:
        (NaN, NaN) if θ̂ is undefined or no draw is finite.
    """
    draws = draws[np.isfinite(draws)]
    if not math.isfinite(value) or not len(draws):
        return math.nan, math.nan
    tail = (1 - level) / 2
    shares = (tail, 1 - tail)
    if kind == "bca":
        shares = _bca_shares(value, draws, left_out[np.isfinite(left_out)], tail)
    low, high = np.quantile(draws, shares)
    return float(low), float(high)


def _bca_shares(value: float, draws: Floats, left_out: Floats, tail: float) -> tuple[float, float]:
    """Return which quantiles of the draws are BCa's ends. Draws equal to θ̂ count half: means of 0s and 1s have many."""
    tolerance = 1e-12 * max(1.0, abs(value))
    below = np.mean(draws < value - tolerance) + 0.5 * np.mean(np.abs(draws - value) <= tolerance)
    if not 0 < below < 1:
        return tail, 1 - tail
    z0 = _NORMAL.inv_cdf(float(below))
    gaps = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float((gaps**2).sum())
    a = float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

    def share(z: float) -> float:
        moved = z0 + z
        return _NORMAL.cdf(z0 + moved / (1 - a * moved)) if a * moved < 1 else 1.0

    return share(_NORMAL.inv_cdf(tail)), share(_NORMAL.inv_cdf(1 - tail))
