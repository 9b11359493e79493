"""Budgets of tiles for HiRED and GlobalCom², from the class token's attention on the small picture of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import choice, count, fraction, vector
from biaskit.select.simple import top_k

Rounding = Literal["exact", "released"]


def tile_regions(rows: int, cols: int, tiles: tuple[int, int], *, strips: bool = False) -> Tensor:
    """Return which tile covers each cell of the small picture's grid: [rows · cols] int64, tiles counted row by row.

    Args:
        rows, cols: the small picture's grid. tiles: (down, across) of the large one.
        strips: as HiRED's released code, cut the raster into one equal run per tile.

    Raises:
        BiaskitError: a size below 1.

    Example:
        >>> tile_regions(2, 4, (1, 2)).tolist(), tile_regions(2, 4, (1, 2), strips=True).tolist()
        ([0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1])
    """
    down, across = tiles
    if min(rows, cols, down, across) < 1:
        raise BiaskitError(f"cannot cut {rows} × {cols} cells into {down} × {across} tiles", "every size is at least 1")
    if strips:
        return torch.arange(rows * cols) * (down * across) // (rows * cols)
    return (torch.arange(rows) * down // rows * across)[:, None].add(torch.arange(cols) * across // cols).flatten()


def capped_shares(weights: Sequence[float], caps: Sequence[int], n: int) -> list[int]:
    """Divide n in proportion to `weights`, no part above its cap: whole numbers that add up to min(n, Σ caps).

    Largest remainders; a tie goes to the earlier part. What exceeds a cap goes to the other parts, in proportion to their weights or, if
    these are 0, to their remaining capacity.

    Raises:
        BiaskitError: different lengths, negative numbers, or a weight that is not finite.

    Example:
        >>> capped_shares([3.0, 1.0, 0.0], [2, 9, 9], 6)
        [2, 4, 0]
    """
    if len(weights) != len(caps) or n < 0 or any(cap < 0 for cap in caps) or not all(0 <= w < float("inf") for w in weights):
        raise BiaskitError(f"cannot share {n} by {list(weights)} up to {list(caps)}", "give one weight and one cap per part, from 0")
    shares = [0] * len(caps)
    while missing := min(n, sum(caps)) - sum(shares):
        room = [cap - share for cap, share in zip(caps, shares, strict=True)]
        force = [w if space else 0.0 for w, space in zip(weights, room, strict=True)]
        force = force if sum(force) > 0 else [float(space) for space in room]
        exact = [missing * f / sum(force) for f in force]
        whole = [min(int(round(e, 9)), space) for e, space in zip(exact, room, strict=True)]
        if all(int(round(e, 9)) <= space for e, space in zip(exact, room, strict=True)):
            open_ = sorted((i for i in range(len(caps)) if room[i] > whole[i]), key=lambda i: (-round(exact[i] - whole[i], 9), i))
            for i in open_[: missing - sum(whole)]:
                whole[i] += 1
        shares = [share + more for share, more in zip(shares, whole, strict=True)]
    return shares


def hired_budgets(
    early: Tensor, regions: Tensor, sizes: Sequence[int], n: int, *, alpha: float = 0.5, rounding: Rounding = "exact"
) -> tuple[int, list[int]]:
    """Budgets of the small picture and of each tile (HiRED, arXiv 2408.10945).

    The small picture gets int(n · α). Its int(M · (1 − α)) cells with the highest attention are marked, and the tiles share the rest of n
    in proportion to the marks in their regions.

    Args:
        early: [M] class attention of tower layer 0 on the small picture, summed or averaged over heads.
        regions: [M] the tile of each cell, as `tile_regions` makes. sizes: tokens of each tile. n: budget for all.
        alpha: α. rounding: `released` rounds down, so that the sum can be below n; `exact` distributes all n.

    Returns:
        (budget of the small picture, budgets of the tiles).

    Raises:
        BiaskitError: shapes, values that are not finite, n below 1, or α outside 0 … 1.

    Example:
        >>> import torch
        >>> hired_budgets(torch.tensor([9.0, 8, 0, 0]), torch.tensor([0, 0, 1, 1]), [4, 4], 4)
        (2, [2, 0])
    """
    early = vector("early", early)
    marks = _sums(_marked(early, alpha), regions, len(sizes))
    choice("rounding", rounding, ("exact", "released"))
    n = count(n, len(early) + sum(sizes))
    whole = min(int(round(n * alpha, 9)), len(early))
    rest = min(n - whole, sum(sizes))
    if rounding == "released":
        total = max(float(marks.sum()), 1.0)
        return whole, [min(int(round(rest * float(c) / total, 9)), size) for c, size in zip(marks, sizes, strict=True)]
    return n - rest, capped_shares(marks.tolist(), sizes, rest)


def _marked(early: Tensor, alpha: float) -> Tensor:
    """Return [M], 1 if a cell is among the int(M · (1 − α)) highest, else 0."""
    fraction("alpha", alpha)
    few = int(round(len(early) * (1 - alpha), 9))
    marked = torch.zeros_like(early)
    return marked.index_fill(0, top_k(early, few).to(early.device), 1.0) if few else marked


def _sums(values: Tensor, regions: Tensor, tiles: int) -> Tensor:
    """Sum [M] values by region: [tiles]."""
    if (
        regions.shape != values.shape
        or regions.is_floating_point()
        or (len(regions) and not 0 <= int(regions.min()) <= int(regions.max()) < tiles)
    ):
        raise BiaskitError(
            f"regions have shape {list(regions.shape)}", f"pass a tile from 0 to {tiles - 1} for each of {len(values)} cells"
        )
    return values.new_zeros(tiles).index_add(0, regions.to(values.device), values)


def globalcom2_ratios(thumbnail: Tensor, regions: Tensor, tiles: int, retention: float, *, temperature: float = 10.0) -> Tensor:
    """Share of tokens that each tile keeps: min(1, R · (1 + σₖ − mean σ)), σ = softmax(Gₖ / temperature) (GlobalCom², arXiv 2501.05179).

    Gₖ sums the thumbnail's scores in a tile's region. Scores are logits before the softmax: with probabilities, σ would be nearly uniform.

    Args:
        thumbnail: [M] logits of the class token at the tower's last layer, mean over heads. regions: [M] as `tile_regions` makes.
        tiles: their number. retention: R, share of all tokens.

    Returns:
        [tiles] float32; their mean is R unless a tile reaches 1.

    Raises:
        BiaskitError: shapes, values that are not finite, or a retention or temperature out of range.

    Example:
        >>> import torch
        >>> globalcom2_ratios(torch.zeros(4), torch.tensor([0, 0, 1, 1]), 2, 0.25).tolist()
        [0.25, 0.25]
    """
    thumbnail = vector("thumbnail", thumbnail)
    if not 0 < retention <= 1 or not 0 < temperature < float("inf"):
        raise BiaskitError(f"retention is {retention}, temperature {temperature}", "retention is in 0 < r ≤ 1, temperature above 0")
    sums = _sums(thumbnail, regions, tiles)
    share = torch.softmax((sums - sums.max()) / temperature, 0)
    return (retention * (1 + share - share.mean())).clamp_max(1)


def globalcom2_scores(local: Tensor, crop: Tensor) -> Tensor:
    """Add a tile's own scores [Nₖ] and the thumbnail's at the same place [Nₖ], each scaled to Euclidean length 1: [Nₖ] float32.

    Args:
        local: logits of the class token on the tile, at its tokens without padding. crop: the thumbnail's, resized to the canvas
            (`canvas_scores`), at the same tokens.

    Raises:
        BiaskitError: shapes, or values that are not finite.

    Example:
        >>> import torch
        >>> globalcom2_scores(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])).tolist()
        [0.6000000238418579, 1.7999999523162842]
    """
    local = vector("local", local)
    crop = vector("crop", crop, len(local)).to(local.device)
    return _length_one(local) + _length_one(crop)


def _length_one(values: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(values)
    return values / torch.where(length > 0, length, 1.0)


def canvas_scores(thumbnail: Tensor, rows: int, cols: int) -> Tensor:
    """Resize a thumbnail's scores [h, w] to the canvas of all tiles: [rows, cols] float32, bilinear, corners not aligned.

    Raises:
        BiaskitError: not [h, w], values that are not finite, or a size below 1.

    Example:
        >>> import torch
        >>> canvas_scores(torch.tensor([[0.0, 1.0]]), 1, 4).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    if thumbnail.ndim != 2 or not thumbnail.numel() or min(rows, cols) < 1:
        raise BiaskitError(f"cannot resize scores of shape {list(thumbnail.shape)} to {rows} × {cols}", "pass [h, w] and sizes from 1")
    values = vector("thumbnail", thumbnail.flatten()).view(1, 1, *thumbnail.shape)
    return torch.nn.functional.interpolate(values, (rows, cols), mode="bilinear", align_corners=False)[0, 0]
