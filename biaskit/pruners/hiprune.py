"""HiPrune: anchors by what a middle block of the tower attends to, their neighbours, and the rest by a late block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.base import param
from biaskit.pruners.readings import Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import BY_TILE, Attend, TowerPruner, tower_row
from biaskit.select import cells, hiprune_select
from biaskit.select.hierarchical import Buffers
from biaskit.select.keep import Keep


@pruners.register("hiprune")
@dataclass(frozen=True)
class HiPrune(TowerPruner):
    """Anchors and the tokens around them by the attention received in the middle of the tower, registers by that at its end."""

    name: ClassVar[str] = "hiprune"
    title: ClassVar[str] = "HiPrune"
    paper: ClassVar[str] = "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2508.00553"
    families: ClassVar[str] = "every family"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("mean", -16), tower_row("mean")})
    deviations: ClassVar[tuple[str, ...]] = (
        "neighbours are taken on the grid; the released code takes indices ±1 and ±24, which wrap around rows: buffers='flat'",
        BY_TILE,
        "anchors and their neighbours never exceed the budget; ties go to the lower index",
        "the middle block is counted from the end, −16, the 9th of CLIP-L's 24; Qwen2.5-VL's 16th of 32 is −17",
    )

    attend: Attend = param("mean", "rows of the tower that are read: mean (all of a tile, as published), or cls (the class token's)")
    middle: int = param(-16, "block of the tower whose attention chooses anchors; negative: from the end")
    alpha: float = param(0.1, "α, share of the kept tokens for anchors and their neighbours")
    buffers: Buffers = param("grid", "neighbours: on the grid, or flat, by index as released")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("alpha", 0, 1)

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read."""
        return frozenset({self.row_of(self.middle), self.row_of()})

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Take anchors, buffers and registers."""
        middle, late = signals.at(self.row_of(self.middle), tokens), signals.at(self.row_of(), tokens)
        where = cells(signals.layout)[tokens]
        where = torch.cat([where[:, :1], where[:, 1:] - where[:, 1:].amin(0)], 1)
        return Keep(tokens[hiprune_select(middle, late, where, n, alpha=self.alpha, buffers=self.buffers).cpu()])
