"""The check of kept indices."""

from __future__ import annotations

import torch
from torch import Tensor

from biaskit.errors import BiaskitError


def check_kept(kept: Tensor, n_tokens: int) -> Tensor:
    """Return [n] int64 indices of a kept set, 1 ≤ n ≤ N, in any order.

    Raises:
        BiaskitError: not one axis of whole numbers, empty, out of range, or a repeated index.

    Example:
        >>> check_kept(torch.tensor([2, 0]), 3).tolist()
        [2, 0]
    """
    if kept.ndim != 1 or kept.is_floating_point() or kept.dtype == torch.bool or not len(kept):
        raise BiaskitError(f"a kept set is {list(kept.shape)} {kept.dtype}", "give [n] whole numbers, n ≥ 1: indices, not a mask")
    kept = kept.detach().long()
    if int(kept.min()) < 0 or int(kept.max()) >= n_tokens:
        worst = int(kept.max()) if int(kept.max()) >= n_tokens else int(kept.min())
        raise BiaskitError(f"a kept set names token {worst} of {n_tokens}", "indices count the visual tokens of one sample from 0")
    if len(kept.unique()) != len(kept):
        raise BiaskitError("a kept set names a token twice", "give every index once")
    return kept
