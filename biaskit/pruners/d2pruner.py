"""D2Pruner: debiased importance and structural diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from biaskit.device import deferred, upload
from biaskit.errors import BiaskitError
from biaskit.grid import Layout
from biaskit.pruners import pruners
from biaskit.pruners.attention import AttentionPruner
from biaskit.pruners.base import param
from biaskit.pruners.readings import ATTENTION, HIDDEN, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import cells, d2_select, d2_select_many, largest_remainder
from biaskit.select.gpu import few_launches
from biaskit.select.graph import Diagonal, Fill, PivotMode
from biaskit.select.keep import Keep


@pruners.register("d2pruner")
@dataclass(frozen=True)
class D2Pruner(AttentionPruner):
    """Pivots by debiased attention (eq. 3), then a greedy independent set on a graph of semantic and spatial similarity (eq. 4–8).

    The paper recommends α by the kind of task: preset `understanding` or `localization`. The switches from `pivot_mode` on cover points
    that the paper leaves open; the defaults are what its text supports best.
    """

    name: ClassVar[str] = "d2pruner"
    title: ClassVar[str] = "D2Pruner"
    paper: ClassVar[str] = "D²Pruner: Debiased Importance and Structural Diversity for MLLM Token Pruning"
    year: ClassVar[int | None] = 2026
    arxiv: ClassVar[str] = "2512.19443"
    needs: ClassVar[frozenset[Reading]] = frozenset({ATTENTION, HIDDEN})
    prior: ClassVar[Literal["required", "optional", "unused"]] = "required"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "understanding": {"alpha": 1.0, "layer": 2},
        "localization": {"alpha": 0.5, "layer": 2},
        "localization-llava-1.5": {"alpha": 0.5, "layer": 5},
    }
    family_presets: ClassVar[Mapping[str, Mapping[str, str]]] = {"llava": {"localization": "localization-llava-1.5"}}
    deviations: ClassVar[tuple[str, ...]] = (
        "neighbours and the prior are on the true grid, plane by plane; the reproduced official call has no grid and must guess it from N",
        "the paper does not state the head reduction (here: mean) and the rounding (here: budget halves up, pivots 0.7 · n down)",
        "eq. 3 divides by the prior; the caption of figure 3 subtracts it (mode='difference') and thins the pivots (pivot_mode='mis')",
        "the prior is stored with mean 1, so that ε = 1e-7 is negligible; relative to raw attention it would not be",
        "several images compete, the paper has one: pool='per_image'; its 2,880 tokens of LLaVA-NeXT have no newlines: newline",
        "the reproduced official call has two more weights (l1_weight, div_weight), both 0 and not in the paper; they are omitted here",
        "if the graph leaves too few tokens, those with the highest scores are added (fill); the paper does not say",
        "cosines are rounded to 2⁻¹⁸, and if their range is below 1e-5 they count as equal: float32 is not more exact",
    )

    alpha: float = param(1.0, "α: weight of semantic against spatial similarity in the graph: 1 for understanding, 0.5 for localization")
    theta: float = param(0.8, "θ: similarity above which two tokens are linked (strict)")
    pivot_ratio: float = param(0.7, "share of the budget that is pivots, rounded down")
    pivot_mode: PivotMode = param("topk", "pivots: topk (the highest scores), or mis (also thinned by the graph)")
    exclude_pivot_neighbours: bool = param(True, "whether the pivots' neighbours are excluded from the expansion")
    fill: Fill = param("score", "how the budget is filled if the graph leaves too few: score, layers, raise_theta, or none (keep fewer)")
    diagonal: Diagonal = param("included", "whether a token's similarity with itself counts in min–max (eq. 5 read literally)")
    newline: Literal["prune", "keep_all", "drop_all"] = param(
        "prune", "newline tokens: prune (like others, as the canvas's last column), keep_all (counted in the budget), or drop_all"
    )
    pool: Literal["prompt", "per_image"] = param("prompt", "one budget and graph for all images of the prompt, or for each image")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        for name in ("alpha", "theta", "pivot_ratio"):
            self.check_range(name, 0, 1)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Score, apply `newline`, and select on the graph of the prompt or of each image."""
        scores = self.score(signals)
        hidden = signals[HIDDEN].to(scores.device)
        where = cells(signals.layout)
        kept, open_tokens, rest = self._set_aside(signals.layout, budget)
        groups = _groups(signals.layout, open_tokens, self.pool)
        found = []
        for group, share in zip(groups, largest_remainder([len(g) for g in groups], rest), strict=True):
            if share:
                index = upload(group, scores.device)
                keep = self._on_graph(scores[index], hidden[index], where[torch.from_numpy(group)], share)
                found.append(keep.info)
                kept.append(index[keep.indices])
        return Keep(torch.cat([part.to(scores.device) for part in kept]), {**_joined(found), "missing": budget - sum(map(len, kept))})

    def choose_many(self, signals: Sequence[Signals], budget: int) -> list[Keep]:
        """As `choose`, for a batch at once if every sample has one graph of all its tokens."""
        hidden = [sample[HIDDEN] for sample in signals]
        if not few_launches(hidden) or not all(self._one_graph(sample.layout, budget) for sample in signals):
            return super().choose_many(signals, budget)
        places = [cells(sample.layout) for sample in signals]
        shared = all(torch.equal(place, places[0]) for place in places[1:])
        with deferred():
            where = places[0] if shared else torch.stack(places)
            kept = d2_select_many(self.scores(signals), hidden, where, budget, **self._switches())
        return [Keep(keep.indices, {**_joined([keep.info]), "missing": budget - len(keep)}) for keep in kept]

    def _one_graph(self, layout: Layout, budget: int) -> bool:
        kept, open_tokens, _ = self._set_aside(layout, budget)
        return not kept and len(open_tokens) == len(layout) and len(_groups(layout, open_tokens, self.pool)) == 1

    def _set_aside(self, layout: Layout, budget: int) -> tuple[list[Tensor], np.ndarray, int]:
        """Apply `newline`. Return the tokens kept already, the tokens to choose among, and how many of these to keep."""
        newline = np.isin(layout.plane, [index for index, plane in enumerate(layout.planes) if plane.name == "newline"])
        if self.newline == "prune" or not newline.any():
            return [], np.arange(len(layout)), budget
        others = np.flatnonzero(~newline)
        if self.newline == "drop_all":
            return [], others, min(budget, len(others))
        kept = np.flatnonzero(newline)
        if len(kept) > budget:
            raise BiaskitError(
                f"newline='keep_all' keeps {len(kept)} newline tokens, but the budget is {budget}",
                "raise the budget, or use newline='prune'",
            )
        return [torch.from_numpy(kept)], others, budget - len(kept)

    def _on_graph(self, scores: Tensor, hidden: Tensor, where: Tensor, n: int) -> Keep:
        return d2_select(scores, hidden, where, n, **self._switches())

    def _switches(self) -> dict[str, Any]:
        names = ("alpha", "theta", "pivot_ratio", "pivot_mode", "exclude_pivot_neighbours", "fill", "diagonal")
        return {name: getattr(self, name) for name in names}


def _groups(layout: Layout, tokens: np.ndarray, pool: str) -> list[np.ndarray]:
    """The tokens that share a budget and a graph: all, or those of each image."""
    if pool == "prompt":
        return [tokens]
    image = np.array([plane.image for plane in layout.planes])[layout.plane[tokens]]
    return [tokens[image == number] for number in np.unique(image)]


def _joined(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Combine the reports of several graphs: counts are summed, the range is the union, the density the mean."""
    if not found:
        return {}
    joined = {key: sum(info[key] for info in found) for key in ("pivots", "independent", "filled")}
    return {
        **joined,
        "edge_density": sum(info["edge_density"] for info in found) / len(found),
        "s_min": min(info["s_min"] for info in found),
        "s_max": max(info["s_max"] for info in found),
    }
