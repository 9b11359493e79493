"""DivPrune: keep visual tokens that are far from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from biaskit.pruners import pruners
from biaskit.pruners.base import SIMILARITY, Positions, Pruner, Similarity, param
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import max_min_select, max_min_select_many
from biaskit.select.keep import Keep
from biaskit.select.released import max_min_in_dtype


@pruners.register("divprune")
@dataclass(frozen=True)
class DivPrune(Pruner):
    """Greedy max–min distance (1 − cosine) between projector outputs; the prompt is not used."""

    name: ClassVar[str] = "divprune"
    title: ClassVar[str] = "DivPrune"
    paper: ClassVar[str] = "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2503.02175"
    acts: ClassVar[str] = "between projector and language model"
    needs: ClassVar[frozenset[Reading]] = frozenset({EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = (
        "cosines are exact; the released code computes them in the model's dtype: similarity='model' (docs/methods.md)",
        "positions are renumbered as in the released LLaVA code; its Qwen ports keep them: positions='original'",
        "any prompt works; the released code expects the image after 35 tokens; newlines compete, as released",
        "the budget rounds halves up; the released code rounds them to even",
    )

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")
    positions: Positions = param("compact", "position ids of the kept tokens: compact (renumbered, as published for LLaVA) or original")

    similarity: Similarity = SIMILARITY

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Pick the most isolated token first, then always the one farthest from the chosen set."""
        select = max_min_select if self.similarity == "exact" else max_min_in_dtype
        return Keep(select(signals[EMBEDS], budget))

    def choose_many(self, signals: Sequence[Signals], budget: int) -> list[Keep]:
        """As `choose`, for a batch at once."""
        if self.similarity == "model":
            return super().choose_many(signals, budget)
        return [Keep(kept) for kept in max_min_select_many([sample[EMBEDS] for sample in signals], budget)]
