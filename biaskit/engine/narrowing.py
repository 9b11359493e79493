"""Which positions of a prompt are still in the sequence, and how to pick them out of the tensors that travel through the decoder.

A *position* counts in the prompt as the model received it; a *row* counts in the narrowed sequence. Samples that keep different numbers of
tokens are padded on the left again, so the last row is the last prompt token of every sample.

All of it is worked out on the host, which knows it anyway, and goes to the device once, when it is asked for there.
"""

from __future__ import annotations

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
    """The sequence that is left of a batch of prompts.

    Attributes:
        held: [B, M] int64, the position that each row holds. Positions of living rows ascend.
        living: [B, M] bool; the others fill shorter samples up and are never attended to.
        stays: [B, S] bool, the positions of the prompt that are left.
        device: of `index` and `alive`.
        whole: every row is alive, so no mask is needed.
    """

    held: Indices
    living: Bools
    stays: Bools
    device: torch.device
    whole: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", bool(self.living.all()))

    @classmethod
    def unchanged(cls, valid: Bools, device: torch.device) -> Narrowing:
        """The prompt as it is: [B, S] bool, True where there is no padding."""
        return cls(np.broadcast_to(np.arange(valid.shape[1]), valid.shape), valid, valid, device)

    @classmethod
    def of(cls, stays: Bools | Tensor, device: torch.device | None = None) -> Narrowing:
        """Only the positions that stay: [B, S] bool. M is the largest number of them in a sample. Tensors are on their device."""
        if isinstance(stays, Tensor):
            device = stays.device
            (stays,) = fetch([stays])
        counts = np.count_nonzero(stays, axis=1)
        longest = int(counts.max())
        if (counts == longest).all():
            held = np.flatnonzero(stays).reshape(len(stays), longest) - np.arange(len(stays))[:, None] * stays.shape[1]
            return cls(held, np.ones(held.shape, bool), stays, device or torch.device("cpu"))
        held = np.empty((len(stays), longest), np.int64)
        for row, (mine, count) in enumerate(zip(stays, counts, strict=True)):
            held[row, longest - count :] = np.flatnonzero(mine)
            if count < longest:
                held[row, : longest - count] = np.flatnonzero(~mine)[count - longest :]
        return cls(held, np.arange(longest) >= longest - counts[:, None], stays, device or torch.device("cpu"))

    def __len__(self) -> int:
        """Return M, the number of rows."""
        return int(self.held.shape[1])

    @cached_property
    def index(self) -> Tensor:
        """`held` on the device."""
        return upload(self.held, self.device)

    @cached_property
    def alive(self) -> Tensor:
        """`living` on the device."""
        return upload(self.living, self.device)

    def counts(self) -> Indices:
        """[B] living rows of each sample."""
        counts: Indices = np.count_nonzero(self.living, axis=1)
        return counts

    def rows_of(self, positions: Indices | Tensor) -> Tensor:
        """Return the rows that hold the positions [B, P], on the device; row 0 for positions that are gone (only fillers ask for them)."""
        if isinstance(positions, Tensor):
            (positions,) = fetch([positions])
        held = np.zeros((len(self.held), max(int(self.held.max()), int(positions.max())) + 1), np.int64)
        np.put_along_axis(held, self.held, np.broadcast_to(np.arange(len(self)), self.held.shape), 1)
        return upload(np.take_along_axis(held, positions, 1), self.device)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Pick rows per sample: x [B or 1, S, width], index [B, M] → [B, M, width], on the device of x (layers may be spread over several)."""
    index = index.to(x.device)
    return x.expand(len(index), -1, -1).gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def compact_positions(valid: Bools | Tensor, narrowed: Narrowing) -> Tensor:
    """Renumber without gaps: the r-th token of a sample takes the place in the rotary table of the sample's r-th token before narrowing.

    Args:
        valid: [B, S] bool, the prompt's tokens. narrowed: what is left of them.

    Returns:
        [B, M] int64, positions whose rotary embedding each row gets, on the device; fillers get that of the sample's first token.
    """
    full = Narrowing.of(valid, narrowed.device)
    rank = np.arange(len(narrowed)) - (len(narrowed) - narrowed.counts())[:, None]
    first = (len(full) - full.counts())[:, None]
    return upload(np.take_along_axis(full.held, first + rank.clip(min=0), 1), narrowed.device)
