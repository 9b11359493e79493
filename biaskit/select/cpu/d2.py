"""D2Pruner's selection without the graph's matrix: approximate cosines decide most edges, exact ones the undecided pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.cosine import EXACT_STEPS
from biaskit.select.cpu.cosines import Exact, Floats, Indices, Product
from biaskit.select.cpu.extremes import cosine_range
from biaskit.select.graph import ALIKE, ROUNDING, d2_graph, graph_select, pivots_of
from biaskit.select.keep import Keep

Bools = NDArray[np.bool_]

_SMALL = 64  # fewest candidate tokens processed together
_MOST = 1024  # most candidate tokens processed together
_BLOCK = 256  # blocking tokens whose edges are computed together
_MANY = 2**13  # a block is computed exactly as a whole if it has more undecided pairs than this
_EACH = 8  # and more than this many per token
_NONE = 2.0  # a threshold that no cosine exceeds; all exceed its negative


def d2_on_cpu(
    scores: Tensor, features: Tensor, where: Tensor | None, links: Tensor | None, n: int, *,
    alpha: float, theta: float, diagonal: Any, pivot_ratio: float, pivot_mode: Any, exclude_pivot_neighbours: bool, fill: Any,
) -> Keep:  # fmt: skip
    """Do what `graph_select` does on `d2_graph`, for arguments that were checked; through the graph itself if `fill` needs it.

    Args:
        links: [N, 8], `neighbours` of `where` if place counts.
    """
    ranked = scores.sort(descending=True, stable=True).indices.numpy()
    edges = Edges(features, links, alpha=alpha, theta=theta, diagonal=diagonal == "included")
    wanted, none = pivots_of(n, pivot_ratio), np.empty(0, np.int64)
    pivots = ranked[:wanted] if pivot_mode == "topk" else edges.first_independent(ranked, none, wanted)
    others = ranked[~np.isin(ranked, pivots)]
    more = edges.first_independent(others, pivots if exclude_pivot_neighbours else none, n - len(pivots))
    chosen = np.concatenate([pivots, more])
    independent, missing = len(chosen), n - len(chosen)
    about = {"edge_density": edges.density, "s_min": edges.s_min, "s_max": edges.s_max}
    if missing and fill in ("layers", "raise_theta"):
        graph = d2_graph(features, where, alpha=alpha, theta=theta, diagonal=diagonal)
        switches = {"pivot_mode": pivot_mode, "exclude_pivot_neighbours": exclude_pivot_neighbours, "fill": fill}
        keep = graph_select(scores, graph, n, pivot_ratio=pivot_ratio, **switches)
        return Keep(keep.indices, {**keep.info, **about})
    if missing and fill == "score":
        chosen, missing = np.concatenate([chosen, others[~np.isin(others, more)][:missing]]), 0
    info = {"pivots": len(pivots), "independent": independent, "filled": len(chosen) - independent, "missing": missing}
    return Keep(torch.from_numpy(np.sort(chosen)), {**info, **about})


class Edges:
    """The edges of the graph, computed on demand.

    Attributes:
        s_min, s_max: range of the cosines. density: share of pairs that are linked, estimated from approximate cosines of a sample of
            pairs (all pairs up to 512 tokens).
    """

    def __init__(self, features: Tensor, links: Tensor | None, *, alpha: float, theta: float, diagonal: bool) -> None:
        """Find the range of the cosines by a pass over all pairs. `links`: [N, 8] neighbours, −1 for a missing one."""
        self.product = Product(features)
        self.links: Indices | None = None if links is None else links.numpy()
        self.s_min, self.s_max, sample = cosine_range(self.product, diagonal=diagonal)
        span = self.s_max - self.s_min

        def threshold(bonus: float) -> float:
            """Return the largest cosine without an edge, by the rule of `graph.fuse` and `Graph.edges`: larger cosines make edges."""
            low, high = -int(EXACT_STEPS) - 1, int(EXACT_STEPS)
            while low < high:
                middle = (low + high + 1) // 2
                scaled = 1.0 if span < ALIKE else (middle / EXACT_STEPS - self.s_min) / span
                low, high = (low, middle - 1) if alpha * scaled + bonus > theta + ROUNDING else (middle, high)
            return low / EXACT_STEPS if -EXACT_STEPS <= low < EXACT_STEPS else math.copysign(_NONE, low)

        self.apart, self.beside = threshold(0.0), threshold(1 - alpha)
        linked = pairs = 0
        for tokens, others, approximate in sample:
            lower = tokens[:, None] > others
            linked += int(np.count_nonzero((approximate > self._thresholds(tokens, others) + 2.0**-19) & lower))
            pairs += int(lower.sum())
        self.density = linked / pairs if pairs else 0.0

    def _thresholds(self, tokens: Indices, others: Indices) -> Exact | float:
        """Return the largest cosines without an edge for k `tokens` and m `others`: [k, m], or one number for all."""
        if self.links is None:
            return self.apart
        found = np.full((len(tokens), len(others)), self.apart)
        place = np.full(len(self.product) + 1, -1)
        place[tokens] = np.arange(len(tokens))
        at = place[self.links[others]]  # a link of −1 indexes the last entry, which is −1
        column, k = np.nonzero(at >= 0)
        found[at[column, k], column] = self.beside
        return found

    def _approximate(self, tokens: Indices, others: Indices) -> tuple[Floats | Exact, Floats | np.float32]:
        """Return approximate cosines of k tokens with m others minus the threshold, and their error bounds: [k, m]."""
        found = self.product.columns(others, tokens)
        error = self.product.errors(found)
        return found - self._thresholds(tokens, others), error

    def _settle(self, linked: Bools, undecided: Bools, tokens: Indices, others: Indices) -> Bools:
        """Decide the undecided pairs of k tokens and m others by exact cosines, in place."""
        if int(np.count_nonzero(undecided)) > max(_MANY, _EACH * len(tokens)):
            rows = np.flatnonzero(undecided.any(1))
            linked[rows] = self.product.exact_table(tokens[rows], others) > _rows(self._thresholds(tokens, others), rows)
            return linked
        row, column = np.nonzero(undecided)
        exact = self.product.exact_pairs(tokens[row], others[column])
        limits = self._thresholds(tokens, others)
        linked[row, column] = exact > (limits if isinstance(limits, float) else limits[row, column])
        return linked

    def _touched(self, tokens: Indices, blocking: Indices) -> Bools:
        """Return which of k `tokens` have an edge to a `blocking` one: [k] bool."""
        touched = np.zeros(len(tokens), bool)
        for start in range(0, len(blocking), _BLOCK):
            rest, some = np.flatnonzero(~touched), blocking[start : start + _BLOCK]
            over, error = self._approximate(tokens[rest], some)
            linked: Bools = over > error
            undecided = (np.abs(over) <= error) & ~linked.any(1, keepdims=True)
            touched[rest] = self._settle(linked, undecided, tokens[rest], some).any(1)
        return touched

    def _among(self, tokens: Indices) -> Bools:
        """Return the edges among m tokens: [m, m], above the diagonal."""
        over, error = self._approximate(tokens, tokens)
        return np.triu(self._settle(over > error, np.triu(np.abs(over) <= error, 1), tokens, tokens), 1)

    def first_independent(self, tokens: Indices, blocking: Indices, limit: int) -> Indices:
        """Return the tokens, best first, that the greedy loop takes: not linked to each other or to `blocking`, at most `limit`."""
        taken, size = np.empty(0, np.int64), 2 * limit
        while limit > 0 and len(tokens):
            size = min(max(size, _SMALL), _MOST)
            some, tokens = tokens[:size], tokens[size:]
            some = some[~self._touched(some, np.concatenate([blocking, taken]))]
            mine = some[independent(self._among(some))][:limit]
            taken, limit = np.concatenate([taken, mine]), limit - len(mine)
            size = min(2 * size, 5 * size * limit // max(4 * len(mine), 1))  # a quarter more than this rate of success requires
        return taken


def _rows(limits: Exact | float, rows: Indices) -> Exact | float:
    return limits if isinstance(limits, float) else limits[rows]


def independent(edges: Bools) -> Bools:
    """Return which of m tokens, best first, the greedy loop takes: [m] bool. `edges`: [m, m] bool above the diagonal.

    Example:
        >>> independent(np.triu(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool), 1)).tolist()
        [True, False, True]
    """
    excluded, taken = np.zeros(len(edges), bool), np.zeros(len(edges), bool)
    for token, row in enumerate(edges):
        if not excluded[token]:
            taken[token] = True
            np.logical_or(excluded, row, out=excluded)
    return taken
