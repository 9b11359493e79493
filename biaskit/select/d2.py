"""D2Pruner's selection on the graph: pivots, expansion, and what to do when the graph leaves too few tokens."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from biaskit.select.arguments import choice, count, fraction, matrix, vector
from biaskit.select.cells import neighbours
from biaskit.select.graph import Diagonal, Graph, best_of, check_graph, d2_graph
from biaskit.select.launches import few_launches, plain
from biaskit.select.linked import Linked
from biaskit.select.product import Indices
from biaskit.signals import Keep
from biaskit.transfer import upload

PivotMode = Literal["topk", "mis"]
Fill = Literal["score", "layers", "raise_theta", "none"]

_THETA_STEP = 0.05


def d2_select(
    scores: Tensor,
    features: Tensor,
    where: Tensor | None,
    n: int,
    *,
    alpha: float = 1.0,
    theta: float = 0.8,
    pivot_ratio: float = 0.7,
    pivot_mode: PivotMode = "topk",
    exclude_pivot_neighbours: bool = True,
    fill: Fill = "score",
    diagonal: Diagonal = "included",
) -> Keep:
    """Keep n of N tokens as D2Pruner does: `d2_graph`, then `graph_select`. See there for the arguments, ties and errors.

    Args:
        scores: [N], the debiased scores A_rel. features: [N, d]. where: [N, 3] or None. n: how many to keep.

    Returns:
        The kept tokens; `info` also has `edge_density`, `s_min` and `s_max`.
    """
    if few_launches([features]) and plain(pivot_mode, fill):
        from biaskit.select.batch import d2_on_device

        kinds = (pivot_ratio, exclude_pivot_neighbours, fill)
        (found,) = d2_on_device([scores], [features], where, n, *kinds, alpha=alpha, theta=theta, diagonal=diagonal)
        return Keep(upload(found.indices, features.device), found.info)
    features = matrix("features", features, finite=features.device.type != "cpu")
    if features.device.type == "cpu" and len(features):
        switches = (pivot_ratio, pivot_mode, exclude_pivot_neighbours, fill)
        return _on_cpu(scores, features, where, n, alpha, theta, diagonal, *switches)
    graph = d2_graph(features, where, alpha=alpha, theta=theta, diagonal=diagonal)
    keep = graph_select(
        scores, graph, n, pivot_ratio=pivot_ratio, pivot_mode=pivot_mode, exclude_pivot_neighbours=exclude_pivot_neighbours, fill=fill
    )
    return Keep(keep.indices, {**keep.info, "edge_density": graph.density, "s_min": graph.s_min, "s_max": graph.s_max})


def _on_cpu(
    scores: Tensor,
    features: Tensor,
    where: Tensor | None,
    n: int,
    alpha: float,
    theta: float,
    diagonal: Diagonal,
    pivot_ratio: float,
    pivot_mode: PivotMode,
    exclude_pivot_neighbours: bool,
    fill: Fill,
) -> Keep:
    """Do what `graph_select` does on the CPU, on edges found out where they are asked for; on the whole graph if `fill` needs it."""
    where = check_graph(features, where, alpha, theta, diagonal)
    scores = vector("scores", scores, len(features)).to(features.device)
    check_switches(pivot_ratio, pivot_mode, fill)
    n = count(n, len(scores))
    ranked = scores.sort(descending=True, stable=True).indices.numpy()
    links = neighbours(where) if where is not None and (alpha < 1 or alpha <= theta) else None
    wanted, nobody = pivots_of(n, pivot_ratio), np.empty(0, np.int64)
    pivots = ranked[:wanted]
    blocking = pivots if pivot_mode == "topk" and exclude_pivot_neighbours else None
    linked = Linked(features, links, alpha=alpha, theta=theta, diagonal=diagonal == "included", blocking=blocking)
    if pivot_mode == "mis":
        pivots = linked.first_independent(ranked, nobody, wanted)
    others = _without(ranked, pivots)
    more = linked.first_independent(others, pivots if exclude_pivot_neighbours else nobody, n - len(pivots))
    chosen = np.concatenate([pivots, more])
    independent, missing = len(chosen), n - len(chosen)
    about = {"edge_density": linked.density, "s_min": linked.s_min, "s_max": linked.s_max}
    if missing and fill in ("layers", "raise_theta"):
        keep = graph_select(
            scores,
            linked.graph(),
            n,
            pivot_ratio=pivot_ratio,
            pivot_mode=pivot_mode,
            exclude_pivot_neighbours=exclude_pivot_neighbours,
            fill=fill,
        )
        return Keep(keep.indices, {**keep.info, **about})
    if missing and fill == "score":
        chosen, missing = np.concatenate([chosen, _without(others, more)[:missing]]), 0
    info = {"pivots": len(pivots), "independent": independent, "filled": len(chosen) - independent, "missing": missing}
    return Keep(torch.from_numpy(np.sort(chosen)), {**info, **about})


def _without(tokens: Indices, some: Indices) -> Indices:
    """Leave `some` of the tokens out, in their order."""
    left = np.ones(max(tokens.max(initial=-1), some.max(initial=-1)) + 1, bool)
    left[some] = False
    return tokens[left[tokens]]


def graph_select(
    scores: Tensor,
    graph: Graph,
    n: int,
    *,
    pivot_ratio: float = 0.7,
    pivot_mode: PivotMode = "topk",
    exclude_pivot_neighbours: bool = True,
    fill: Fill = "score",
) -> Keep:
    """Keep n of N tokens on any graph: floor(pivot_ratio · n) pivots, then the best token with no neighbour among the chosen, until n.

    Args:
        scores: [N], higher is better; a tie goes to the lower index.
        graph: of the same N tokens.
        pivot_mode: `topk`, pivots are the highest scores; `mis`, pivots too must not be linked.
        exclude_pivot_neighbours: whether pivots' neighbours are out of the expansion.
        fill: when the graph leaves fewer than n. `score`: the highest scores that are left. `layers`: forget all exclusions and expand
            again on what is left, as often as it takes. `raise_theta`: raise the threshold by 0.05 and expand on, until there are no
            edges. `none`: keep fewer.

    Returns:
        The kept tokens, ascending. `info`: `pivots`, `independent` (kept before the fill), `filled`, `missing` (n minus kept).

    Raises:
        BiaskitError: n below 1, pivot_ratio outside 0 … 1, an unknown mode, or scores that are not [N] and finite.
    """
    scores = vector("scores", scores, len(graph))
    check_switches(pivot_ratio, pivot_mode, fill)
    n = count(n, len(scores))
    order = scores.sort(descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    everyone = torch.ones(len(scores), dtype=torch.bool, device=scores.device)

    wanted = pivots_of(n, pivot_ratio)
    pivots = rank < wanted if pivot_mode == "topk" else graph.first_independent(rank, everyone, wanted)
    alive = ~pivots & ~graph.touched(pivots) if exclude_pivot_neighbours else ~pivots
    independent = pivots | graph.first_independent(rank, alive, n - pivots.sum())
    blocking = independent if exclude_pivot_neighbours else independent & ~pivots
    chosen = _filled(independent, blocking, graph, rank, n, fill)
    n_pivots, n_independent, kept = torch.stack([pivots.sum(), independent.sum(), chosen.sum()]).tolist()
    info = {"pivots": n_pivots, "independent": n_independent, "filled": kept - n_independent, "missing": n - kept}
    return Keep(torch.nonzero(chosen)[:, 0], info)


def check_switches(pivot_ratio: float, pivot_mode: str, fill: str) -> None:
    """Raise BiaskitError for a ratio outside 0 … 1 or an unknown mode."""
    fraction("pivot_ratio", pivot_ratio)
    choice("pivot_mode", pivot_mode, ("topk", "mis"))
    choice("fill", fill, ("score", "layers", "raise_theta", "none"))


def pivots_of(n: int, pivot_ratio: float) -> int:
    """Return floor(pivot_ratio · n) in decimal: 0.29 of 100 is 29, although the binary product is below."""
    return math.floor(round(pivot_ratio * n, 9))


def _filled(chosen: Tensor, blocking: Tensor, graph: Graph, rank: Tensor, n: int, fill: Fill) -> Tensor:
    """Add to `chosen` until n, by the rule `fill`. `blocking` are those whose neighbours stay out while the threshold rises."""
    threshold = graph.threshold
    while fill in ("layers", "raise_theta") and int(chosen.sum()) < n:
        alive = ~chosen
        if fill == "raise_theta":
            threshold = min(threshold + _THETA_STEP, 1.0)
            graph = graph.at(threshold)
            alive &= ~graph.touched(blocking)
        more = graph.first_independent(rank, alive, n - chosen.sum())
        chosen, blocking = chosen | more, blocking | more
        if threshold >= 1:
            break
    return chosen if fill == "none" else chosen | best_of(~chosen, rank, n - chosen.sum())
