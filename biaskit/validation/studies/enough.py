"""How many calibration images are enough? Computed from one calibration whose prior has the means of many small blocks.

Priors of n images are made from randomly drawn blocks, many times. Their reliability r is the correlation of two priors from n images each,
without a common image. By Spearman and Brown's formula that of k times as many images is k·r / (1 + (k − 1)·r), and the expected
correlation of a prior with that of infinitely many images is the square root of its reliability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.prior.bias.correlation import pearson
from biaskit.prior.value import PlaneStats, Prior

Floats = NDArray[np.float64]

AT = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Default numbers of images."""
BLOCKS = 100
"""Number of blocks of images whose means are stored."""
WANTED = (0.95, 0.99)
"""Correlations with the map of infinitely many images for which the number of images is computed."""


@dataclass(frozen=True)
class Convergence:
    """How well n images determine the map of one layer; means and standard deviations are over random splits of the same images.

    Attributes:
        layer, n: of the map. The nearer n is to all images, the more splits overlap, and the less the deviations mean.
        full, full_sd: correlation of a prior from n images with the one from all (which include these n).
        halves, halves_sd: correlation of two priors from n images each, without a common one; None where 2n exceeds all.
        reliability: the same, predicted by Spearman-Brown from the largest disjoint halves.
        truth: expected correlation of a prior from n images with that of infinitely many: √reliability.
    """

    layer: int
    n: int
    full: float
    full_sd: float
    halves: float | None
    halves_sd: float | None
    reliability: float
    truth: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self)


def step_up(r: float, factor: float) -> float:
    """Spearman-Brown: the reliability with `factor` times as many images, k·r / (1 + (k − 1)·r); never below 0.

    >>> round(step_up(0.5, 2), 3)
    0.667
    """
    r = max(r, 0.0)
    return factor * r / (1 + (factor - 1) * r) if r < 1 else 1.0


def images_for(r: float, n: float, truth: float) -> int | None:
    """Return how many images give an expected correlation `truth` with the map of infinitely many.

    Args:
        r: reliability of n images. n: images. truth: the wanted correlation; the reliability must be its square.

    Returns:
        At least 1; None if r is 0 or less, for which no number is enough.

    >>> images_for(0.9, 100, 0.95)
    103
    """
    wanted = truth**2
    if r <= 0:
        return None
    return max(1, math.ceil(n * wanted * (1 - r) / (r * (1 - wanted)) - 1e-9)) if r < 1 else 1


def settle(prior: Prior, *, at: Sequence[int] = AT, splits: int = 50, seed: int = 0, plane: str | None = None) -> list[Convergence]:
    """Measure how fast a prior converges with the number of images, layer by layer.

    Args:
        prior: with means of blocks, as every calibrated prior has (20; `calibrate(groups=100)` stores more).
        at: numbers of images, each rounded to whole blocks; larger ones than all are left out. splits: random draws for each.
        seed: of the draws. plane: by default the primary one.

    Raises:
        BiaskitError: the prior has fewer than four blocks.
    """
    stats = prior.planes[plane or prior.primary]
    maps, counts = _blocks(stats)
    size = counts.mean()
    rng = np.random.default_rng(seed)
    orders = np.argsort(rng.random((splits, len(counts))), axis=1)
    half = len(counts) // 2
    base, _ = _halves(maps, counts, orders, half)  # [L]
    found = []
    for blocks in sorted({min(len(counts), max(1, round(n / size))) for n in at if n <= counts.sum() * 1.001} | {len(counts)}):
        full, full_sd = _against_all(maps, counts, orders, blocks)
        halves = _halves(maps, counts, orders, blocks) if 2 * blocks <= len(counts) else None
        n = round(float(blocks * size))
        for index, layer in enumerate(prior.layers):
            reliability = step_up(float(base[index]), blocks / half)
            two = (None, None) if halves is None else (float(halves[0][index]), float(halves[1][index]))
            found.append(
                Convergence(layer, n, float(full[index]), float(full_sd[index]), two[0], two[1], reliability, math.sqrt(reliability))
            )
    return sorted(found, key=lambda row: (row.layer, row.n))


def needed(rows: Sequence[Convergence], wanted: Sequence[float] = WANTED) -> dict[int, dict[float, int | None]]:
    """Return layer → wanted correlation with the map of infinitely many images → number of images needed."""
    last = {row.layer: row for row in rows}  # rows of a layer ascend in n
    return {layer: {c: images_for(row.reliability, row.n, c) for c in wanted} for layer, row in last.items()}


def _blocks(stats: PlaneStats) -> tuple[Floats, Floats]:
    """Sums [G, L, cells] and counts [G] of the blocks that have images."""
    if stats.group_mean is None or stats.group_count is None or int((stats.group_count > 0).sum()) < 4:
        raise BiaskitError("the prior does not hold the means of four blocks of images", "calibrate it on more images")
    mine = stats.group_count > 0
    counts = stats.group_count[mine].astype(np.float64)
    means = stats.group_mean[mine].astype(np.float64)
    return means.reshape(*means.shape[:2], -1) * counts[:, None, None], counts


def _mean(maps: Floats, counts: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Mean maps of chosen blocks [S, k]: [S, L, cells]."""
    weights = np.zeros((len(chosen), len(counts)))
    np.put_along_axis(weights, chosen, 1.0, axis=1)
    total = np.tensordot(weights, maps, axes=1)
    result: Floats = total / (weights @ counts)[:, None, None]
    return result


def _against_all(maps: Floats, counts: Floats, orders: NDArray[np.int64], blocks: int) -> tuple[Floats, Floats]:
    everything = maps.sum(axis=0) / counts.sum()
    r = pearson(_mean(maps, counts, orders[:, :blocks]), np.broadcast_to(everything, (len(orders), *everything.shape)))
    return r.mean(axis=0), r.std(axis=0)


def _halves(maps: Floats, counts: Floats, orders: NDArray[np.int64], blocks: int) -> tuple[Floats, Floats]:
    """Mean and deviation over splits of the correlation of two disjoint sets of `blocks` blocks: [L] each."""
    r = pearson(_mean(maps, counts, orders[:, :blocks]), _mean(maps, counts, orders[:, blocks : 2 * blocks]))
    return r.mean(axis=0), r.std(axis=0)
