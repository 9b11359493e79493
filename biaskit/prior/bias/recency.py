"""The recency law A_bias(i) ∝ exp(k·i): fitted to a prior, published for LLaVA-1.5-7B, and as a prior of one number.

Source: K. Zhao et al., "Attention Debiasing for Token Pruning in Vision-Language Models", arXiv 2508.17807 (v2, 2026). Its released weights
exp(−k·i) multiply attention over the flattened index i = 0 … 575; read as a bias curve they are 1 / weight. Forty of them are one number
each (`published_slopes`, LLaVA-1.5-7B, one per pruning method and benchmark; how they were fitted, and on which images, is not published),
one is the reciprocal of a cubic (`FASTV_CUBIC`). A slope k here is per token on a grid of 576: on N tokens index i corresponds to
575 · i / (N − 1), so that exp(575·k) is the last token's bias over the first one's on any grid.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.prior.bias.jackknife import Replicates
from biaskit.prior.bias.law import TOKENS
from biaskit.prior.bias.measures import Estimate, estimate
from biaskit.prior.value import Prior

Maps = NDArray[np.float64]

FASTV_CUBIC = (1.0, 3.015197603e-3, -1.459790834e-5, 2.569113519e-8)
"""Published bias curve of FastV: Σ cⱼ · iʲ, ascending powers of the index i = 0 … 575. An exponential fits it badly (k ≈ 1.4e-3)."""


@dataclass(frozen=True)
class RecencyLaw:
    """How well one map follows exp(k·i).

    Attributes:
        k: slope per token on a grid of 576, with its 95% interval over images if the prior has groups of them.
        explained: share of the variance of log A_bias over the cells that the law explains, likewise with an interval.
    """

    k: Estimate
    explained: Estimate

    @property
    def growth(self) -> float:
        """The last token's bias over the first one's."""
        return math.exp((TOKENS - 1) * self.k.value)

    def __str__(self) -> str:
        """One line: the slope with its interval, and how much it explains."""
        interval = "" if self.k.low is None else f" (95 % interval {self.k.low:.2e} to {self.k.high:.2e})"
        return f"k = {self.k.value:.2e}{interval} a token of 576, which explains {max(self.explained.value, 0):.0%} of log attention"


@dataclass(frozen=True)
class PublishedSlope:
    """k of a pruning method on a benchmark, per token of LLaVA-1.5-7B's 576."""

    method: str
    benchmark: str
    k: float


def fit_recency(prior: Prior, layer: int, plane: str | None = None) -> RecencyLaw:
    """Fit exp(k·i) to the map of a prior: a straight line by least squares through the row means of log A_bias, each row weighing the same.

    Row means ignore variation inside a row, where a two-dimensional map need not follow the flattened index.

    Args:
        layer: decoder layer of the map. plane: None takes the prior's primary one.

    Raises:
        PriorError: no such plane or layer.
        BiaskitError: the plane has one row, which has no slope.

    Example:
        >>> import numpy as np
        >>> from biaskit.prior.value import PlaneStats, Prior
        >>> law = np.exp(2e-3 * np.arange(576)).reshape(1, 24, 24).astype(np.float32)
        >>> prior = Prior({"image": PlaneStats(law)}, (1,), np.ones(1, np.float32), {})
        >>> found = fit_recency(prior, 1)
        >>> round(found.k.value, 6), round(found.explained.value, 4), round(found.growth, 2)
        (0.002, 1.0, 3.16)
    """
    name = prior.primary if plane is None else plane
    mean, index = prior.map(name, layer), prior.layer(layer)
    if len(mean) < 2:
        raise BiaskitError(f"plane {name!r} has one row", "fit the law to a plane with two rows or more")
    stats = prior.planes[name]
    groups = None if stats.group_mean is None else stats.group_mean[:, index]
    replicates = Replicates.of(mean, groups, stats.group_count)
    return RecencyLaw(estimate("slope", replicates), estimate("law", replicates))


def recency_bias(n_tokens: int, k: float) -> Maps:
    """Return exp(k·i) over n tokens in sequence order, scaled to mean 1: [N] float64, for use in place of a calibrated a_bias.

    Raises:
        BiaskitError: k is not finite, or so large that the law underflows to 0.

    Example:
        >>> bias = recency_bias(4, 1e-3)
        >>> round(float(bias[-1] / bias[0]), 4), round(float(bias.mean()), 12)  # exp(0.575)
        (1.7771, 1.0)
    """
    if not abs(k) * (TOKENS - 1) < 600:
        raise BiaskitError(f"slope k is {k}", "published slopes are 1.1e-3 to 4.6e-3 a token; fit one with `biaskit priors show`")
    exponent = np.arange(n_tokens, dtype=np.float64) * (k * (TOKENS - 1) / max(n_tokens - 1, 1))
    if not n_tokens:
        return exponent
    law = np.exp(exponent - max(float(exponent[-1]), 0.0))
    result: Maps = law / law.mean()
    return result


def published_slopes() -> tuple[PublishedSlope, ...]:
    """Return the forty published slopes of LLaVA-1.5-7B, by method and benchmark.

    Each was chosen on its benchmark's own images. To report results on a benchmark, use the slope of another one.

    Example:
        >>> slopes = published_slopes()
        >>> len(slopes), slopes[0]
        (40, PublishedSlope(method='HiMAP', benchmark='GQA', k=0.002172257))
    """
    text = files("biaskit.prior.bias").joinpath("recency_slopes.csv").read_text(encoding="utf-8")
    return tuple(PublishedSlope(row["method"], row["benchmark"], float(row["slope"])) for row in csv.DictReader(text.splitlines()))


def fastv_bias(n_tokens: int) -> Maps:
    """Return the published cubic of FastV on n tokens, scaled to mean 1: [N] float64.

    Example:
        >>> curve = fastv_bias(576)
        >>> round(float(curve[0] / curve[575]), 6)
        0.358239
    """
    place = np.arange(n_tokens) * ((TOKENS - 1) / max(n_tokens - 1, 1))
    curve = np.polynomial.polynomial.polyval(place, FASTV_CUBIC)
    result: Maps = curve / curve.mean() if n_tokens else curve
    return result
