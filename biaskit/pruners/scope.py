"""SCOPE: greedily choose tokens by saliency and by how much they add to the coverage of the image."""

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
from biaskit.select import scope_select
from biaskit.select.keep import Keep


@pruners.register("scope")
@dataclass(frozen=True)
class SCOPE(TowerPruner):
    """Greedily the highest saliency^α × gain of coverage, by the class token's attention and the similarity of tower features."""

    name: ClassVar[str] = "scope"
    title: ClassVar[str] = "SCOPE"
    paper: ClassVar[str] = "SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2510.24214"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls"), FEATURES})
    deviations: ClassVar[tuple[str, ...]] = (
        "saliency is the mean over heads, not the sum: the same order",
        BY_TILE,
        "gains are compared as multiples of 2⁻²⁴ of a cosine, a tie goes to the lower index; the released code sums in the model's dtype",
        "towers without a class token: attend='mean'; if a token has several patches, the mean of their features is compared",
    )

    alpha: float = param(1.0, "α, the power of saliency: 0 is coverage alone")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("alpha", 0, math.inf)

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Pick by gain."""
        scores, features = signals.at(self.row_of(), tokens), signals.at(FEATURES, tokens)
        return Keep(tokens[scope_select(scores, features, n, alpha=self.alpha).cpu()])
