"""Selections that depend on the tokens chosen so far: maximal marginal relevance, max–min distance, least duplication."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from biaskit.device import upload
from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, answer, count, fraction, matrix, vector
from biaskit.select.cosine import cosines, row_blocks, unit_rows
from biaskit.select.cpu import lazy_greedy, least_similar
from biaskit.select.gpu import few_launches, max_min_on_device, mmr_on_device
from biaskit.select.scores import min_max, scaled


def _greedy_on_device(unit: Tensor, n: int, first: Tensor, worth: Tensor, weight: float) -> Tensor:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one): [n] indices in the order of choice.

    No synchronisation; a few kernel launches per pick; no N × N table.
    """
    nearest = torch.full_like(worth, -1.0)
    worth = worth.clone()
    picked = [first.reshape(1)]  # indices are tensors of one entry: a Python int would need a synchronisation
    for _ in range(n - 1):
        nearest = torch.maximum(nearest, cosines(unit, unit.index_select(0, picked[-1])[0]))
        worth.index_fill_(0, picked[-1], -torch.inf)
        picked.append((worth - weight * nearest).argmax(0, keepdim=True))  # the first of equals
    return torch.cat(picked)


def mmr_select(importance: Tensor, features: Tensor, n: int, *, lam: float = 0.5, eps: float = 1e-6, order: Order = "sequence") -> Tensor:
    """Maximal marginal relevance (IDPruner): the most important, then always argmax λ · Imp − (1 − λ) · max cosine with the chosen.

    Imp is `importance` scaled to 0 … 1 by min–max. O(n · N · d) time; on a CPU memory for n · N float32 numbers and about 300 per token.
    Source: Carbonell and Goldstein (1998), as used by IDPruner; on a CPU in float64.

    Args:
        importance: [N], of any scale. features: [N, d], projector output. n: how many to keep.
        lam: λ: 1 keeps the most important, 0 spreads out from the most important one.
        eps: ε of the min–max.

    Returns:
        [min(n, N)] int64. A tie goes to the lower index.

    Raises:
        BiaskitError: shapes, values that are not finite, n below 1, or λ outside 0 … 1.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> mmr_select(torch.tensor([1.0, 0.9, 0.2, 0.1]), features, 2).tolist()
        [0, 2]
    """
    if few_launches([features]):
        kept = mmr_on_device([importance], [features], n, lam, eps, order)[0]
        return upload(kept, features.device)
    features = matrix("features", features, finite=features.device.type != "cpu")
    importance = vector("importance", importance, len(features)).to(features.device)
    fraction("lam", lam)
    n = count(n, len(features))
    if not n:
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    if features.device.type == "cpu":
        worth = scaled(importance.double(), eps)
        return answer(torch.from_numpy(lazy_greedy(features, n, int(worth.argmax()), (lam * worth).numpy(), 1 - lam)), order)
    worth = min_max(importance, eps=eps)
    return answer(_greedy_on_device(unit_rows(features), n, worth.argmax(), lam * worth, 1 - lam), order)


def max_min_select(features: Tensor, n: int, *, order: Order = "sequence") -> Tensor:
    """Max–min diversity (DivPrune): first the token farthest from its nearest neighbour, then always the one farthest from the chosen set.

    Distance is 1 − cosine. The first pick takes O(N² · d) time on a GPU; on a CPU at most that, and usually much less. Memory as
    `mmr_select`. Source: DivPrune (Alvar et al., 2025), algorithm 1.

    Args:
        features: [N, d], projector output. n: how many to keep.

    Returns:
        [min(n, N)] int64. A tie goes to the lower index.

    Raises:
        BiaskitError: shapes, values that are not finite, or n below 1.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> max_min_select(features, 2).tolist()
        [0, 2]
    """
    if few_launches([features]):
        return upload(max_min_on_device([features], n, order)[0], features.device)
    features = matrix("features", features, finite=features.device.type != "cpu")
    n = count(n, len(features))
    if not n:
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    if features.device.type == "cpu":
        return answer(torch.from_numpy(lazy_greedy(features, n, None, np.zeros(len(features)), 1.0)), order)
    unit = unit_rows(features)
    nearest = torch.cat([block.amax(1) for block in row_blocks(unit, own=-torch.inf)])
    return answer(_greedy_on_device(unit, n, nearest.argmin(), torch.zeros_like(nearest), 1.0), order)


def dart_select(
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
    """Least duplication of a few pivots (DART): keep the visual pivots, and for each pivot in turn the tokens least similar to it.

    Pivots are the `pivots` visual tokens and the `text_pivots` text tokens with the highest scores; visual ones go first, each kind by
    descending score. The n − pivots further tokens are divided evenly: each pivot chooses ceil((n − pivots) / all pivots), the last ones
    what is still missing. Text pivots are not kept themselves. Tokens are compared with pivots only: two copies of a token that is far from
    all pivots are both kept.

    Args:
        scores: [N], DART: the L1 norm of the cached key. features: [N, d], DART: the hidden state after the model's last norm.
        text_scores: [t] and text_features: [t, d], the same for the text tokens after the image; t may be 0.
        n: how many visual tokens to keep.

    Returns:
        [min(n, N)] int64. A tie goes to the lower index.

    Raises:
        BiaskitError: shapes, values that are not finite, n or `pivots` below 1, or `text_pivots` below 0.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> nothing = features[:0]
        >>> dart_select(torch.tensor([1.0, 0.9, 0.2, 0.1]), features, nothing[:, 0], nothing, 2, pivots=1).tolist()
        [0, 2]
    """
    features = matrix("features", features, finite=features.device.type != "cpu")
    text_features = matrix("text_features", text_features).to(features.device)
    scores = vector("scores", scores, len(features))
    text_scores = vector("text_scores", text_scores, len(text_features))
    if pivots < 1 or text_pivots < 0:
        raise BiaskitError(f"{pivots} visual and {text_pivots} text pivots", "use at least one visual pivot; the paper has 4 and 4")
    n = count(n, len(features))
    mine = scores.sort(descending=True, stable=True).indices[: min(pivots, n)].to(features.device)
    theirs = text_scores.sort(descending=True, stable=True).indices[:text_pivots].to(features.device)
    if features.device.type == "cpu":
        centres = torch.cat([features[mine].float(), text_features[theirs].float()])
        return answer(torch.from_numpy(least_similar(features, centres, mine.numpy(), n, in_order=order == "choice")), order)
    unit = unit_rows(features)
    centres = torch.cat([unit[mine], unit_rows(text_features)[theirs]])
    similar = cosines(centres, unit)
    similar[:, mine] = torch.inf
    picked, missing = [mine], n - len(mine)
    quota = -(-missing // max(len(centres), 1))
    for row in similar:
        taken = row.sort(stable=True).indices[: min(quota, missing)]
        similar[:, taken] = torch.inf
        picked.append(taken)
        missing -= len(taken)
    return answer(torch.cat(picked), order)
