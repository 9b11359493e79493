"""Which positions of a prompt remain in a pruned sequence, and how to pick their rows from tensors inside the decoder.

A *position* is an index into the prompt as the model received it; a *row* is an index into the pruned ("narrowed") sequence. Samples that
keep different numbers of tokens are padded on the left again, so the last row is the last prompt token of every sample.

All of it is computed on the host with NumPy, and copied to the device once, when it is first used there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import fetch, upload

Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Narrowing:
    """The sequence of a batch of prompts after tokens were dropped.

    Attributes:
        positions: [B, M] int64, the position in the prompt that each row holds. Positions of valid rows ascend.
        valid: [B, M] bool; the others are padding rows, which are never attended to.
        keep_mask: [B, S] bool, the positions of the prompt that are kept.
        device: of `index` and `row_mask`.
        whole: True if there are no padding rows, so that no mask is needed.
    """

    positions: Indices
    valid: Bools
    keep_mask: Bools
    device: torch.device
    whole: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", bool(self.valid.all()))

    @classmethod
    def unchanged(cls, valid: Bools, device: torch.device) -> Narrowing:
        """Return the narrowing that drops nothing. `valid`: [B, S] bool, False for padding."""
        return cls(np.broadcast_to(np.arange(valid.shape[1]), valid.shape), valid, valid, device)

    @classmethod
    def of(cls, keep_mask: Bools | Tensor, device: torch.device | None = None) -> Narrowing:
        """Return the narrowing to `keep_mask` [B, S] bool. M is the largest number of kept positions in a sample.

        Example:
            >>> found = Narrowing.of(np.array([[False, True, True], [True, True, True]]))
            >>> found.positions.tolist(), found.valid[0].tolist()
            ([[0, 1, 2], [0, 1, 2]], [False, True, True])
        """
        if isinstance(keep_mask, Tensor):
            device = keep_mask.device
            (keep_mask,) = fetch([keep_mask])
        counts = np.count_nonzero(keep_mask, axis=1)
        longest = int(counts.max())
        if (counts == longest).all():
            kept = np.flatnonzero(keep_mask).reshape(len(keep_mask), longest)
            positions = kept - np.arange(len(keep_mask))[:, None] * keep_mask.shape[1]
            return cls(positions, np.ones(positions.shape, bool), keep_mask, device or torch.device("cpu"))
        positions = np.empty((len(keep_mask), longest), np.int64)
        for row, (mine, count) in enumerate(zip(keep_mask, counts, strict=True)):
            positions[row, longest - count :] = np.flatnonzero(mine)
            if count < longest:
                positions[row, : longest - count] = np.flatnonzero(~mine)[count - longest :]
        return cls(positions, np.arange(longest) >= longest - counts[:, None], keep_mask, device or torch.device("cpu"))

    def __len__(self) -> int:
        """Return M, the number of rows."""
        return int(self.positions.shape[1])

    @cached_property
    def index(self) -> Tensor:
        """`positions` on the device."""
        return upload(self.positions, self.device)

    @cached_property
    def row_mask(self) -> Tensor:
        """`valid` on the device."""
        return upload(self.valid, self.device)

    def counts(self) -> Indices:
        """[B] valid rows of each sample."""
        counts: Indices = np.count_nonzero(self.valid, axis=1)
        return counts

    def rows_of(self, positions: Indices | Tensor) -> Tensor:
        """Return the rows that hold the positions [B, P], on the device; row 0 for dropped positions, which only padding rows have."""
        if isinstance(positions, Tensor):
            (positions,) = fetch([positions])
        rows = np.zeros((len(self.positions), max(int(self.positions.max()), int(positions.max())) + 1), np.int64)
        np.put_along_axis(rows, self.positions, np.broadcast_to(np.arange(len(self)), self.positions.shape), 1)
        return upload(np.take_along_axis(rows, positions, 1), self.device)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Pick rows per sample: x [B or 1, S, width], index [B, M] → [B, M, width], on the device of x (layers may be spread over several).

    Example:
        >>> take(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0, 2]])).tolist()
        [[[1.0], [3.0]]]
    """
    index = index.to(x.device)
    return x.expand(len(index), -1, -1).gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def replace_rows(hidden: Tensor, values: Mapping[int, tuple[Indices, Tensor]], narrowing: Narrowing | None) -> Tensor:
    """Replace rows of hidden states.

    Args:
        hidden: [B, M, d]. values: row of the batch → (positions [n], their new contents [n, d]).
        narrowing: which positions the M rows hold; None: all.

    Example:
        >>> rows = replace_rows(torch.zeros(1, 3, 1), {0: (np.array([1]), torch.ones(1, 1))}, None)
        >>> rows.flatten().tolist()
        [0.0, 1.0, 0.0]
    """
    if not values:
        return hidden
    replaced = hidden.clone()
    for row, (positions, contents) in values.items():
        rows = positions
        if narrowing is not None:
            rows = np.flatnonzero(np.isin(narrowing.positions[row], positions) & narrowing.valid[row])
        replaced[row, upload(rows, hidden.device)] = contents.to(hidden.device, hidden.dtype)
    return replaced


def compact_positions(valid: Bools | Tensor, narrowed: Narrowing) -> Tensor:
    """Renumber without gaps: the r-th kept token of a sample gets the rotary embedding of the sample's r-th token before pruning.

    Args:
        valid: [B, S] bool, the prompt's tokens. narrowed: the sequence after tokens were dropped.

    Returns:
        [B, M] int64 on the device: the position whose rotary embedding each row gets; padding rows get the sample's first token's.

    Example:
        >>> valid = np.array([[False, True, True, True, True]])
        >>> compact_positions(valid, Narrowing.of(np.array([[False, True, False, True, True]]))).tolist()
        [[1, 2, 3]]
    """
    full = Narrowing.of(valid, narrowed.device)
    rank = np.arange(len(narrowed)) - (len(narrowed) - narrowed.counts())[:, None]
    first = (len(full) - full.counts())[:, None]
    return upload(np.take_along_axis(full.positions, first + rank.clip(min=0), 1), narrowed.device)
