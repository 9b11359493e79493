"""Synthetic visual tokens with the structure of a model's: regions, smooth change inside them, a little noise, uneven channels.

How: rows × cols tokens on one grid. Every token is the sum of one direction common to all (weight 1), the prototype of the region it is in
(a Voronoi diagram of √N random seeds that share √N/2 prototypes, so that regions recur; weight 0.9), a smooth field (random values on a
grid four times coarser, bilinear; weight 0.5) and noise of its own (weight 0.35). Channels are scaled by exp(N(0, 0.7)), then the lengths
of tokens by exp(N(0, 0.2)); all is in bfloat16, as it comes from a model. Scores are a smooth field times exp(noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from biaskit.select import cells


@dataclass(frozen=True, eq=False)
class MadeUp:
    """Tokens of one synthetic image: features [N, d] bfloat16, scores [N] > 0, where [N, 3], and text features [t, d] with scores [t]."""

    features: Tensor
    scores: Tensor
    where: Tensor
    text_features: Tensor
    text_scores: Tensor


def grid_of(n_tokens: int) -> tuple[int, int]:
    """Return rows × cols = n_tokens, as close to a square as its divisors allow."""
    rows = next(r for r in range(math.isqrt(n_tokens), 0, -1) if n_tokens % r == 0)
    return rows, n_tokens // rows


def made_up(n_tokens: int, dim: int, seed: int = 0, *, text: int = 35) -> MadeUp:
    """Return tokens as the module's docstring describes them. The same arguments give the same tokens."""
    random = torch.Generator().manual_seed(seed)
    rows, cols = grid_of(n_tokens)
    regions = max(2, math.isqrt(n_tokens))
    where = cells((rows, cols))
    place = where[:, 1:].float()
    seeds = torch.rand(regions, 2, generator=random) * torch.tensor([rows, cols])
    kind = torch.randint(max(1, regions // 2), (regions,), generator=random)[torch.cdist(place, seeds).argmin(1)]
    features = _normal(1, dim, random) + 0.9 * _normal(regions, dim, random)[kind]
    features += 0.5 * _smooth(rows, cols, dim, random)
    features += 0.35 * _normal(n_tokens, dim, random)
    channel = torch.exp(0.7 * torch.randn(dim, generator=random))
    features *= channel
    features *= torch.exp(0.2 * torch.randn(n_tokens, 1, generator=random))
    scores = torch.exp(_smooth(rows, cols, 1, random)[:, 0] + 0.5 * torch.randn(n_tokens, generator=random))
    words = (_normal(1, dim, random) + _normal(text, dim, random)) * channel
    return MadeUp(features.bfloat16(), scores, where, words.bfloat16(), torch.rand(text, generator=random))


def _normal(n: int, dim: int, random: torch.Generator) -> Tensor:
    """Rows of about unit length."""
    return torch.randn(n, dim, generator=random) / math.sqrt(dim)


def _smooth(rows: int, cols: int, dim: int, random: torch.Generator) -> Tensor:
    """A field that varies over about four tokens, [rows · cols, dim], rows of about unit length."""
    coarse = torch.randn(1, dim, max(2, rows // 4), max(2, cols // 4), generator=random) / math.sqrt(dim) * 1.5
    field = torch.nn.functional.interpolate(coarse, (rows, cols), mode="bilinear", align_corners=False)
    return field[0].flatten(1).T
