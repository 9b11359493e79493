"""VisPruner: half of the tokens by the class token's attention, half by removing duplicates from the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.base import param
from biaskit.pruners.readings import Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import BY_TILE, FEATURES, TowerPruner, tower_row
from biaskit.select import vispruner_select
from biaskit.select.keep import Keep


@pruners.register("vispruner")
@dataclass(frozen=True)
class VisPruner(TowerPruner):
    """Important tokens by the class token's attention; of the others those least similar to each other by their tower features."""

    name: ClassVar[str] = "vispruner"
    title: ClassVar[str] = "VisPruner"
    paper: ClassVar[str] = "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2412.01818"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls"), FEATURES})
    deviations: ClassVar[tuple[str, ...]] = (
        BY_TILE,
        "the released loop keeps fewer tokens than asked if a round has fewer even entries than the step, and fails on odd lists",
        "towers without a class token: attend='mean'; if a token has several patches, the mean of their features is compared",
    )

    important: float = param(0.5, "share of the kept tokens that is chosen by attention alone")
    step: int = param(8, "maximum number of tokens dropped per round of thinning; the result depends on it")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("important", 0, 1)
        self.check_range("step", 1, math.inf)

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Take the important tokens, then remove duplicates from the others."""
        scores, features = signals.at(self.row_of(), tokens), signals.at(FEATURES, tokens)
        return Keep(tokens[vispruner_select(scores, features, n, important=self.important, step=self.step).cpu()])
