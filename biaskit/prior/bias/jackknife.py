"""Confidence intervals over images by the delete-a-group jackknife, for groups of unequal size.

Source: F. M. T. A. Busing, E. Meijer, R. Van der Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 9 (1999) 3-8.
With n images in g groups of m_j, h_j = n / m_j, θ the statistic of all images and θ₋ⱼ that of all but group j:

    θ_J = g·θ − Σ_j (1 − m_j/n)·θ₋ⱼ                        (bias-corrected estimate)
    v   = 1/g · Σ_j (h_j·θ − (h_j − 1)·θ₋ⱼ − θ_J)² / (h_j − 1)    (its variance)

and the interval is θ_J ± t(0.975, g − 1)·√v. Images, not cells, are the unit: neighbouring cells are not independent. The bias correction
matters: noise makes a flat map look uneven, and this bias is far larger than the standard error of the measured unevenness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.prior.bias.correlation import pearson

Array = NDArray[Any]
Maps = NDArray[np.float64]

# t(0.975, dof) for dof 1..30; printed in any book of tables
_T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


def t_quantile(dof: int) -> float:
    """Return t(0.975, dof): two-sided 95%. Tabulated to 30, then the Cornish-Fisher expansion (error below 1e-4).

    Raises:
        ValueError: dof < 1.

    >>> t_quantile(19), round(t_quantile(1000), 4)
    (2.093, 1.9623)
    """
    if dof < 1:
        raise ValueError(f"a t quantile needs at least 1 degree of freedom, not {dof}")
    if dof <= len(_T975):
        return _T975[dof - 1]
    z = 1.959963985
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)


@dataclass(frozen=True, eq=False)
class Replicates:
    """One map and its jackknife replicates.

    Attributes:
        mean: [rows, cols], the map itself.
        pooled: [rows, cols], the count-weighted mean of the groups (the map again, up to rounding); None without two groups.
        left_out: [g, rows, cols], the mean of all groups but the j-th.
        counts: [g], images behind each group, all > 0.
        halves: [2, rows, cols], the means of the even and of the odd groups.
        left_halves: [g, 2, rows, cols], the same without group j; None when g < 4 would empty a half.
    """

    mean: Maps
    pooled: Maps | None = None
    left_out: Maps | None = None
    counts: Maps | None = None
    halves: Maps | None = None
    left_halves: Maps | None = None

    @staticmethod
    def of(mean: Array, group_mean: Array | None, group_count: Array | None) -> Replicates:
        """Build the replicates of mean [rows, cols] from group_mean [G, rows, cols] and group_count [G]; empty groups are dropped."""
        full = np.asarray(mean, dtype=np.float64)
        if group_mean is None or group_count is None or int((group_count > 0).sum()) < 2:
            return Replicates(full)
        filled = np.asarray(group_count) > 0
        counts = np.asarray(group_count, dtype=np.float64)[filled]
        mass = np.asarray(group_mean, dtype=np.float64)[filled] * counts[:, None, None]
        total, images = mass.sum(axis=0), counts.sum()
        left_out = (total - mass) / (images - counts)[:, None, None]
        parity = np.arange(len(counts)) % 2
        half_mass = np.stack([mass[parity == side].sum(axis=0) for side in (0, 1)])
        half_count = np.array([counts[parity == side].sum() for side in (0, 1)])
        left_halves = None
        if len(counts) >= 4:
            # group j belongs to one half: take it out of that one only
            own = parity[:, None] == np.arange(2)
            left = half_mass - mass[:, None] * own[:, :, None, None]
            left_halves = left / (half_count - counts[:, None] * own)[:, :, None, None]
        return Replicates(full, total / images, left_out, counts, half_mass / half_count[:, None, None], left_halves)

    def apply(self, change: Callable[[Maps], Maps]) -> Replicates:
        """Apply `change` to every map [..., rows, cols], as a statistic's first step."""

        def maybe(maps: Maps | None) -> Maps | None:
            return None if maps is None else change(maps)

        return Replicates(
            change(self.mean), maybe(self.pooled), maybe(self.left_out), self.counts, maybe(self.halves), maybe(self.left_halves)
        )

    def interval(self, statistic: Callable[[Maps], Maps], smooth: bool = True) -> tuple[float, float] | None:
        """95% interval of a statistic that takes maps [..., rows, cols] to [...]; None without two groups.

        For ranks and extremes (`smooth=False`) the bias correction is itself noisy, and neither θ nor θ_J is a reliable centre: the
        interval then covers both θ ± reach and θ_J ± reach.
        """
        if self.pooled is None or self.left_out is None or self.counts is None:
            return None
        value = float(statistic(self.pooled))
        centre, error = jackknife(value, statistic(self.left_out), self.counts)
        reach = t_quantile(len(self.counts) - 1) * error
        other = centre if smooth else value
        return min(centre, other) - reach, max(centre, other) + reach

    def split_half(self) -> tuple[float, tuple[float, float] | None] | None:
        """Pearson correlation between the means of the even and the odd groups, and its 95% interval.

        It is not extrapolated by Spearman-Brown: it is the reliability of a prior from half the images. The interval is Fisher's z
        with a jackknife standard error, centred on the uncorrected value: the jackknife's bias correction would extrapolate to infinitely
        many images, where the correlation of any two halves is 1, and Fisher's own 1/√(N − 3) assumes independent cells.
        """
        if self.halves is None or self.counts is None:
            return None
        value = float(_half_correlation(self.halves))
        if self.left_halves is None:
            return value, None
        limit = 1 - 1e-12
        z = math.atanh(min(max(value, -limit), limit))
        _, error = jackknife(z, np.arctanh(np.clip(_half_correlation(self.left_halves), -limit, limit)), self.counts)
        reach = t_quantile(len(self.counts) - 1) * error
        return value, (math.tanh(z - reach), math.tanh(z + reach))


def _half_correlation(halves: Maps) -> NDArray[np.float64]:
    """Correlate halves [..., 2, rows, cols]: [...]."""
    flat = halves.reshape(*halves.shape[:-2], -1)
    return pearson(flat[..., 0, :], flat[..., 1, :])


def jackknife(value: float, left_out: Array, counts: Array) -> tuple[float, float]:
    """Return the bias-corrected estimate θ_J and the standard error √v of the module's formulas.

    Args:
        value: θ, the statistic of all images.
        left_out: [g], θ₋ⱼ.
        counts: [g], m_j > 0, at least two groups.

    >>> tuple(round(value, 3) for value in jackknife(2.0, np.array([2.5, 2.0, 1.5]), np.array([1.0, 1.0, 1.0])))
    (2.0, 0.577)
    """
    groups = len(counts)
    weight = counts / counts.sum()
    centre = groups * value - float(((1 - weight) * left_out).sum())
    h = 1 / weight
    pseudo = h * value - (h - 1) * left_out
    variance = float((((pseudo - centre) ** 2) / (h - 1)).sum()) / groups
    return centre, math.sqrt(variance)
