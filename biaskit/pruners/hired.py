"""HiRED: each tile gets a budget by early attention of the class token, and keeps what late attention chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.anyres import Views, views_of
from biaskit.pruners.base import param
from biaskit.pruners.readings import Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import TowerPruner, tower_row
from biaskit.select import hired_budgets, largest_remainder, top_k
from biaskit.select.keep import Keep


@pruners.register("hired")
@dataclass(frozen=True)
class HiRED(TowerPruner):
    """The small view keeps a share α; the tiles share the rest by the class token's attention at the tower's first block."""

    name: ClassVar[str] = "hired"
    title: ClassVar[str] = "HiRED"
    paper: ClassVar[str] = "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language Models"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2408.10945"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls", 0), tower_row("cls")})
    deviations: ClassVar[tuple[str, ...]] = (
        "regions of the small view are the parts that the tiles cover; the released code takes strips of the raster",
        "the whole budget is divided; the released code rounds down and can keep fewer",
        "newlines are dropped first; the released code drops all of them",
        "several images share the budget by their numbers of tokens; without tiles only late attention decides, as for LLaVA-1.5",
        "towers without a class token: attend='mean'; not in the paper",
    )

    alpha: float = param(0.5, "α, share of the budget for the small view; 1 − α of its cells vote for tiles")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("alpha", 0, 1)

    def groups(self, signals: Signals, budget: int) -> list[tuple[Tensor, int]]:
        """Divide the budget among images, then among views."""
        images, newlines = views_of(signals)
        sizes = [image.n_tokens for image in images]
        shares = largest_remainder(sizes, min(budget, sum(sizes)))
        found = [part for image, share in zip(images, shares, strict=True) for part in self._views(signals, image, share)]
        return [*found, (newlines, budget - sum(shares))]

    def _views(self, signals: Signals, image: Views, n: int) -> list[tuple[Tensor, int]]:
        if not n or not image.tiles:
            return [(image.whole, n)]
        early = signals.at(self.row_of(0), image.whole)
        small, each = hired_budgets(early, image.regions, [len(tile) for tile in image.tiles], n, alpha=self.alpha)
        return [(image.whole, small), *zip(image.tiles, each, strict=True)]

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Take the n highest of late attention."""
        return Keep(tokens[top_k(signals.at(self.row_of(), tokens), n).cpu()])
