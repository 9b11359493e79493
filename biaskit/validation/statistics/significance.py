"""Paired tests for "A beats B" on the same samples, and the correction for multiple tests.

Binary scores: McNemar's exact test on the samples that exactly one of the two got right. Graded scores, and samples that share an image:
the sign-flip permutation test on the differences, which under "no difference" are as likely to be of either sign. On independent binary
scores both are the same test. Families of tests: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biaskit.validation.statistics.resampling import grouped

Floats = NDArray[np.float64]

FLIPS = 10_000
EXACT = 14  # up to this many differing samples, all 2^k sign patterns are evaluated
_BLOCK = 4_000_000


def mcnemar(a_only: int, b_only: int) -> float:
    """Return the two-sided exact p: the probability that a_only + b_only throws of a fair coin are at least this uneven.

    Args:
        a_only: samples that A got right and B did not. b_only: samples that B got right and A did not.

    Raises:
        ValueError: a negative count.

    >>> mcnemar(8, 1)
    0.0390625
    """
    if a_only < 0 or b_only < 0:
        raise ValueError(f"{a_only} and {b_only} are not numbers of samples")
    n, few = a_only + b_only, min(a_only, b_only)
    term = total = 1
    for k in range(1, few + 1):  # whole numbers: exact for any n
        term = term * (n - k + 1) // k
        total += term
    return min(1.0, float(2 * total / 2**n))


def sign_flip(differences: ArrayLike, groups: Sequence[Any] | None = None, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Return the two-sided p of the sign-flip test of every column: [p].

    Args:
        differences: [n, p], score of A − score of B, one column per comparison.
        groups: [n], units that are flipped as a whole (the image); None flips single samples.
        flips: number of random sign patterns if more than `EXACT` samples differ; the smallest p is then 1 / (flips + 1).
        seed: of those patterns, which all columns share.

    >>> sign_flip([[1.0], [1.0], [1.0], [0.0], [1.0]])
    array([0.125])
    """
    table = np.asarray(differences, dtype=np.float64)
    sums, _ = grouped(table, groups)
    sums = np.where(np.abs(sums) < 1e-12, 0.0, sums)
    p = np.ones(table.shape[1])
    many = []
    for column in range(table.shape[1]):
        moved = sums[sums[:, column] != 0, column]
        if len(moved) > EXACT:
            many.append(column)
        elif len(moved):
            p[column] = _exact(moved)
    if many:
        p[many] = _monte_carlo(sums[:, many], flips, seed)
    return p


def _as_extreme(totals: Floats, observed: Floats) -> NDArray[np.bool_]:
    """Return whether totals are as far from zero as the observed ones, up to rounding."""
    return np.asarray(np.abs(totals) >= np.abs(observed) - 1e-9 * np.maximum(1.0, np.abs(observed)))


def _exact(moved: Floats) -> float:
    patterns = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
    return float(_as_extreme((1.0 - 2.0 * patterns) @ moved, moved.sum()).mean())


def _monte_carlo(sums: Floats, flips: int, seed: int) -> Floats:
    """Return p; the observed pattern counts as one of the random ones, so that p is never 0 and the test keeps its level."""
    sums = sums[(sums != 0).any(axis=1)]
    observed = sums.sum(axis=0)
    random = np.random.default_rng(seed)
    hits = np.zeros(sums.shape[1])
    step = max(1, _BLOCK // len(sums))
    for start in range(0, flips, step):
        count = min(step, flips - start)
        signs = 1.0 - 2.0 * random.integers(0, 2, size=(count, len(sums)), dtype=np.int8)
        hits += _as_extreme(signs @ sums, observed).sum(axis=0)
    return np.asarray((1 + hits) / (1 + flips))


def holm(p: ArrayLike) -> Floats:
    """Return the p of a family of tests, corrected: rejecting all with p below α has a familywise error of at most α.

    Undefined ones (NaN) are not part of the family and are returned as NaN.

    >>> holm([0.01, 0.04, float("nan"), 0.03])
    array([0.03, 0.06,  nan, 0.06])
    """
    given = np.asarray(p, dtype=np.float64)
    corrected = given.copy()
    order = [int(i) for i in np.argsort(given, kind="stable") if math.isfinite(given[i])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, float(given[index]) * (len(order) - rank)))
        corrected[index] = largest
    return corrected
