"""Find rows of a batch that repeat the row before, as with beams and several returned sequences. A cheap check rules out most batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import fetch

_EVERY = 16  # the first check compares every 16th position
_NEAR = {torch.float64: 1e-9, torch.float32: 1e-4}  # tolerance relative to a row's largest number; four roundings in half precision


def _near(a: Tensor, b: Tensor) -> Tensor:
    """Return which rows of embeddings [B, S, d] are equal up to rounding: [B] bool.

    Some processors and releases round the same image differently at another index of the batch.
    """
    limit = _NEAR.get(a.dtype, 4 * torch.finfo(a.dtype).eps)
    return (a - b).abs().flatten(1).amax(1) <= limit * a.abs().flatten(1).amax(1)


def alike(embeds: Tensor, *, whole: bool) -> Tensor:
    """Return, on the device, which rows of embeddings [B, S, d] equal the row before, at some or all positions: [B − 1] bool."""
    step = 1 if whole else _EVERY
    return _near(embeds[1:, ::step], embeds[:-1, ::step])


def repeated(ids: Tensor, embeds: Tensor, like: Sequence[NDArray[np.bool_]], *, whole: bool) -> list[bool]:
    """Return which rows equal the row before: same tokens, and the same embeddings up to rounding.

    Args:
        ids: [B, S], on the host. embeds: [B, S, d]. like: results of `alike` with this `whole`; empty for a single row.
        whole: if False, rows that may repeat the row before are compared in full now, at the cost of one synchronisation.
    """
    if not like:
        return [False] * len(ids)
    same = np.append(False, (ids[1:] == ids[:-1]).all(1).numpy() & like[0])
    rows = np.flatnonzero(same).tolist()
    if rows and not whole:
        same[rows] = fetch([torch.stack([_near(embeds[row : row + 1], embeds[row - 1 : row])[0] for row in rows])])[0]
    return [bool(each) for each in same]
