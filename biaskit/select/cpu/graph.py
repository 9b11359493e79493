"""Split off."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from biaskit.select.cells import neighbours
from biaskit.select.checks import count, vector
from biaskit.select.cpu.cosines import Indices
from biaskit.select.cpu.links import Linked
from biaskit.select.graph import Diagonal, Fill, PivotMode, check_graph, check_switches, graph_select, pivots_of
from biaskit.select.keep import Keep


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
