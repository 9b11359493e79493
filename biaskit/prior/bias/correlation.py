"""Agreement of two maps: Pearson and Spearman correlation, and the overlap of their strongest cells. NumPy only."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def ranks(values: Array) -> NDArray[np.float64]:
    """Rank values [..., N] along the last axis, from 1; ties share the average of their ranks.

    >>> ranks(np.array([0.3, 0.1, 0.3]))
    array([2.5, 1. , 2.5])
    """
    values = np.asarray(values)
    flat = values.reshape(-1, values.shape[-1])
    out = np.empty(flat.shape, dtype=np.float64)
    for index, row in enumerate(flat):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        out[index] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return out.reshape(values.shape)


def pearson(a: Array, b: Array) -> NDArray[np.float64]:
    """Pearson correlation of a and b [..., N] along the last axis: [...].

    The correlation with a constant input is 0 by convention, so that a flat map is not an error.

    >>> round(float(pearson(np.array([1, 2, 3]), np.array([2, 4, 6]))), 6), float(pearson(np.array([1, 2, 3]), np.ones(3)))
    (1.0, 0.0)
    """
    a = np.asarray(a, dtype=np.float64)
    b = np.asarray(b, dtype=np.float64)
    a_centred = a - a.mean(axis=-1, keepdims=True)
    b_centred = b - b.mean(axis=-1, keepdims=True)
    a_norm = np.sqrt((a_centred**2).sum(axis=-1))
    b_norm = np.sqrt((b_centred**2).sum(axis=-1))
    # a constant map averaged in float32 has rounding errors of about 1e-7, so deviations below 1e-6 of the level count as none
    size = math.sqrt(a.shape[-1])
    varies = (a_norm > 1e-6 * size * np.abs(a).max(axis=-1)) & (b_norm > 1e-6 * size * np.abs(b).max(axis=-1))
    scale = np.where(varies, a_norm * b_norm, 1.0)
    result: NDArray[np.float64] = np.clip(np.where(varies, (a_centred * b_centred).sum(axis=-1) / scale, 0.0), -1.0, 1.0)
    return result


def spearman(a: Array, b: Array) -> NDArray[np.float64]:
    """Spearman rank correlation of a and b [..., N] along the last axis: [...]; average ranks for ties, 0 for a constant input.

    >>> round(float(spearman(np.array([1, 2, 30]), np.array([1, 4, 5]))), 6)
    1.0
    """
    return pearson(ranks(a), ranks(b))


def top_overlap(a: Array, b: Array, share: float = 0.25) -> tuple[float, float]:
    """Jaccard overlap of the strongest cells of two maps, and its expectation for random cells.

    Args:
        a: [N].
        b: [N].
        share: the strongest `share` of the cells (half up, at least one) are compared; ties go to the earlier cell.

    Returns:
        |A ∩ B| / |A ∪ B|, and its expectation for two random sets of that size.

    >>> [round(value, 3) for value in top_overlap(np.array([4, 3, 2, 1]), np.array([4, 1, 2, 3]), share=0.5)]
    [0.333, 0.389]
    """
    size = a.shape[-1]
    k = max(1, math.floor(share * size + 0.5))
    top_a = np.argsort(-np.asarray(a, dtype=np.float64), kind="stable")[:k]
    top_b = np.argsort(-np.asarray(b, dtype=np.float64), kind="stable")[:k]
    common = len(np.intersect1d(top_a, top_b))
    return common / (2 * k - common), _chance(size, k)


@lru_cache(maxsize=256)
def _chance(size: int, k: int) -> float:
    """Expected Jaccard index of two random k-subsets of `size` cells: the overlap is hypergeometric."""

    def log_choose(n: int, m: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)

    total = log_choose(size, k)
    overlaps = range(max(0, 2 * k - size), k + 1)
    return sum(math.exp(log_choose(k, i) + log_choose(size - k, k - i) - total) * i / (2 * k - i) for i in overlaps)
