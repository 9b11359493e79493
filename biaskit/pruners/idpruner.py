"""IDPruner: importance and diversity by maximal marginal relevance, one-shot, without attention maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from biaskit.device import deferred
from biaskit.errors import BiaskitError
from biaskit.prior.value import Prior
from biaskit.pruners import pruners
from biaskit.pruners.attention import AttentionPruner
from biaskit.pruners.base import SIMILARITY, Similarity, param
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, Reading
from biaskit.pruners.selector_weights import Selector, read_selector
from biaskit.pruners.signals import Signals
from biaskit.registry import did_you_mean
from biaskit.select import feature_norm, mmr_select, mmr_select_many, selector_score, soft_top_k
from biaskit.select.keep import Keep
from biaskit.select.released import mmr_in_dtype

_SCORES = ("selector", "attention", "debiased", "norm")


@pruners.register("idpruner")
@dataclass(frozen=True, eq=False)
class IDPruner(AttentionPruner):
    """Next token: the highest λ · importance − (1 − λ) · largest cosine with what is kept, on projector outputs.

    The paper's importance comes from a trained VisionSelector scorer, and its numbers need that: importance='selector' with its weights.
    Without weights the default is the length of the projector output, which is training-free and not the paper's method.
    """

    name: ClassVar[str] = "idpruner"
    title: ClassVar[str] = "IDPruner"
    paper: ClassVar[str] = "IDPruner: Harmonizing Importance and Diversity in Visual Token Pruning for MLLMs"
    year: ClassVar[int | None] = 2026
    arxiv: ClassVar[str] = "2602.13315"
    acts: ClassVar[str] = "between projector and language model; at K ≥ 1 where the importance is attention"
    needs: ClassVar[frozenset[Reading]] = frozenset({EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = (
        "the paper's numbers need a trained scorer (importance='selector'); the default importance, feature norm, is training-free",
        "the paper feeds the scorer through differentiable top-k (soft=True), its code the raw scores (soft=False)",
        "cosines are exact; the released code computes them in the model's dtype: similarity='model' (docs/methods.md)",
        "one token per step, as in the paper; the released code's parallel_k (default 1) is omitted",
        "the budget rounds halves up; the released code rounds them to even",
    )

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model, attention needs 1 or more")
    lam: float = param(0.5, "λ: 1 keeps the most important tokens, 0 the most diverse")
    importance: str | Tensor | Callable[[Signals], Tensor] = param(
        "norm", "selector (trained weights), attention, debiased (needs a prior), norm, or a tensor [N] or a function of Signals"
    )
    weights: str | os.PathLike[str] | None = param(None, "safetensors file of a VisionSelector scorer, for importance='selector'")
    soft: bool = param(True, "pass selector scores through differentiable top-k (paper) instead of raw (code)")

    similarity: Similarity = SIMILARITY

    def __post_init__(self) -> None:
        """Check the parameters, and read the selector's weights."""
        source = self.importance
        if isinstance(source, str) and source not in _SCORES:
            raise BiaskitError(f"importance is {source!r}", did_you_mean(source, _SCORES))
        if isinstance(source, Sequence | np.ndarray) and not isinstance(source, str):
            source = torch.as_tensor(np.asarray(source, dtype=np.float32))
            object.__setattr__(self, "importance", source)
        if not isinstance(source, str | Tensor) and not callable(source):
            raise BiaskitError(
                f"importance is {source!r}", f"give {', '.join(_SCORES)}, one number per visual token, or a function of Signals"
            )
        super().__post_init__()
        self.check_range("lam", 0, 1)
        chosen = isinstance(source, str) and source == "selector"
        if chosen != (self.weights is not None):
            raise BiaskitError(
                f"importance is {source if isinstance(source, str) else type(source).__name__!r} and weights is {self.weights!r}",
                "a trained scorer takes both: importance='selector', weights='selector.safetensors'",
            )
        object.__setattr__(self, "_selector", None if self.weights is None else read_selector(self.weights))

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read: the importance's readings and the features."""
        source, needs = self.importance, {EMBEDS}
        if isinstance(source, str) and source in ("attention", "debiased"):
            needs |= self.rows_read()
        elif callable(source):
            needs |= getattr(source, "needs", {ATTENTION, HIDDEN} if self.layer else frozenset())
        return frozenset(needs)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Score every token, then pick by marginal relevance."""
        select = mmr_select if self.similarity == "exact" else mmr_in_dtype
        return Keep(select(self.score(signals), signals[EMBEDS], budget, lam=self.lam))

    def choose_many(self, signals: Sequence[Signals], budget: int) -> list[Keep]:
        """As `choose`, for a batch at once."""
        if self.similarity == "model":
            return super().choose_many(signals, budget)
        features = [sample[EMBEDS] for sample in signals]
        with deferred():
            scores = [self.score(sample).to(rows.device) for sample, rows in zip(signals, features, strict=True)]
            return [Keep(kept) for kept in mmr_select_many(scores, features, budget, lam=self.lam)]

    def score(self, signals: Signals) -> Tensor:
        """Return w, one score per token, [N].

        Raises:
            BiaskitError: importance='debiased' without a prior.
        """
        source = self.importance
        if isinstance(source, Tensor):
            return source
        if not isinstance(source, str):
            return source(signals)
        if source == "norm":
            return feature_norm(signals[EMBEDS])
        if source == "selector":
            selector: Selector = self.__dict__["_selector"]
            scores = selector_score(signals[EMBEDS], selector.query, selector.key)
            return soft_top_k(scores) if self.soft else scores
        if source == "debiased" and self.debias == "prior" and signals.a_bias is None:
            raise BiaskitError("importance='debiased' needs a prior", "pass prior=…, or make one with `biaskit calibrate`")
        if source == "attention":
            attention = self.attention(signals)
            return attention / attention.max()  # the ε of min–max is chosen for scores of order one
        relative = super().score(signals)
        return relative / relative.max()

    @property
    def debiases(self) -> bool:
        """Whether a prior changes the importance."""
        return isinstance(self.importance, str) and self.importance == "debiased" and super().debiases

    def check_prior(self, prior: Prior | None) -> None:
        """Refuse a missing prior with importance='debiased'."""
        if prior is None and self.debiases:
            raise BiaskitError("importance='debiased' needs a prior", "make one with `biaskit calibrate` and give it: --prior FILE")
        super().check_prior(prior)
