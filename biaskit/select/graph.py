"""D2Pruner's graph, which links redundant visual tokens by similarity and position (eq. 4–8), and its greedy independent sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.cells import check_cells, neighbours
from biaskit.select.checks import choice, count, fraction, matrix, vector
from biaskit.select.cosine import cosines, rounded, row_blocks, unit_rows
from biaskit.select.keep import Keep

Diagonal = Literal["included", "excluded"]

ALIKE = 1e-5
"""If the range of cosines is below this, it is attributed to rounding: all tokens count as alike."""

ROUNDING = 2.0**-38
"""In float64 a fused similarity that exceeds θ by at most this counts as equal to θ."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph of N tokens: two are linked iff their fused similarity exceeds the threshold (strictly).

    Attributes:
        fused: S_fused of the pairs that can be linked, −1 if there is no pair: [N, N], or [N, 8] together with `links`.
        links: [N, 8] int64, the other token of each column of `fused`; None if `fused` is [N, N].
        threshold: θ.
        s_min, s_max: range of the cosines before min–max (the range that makes θ depend on the image).
    """

    fused: Tensor
    links: Tensor | None
    threshold: float
    s_min: float
    s_max: float

    def __len__(self) -> int:
        """Return N."""
        return len(self.fused)

    @cached_property
    def edges(self) -> Tensor:
        """Bool, shaped like `fused`. In float64 a value within `ROUNDING` of the threshold counts as equal to it, so not as an edge."""
        return self.fused > self.threshold + (ROUNDING if self.fused.dtype == torch.float64 else 0)

    @property
    def density(self) -> float:
        """Share of all pairs that are linked."""
        n = len(self)
        return float(self.edges.sum()) / (n * (n - 1)) if n > 1 else 0.0

    def at(self, threshold: float) -> Graph:
        """Return the graph at another threshold, not below this one's."""
        return replace(self, threshold=threshold)

    def adjacency(self) -> Tensor:
        """Return the edges as [N, N] bool, for every form of storage."""
        if self.links is None:
            return self.edges
        full = torch.zeros(len(self), len(self), dtype=torch.bool, device=self.edges.device)
        source, column = torch.nonzero(self.edges, as_tuple=True)
        full[source, self.links[source, column]] = True
        return full

    def touched(self, chosen: Tensor) -> Tensor:
        """Return which tokens have a neighbour among the `chosen` [N] bool: [N] bool."""
        return self._any(self.edges, chosen)

    def first_independent(self, rank: Tensor, candidates: Tensor, limit: int | Tensor) -> Tensor:
        """Return the greedy independent set (the best-ranked candidate, no neighbour of it, the next), at most `limit` tokens: [N] bool.

        Found in rounds instead of one by one: every candidate that outranks all its candidate neighbours is taken at once. This gives the
        same set (Blelloch, Fineman and Shun, 2012), and the first `limit` picks of the sequential loop are its best-ranked members. On a
        GPU the test for remaining candidates, a synchronisation, is made every eight rounds; surplus rounds change nothing.

        Args:
            rank: [N] int64, a permutation; 0 is best. candidates: [N] bool, tokens to choose among. limit: ≥ 0.
        """
        better = self._better(rank)
        taken = torch.zeros_like(candidates)
        unasked = 8 if candidates.is_cuda else 1
        while bool(candidates.any()):
            for _ in range(unasked):
                best = candidates & ~self._any(better, candidates)
                taken |= best
                candidates = candidates & ~best & ~self._any(self.edges, best)
        return best_of(taken, rank, limit)

    def _better(self, rank: Tensor) -> Tensor:
        """Which edges lead to a token of better rank, shaped like `fused`."""
        theirs = rank[None] if self.links is None else rank[self.links]
        return self.edges & (theirs < rank[:, None])

    def _any(self, edges: Tensor, among: Tensor) -> Tensor:
        """Which tokens have one of `edges` to a token in `among` [N] bool: [N] bool. No synchronisation."""
        return (edges & (among[None] if self.links is None else among[self.links])).any(1)


def best_of(tokens: Tensor, rank: Tensor, limit: int | Tensor) -> Tensor:
    """Return the at most `limit` best-ranked of `tokens` [N] bool: [N] bool. No synchronisation."""
    order = torch.empty_like(rank)
    order[rank] = torch.arange(len(rank), device=rank.device)
    return tokens & (tokens[order].cumsum(0) <= limit)[rank]


def d2_graph(features: Tensor, where: Tensor | None, *, alpha: float = 1.0, theta: float = 0.8, diagonal: Diagonal = "included") -> Graph:
    """Build D2Pruner's graph: S_fused = α · minmax(cos) + (1 − α) · [8-neighbours], edges where S_fused > θ (eq. 4–8).

    For α ≤ θ only neighbours can be linked, so the graph has at most 8 edges per token and the N × N similarities are computed block by
    block for their range only. A token is never its own neighbour. If all tokens are alike, every normalised similarity is 1.

    Args:
        features: [N, d], the visual rows of the output of layer K − 1.
        where: [N, 3] (plane, row, col) as `cells` makes; may be None for α = 1, where place does not count.
        alpha: weight of similarity against position. theta: threshold, strict.
        diagonal: `included` if a token's cosine with itself takes part in min–max, as eq. 5 says literally; or `excluded`.

    Raises:
        BiaskitError: shapes, values that are not finite, α or θ outside 0 … 1, or no cells although α < 1.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> d2_graph(features, None).adjacency().int().tolist()
        [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    """
    features = matrix("features", features)
    where = check_graph(features, where, alpha, theta, diagonal)
    unit = unit_rows(features)
    sparse = where is not None and alpha <= theta
    links = None if where is None or (alpha == 1 and not sparse) else neighbours(where)
    similarity = None if sparse else cosines(unit, unit)
    s_min, s_max = _range(unit, similarity, diagonal)
    if similarity is None:
        assert links is not None
        fused = fuse(_beside(unit, links), s_min, s_max, alpha) + (1 - alpha)
        return Graph(fused.masked_fill_(links < 0, -1), links.clamp_min(0), theta, s_min, s_max)
    fused = fuse(torch.maximum(similarity, similarity.mT), s_min, s_max, alpha)
    if links is not None:
        source, column = torch.nonzero(links >= 0, as_tuple=True)
        fused[source, links[source, column]] += 1 - alpha
    return Graph(fused.fill_diagonal_(-1), None, theta, s_min, s_max)


def check_graph(features: Tensor, where: Tensor | None, alpha: float, theta: float, diagonal: str) -> Tensor | None:
    """Return the cells on the features' device; raise BiaskitError for invalid arguments of `d2_graph`."""
    check_rule(where, alpha, theta, diagonal)
    if where is None:
        return None
    check_cells(where, len(features))
    return where.to(features.device)


def check_rule(where: Tensor | None, alpha: float, theta: float, diagonal: str) -> None:
    """Raise BiaskitError for an invalid α, θ or diagonal, or for missing cells if position counts."""
    fraction("alpha", alpha)
    fraction("theta", theta)
    choice("diagonal", diagonal, ("included", "excluded"))
    if where is None and alpha < 1:
        raise BiaskitError(f"alpha is {alpha}, but there are no cells", "pass every token's (plane, row, col), as cells() makes")


def _range(unit: Tensor, similarity: Tensor | None, diagonal: Diagonal) -> tuple[float, float]:
    """Smallest and largest cosine of all pairs; (1, 1) if there is no pair."""
    if not len(unit) or (diagonal == "excluded" and len(unit) == 1):
        return 1.0, 1.0
    if similarity is not None and diagonal == "included":
        return float(similarity.min()), float(similarity.max())
    if diagonal == "included":
        bounds = [torch.stack([block.min(), block.max()]) for block in row_blocks(unit)]
        low, high = torch.stack(bounds).mT
    else:
        low = torch.stack([block.min() for block in row_blocks(unit, own=torch.inf)])
        high = torch.stack([block.max() for block in row_blocks(unit, own=-torch.inf)])
    return float(low.min()), float(high.max())


def fuse(similarity: Tensor, s_min: float, s_max: float, alpha: float) -> Tensor:
    """Return α · minmax(cosine), of any shape: the similarity part of S_fused."""
    if s_max - s_min < ALIKE:
        return torch.full_like(similarity, alpha)
    return alpha * ((similarity - s_min) / (s_max - s_min))


def _beside(unit: Tensor, links: Tensor) -> Tensor:
    """Cosine of every token with its eight neighbours, each pair computed once: [N, 8]. Undefined for missing neighbours."""
    beside = unit.new_zeros(links.shape)
    for column in range(4):
        source = torch.nonzero(links[:, column] >= 0)[:, 0]
        target = links[source, column]
        value = rounded((unit[source] * unit[target]).sum(-1))
        beside[source, column] = value
        beside[target, 7 - column] = value
    return beside


PivotMode = Literal["topk", "mis"]


Fill = Literal["score", "layers", "raise_theta", "none"]


_THETA_STEP = 0.05


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
        fill: what to add if the graph leaves fewer than n. `score`: the highest remaining scores. `layers`: drop all exclusions and expand
            again on the rest, repeatedly. `raise_theta`: raise the threshold by 0.05 and continue, until there are no edges. `none`:
            keep fewer.

    Returns:
        The kept tokens, ascending. `info`: `pivots`, `independent` (kept before the fill), `filled`, `missing` (n minus kept).

    Raises:
        BiaskitError: n below 1, pivot_ratio outside 0 … 1, an unknown mode, or scores that are not [N] and finite.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> graph_select(torch.tensor([1.0, 0.9, 0.2, 0.1]), d2_graph(features, None), 2, pivot_ratio=0.5).indices.tolist()
        [0, 2]
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
    candidates = ~pivots & ~graph.touched(pivots) if exclude_pivot_neighbours else ~pivots
    independent = pivots | graph.first_independent(rank, candidates, n - pivots.sum())
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
    """Return floor(pivot_ratio · n) in decimal: 0.29 of 100 is 29, although the binary product is below.

    Example:
        >>> pivots_of(100, 0.29)
        29
    """
    return math.floor(round(pivot_ratio * n, 9))


def _filled(chosen: Tensor, blocking: Tensor, graph: Graph, rank: Tensor, n: int, fill: Fill) -> Tensor:
    """Add to `chosen` until n, by the rule `fill`. Neighbours of `blocking` are excluded while the threshold rises."""
    threshold = graph.threshold
    while fill in ("layers", "raise_theta") and int(chosen.sum()) < n:
        candidates = ~chosen
        if fill == "raise_theta":
            threshold = min(threshold + _THETA_STEP, 1.0)
            graph = graph.at(threshold)
            candidates &= ~graph.touched(blocking)
        more = graph.first_independent(rank, candidates, n - chosen.sum())
        chosen, blocking = chosen | more, blocking | more
        if threshold >= 1:
            break
    return chosen if fill == "none" else chosen | best_of(~chosen, rank, n - chosen.sum())
