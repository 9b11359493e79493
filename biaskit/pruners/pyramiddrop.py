"""PyramidDrop: drop tokens in stages, each time by the attention of the layer that is about to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.attention import AttentionPruner
from biaskit.pruners.base import Positions, Stage, param
from biaskit.pruners.readings import Reading
from biaskit.pruners.signals import Signals
from biaskit.select import top_k
from biaskit.select.keep import Keep

_NEXT = Reading("attention", layer=0)


@dataclass(frozen=True)
class _Cut(Stage):
    """One of several stages that keep the same share each: after it, (n / N)^power of N remain; n remain after the last stage."""

    power: float = 1.0

    def tokens(self, n_tokens: int) -> int:
        last = super().tokens(n_tokens)
        return max(int(round(n_tokens * (last / n_tokens) ** self.power, 9)), last, 1) if n_tokens else 0


@pruners.register("pyramiddrop")
@dataclass(frozen=True)
class PyramidDrop(AttentionPruner):
    """Before layers 8, 16 and 24 keep the same share of the remaining tokens, by the last prompt token's attention at that layer."""

    name: ClassVar[str] = "pyramiddrop"
    title: ClassVar[str] = "PyramidDrop"
    paper: ClassVar[str] = "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2410.17247"
    acts: ClassVar[str] = "inside the language model, in stages"
    needs: ClassVar[frozenset[Reading]] = frozenset({_NEXT})
    attention_layer: ClassVar[int] = 0
    deviations: ClassVar[tuple[str, ...]] = (
        "retention and budget are of the last stage: 0.125 gives the published 0.5, 0.25 and 0.125 of N",
        "published results at 192, 128 and 64 tokens use lists given on the repository's command line",
        "scores of several images compete; the released code takes one image",
        "a prior, if given, debiases the attention and must have layers K, not K − 1; the result is no longer PyramidDrop",
    )

    layer: int = param(8, "K: the first stage drops tokens before this decoder layer; a quarter of the depth in the paper")
    every: int = param(8, "decoder layers between stages")
    cuts: int = param(3, "number of stages")
    positions: Positions = param("compact", "position ids of the kept tokens: compact (renumbered at every stage, as released) or original")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.every < 1 or self.cuts < 1:
            raise BiaskitError(f"{self.cuts} stages every {self.every} layers", "use 1 or more of both; the paper has 3 every 8")

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages: the last keeps the requested number, and each keeps the same share of its input."""
        layers = [self.layer + number * self.every for number in range(self.cuts)]
        return tuple(_Cut(layer, self.retention, self.budget, (number + 1) / self.cuts) for number, layer in enumerate(layers))

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Take the n highest scores."""
        scores = self.score(signals)
        return Keep(top_k(scores, budget), self.positive(scores, budget))
