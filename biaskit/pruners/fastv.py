"""FastV: keep the visual tokens that the last prompt token attends to most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from biaskit.device import deferred
from biaskit.pruners import pruners
from biaskit.pruners.attention import DEBIASING, AttentionPruner
from biaskit.pruners.signals import Signals
from biaskit.select import top_k, top_k_many
from biaskit.select.keep import Keep


@pruners.register("fastv")
@dataclass(frozen=True)
class FastV(AttentionPruner):
    """The n largest of the last prompt token's attention at layer K − 1; with a prior, of the debiased attention."""

    name: ClassVar[str] = "fastv"
    title: ClassVar[str] = "FastV"
    paper: ClassVar[str] = (
        "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large Vision-Language Models"
    )
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2403.06764"
    deviations: ClassVar[tuple[str, ...]] = (
        "tokens are chosen once, at prefill, and dropped; the released mask variant masks them and ranks again at every decoding step",
        "ties go to the lower index; the released code leaves them to torch.topk",
        "the budget rounds halves up; the released code rounds them to even",
        "K = 0 has no attention to read and is refused (use random@k=0); the released code then chooses at random",
        "a prior, if given, debiases the attention; the result is no longer FastV",
        *DEBIASING,
    )

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Take the n highest scores."""
        scores = self.score(signals)
        return Keep(top_k(scores, budget), self.positive(scores, budget))

    def choose_many(self, signals: Sequence[Signals], budget: int) -> list[Keep]:
        """As `choose`, for a batch at once."""
        with deferred():
            scores = self.scores(signals)
            return [Keep(kept, self.positive(row, budget)) for kept, row in zip(top_k_many(scores, budget), scores, strict=True)]
