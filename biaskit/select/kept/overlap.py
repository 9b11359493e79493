"""Overlap of two kept sets."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from biaskit.errors import BiaskitError


def jaccard(a: Tensor, b: Tensor) -> float:
    """|A ∩ B| / |A ∪ B| of two kept sets of one sample, 0 … 1.

    Args:
        a: [n] indices. b: [m] indices.

    Raises:
        BiaskitError: both sets are empty.

    Example:
        >>> import torch
        >>> jaccard(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]))
        0.5
    """
    common = _common(a, b)
    union = len(a) + len(b) - common
    if not union:
        raise BiaskitError("both kept sets are empty", "compare sets of at least one token")
    return common / union


def overlap_coefficient(a: Tensor, b: Tensor) -> float:
    """|A ∩ B| / min(|A|, |B|): 1 if the smaller set is a subset of the larger one.

    Raises:
        BiaskitError: a set is empty.

    Example:
        >>> import torch
        >>> overlap_coefficient(torch.tensor([1, 2]), torch.tensor([0, 1, 2, 3]))
        1.0
    """
    if not len(a) or not len(b):
        raise BiaskitError("a kept set is empty", "compare sets of at least one token")
    return _common(a, b) / min(len(a), len(b))


@lru_cache(maxsize=4096)
def jaccard_by_chance(n_tokens: int, n: int, m: int) -> float:
    """Return the expected Jaccard overlap of two independent random sets of n and m among N tokens (the overlap is hypergeometric).

    Raises:
        BiaskitError: a set that is empty or larger than N.

    Example:
        >>> jaccard_by_chance(4, 2, 4)
        0.5
    """
    if not (1 <= n <= n_tokens and 1 <= m <= n_tokens):
        raise BiaskitError(f"sets of {n} and {m} among {n_tokens} tokens", "sizes count from 1 to N")

    def log_choose(total: int, some: int) -> float:
        return math.lgamma(total + 1) - math.lgamma(some + 1) - math.lgamma(total - some + 1)

    total = log_choose(n_tokens, m)
    common = range(max(0, n + m - n_tokens), min(n, m) + 1)
    return sum(math.exp(log_choose(n, i) + log_choose(n_tokens - n, m - i) - total) * i / (n + m - i) for i in common)


def _common(a: Tensor, b: Tensor) -> int:
    return int(torch.isin(a, b.to(a.device)).sum())
