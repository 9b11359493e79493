"""Selections for a batch: on a device all samples together, else one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biaskit.device import on_device, settle
from biaskit.select.checks import Order, choice, count
from biaskit.select.d2 import d2_select
from biaskit.select.gpu import Batch, complain, d2_on_device, few_launches, in_order, max_min_on_device, mmr_on_device, plain
from biaskit.select.graph import Diagonal, Fill, PivotMode
from biaskit.select.greedy import max_min_select, mmr_select
from biaskit.select.keep import Keep
from biaskit.select.simple import top_k


def d2_select_many(
    scores: Batch,
    features: Batch,
    where: Tensor | None,
    n: int,
    *,
    alpha: float = 1.0,
    theta: float = 0.8,
    pivot_ratio: float = 0.7,
    pivot_mode: PivotMode = "topk",
    exclude_pivot_neighbours: bool = True,
    fill: Fill = "score",
    diagonal: Diagonal = "included",
) -> list[Keep]:
    """Keep n of N tokens of every sample as `d2_select` does; see there for the arguments.

    On a device `pivot_mode="mis"` and the fills `layers` and `raise_theta` use the graph's matrix, sample by sample, with synchronisations.

    Args:
        scores: [B, N]. features: [B, N, d]. where: [N, 3], or [B, N, 3], preferably on the CPU: from a device it takes one more
            synchronisation.

    Returns:
        B Keeps, with indices on the CPU. For more than 512 tokens `edge_density` is estimated from an even sample of rows.

    Raises:
        BiaskitError: as `d2_select`.

    Example:
        >>> import torch
        >>> features = torch.eye(3)[None].repeat(2, 1, 1)
        >>> scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
        >>> [keep.indices.tolist() for keep in d2_select_many(scores, features, None, 2)]
        [[0, 1], [1, 2]]
    """
    if few_launches(features) and plain(pivot_mode, fill):
        kinds = (pivot_ratio, exclude_pivot_neighbours, fill)
        return d2_on_device(scores, features, where, n, *kinds, alpha=alpha, theta=theta, diagonal=diagonal)
    places = [None] * len(features) if where is None else list(where) if where.ndim == 3 else [where] * len(features)
    switches: dict[str, Any] = {"pivot_ratio": pivot_ratio, "pivot_mode": pivot_mode, "fill": fill}
    switches |= {"exclude_pivot_neighbours": exclude_pivot_neighbours, "alpha": alpha, "theta": theta, "diagonal": diagonal}
    kept = [d2_select(s, f, w, n, **switches) for s, f, w in zip(scores, features, places, strict=True)]
    return [Keep(keep.indices.cpu(), keep.info) for keep in kept]


def mmr_select_many(
    importance: Batch, features: Batch, n: int, *, lam: float = 0.5, eps: float = 1e-6, order: Order = "sequence"
) -> Tensor:
    """Keep n of N tokens of every sample by maximal marginal relevance, as `mmr_select` does; see there.

    Args:
        importance: [B, N]. features: [B, N, d].

    Returns:
        [B, min(n, N)] int64, on the CPU.

    Raises:
        BiaskitError: as `mmr_select`.

    Example:
        >>> import torch
        >>> features = torch.eye(3)[None].repeat(2, 1, 1)
        >>> scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
        >>> mmr_select_many(scores, features, 2).tolist()
        [[0, 1], [1, 2]]
    """
    choice("order", order, ("sequence", "choice"))
    if not few_launches(features):
        kept = [mmr_select(w, f, n, lam=lam, eps=eps, order=order).cpu() for w, f in zip(importance, features, strict=True)]
        return _stacked(kept)
    return mmr_on_device(importance, features, n, lam, eps, order)


def max_min_select_many(features: Batch, n: int, *, order: Order = "sequence") -> Tensor:
    """Keep n of N tokens of every sample by max–min distance, as `max_min_select` does; see there.

    Args:
        features: [B, N, d].

    Returns:
        [B, min(n, N)] int64, on the CPU.

    Raises:
        BiaskitError: as `max_min_select`.

    Example:
        >>> import torch
        >>> max_min_select_many(torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]]), 2).tolist()
        [[0, 2]]
    """
    choice("order", order, ("sequence", "choice"))
    if not few_launches(features):
        return _stacked([max_min_select(f, n, order=order).cpu() for f in features])
    return max_min_on_device(features, n, order)


def top_k_many(scores: Tensor, n: int, *, order: Order = "sequence") -> Tensor:
    """Keep the n highest of the scores [B, N] of every sample, as `top_k` does: [B, min(n, N)] int64, on the CPU.

    Raises:
        BiaskitError: as `top_k`.

    Example:
        >>> import torch
        >>> top_k_many(torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), 2).tolist()
        [[0, 1], [1, 2]]
    """
    choice("order", order, ("sequence", "choice"))
    if not on_device(scores):
        return _stacked([top_k(values, n, order=order) for values in scores])
    n = count(n, scores.shape[1])
    scores = scores.detach().to(torch.float32)
    picked, ends = settle([scores.sort(dim=1, descending=True, stable=True).indices[:, :n], torch.stack(scores.aminmax(dim=1))])
    complain(("scores", ~np.isfinite(ends)))
    return in_order(picked, order)


def _stacked(kept: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(kept)) if kept else torch.zeros(0, 0, dtype=torch.int64, device="cpu")
