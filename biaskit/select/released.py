"""Selections with cosines in the features' own dtype, as the authors' code computes them: for comparisons with published numbers.

In half precision many cosines tie, or their error exceeds the difference between tokens, so that other tokens are kept than with exact
cosines.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biaskit.select.checks import Order, answer, count, fraction, matrix, vector
from biaskit.select.scores import min_max


def model_cosines(features: Tensor, others: Tensor) -> Tensor:
    """Return cosines of rows [N, d] with rows [M, d] in their own dtype, [N, M]: lengths, quotients and products are rounded to that dtype.

    Example:
        >>> rows = torch.tensor([[1.0, 0.001], [1.0, 0.0]])
        >>> model_cosines(rows, rows)[0, 1].item() < 1, model_cosines(rows.bfloat16(), rows.bfloat16())[0, 1].item()
        (True, 1.0)
    """
    with torch.autocast(features.device.type, enabled=False):
        left, right = (rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny) for rows in (features, others))
        found: Tensor = left @ right.mT.to(left.dtype)
        return found


def _greedy(similar: Tensor, n: int, first: int, worth: Tensor, weight: float) -> Tensor:
    """Take `first`, then always the highest worth − weight · (largest cosine with a chosen one); a tie goes to the lower index."""
    picked = [first]
    nearest = similar[first].clone()
    worth = worth.clone()
    for _ in range(n - 1):
        worth[picked[-1]] = -torch.inf
        picked.append(int((worth - weight * nearest.to(worth.dtype)).argmax()))
        nearest = torch.maximum(nearest, similar[picked[-1]])
    return torch.tensor(picked, device=similar.device)


def max_min_in_dtype(features: Tensor, n: int, *, order: Order = "sequence") -> Tensor:
    """`max_min_select` (DivPrune) with distances 1 − cosine in the features' dtype; O(N²) memory. Arguments, result and errors as there.

    Example:
        >>> max_min_in_dtype(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), 2).tolist()
        [0, 2]
    """
    features = matrix("features", features)
    n = count(n, len(features))
    if not n:
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    distance = 1 - model_cosines(features, features)
    first = int(distance.clone().fill_diagonal_(torch.inf).amin(1).argmax())  # farthest from its nearest neighbour
    return answer(_greedy(-distance, n, first, torch.zeros_like(distance[0]), 1.0), order)


def mmr_in_dtype(importance: Tensor, features: Tensor, n: int, *, lam: float = 0.5, eps: float = 1e-6, order: Order = "sequence") -> Tensor:
    """`mmr_select` (IDPruner) with cosines in the features' dtype; the rest is float32. Arguments, result and errors as there.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> mmr_in_dtype(torch.tensor([1.0, 0.9, 0.2, 0.1]), features, 2).tolist()
        [0, 2]
    """
    features = matrix("features", features)
    importance = vector("importance", importance, len(features)).to(features.device)
    fraction("lam", lam)
    n = count(n, len(features))
    if not n:
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    worth = min_max(importance, eps=eps)
    return answer(_greedy(model_cosines(features, features), n, int(worth.argmax()), lam * worth, 1 - lam), order)


def least_similar_in_dtype(
    scores: Tensor,
    features: Tensor,
    text_scores: Tensor,
    text_features: Tensor,
    n: int,
    *,
    pivots: int = 4,
    text_pivots: int = 4,
    order: Order = "sequence",
) -> Tensor:
    """`dart_select` (DART) with cosines in the features' dtype. Arguments, result and errors as there.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> nothing = features[:0]
        >>> least_similar_in_dtype(torch.tensor([1.0, 0.9, 0.2, 0.1]), features, nothing[:, 0], nothing, 2, pivots=1).tolist()
        [0, 2]
    """
    features = matrix("features", features)
    text_features = matrix("text_features", text_features).to(features)
    scores, text_scores = vector("scores", scores, len(features)), vector("text_scores", text_scores, len(text_features))
    n = count(n, len(features))
    mine = scores.sort(descending=True, stable=True).indices[: min(pivots, n)].to(features.device)
    theirs = text_scores.sort(descending=True, stable=True).indices[:text_pivots].to(features.device)
    similar = model_cosines(torch.cat([features[mine], text_features[theirs]]), features)
    similar[:, mine] = torch.inf
    picked, missing = [mine], n - len(mine)
    quota = -(-missing // max(len(similar), 1))
    for row in similar:
        taken = row.sort(stable=True).indices[: min(quota, missing)]
        similar[:, taken] = torch.inf
        picked.append(taken)
        missing -= len(taken)
    return answer(torch.cat(picked), order)
