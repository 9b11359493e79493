"""LLaVA-PruMerge: keep the outliers of the class token's attention, and merge all tokens into the kept ones they resemble."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, choice, count, matrix, vector
from biaskit.select.cosine import cosines, unit_rows
from biaskit.select.merging import Merge, ascending, identity_merge
from biaskit.select.simple import spaced


def full_width_attention(query: Tensor, keys: Tensor) -> Tensor:
    """Attention of the class token over whole keys, heads not split: softmax(q·kᵀ / √C), without the class token's own share.

    Args:
        query: [C] the class token's query of the tower's last layer, heads concatenated. keys: [1 + N, C], the class token's first.

    Returns:
        [N] float32; it sums to less than 1.

    Raises:
        BiaskitError: shapes, or values that are not finite.

    Example:
        >>> import torch
        >>> full_width_attention(torch.zeros(4), torch.ones(3, 4)).tolist()  # a third for each, the class token's own left out
        [0.3333333432674408, 0.3333333432674408]
    """
    query = vector("query", query)
    keys = matrix("keys", keys).float().to(query.device)
    if keys.shape[1] != len(query) or not len(keys):
        raise BiaskitError(f"keys have shape {list(keys.shape)}, the query {len(query)} entries", "pass the keys of all heads side by side")
    with torch.autocast(query.device.type, enabled=False):
        return torch.softmax(keys @ query / math.sqrt(len(query)), 0)[1:]


def outlier_count(attention: Tensor) -> int:
    """Count the tokens whose attention [N] is above the third quartile by more than 1.5 interquartile ranges; at least 1 unless N is 0.

    Quartiles are interpolated linearly. PruMerge keeps this many. (The released code divides by zero if there are none.)

    Raises:
        BiaskitError: not [N], or not finite.

    Example:
        >>> import torch
        >>> outlier_count(torch.tensor([1.0, 2, 3, 4, 90, 80]))
        1
    """
    values = vector("attention", attention).double()
    if not len(values):
        return 0
    low, high = torch.quantile(values, values.new_tensor([0.25, 0.75])).tolist()
    return max(int((values > high + 1.5 * (high - low)).sum()), 1)


def regular_sample(attention: Tensor, kept: int) -> list[int]:
    """Return the indices that PruMerge+ adds to the `kept` of highest attention [N]: every stride-th of the first N − 1, if not kept yet.

    stride = ⌊⌊N / kept⌋ / 3⌋, at least 1; the last token is never added.

    Raises:
        BiaskitError: not [N], not finite, or nothing kept.

    Example:
        >>> import torch
        >>> regular_sample(torch.arange(9.0), 1)
        [0, 3, 6]
    """
    values = vector("attention", attention)
    kept = count(kept, len(values))
    chosen = set(values.sort(descending=True, stable=True).indices[:kept].tolist())
    return [i for i in range(0, len(values) - 1, max(len(values) // max(kept, 1) // 3, 1)) if i not in chosen]


def prumerge_merge(
    attention: Tensor,
    keys: Tensor,
    *,
    n: int | None = None,
    plus: bool = False,
    neighbours: int = 32,
    remainder: bool = True,
    order: Order = "sequence",
) -> Merge:
    """Merge each kept token with those it resembles: x + Σ a·x over the `neighbours` tokens of highest key cosine (arXiv 2403.15388).

    The weights a are attention values, not normalised. All other tokens are candidates, kept or not. One further token is the sum of a·x
    over all tokens that are not kept; its index is that of the strongest of them.

    Args:
        attention: [N] of the class token, such as `full_width_attention` of the tower's last layer.
        keys: [N, C] keys of that layer, heads concatenated.
        n: tokens in all, including the one for the rest (omitted if n is 1). None: `outlier_count` of them and one for the rest, as
            published. With `plus`, n tokens are the outliers, at most n, and evenly spaced ones of the other tokens.
        plus: PruMerge+: keep the `regular_sample` too.
        neighbours: tokens merged into each kept one; fewer if N is smaller.
        remainder: add the token for the rest.
        order: `choice`, as released: by falling attention, then the regular ones by index, then the one for the rest.

    Returns:
        A merge with up to N tokens. A tie goes to the lower index.

    Raises:
        BiaskitError: shapes, values that are not finite, n below 1, or negative `neighbours`.

    Example:
        >>> import torch
        >>> merge = prumerge_merge(torch.tensor([0.5, 0.1, 0.2]), torch.eye(3)[[0, 0, 1]], n=2, neighbours=1)
        >>> merge.indices.tolist(), [[round(w, 3) for w in row] for row in merge.weights.tolist()]
        ([0, 2], [[1.0, 0.1, 0.0], [0.0, 0.1, 0.2]])
    """
    attention = vector("attention", attention)
    keys = matrix("keys", keys, len(attention)).to(attention.device)
    choice("order", order, ("sequence", "choice"))
    if neighbours < 0:
        raise BiaskitError(f"neighbours is {neighbours}", "choose 32, as published, or another number from 0")
    remainder = remainder and n != 1
    kept = _kept(attention, n, plus, remainder)
    total = len(attention)
    merge = identity_merge(total, kept)
    if neighbours and total > 1 and len(kept):
        unit = unit_rows(keys)
        similar = cosines(unit[kept], unit)
        similar.scatter_(1, kept[:, None], -torch.inf)
        near = similar.sort(dim=1, descending=True, stable=True).indices[:, : min(neighbours, total - 1)]
        merge.weights.scatter_add_(1, near, attention[near])
    rest = torch.ones(total, dtype=torch.bool, device=attention.device)
    rest[kept] = False
    if remainder and bool(rest.any()):
        place = torch.where(rest, attention, -torch.inf).argmax()
        merge = Merge(torch.cat([kept, place[None]]), torch.cat([merge.weights, torch.where(rest, attention, 0.0)[None]]))
    return merge if order == "choice" else ascending(merge)


def _kept(attention: Tensor, n: int | None, plus: bool, remainder: bool) -> Tensor:
    """Return the kept indices without the one for the rest: by falling attention, then the regular ones."""
    total = len(attention)
    ranked = attention.sort(descending=True, stable=True).indices
    if n is None:
        few = outlier_count(attention)
        regular = regular_sample(attention, few) if plus and few else []
        return torch.cat([ranked[:few], ranked.new_tensor(regular)])
    n = count(n, total)
    places = n if n == total or not remainder else max(n - 1, 1)
    few = min(outlier_count(attention), places) if plus else places
    others = ranked[few:].sort().values
    return torch.cat([ranked[:few], others[spaced(len(others), places - few).to(others.device)]])
