"""D2Pruner's selection: pivots, expansion on the graph, and the fill if the graph leaves too few tokens."""

from __future__ import annotations

from torch import Tensor

from biaskit.device import upload
from biaskit.select.cells import neighbours
from biaskit.select.checks import count, matrix, vector
from biaskit.select.cpu import d2_on_cpu
from biaskit.select.gpu import d2_on_device, few_launches, plain
from biaskit.select.graph import Diagonal, Fill, PivotMode, check_graph, check_switches, d2_graph, graph_select
from biaskit.select.keep import Keep


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

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> keep = d2_select(torch.tensor([1.0, 0.9, 0.2, 0.1]), features, None, 2)
        >>> keep.indices.tolist(), keep.info["edge_density"]
        ([0, 2], 0.3333333333333333)
    """
    if few_launches([features]) and plain(pivot_mode, fill):
        kinds = (pivot_ratio, exclude_pivot_neighbours, fill)
        (found,) = d2_on_device([scores], [features], where, n, *kinds, alpha=alpha, theta=theta, diagonal=diagonal)
        return Keep(upload(found.indices, features.device), found.info)
    features = matrix("features", features, finite=features.device.type != "cpu")
    if features.device.type == "cpu" and len(features):
        where = check_graph(features, where, alpha, theta, diagonal)
        scores = vector("scores", scores, len(features)).cpu()
        check_switches(pivot_ratio, pivot_mode, fill)
        links = neighbours(where) if where is not None and (alpha < 1 or alpha <= theta) else None
        return d2_on_cpu(
            scores, features, where, links, count(n, len(scores)),
            alpha=alpha, theta=theta, diagonal=diagonal,
            pivot_ratio=pivot_ratio, pivot_mode=pivot_mode, exclude_pivot_neighbours=exclude_pivot_neighbours, fill=fill,
        )  # fmt: skip
    graph = d2_graph(features, where, alpha=alpha, theta=theta, diagonal=diagonal)
    keep = graph_select(
        scores, graph, n, pivot_ratio=pivot_ratio, pivot_mode=pivot_mode, exclude_pivot_neighbours=exclude_pivot_neighbours, fill=fill
    )
    return Keep(keep.indices, {**keep.info, "edge_density": graph.density, "s_min": graph.s_min, "s_max": graph.s_max})
