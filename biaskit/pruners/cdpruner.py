"""CDPruner: the tokens that are relevant to the prompt and unlike each other, by a conditional determinantal point process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.base import Positions, Pruner, param
from biaskit.pruners.readings import EMBEDS, TEXT_EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import dpp_select, text_relevance
from biaskit.select.dpp import Kernel
from biaskit.select.keep import Keep


@pruners.register("cdpruner")
@dataclass(frozen=True, eq=False)
class CDPruner(Pruner):
    """Greedy maximum of the determinant of relevance × similarity × relevance over projector outputs.

    The paper's relevance is that of CLIP: minus the mean cosine of a patch, through CLIP's visual projection, with the question, through
    its text tower. Give it as a function of `Signals`, or as numbers. By default it is that of OpenVINO's port, which needs no text tower.
    """

    name: ClassVar[str] = "cdpruner"
    title: ClassVar[str] = "CDPruner"
    paper: ClassVar[str] = "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2506.10967"
    acts: ClassVar[str] = "between projector and language model"
    families: ClassVar[str] = "every family; the paper's relevance where the tower's CLIP has a text tower"
    needs: ClassVar[frozenset[Reading]] = frozenset({EMBEDS, TEXT_EMBEDS})
    presets: ClassVar[dict[str, dict[str, object]]] = {"openvino": {"kernel": "blend", "halves": True}}
    deviations: ClassVar[tuple[str, ...]] = (
        "relevance is by default the cosine with the mean input embedding of the prompt's text, as in OpenVINO GenAI",
        "the paper's relevance needs CLIP's text tower, which no supported checkpoint has: give relevance=a function of Signals → [N]",
        "all tokens of the prompt compete; the released code chooses the same number in each tile of any-res prompts",
        "relevance is scaled over the prompt; the released code scales it over all tiles of a batch",
        "beyond the rank of the kernel the most relevant tokens fill the budget; the released code takes the root of 1e-12",
        "cosines and kernel are float64; in the released code float32",
    )

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")
    positions: Positions = param("compact", "position ids of the kept tokens: compact (renumbered, as published for LLaVA) or original")
    relevance: Literal["embedding"] | Tensor | Callable[[Signals], Tensor] = param(
        "embedding", "embedding: cosine with the prompt's mean input embedding; or a tensor [N], or a function of Signals"
    )
    kernel: Kernel = param("product", "product: r·S·r (paper); blend: (1 − w)·S + w·r·S·r; exponential: r' = exp(w / (2 (1 − w))·r)")
    weight: float = param(0.5, "w of the kernels blend and exponential")
    halves: bool = param(False, "choose half of the budget from each half of the sequence, as OpenVINO does by default")

    def __post_init__(self) -> None:
        """Check the parameters."""
        source = self.relevance
        if isinstance(source, str) and source != "embedding":
            raise BiaskitError(f"relevance is {source!r}", "give embedding, one number per visual token, or a function of Signals")
        super().__post_init__()
        self.check_range("weight", 0, 1)

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read: the text if relevance is computed here, and the `needs` of a function of Signals."""
        own = TEXT_EMBEDS if isinstance(self.relevance, str) else EMBEDS
        return frozenset({EMBEDS, own, *getattr(self.relevance, "needs", ())})

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Score relevance, then pick by conditional variance.

        Raises:
            BiaskitError: the prompt has no text.
        """
        source, features = self.relevance, signals[EMBEDS]
        if isinstance(source, str):
            text = signals[TEXT_EMBEDS]
            if not len(text):
                raise BiaskitError("the prompt has no text", "CDPruner keeps tokens that are relevant to it: add a question")
            scores = text_relevance(features, text.float().mean(0, keepdim=True))
        else:
            scores = source if isinstance(source, Tensor) else source(signals)
        scores = scores.to(torch.float32)
        return Keep(dpp_select(scores.to(features.device), features, budget, kernel=self.kernel, weight=self.weight, halves=self.halves))
