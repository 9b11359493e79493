"""VisionZip: dominant tokens by the class token's attention, the rest merged into a few evenly spaced ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.base import param
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import BY_TILE, FEATURES, TowerPruner, merged, tower_row
from biaskit.select import visionzip_merge
from biaskit.select.keep import Keep

_KEYS = Reading("keys", "tower", layer=-2)


@pruners.register("visionzip")
@dataclass(frozen=True)
class VisionZip(TowerPruner):
    """Dominant tokens are unchanged; each contextual one is its own features plus the mean of those merged into it, then projected."""

    name: ClassVar[str] = "visionzip"
    title: ClassVar[str] = "VisionZip"
    paper: ClassVar[str] = "VisionZip: Longer is Better but Not Necessary in Vision Language Models"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2412.04467"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls"), FEATURES, _KEYS, EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = (
        "the class token itself is not kept, one more patch is dominant instead (54 + 10 is 54 patches and 10 merged tokens)",
        "a merged token takes its target's place; the released code puts all of them after the dominant ones",
        BY_TILE,
        "towers without a class token: attend='mean'; if a token has several patches, they are merged patch by patch, then projected",
    )

    contextual: float = param(10 / 64, "share of the kept tokens that is merged; the others are dominant")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("contextual", 0, 1)

    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Choose the dominant tokens and merge the rest."""
        contextual = int(n * self.contextual + 0.5)
        keys = signals.at(_KEYS, tokens)
        return merged(signals, tokens, visionzip_merge(signals.at(self.row_of(), tokens), keys, n - contextual, contextual))
