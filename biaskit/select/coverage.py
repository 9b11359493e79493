"""SCOPE: greedily choose salient tokens that are similar to tokens which the chosen ones do not cover yet."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, answer, count, matrix, vector
from biaskit.select.cosine import cosines, unit_rows

REFRESH = 32
"""Stale gains that are recomputed at a time."""


def scope_select(scores: Tensor, features: Tensor, n: int, *, alpha: float = 1.0, order: Order = "sequence") -> Tensor:
    """Pick n times argmax sᵢ^α · Σᵤ max(0, cos(u, i) − covᵤ) (SCOPE, arXiv 2510.24214); covᵤ is u's largest cosine with a pick, from 0.

    A gain never grows while tokens are picked, so an old gain is an upper bound, and few gains are recomputed at each pick.

    Args:
        scores: [N] saliency from 0: attention of the class token to the patches at the tower's layer −2.
        features: [N, d] the tower's output there. n: how many to keep.
        alpha: α: 0 is coverage alone (0⁰ is 1); the larger α, the more saliency counts.

    Returns:
        [min(n, N)] int64. A tie goes to the lower index. Cosines are multiples of 2⁻²⁴ on a CPU and of 2⁻¹⁸ on a GPU, and their sums
        are exact, so that the result does not depend on the order of summation.

    Raises:
        BiaskitError: shapes, values that are not finite, negative scores, n below 1, or α that is negative or not finite.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> scope_select(torch.tensor([0.5, 0.6, 0.1]), rows, 2, order="choice").tolist()  # 0 is covered by its copy
        [1, 2]
    """
    scores = vector("scores", scores)
    features = matrix("features", features, len(scores)).to(scores.device)
    if not 0 <= alpha < math.inf:
        raise BiaskitError(f"alpha is {alpha}", "choose 1, as published, or another number from 0")
    if bool((scores < 0).any()):
        raise BiaskitError("scores has negative values", "pass probabilities, not logits")
    n = count(n, len(scores))
    worth = scores.double() ** alpha
    similar = cosines(unit := unit_rows(features), unit)
    covered = torch.zeros_like(scores)
    bound = worth * similar.clamp_min(0).sum(1, dtype=torch.float64)
    fresh = torch.ones_like(bound, dtype=torch.bool)
    left = fresh.clone()
    picked: list[int] = []
    while len(picked) < n:
        best = int(bound.argmax())  # the first of equals
        if fresh[best]:
            picked.append(best)
            covered = torch.maximum(covered, similar[best])
            bound[best], left[best] = -torch.inf, False
            fresh = ~left
            continue
        stale = torch.where(fresh, -torch.inf, bound).topk(min(REFRESH, int((~fresh).sum()))).indices
        bound[stale] = worth[stale] * (similar[stale] - covered).clamp_min_(0).sum(1, dtype=torch.float64)
        fresh[stale] = True
    return answer(torch.tensor(picked, dtype=torch.int64, device=scores.device), order)
