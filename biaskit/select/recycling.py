"""SparseVLM: the text tokens that rate the picture, the number of tokens per stage, and the recycling of dropped ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, choice, count, fraction, matrix, vector
from biaskit.select.merging import Merge, ascending, identity_merge

SPARSEVLM_COUNTS: Mapping[tuple[str, int], tuple[int, int, int]] = MappingProxyType(
    {
        ("v1", 192): (300, 200, 110),
        ("v1", 128): (303, 110, 36),
        ("v1", 96): (238, 48, 26),
        ("v1", 64): (66, 30, 17),
        ("v2", 192): (300, 200, 118),
        ("v2", 128): (238, 108, 60),
        ("v2", 96): (246, 54, 28),
        ("v2", 64): (66, 34, 20),
    }
)
"""(version, published label) → tokens kept of 576 after layers 2, 6 and 15, without recycled ones. Labels are not means over layers."""


def text_raters(visual: Tensor, text: Tensor) -> Tensor:
    """Find the text tokens whose similarity with the picture is above the mean, the raters: [t] bool (SparseVLM, arXiv 2410.04417).

    A visual token's row is softmax over the text of visual · textᵀ, not scaled; a text token's weight is the mean of its column. If no
    weight is above the mean, all are equal, and all tokens are raters.

    Args:
        visual: [N, d] and text: [t, d] input embeddings; text after the picture, including the assistant's prefix.

    Raises:
        BiaskitError: shapes, no visual token, or values that are not finite.

    Example:
        >>> import torch
        >>> text_raters(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])).tolist()
        [True, False]
    """
    visual = matrix("visual", visual).float()
    text = matrix("text", text).float().to(visual.device)
    if not len(visual) or text.shape[1] != visual.shape[1]:
        raise BiaskitError(
            f"visual has shape {list(visual.shape)}, text {list(text.shape)}", "pass embeddings of one size, one picture at least"
        )
    with torch.autocast(visual.device.type, enabled=False):
        weight = torch.softmax(visual @ text.mT, 1).mean(0)
    raters: Tensor = weight > weight.mean()
    return raters if bool(raters.any()) else torch.ones_like(raters)


def rater_scores(attention: Tensor, raters: Tensor, *, heads: int | None = None) -> Tensor:
    """Mean attention of the raters to each visual token, over heads: [N] float32.

    Args:
        attention: [H, t, N] after the softmax over all keys. raters: [t] bool, at least one.
        heads: use only this many heads, those with the most attention on visual tokens, summed over raters (14 in SparseVLM v2); None: all.

    Raises:
        BiaskitError: shapes, no rater, `heads` below 1, or values that are not finite.

    Example:
        >>> import torch
        >>> attention = torch.tensor([[[0.1, 0.2]], [[0.4, 0.3]]])
        >>> rater_scores(attention, torch.tensor([True]), heads=1).tolist() == attention[1, 0].tolist()
        True
    """
    if attention.ndim != 3 or raters.shape != attention.shape[1:2] or raters.dtype != torch.bool or not bool(raters.any()):
        raise BiaskitError(
            f"attention has shape {list(attention.shape)}, raters {list(raters.shape)}", "pass [H, t, N] and [t] bool, one of them true"
        )
    if heads is not None and heads < 1:
        raise BiaskitError(f"heads is {heads}", "count at least 1; SparseVLM v2 counts 14")
    rows = attention[:, raters.to(attention.device)].to(torch.float32)
    if heads is not None:
        rows = rows[rows.sum((1, 2)).sort(descending=True, stable=True).indices[:heads]]
    return vector("attention", rows.mean((0, 1)))


def rank_deletions(attention: Tensor, *, scale: float = 1.0) -> int:
    """Return how many visual tokens the paper's rule deletes at a layer: ⌊λ · (N − rank of the raters' attention [raters, N])⌋, ≤ N − 1.

    The released code has fixed counts instead (`SPARSEVLM_COUNTS`).

    Raises:
        BiaskitError: shapes, values that are not finite, or λ outside 0 … 1.

    Example:
        >>> import torch
        >>> rank_deletions(torch.ones(3, 10), scale=0.5)
        4
    """
    attention = matrix("attention", attention)
    fraction("scale", scale)
    total = attention.shape[1]
    if not attention.numel():
        return 0
    return min(int(round(scale * (total - int(torch.linalg.matrix_rank(attention.float()))), 9)), total - 1)


def recycled_count(dropped: int) -> int:
    """Return how many tokens SparseVLM v1 makes of `dropped` ones: ⌊x / 10⌋ + 1, from the x = ⌊0.3 · dropped⌋ + 1 best; 0 for 0.

    Example:
        >>> [recycled_count(dropped) for dropped in (576 - 300, 309 - 200, 204 - 110)]
        [9, 4, 3]
    """
    return (3 * dropped // 10 + 1) // 10 + 1 if dropped > 0 else 0


def kept_and_recycled(n_tokens: int, n: int) -> tuple[int, int]:
    """Divide a budget of n of `n_tokens` into (kept, recycled), where recycled is `recycled_count` of the dropped.

    If that is impossible, half of the budget is recycled.

    Raises:
        BiaskitError: n is below 1.

    Example:
        >>> kept_and_recycled(576, 309), kept_and_recycled(576, 4)
        ((300, 9), (2, 2))
    """
    n = count(n, n_tokens)
    fits = ((kept, n - kept) for kept in range(n, 0, -1) if kept + recycled_count(n_tokens - kept) == n)
    return next(fits, (n - n // 2, n // 2))


def sparsevlm_merge(
    scores: Tensor, hidden: Tensor, keep: int, *, clusters: int | None = None, nearest: int = 5, order: Order = "sequence"
) -> Merge:
    """Keep the highest scores, and make a few new tokens, means of clusters, of the best dropped ones (SparseVLM v1).

    Density-peak clustering: a token's density is exp(− mean squared distance to its `nearest` nearest), its separation the distance to the
    nearest token that is denser (for the densest, the largest distance of all); centres have the highest product of both; every other
    token belongs to its nearest centre. Distances are Euclidean, divided by √d. The released noise on densities is left out: a tie goes to
    the lower index.

    Args:
        scores: [N], such as `rater_scores`. hidden: [N, d] hidden states. keep: how many are kept unchanged.
        clusters: how many means are added. None: `recycled_count` of the dropped.
        nearest: number of neighbours for a density.
        order: `sequence`, by index, a mean at its cluster's centre; `choice`, as released: kept ones by index, then the means.

    Returns:
        A merge with min(keep, N) tokens and the clusters, at most as many as there are tokens to recycle.

    Raises:
        BiaskitError: shapes, values that are not finite, `keep` or `nearest` below 1.

    Example:
        >>> import torch
        >>> merge = sparsevlm_merge(torch.tensor([9.0, 3.0, 2.0, 0.0]), torch.tensor([[0.0], [4.0], [6.0], [9.0]]), 1)
        >>> merge.indices.tolist(), merge(torch.tensor([[0.0], [4.0], [6.0], [9.0]])).tolist()  # of 3 dropped the best 1 is a cluster
        ([0, 1], [[0.0], [4.0]])
    """
    scores = vector("scores", scores)
    hidden = matrix("hidden", hidden, len(scores)).to(scores.device)
    choice("order", order, ("sequence", "choice"))
    if nearest < 1 or (clusters is not None and clusters < 0):
        raise BiaskitError(f"nearest is {nearest}, clusters {clusters}", "a density needs at least 1 neighbour; make 0 or more clusters")
    keep, total = count(keep, len(scores)), len(scores)
    ranked = scores.sort(descending=True, stable=True).indices
    kept, dropped = ranked[:keep].sort().values, ranked[keep:]
    clusters = recycled_count(len(dropped)) if clusters is None else min(clusters, 3 * len(dropped) // 10 + 1)
    if not len(dropped) or not clusters:
        return identity_merge(total, kept)
    best = dropped[: 3 * len(dropped) // 10 + 1].sort().values
    centres, home = _density_peaks(hidden[best].float(), clusters, nearest)
    merge = identity_merge(total, torch.cat([kept, best[centres]]))
    sizes = torch.bincount(home, minlength=len(centres))
    merge.weights[keep + home, best] = 1 / sizes[home].float()
    return merge if order == "choice" else ascending(merge)


def _density_peaks(points: Tensor, clusters: int, nearest: int) -> tuple[Tensor, Tensor]:
    """Cluster [x, d] points: (centres [clusters] as indices into them, the cluster of each [x])."""
    points = points.double()
    apart = _distances(points) / math.sqrt(max(points.shape[1], 1))
    near = apart.topk(min(nearest, len(points)), dim=1, largest=False).values
    density = torch.exp(-(near**2).mean(1))
    rank = torch.empty_like(density, dtype=torch.int64)
    rank[density.sort(descending=True, stable=True).indices] = torch.arange(len(points), device=points.device)
    separation = torch.where(rank[None] < rank[:, None], apart, torch.inf).amin(1)
    separation = torch.where(rank == 0, apart.max(), separation)
    centres = (density * separation).sort(descending=True, stable=True).indices[:clusters]
    home = apart[:, centres].argmin(1)
    home[centres] = torch.arange(len(centres), device=points.device)
    return centres, home


def _distances(points: Tensor) -> Tensor:
    """Distances of all pairs of [x, d] float64 points by one product: [x, x]. What rounding could make of equal points is 0."""
    own = (points * points).sum(1)
    both = own[:, None] + own
    squared = both - 2 * (points @ points.mT)
    return torch.where(squared > 1e-12 * both, squared, 0.0).sqrt()
