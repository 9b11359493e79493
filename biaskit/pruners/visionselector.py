"""VisionSelector: the tokens with the highest scores of a trained scorer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.base import Pruner, param
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.selector_weights import Selector, read_selector
from biaskit.pruners.signals import Signals
from biaskit.select import selector_score, top_k
from biaskit.select.keep import Keep


@pruners.register("visionselector")
@dataclass(frozen=True)
class VisionSelector(Pruner):
    """Two trained linear maps of the projector's output score each token; the highest are kept. The user must give the weights."""

    name: ClassVar[str] = "visionselector"
    title: ClassVar[str] = "VisionSelector"
    paper: ClassVar[str] = "VisionSelector: End-to-End Learnable Visual Token Compression for Efficient Multimodal LLMs"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2510.16598"
    acts: ClassVar[str] = "between projector and language model"
    families: ClassVar[str] = "those with trained weights: published for Qwen2.5-VL"
    needs: ClassVar[frozenset[Reading]] = frozenset({EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = (
        "the budget rounds halves up; the released code rounds down",
        "the user provides the scorer's weights (weights=FILE); training, with its differentiable top-k, is omitted",
    )

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")
    weights: str | os.PathLike[str] | None = param(None, "safetensors file of the scorer: q_proj and k_proj, weight and bias; required")

    def __post_init__(self) -> None:
        """Check the parameters, and read the weights."""
        super().__post_init__()
        if self.weights is None:
            raise BiaskitError(
                "visionselector is a trained scorer and has no weights", "give weights='selector.safetensors'; idpruner does without"
            )
        object.__setattr__(self, "_selector", read_selector(self.weights))

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Take the n highest scores."""
        selector: Selector = self.__dict__["_selector"]
        return Keep(top_k(selector_score(signals[EMBEDS], selector.query, selector.key), budget))
