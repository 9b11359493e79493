"""SparseVLM: drop tokens in stages by the attention of the text, and merge the best of the dropped ones into a few new tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.attention import AttentionPruner, Rows
from biaskit.pruners.base import Positions, Stage, param
from biaskit.pruners.readings import ATTENTION, HIDDEN, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import SPARSEVLM_COUNTS, kept_and_recycled, recycled_count, sparsevlm_merge, top_k
from biaskit.select.keep import Keep


@dataclass(frozen=True)
class _Cut(Stage):
    """A stage that keeps the last of `shares` of N plus the recycled tokens of those it drops; the final one keeps the budget in all."""

    shares: tuple[float, ...] = ()
    final: bool = False
    recycle: bool = True

    def tokens(self, n_tokens: int) -> int:
        if self.final:
            return super().tokens(n_tokens)
        left = n_tokens
        for share in self.shares:
            kept = min(int(share * n_tokens + 0.5), left)
            left = kept + (min(recycled_count(left - kept), left - kept) if self.recycle else 0)
        return max(left, super().tokens(n_tokens))


def _preset(version: str, label: int) -> dict[str, Any]:
    """The parameters of a published list of counts, which are of 576 tokens."""
    first, second, third = SPARSEVLM_COUNTS[version, label]
    shares: dict[str, Any] = {"first": first / 576, "second": second / 576}
    if version == "v2":
        return {**shares, "budget": third, "recycle": False, "heads": 14, "positions": "original"}
    left = 576
    for kept in (first, second, third):
        left = kept + recycled_count(left - kept)
    return {**shares, "budget": left}


@pruners.register("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(AttentionPruner):
    """After layers 2, 6 and 15 the tokens that the question attends to most are kept; some of the dropped ones return as means."""

    name: ClassVar[str] = "sparsevlm"
    title: ClassVar[str] = "SparseVLM"
    paper: ClassVar[str] = "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference"
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2410.04417"
    acts: ClassVar[str] = "inside the language model, in stages"
    needs: ClassVar[frozenset[Reading]] = frozenset({ATTENTION, HIDDEN})
    presets: ClassVar[dict[str, dict[str, Any]]] = {f"{label}-{version}": _preset(version, label) for version, label in SPARSEVLM_COUNTS}
    deviations: ClassVar[tuple[str, ...]] = (
        "all text tokens after the image score; the released code takes those whose input embeddings match the image above the mean",
        "retention and budget are of the last stage, recycled tokens included; presets have the published lists, for N = 576",
        "a recycled token takes the place of its cluster's centre; the released code puts them after the kept tokens",
        "densities have no random noise, so that results repeat; a tie goes to the lower index",
        "version 2 divides attention by a map of the rotary embedding alone, which is omitted; debias='recency' is the closest",
        "shares of N instead of counts of 576, so that other grids have stages too",
        "counts are fixed, as released; the paper's rule by rank is biaskit.select.rank_deletions",
    )

    layer: int = param(3, "K: the first stage drops tokens before this decoder layer, 0-based: after layer 2")
    second_layer: int = param(7, "K of the second stage")
    third_layer: int = param(16, "K of the third stage")
    first: float = param(300 / 576, "share of N that the first stage keeps, without recycled tokens")
    second: float = param(200 / 576, "share of N that the second stage keeps, without recycled tokens")
    recycle: bool = param(True, "merge some of the dropped tokens into new ones (version 1)")
    heads: int | None = param(None, "number of heads that are read, those with most attention to the image; None: all; 14 in version 2")
    rows: Rows = param("question", "rows whose attention is P: question (mean of the text after the image), last, or null")
    positions: Positions = param(
        "compact", "position ids of the kept tokens: compact (renumbered, as in version 1) or original (version 2)"
    )

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        for name in ("first", "second"):
            self.check_range(name, 0, 1)
        if not self.second <= self.first or not self.layer < self.second_layer < self.third_layer:
            raise BiaskitError(
                f"stages before layers {self.layer}, {self.second_layer}, {self.third_layer} that keep {self.first:.3g}, {self.second:.3g}",
                "layers ascend and shares fall; published are 3, 7 and 16",
            )
        if self.heads is not None and self.heads < 1:
            raise BiaskitError(f"heads is {self.heads}", "read at least 1; version 2 reads 14")

    def readings(self) -> frozenset[Reading]:
        """Return what these settings read: the row of every head if heads are chosen."""
        needs = super().readings()
        return needs if self.heads is None else (needs - {self.row_of(self.rows)}) | {self._each()}

    def _each(self) -> Reading:
        """The row of every head."""
        return Reading("attention", queries=self.rows, heads="each")

    def stages(self) -> tuple[Stage, ...]:
        """Return the three stages."""
        return (
            _Cut(self.layer, self.retention, self.budget, (self.first,), False, self.recycle),
            _Cut(self.second_layer, self.retention, self.budget, (self.first, self.second), False, self.recycle),
            _Cut(self.third_layer, self.retention, self.budget, (), True, self.recycle),
        )

    def attention(self, signals: Signals) -> Tensor:
        """Return P: [N], of the heads that are read."""
        if self.heads is None:
            return super().attention(signals)
        rows = signals[self._each()].to(torch.float32)
        return rows[rows.sum(1).sort(descending=True, stable=True).indices[: self.heads]].mean(0)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Keep the highest scores, and recycle some of the rest."""
        scores = self.score(signals)
        if not self.recycle:
            return Keep(top_k(scores, budget), self.positive(scores, budget))
        hidden = signals[HIDDEN]
        kept, recycled = kept_and_recycled(len(scores), budget)
        merge = sparsevlm_merge(scores, hidden, kept, clusters=recycled)
        missing = budget - len(merge)
        if missing:  # fewer dropped tokens than clusters
            return Keep(top_k(scores, budget), self.positive(scores, budget))
        return Keep(merge.indices, {"recycled": float(recycled), **self.positive(scores, budget)}, merge.into(hidden))
