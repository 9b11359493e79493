"""FitPrune: drop tokens before many layers, in numbers from a calibrated schedule, by the product of two attention maps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.attention import AttentionPruner, Rows
from biaskit.pruners.base import Stage, param
from biaskit.pruners.readings import Reading
from biaskit.pruners.schedule import Schedule
from biaskit.pruners.signals import Signals
from biaskit.select import top_k
from biaskit.select.keep import Keep

OWN = Reading("attention", queries="visual", heads="max")
"""[N] visual → visual: largest over heads, then mean over the visual rows."""


def cross(rows: Rows) -> Reading:
    """[N] text → visual: largest over heads, then mean over the rows."""
    return Reading("attention", queries=rows, heads="max")


@dataclass(frozen=True)
class _Cut(Stage):
    """One stage of a schedule. The last one keeps the requested number of tokens, the others at least that many."""

    schedule: Schedule | None = None
    index: int = 0
    final: bool = False
    whole: bool = False  # keep what the schedule says, without a budget

    def tokens(self, n_tokens: int) -> int:
        assert self.schedule is not None
        planned = self.schedule.counts(self.index, n_tokens)[self.layer - 1] if 0 < self.layer <= self.schedule.layers else n_tokens
        if self.whole:
            return planned
        last = super().tokens(n_tokens)
        return last if self.final else max(planned, last)


@pruners.register("fitprune")
@dataclass(frozen=True)
class FitPrune(AttentionPruner):
    """Before each layer drop the tokens with the smallest product of two attention maps, as many as a calibrated schedule says."""

    name: ClassVar[str] = "fitprune"
    title: ClassVar[str] = "FitPrune"
    paper: ClassVar[str] = "Fit and Prune: Fast and Training-free Visual Token Pruning for Multi-modal Large Language Models"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2409.10197"
    acts: ClassVar[str] = "inside the language model, before every layer of its schedule"
    needs: ClassVar[frozenset[Reading]] = frozenset({cross("question"), OWN})
    deviations: ClassVar[tuple[str, ...]] = (
        "tokens deleted at a layer are dropped before the next one; the released code drops them between its attention and its MLP",
        "retention and budget are of the last layer, by the smallest α that leaves no more; saving=ρ is the paper's own parameter",
        "α is a multiple of 1/128; the paper bisects until its bracket is at most 0.01",
        "schedules are calibrated, not tables; one file has every α of the bisection, and so every budget",
        "text rows are those after the image; earlier ones attend to no visual token and do not change the ranking",
        "the schedule has shares of N, because images differ in N",
        "a prior, if given, debiases the text's map; priors are means over heads, this map is the maximum",
    )

    layer: int = param(1, "K: the first tokens are dropped before this decoder layer; with those that earlier layers would delete")
    schedule: Schedule | str | os.PathLike[str] | None = param(None, "file of `biaskit calibrate --schedule`; required")
    saving: float | None = param(None, "ρ: share of the visual tokens' FLOPs that is saved, instead of retention")
    rows: Rows = param("question", "rows of the text's map: question (mean of the text after the image), last, or null")

    def __post_init__(self) -> None:
        """Read the schedule, and check the parameters."""
        plan = self.schedule
        if plan is not None and not isinstance(plan, Schedule):
            plan = Schedule.load(plan)
        if self.saving is not None and plan is not None:
            share = plan.left(plan.for_saving(self.saving))
            if self.budget is not None or self.retention not in (None, share):
                raise BiaskitError(f"saving is {self.saving} beside a retention or budget", "give one of them")
            object.__setattr__(self, "retention", share)
        super().__post_init__()
        if self.layer < 1:
            raise BiaskitError("fitprune reads maps of layer K − 1, but layer is 0", "give K = 1 or more: --k 1, or layer=1 in Python")
        if plan is None:
            raise BiaskitError(
                "fitprune needs a calibrated schedule", "make one with `biaskit calibrate --schedule`, and give it: schedule='FILE'"
            )
        object.__setattr__(self, "_plan", plan)

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read: both maps, and the null row if it is Q."""
        return frozenset({cross(self.rows), OWN}) | (self.rows_read() - {self.row_of(self.rows)})

    @property
    def plan(self) -> Schedule:
        """The schedule that was read."""
        found: Schedule = self.__dict__["_plan"]
        return found

    @property
    def debiases(self) -> bool:
        """Whether a prior changes the score."""
        return self.debias == "prior" and self.strength > 0 and self.mode != "uniform"

    def check_model(
        self,
        model_type: str,
        depth: int,
        revision: str | None = None,
        model: str | None = None,
        processor: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse a model that the schedule was not calibrated on.

        Raises:
            PriorError: another architecture, or another number of layers.
        """
        self.plan.check_model(model_type, depth, revision, model, processor)

    def stages(self) -> tuple[Stage, ...]:
        """Return a stage before every layer that sees fewer tokens than the layer before it."""
        plan, typical = self.plan, max(1, round(self.plan.n_tokens))
        if self.saving is not None:
            index = plan.for_saving(self.saving)
        else:
            index = plan.for_share(min(1.0, self.budget / typical) if self.budget is not None else float(self.retention or 1))
        counts = plan.counts(index, typical)
        later = [layer for layer in range(self.layer + 1, plan.layers) if counts[layer - 1] < counts[layer - 2]]
        layers = [self.layer, *later]
        return tuple(
            _Cut(layer, self.retention, self.budget, plan, index, layer == layers[-1], self.saving is not None) for layer in layers
        )

    def attention(self, signals: Signals) -> Tensor:
        """Return the text's map, [N]."""
        return signals[cross(self.rows)].to(torch.float32)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Take the n highest products of both maps."""
        scores = self.score(signals).double() * signals[OWN].double()
        return Keep(top_k(scores, budget), self.positive(scores, budget))
