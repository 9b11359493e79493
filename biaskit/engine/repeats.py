"""Which rows of a batch repeat the one before, as beams and several returned sequences do. Most batches do not, and looking is cheap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import fetch

_EVERY = 16  # positions: of how many one tells, to begin with
_NEAR = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest number of a row; four roundings in half precision


def _near(a: Tensor, b: Tensor) -> Tensor:
    """Tell whether embeddings [B, S, d] are equal but for rounding, row by row: [B] bool.

    Some processors and releases round the same image otherwise at another place in the batch.
    """
    limit = _NEAR.get(a.dtype, 4 * torch.finfo(a.dtype).eps)
    return (a - b).abs().flatten(1).amax(1) <= limit * a.abs().flatten(1).amax(1)


def alike(embeds: Tensor, *, whole: bool) -> Tensor:
    """Tell on the device which rows of embeddings [B, S, d] equal the one before, as far as some or all positions show: [B − 1] bool."""
    step = 1 if whole else _EVERY
    return _near(embeds[1:, ::step], embeds[:-1, ::step])


def repeated(ids: Tensor, embeds: Tensor, like: Sequence[NDArray[np.bool_]], *, whole: bool) -> list[bool]:
    """Tell which rows equal the one before: same tokens, and the same embeddings but for rounding.

    Args:
        ids: [B, S], on the host. embeds: [B, S, d]. like: what `alike` found with this `whole`; nothing if there is one row alone.
        whole: if not, rows that may repeat the one before are compared in full now, at the price of one synchronisation.
    """
    if not like:
        return [False] * len(ids)
    same = np.append(False, (ids[1:] == ids[:-1]).all(1).numpy() & like[0])
    rows = np.flatnonzero(same).tolist()
    if rows and not whole:
        same[rows] = fetch([torch.stack([_near(embeds[row : row + 1], embeds[row - 1 : row])[0] for row in rows])])[0]
    return [bool(each) for each in same]
