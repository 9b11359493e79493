"""LLaVA-PruMerge: keep tokens that are outliers of the class token's attention, and merge the others into those they resemble."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.base import param
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import FEATURES, TowerPruner, merged, tower_row
from biaskit.select import prumerge_merge
from biaskit.select.keep import Keep

_KEYS = Reading("keys", "tower", layer=-1, heads="each")


@pruners.register("prumerge")
@dataclass(frozen=True)
class PruMerge(TowerPruner):
    """Kept tokens x become x + Σ a·x over the tokens of most similar keys; one further token is Σ a·x over all that are not kept."""

    name: ClassVar[str] = "prumerge"
    title: ClassVar[str] = "LLaVA-PruMerge"
    paper: ClassVar[str] = "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2403.15388"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls", -1, what="logits", heads="each"), _KEYS, FEATURES, EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = (
        "by default the budget is kept exactly, for comparisons; adaptive=True keeps the paper's own number and ignores the budget",
        "attention is softmax(q·k / √C) of whole rows, as released, but without the class token's own key, which scales all of it",
        "the token merged from the rest takes the place of the strongest of them; in the released code it is last",
        "where the released code fails: without outliers one token is kept; with a third or more the stride of the regular ones is 1",
        "kept tokens are in raster order; in the released code by descending attention",
        "towers without a class token: attend='mean', mean logits; not in the paper",
    )
    plus: ClassVar[bool] = False

    neighbours: int = param(32, "tokens merged into each kept one")
    adaptive: bool = param(False, "keep all outliers and ignore the budget, as published")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("neighbours", 0, math.inf)
        object.__setattr__(self, "exact", not self.adaptive)

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Choose, then merge."""
        logits, keys = signals.at(self.row_of(-1, what="logits", heads="each"), tokens), signals.at(_KEYS, tokens)
        attention = torch.softmax(logits.sum(0) / math.sqrt(len(logits)), 0)
        flat = keys.transpose(0, 1).flatten(1)
        count = None if self.adaptive else n
        return merged(signals, tokens, prumerge_merge(attention, flat, n=count, plus=self.plus, neighbours=self.neighbours))


@pruners.register("prumerge+")
@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge that also keeps evenly spaced tokens."""

    name: ClassVar[str] = "prumerge+"
    title: ClassVar[str] = "LLaVA-PruMerge+"
    deviations: ClassVar[tuple[str, ...]] = (
        *PruMerge.deviations,
        "at a given budget: the outliers, then evenly spaced other tokens until it is full",
    )
    plus: ClassVar[bool] = True
