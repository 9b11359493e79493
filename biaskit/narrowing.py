"""Which positions of a prompt are still in the sequence, and how to pick them out of the tensors that travel through the decoder.

A *position* counts in the prompt as the model received it; a *row* counts in the narrowed sequence. Samples that keep different numbers of
tokens are padded on the left again, so the last row is the last prompt token of every sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Narrowing:
    """The sequence that is left of a batch of prompts.

    Attributes:
        index: [B, M] int64, the position that each row holds. Positions of alive rows ascend.
        alive: [B, M] bool; the others fill shorter samples up and are never attended to.
        whole: every row is alive, so no mask is needed.
    """

    index: Tensor
    alive: Tensor
    whole: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", bool(self.alive.all()))

    @classmethod
    def unchanged(cls, valid: Tensor) -> Narrowing:
        """The prompt as it is: [B, S] bool, True where there is no padding."""
        return cls(torch.arange(valid.shape[1], device=valid.device).expand(valid.shape), valid)

    @classmethod
    def of(cls, stays: Tensor) -> Narrowing:
        """Only the positions that stay: [B, S] bool. M is the largest number of them in a sample."""
        counts = stays.sum(1)
        longest = int(counts.max())
        index = stays.to(torch.uint8).argsort(dim=1, stable=True)[:, -longest:]
        alive = torch.arange(longest, device=stays.device) >= longest - counts[:, None]
        return cls(index, alive)

    def __len__(self) -> int:
        """Return M, the number of rows."""
        return self.index.shape[1]

    def counts(self) -> Tensor:
        """[B] alive rows of each sample."""
        return self.alive.sum(1)

    def rows_of(self, positions: Tensor) -> Tensor:
        """Return the rows that hold the positions [B, P]; row 0 for positions that are gone (only fillers ask for them)."""
        rows = torch.arange(len(self), device=self.index.device).expand(self.index.shape)
        size = max(int(self.index.max()), int(positions.max())) + 1
        held = torch.zeros(len(rows), size, dtype=torch.int64, device=rows.device)
        return held.scatter_(1, self.index, rows).gather(1, positions)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Pick rows per sample: x [B or 1, S, width], index [B, M] → [B, M, width], on the device of x (layers may be spread over several)."""
    index = index.to(x.device)
    return x.expand(len(index), -1, -1).gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def compact_positions(valid: Tensor, narrowed: Narrowing) -> Tensor:
    """Renumber without gaps: the r-th token of a sample takes the place in the rotary table of the sample's r-th token before narrowing.

    Args:
        valid: [B, S] bool, the prompt's tokens. narrowed: what is left of them.

    Returns:
        [B, M] int64, positions whose rotary embedding each row gets; fillers get that of the sample's first token.
    """
    full = Narrowing.of(valid)
    rows = torch.arange(len(narrowed), device=valid.device)
    rank = rows - (len(narrowed) - narrowed.counts())[:, None]
    first = (len(full) - full.counts())[:, None]
    return full.index.gather(1, first + rank.clamp(min=0))
