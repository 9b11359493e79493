"""HiPrune: anchors by the attention of a middle tower layer, their neighbours, and the rest by the attention of a late layer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from biaskit.select.cells import neighbours
from biaskit.select.checks import Order, answer, choice, count, fraction, vector

Buffers = Literal["grid", "flat"]

_BESIDE = [1, 3, 4, 6]
"""Columns of `neighbours` for the cells above, left, right and below."""


def hiprune_select(
    middle: Tensor, late: Tensor, where: Tensor, n: int, *, alpha: float = 0.1, buffers: Buffers = "grid", order: Order = "sequence"
) -> Tensor:
    """Keep anchors, their four neighbours, and the best of the rest (HiPrune, arXiv 2508.00553).

    Anchors are the round(n · α / 5) highest of `middle` (halves to even, as released; possibly 0). Their buffers are the four tokens
    beside, above and below. The rest of n are the highest of `late` among the others. If anchors and buffers are more than n, anchors are
    kept first, then buffers in the order of their anchors.

    Args:
        middle: [N] attention that each patch receives at the object layer, mean over heads and all queries, including the class token's;
            CLIP-L: the 9th block, Qwen2.5-VL: the 16th. late: [N] the same at the layer whose output is used, −2.
        where: [N, 3] (plane, row, col) of each token, as `cells` makes.
        n: how many to keep. alpha: α, share of n for anchors and buffers.
        buffers: `grid`; or `flat`, as released: indices ±1 and ± the plane's columns, clamped to 0 … N − 1, which wraps around rows. It
            needs one plane.
        order: `choice` gives anchors, buffers, and the rest by falling score.

    Returns:
        [min(n, N)] int64. A tie goes to the lower index.

    Raises:
        BiaskitError: shapes, values that are not finite, n below 1, α outside 0 … 1, or invalid cells.

    Example:
        >>> import torch
        >>> from biaskit.select import cells
        >>> middle, late = torch.eye(9)[5], torch.arange(9.0)
        >>> hiprune_select(middle, late, cells((3, 3)), 5, alpha=1.0, order="choice").tolist()  # 5 and beside it 2, 4, 8
        [5, 2, 4, 8, 7]
    """
    middle = vector("middle", middle)
    late = vector("late", late, len(middle)).to(middle.device)
    fraction("alpha", alpha)
    choice("buffers", buffers, ("grid", "flat"))
    beside = neighbours(where).to(middle.device)[:, _BESIDE]
    n = count(n, len(middle))
    anchors = middle.sort(descending=True, stable=True).indices[: round(n * alpha / 5)]
    around = beside[anchors] if buffers == "grid" else _flat(anchors, where)
    first = list(dict.fromkeys([*anchors.tolist(), *around[around >= 0].tolist()]))[:n]
    taken = torch.tensor(first, dtype=torch.int64, device=middle.device)
    ranked = late.sort(descending=True, stable=True).indices
    rest = ranked[~torch.isin(ranked, taken)][: n - len(taken)]
    return answer(torch.cat([taken, rest]), order)


def _flat(anchors: Tensor, where: Tensor) -> Tensor:
    """Neighbours of [a] anchors by index, as released: [a, 4]."""
    cols = int(where[:, 2].max()) + 1
    steps = torch.tensor([-cols, -1, 1, cols], device=anchors.device)
    return (anchors[:, None] + steps).clamp(0, len(where) - 1)
