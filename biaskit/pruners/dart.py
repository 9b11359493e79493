"""DART: keep a few pivots and the visual tokens that duplicate them least."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.base import SIMILARITY, Pruner, Similarity, param
from biaskit.pruners.readings import EMBEDS, HIDDEN, KEYS, TEXT_EMBEDS, TEXT_HIDDEN, TEXT_KEYS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import dart_select
from biaskit.select.keep import Keep
from biaskit.select.released import least_similar_in_dtype


@pruners.register("dart")
@dataclass(frozen=True)
class DART(Pruner):
    """Pivots by the L1 norm of cached keys; then, for each in turn, the tokens of lowest cosine to it after the model's last norm."""

    name: ClassVar[str] = "dart"
    title: ClassVar[str] = "DART"
    paper: ClassVar[str] = "Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2502.11494"
    needs: ClassVar[frozenset[Reading]] = frozenset({HIDDEN, TEXT_HIDDEN, KEYS, TEXT_KEYS})
    deviations: ClassVar[tuple[str, ...]] = (
        "keeps exactly the budget by default; the paper's rule keeps pivots + 8·int(N·r/8): count='paper'",
        "visual pivots come first, each kind by descending norm; the released code has the order of a Python set",
        "text pivots come from the text after the last visual token, as in the authors' ports; AngelSlim's takes all text",
        "if fewer text tokens than text pivots follow the image, their quota is divided among the existing pivots",
        "cosines are exact; the released code computes them in the model's dtype: similarity='model' (docs/methods.md)",
        "at K = 0, which the paper does not have, pivots are input embeddings of largest L1 norm, and embeddings are compared unchanged",
    )

    layer: int = param(2, "K: tokens are dropped before this decoder layer, 0-based; 0 reads input embeddings instead of layer K − 1")
    pivots: int = param(4, "number of visual pivots, which are kept")
    text_pivots: int = param(4, "number of text pivots, from the text after the last visual token")
    count: Literal["exact", "paper"] = param("exact", "keep exactly the budget, or pivots + 8·int(N·r/8) as published")

    similarity: Similarity = SIMILARITY

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("pivots", 1, math.inf)
        self.check_range("text_pivots", 0, math.inf)

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read: before the language model only the input embeddings."""
        return super().readings() if self.layer else frozenset({EMBEDS, TEXT_EMBEDS})

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Choose the pivots, then the least similar tokens."""
        s = signals
        assert s.text_positions is not None
        after = torch.nonzero(s.text_positions > int(s.layout.positions[-1]))[:, 0]
        if self.layer == 0:
            features, text = s[EMBEDS], s.at(TEXT_EMBEDS, after)
            scores, text_scores = features.float().abs().sum(1), text.float().abs().sum(1)
        else:
            assert s.final_norm is not None
            features, text = s.final_norm(s[HIDDEN]), s.final_norm(s.at(TEXT_HIDDEN, after))
            if self.similarity == "model":
                features, text = features.to(s[HIDDEN].dtype), text.to(s[HIDDEN].dtype)
            scores, text_scores = _l1(s[KEYS]), _l1(s.at(TEXT_KEYS, after))
        kept = (dart_select if self.similarity == "exact" else least_similar_in_dtype)(
            scores,
            features,
            text_scores,
            text,
            budget if self.count == "exact" else self._published(len(s), budget),
            pivots=self.pivots,
            text_pivots=self.text_pivots,
        )
        return Keep(kept, {"missing": budget - len(kept)})

    def _published(self, n_tokens: int, budget: int) -> int:
        """How many tokens the published code keeps."""
        centres = self.pivots + self.text_pivots
        target = budget if self.budget is not None or self.retention is None else n_tokens * self.retention
        return self.pivots + centres * int(target / centres)


def _l1(keys: Tensor) -> Tensor:
    """Sum of absolute values over heads and channels: [heads, t, head_dim] → [t]."""
    return keys.abs().sum((0, 2))
