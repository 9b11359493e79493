"""Base class of methods that read attention, with their debiasing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.grid import Layout
from biaskit.prior.bias.recency import fit_recency, recency_bias
from biaskit.prior.fit import PriorLayout, fit_prior
from biaskit.prior.value import Prior
from biaskit.prior.value import Rows as Rows
from biaskit.pruners.base import Pruner, param
from biaskit.pruners.readings import ATTENTION, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import debias as debias_attention
from biaskit.select import relative_attention_many
from biaskit.select.keep import Keep

WORDS = {"last": "the last prompt token's row", "question": "the mean of the question's rows", "null": "the null row"}
"""Rows of attention, for messages."""
Source = Literal["prior", "null", "recency"]
Form = Literal["ratio", "difference", "p_log", "uniform"]

DEBIASING = (
    "rows='question', debias='null', mode='p_log' is PriorTR (arXiv 2606.24156), published at K = 3 (InternVL2.5: K = 2)",
    "PriorTR: its question rows are all text rows after the image, as here; its Qwen code omits the last one",
    "PriorTR: on InternVL its null row is the token after </img>, here it is </img>; on other models they are the same",
    "PriorTR: its LLaVA code also prunes the caches of layers before K; it rounds the budget down, here halves are rounded up",
    "debias='recency' is the law of arXiv 2508.17807 with one slope; the paper has a cubic for FastV, else a slope per benchmark",
    "arXiv 2508.17807 suppresses patches of more than half padding in its baselines too: padding='suppress'",
)
"""Deviations of the debiased forms of a method from their papers."""

_law = lru_cache(64)(fit_recency)  # by prior and layer: fitting resamples the prior


@dataclass(frozen=True)
class AttentionPruner(Pruner):
    """A method that reads attention P. It can be debiased by a prior Q, in two forms: P / (Q^τ + ε), or p · log(p / q^τ) of shares.

    Example:
        >>> from biaskit.pruners import get_pruner
        >>> fastv = get_pruner("fastv", retention=0.1)
        >>> isinstance(fastv, AttentionPruner), [str(reading) for reading in fastv.needs]
        (True, ['attention'])
    """

    needs: ClassVar[frozenset[Reading]] = frozenset({ATTENTION})
    prior: ClassVar[Literal["required", "optional", "unused"]] = "optional"

    rows: Rows = param(
        "last", "rows whose attention is P: last (prompt token), question (mean of the text after the image), or null (its first token)"
    )
    debias: Source = param(
        "prior", "source of Q: prior (calibrated, if given), null (the null row of the same pass), or recency (the law exp(k·i))"
    )
    slope: float | None = param(None, "k of the recency law exp(k·i), per token of 576, for debias=recency; None: fitted to the prior")
    strength: float = param(1.0, "τ of the debiasing A_ori / (A_bias^τ + ε): 0 is raw attention, 1 the paper's ratio")
    mode: Form = param("ratio", "debiasing: ratio, difference of normalised maps, p_log (PriorTR), or uniform (control: a flat prior)")
    eps: float = param(1e-7, "ε of the debiasing")
    padding: Literal["keep", "suppress"] = param(
        "keep", "tokens of padding around the image: keep (they compete like others), or suppress (fewer than the budget may be kept)"
    )
    prior_layout: PriorLayout = param("grid2d", "how the prior is mapped to the sample's grid: grid2d, flat1d or repeat")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("strength", 0, 1)
        self.check_range("eps", 0, 1)
        if self.debias == "recency":
            recency_bias(1, self.slope or 0.0)
        elif self.slope is not None:
            raise BiaskitError(f"slope is {self.slope} and debias is {self.debias}", "a slope is that of the recency law: debias='recency'")
        if self.debias == "null" and self.rows == "null" and self.mode != "uniform" and self.strength > 0:
            raise BiaskitError("the null row is both attention and prior", "choose rows='last' or rows='question', or another prior")

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read: the chosen rows in place of the last prompt token's in `needs`, and the null row if it is Q."""
        last, needs = self.row_of("last"), super().readings()
        return (needs - {last}) | self.rows_read() if last in needs else needs

    def row_of(self, rows: Rows) -> Reading:
        """Return the reading of some rows of attention: [N], mean over heads."""
        return Reading("attention", layer=self.attention_layer, queries=rows)

    def rows_read(self) -> frozenset[Reading]:
        """Return the readings of P and, if Q is a row of the same pass, of Q."""
        null = self.debias == "null" and self.strength > 0 and self.mode != "uniform"
        return frozenset({self.row_of(self.rows), *([self.row_of("null")] if null else [])})

    @property
    def debiases(self) -> bool:
        """True if a prior changes the score: not without attention, with another Q, with strength 0, or with mode uniform."""
        reads = any(need.what == "attention" and need.at == "decoder" for need in self.needs)
        fits = self.debias == "recency" and self.slope is None
        return reads and (self.debias == "prior" or fits) and self.strength > 0 and self.mode != "uniform"

    def check_prior(self, prior: Prior | None) -> None:
        """Refuse a missing prior if one is needed, and a prior without the layers that are read."""
        if prior is None and self.debiases and self.debias == "recency":
            raise BiaskitError(
                f"{self.name} with debias=recency has neither a slope nor a prior to fit one to",
                "give slope=0.002, or a prior: --prior FILE and +prior behind the method",
            )
        super().check_prior(prior)

    def remarks(self, prior: Prior) -> tuple[str, ...]:
        """Return notes on fitted slopes, and a warning if the prior averages other rows than this method reads."""
        fitted = self.debiases and self.debias == "recency"
        layers = self.prior_layers() if fitted else ()
        laws = (f"{self.name} is debiased at layer {layer} by the recency law {_law(prior, layer)}" for layer in layers)
        return (*self._other_rows(prior), *laws)

    def _other_rows(self, prior: Prior) -> tuple[str, ...]:
        if not self.debiases or prior.rows is None or prior.rows == self.rows:
            return ()
        mine, theirs = (f"{WORDS[rows]} (rows={rows})" for rows in (self.rows, prior.rows))
        hint = f"calibrate one with --rows {self.rows}, or read rows={prior.rows}"
        return (f"{self.name} reads {mine}, and the prior is an average of {theirs}: {hint}",)

    def fit_prior(self, prior: Prior, layout: Layout, layer: int) -> NDArray[np.float64]:
        """Return Q at a sample's visual tokens, [N]: a_bias by `prior_layout`, or the recency law fitted to it."""
        if self.debias == "recency":
            return layout.of_whole(recency_bias(layout.whole, _law(prior, layer).k.value))
        return fit_prior(prior, layout, layer, self.prior_layout)

    def attention(self, signals: Signals) -> Tensor:
        """Return P: [N]."""
        return signals[self.row_of(self.rows)].to(torch.float32)

    def score(self, signals: Signals) -> Tensor:
        """Return the debiased score of every visual token, [N]; the raw attention if there is no prior.

        Raises:
            BiaskitError: there is no attention, or no prior although the method requires one.
        """
        attention = self.attention(signals)
        if self.strength == 0 or self.mode == "uniform":
            return attention
        q = signals.a_bias
        if self.debias == "null":
            q = signals[self.row_of("null")]
        elif self.debias == "recency" and self.slope is not None:
            q = torch.from_numpy(signals.layout.of_whole(recency_bias(signals.layout.whole, self.slope))).to(attention)
        elif q is None and (self.prior == "required" or self.debias == "recency"):
            raise BiaskitError(f"{self.name} needs a prior", "pass prior=…, make one with `biaskit calibrate`, or use strength=0")
        if q is None:
            return attention
        if self.mode == "p_log":
            return debias_attention(attention, q, form="p_log_p_over_q", tau=self.strength)
        if self.debias == "null":
            q = q / q.mean()  # mean 1, as in calibrated priors: ε is chosen for that scale
        return self._relative(attention[None], q[None])[0]

    def scores(self, signals: Sequence[Signals]) -> Tensor:
        """Return `score` of every sample, [B, N]; all have N tokens."""
        plain = type(self).score is AttentionPruner.score and type(self).attention is AttentionPruner.attention
        row = self.row_of(self.rows)
        pairs = [(sample[row], sample.a_bias) for sample in signals if row in sample and sample.a_bias is not None]
        if not plain or len(pairs) < len(signals) or self.mode == "p_log" or not self.debiases:
            return torch.stack([self.score(sample) for sample in signals])
        return self._relative(*(torch.stack(part) for part in zip(*pairs, strict=True)))

    def select(self, signals: Signals, budget: int) -> Keep:
        """As `Pruner.select`; `info` also reports the share of scores above 0, for modes whose scores have a sign."""
        return self._counted(super().select(signals, budget), signals, budget)

    def select_many(self, signals: Sequence[Signals], budgets: Sequence[int]) -> list[Keep]:
        """As `select`, for several samples."""
        kept = super().select_many(signals, budgets)
        return [self._counted(*each) for each in zip(kept, signals, budgets, strict=True)]

    def _counted(self, keep: Keep, signals: Signals, budget: int) -> Keep:
        if self.mode != "p_log" or "positive" in keep.info or budget >= len(signals):
            return keep
        return replace(keep, info={**keep.info, **self.positive(self.score(signals), budget)})

    def positive(self, scores: Tensor, budget: int) -> dict[str, float]:
        """Report #{score > 0} / n for modes whose scores have a sign: below 1 the budget includes tokens with scores below 0."""
        return {"positive": float((scores > 0).sum()) / budget} if self.mode == "p_log" else {}

    def _relative(self, attention: Tensor, prior: Tensor) -> Tensor:
        mode = self.mode
        assert mode != "p_log"
        return relative_attention_many(attention, prior, strength=self.strength, mode=mode, eps=self.eps)
