"""D2Pruner's selection on the CPU without the graph's matrix: fast cosines decide most edges, exact ones those in doubt that matter.

Tokens are known by their rank, so that row r from column r + 1 on is all that the greedy loop asks of the token of rank r. Tokens are
looked at in chunks, best first, and only until enough are found.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.cosine import STEPS
from biaskit.select.graph import fuse
from biaskit.select.product import Product
from biaskit.select.range import PANEL, Indices, Pass, look_at_all

Bools = NDArray[np.bool_]

_SMALL = 64  # tokens looked at together, at least
_WHOLE = 4096  # tokens: up to here all fast cosines are kept (16 MiB, 32 in float32), beyond it those of three times the budget


class Linked:
    """Which tokens are linked, found out where it is asked.

    Attributes:
        s_min, s_max: range of the cosines. density: share of pairs that are linked, by fast cosines of a sample (all up to 512 tokens).
    """

    def __init__(
        self, features: Tensor, order: Tensor, links: Tensor | None, expected: int, *, alpha: float, theta: float, diagonal: bool
    ) -> None:
        """Look at all pairs once. `order`: [N] best first; `links`: [N, 8] by token; `expected`: how many tokens will be asked for."""
        self.product = Product(features, order=order)
        total = len(self.product)
        self.links: Indices | None = None
        if links is not None:
            rank = torch.empty_like(order)
            rank[order] = torch.arange(total, device="cpu")
            mine = links[order]
            self.links = torch.where(mine >= 0, rank[mine.clamp_min(0)], -1).numpy()
        self.apart_linked = not (links is not None and alpha <= theta)  # otherwise neighbours alone can be
        kept = (total if total <= _WHOLE else 3 * expected) if self.apart_linked else 0
        found = look_at_all(self.product, self.links, kept, diagonal=diagonal)
        self.s_min, self.s_max = found.s_min, found.s_max
        self.raw, self.error = found.raw, self.product.error
        self.apart = self._no_more_than(alpha, theta, beside=False)
        self.beside: Bools | None = None
        if self.links is not None and found.beside is not None:
            self.beside = self._beside(found.beside, self._no_more_than(alpha, theta, beside=True))
        self.density = self._density(found)

    def _no_more_than(self, alpha: float, theta: float, *, beside: bool) -> float:
        """The largest cosine that makes no edge: a multiple of 2⁻¹⁸ in −1 … 1, or just below −1 if every pair is linked."""

        def linked(steps: int) -> bool:
            fused = fuse(torch.tensor([steps / STEPS], dtype=torch.float32, device="cpu"), self.s_min, self.s_max, alpha) + (
                (1 - alpha) if beside else 0
            )
            return bool(fused > theta)

        cosines = range(-int(STEPS), int(STEPS) + 1)
        return (cosines[0] + bisect_left(cosines, True, key=linked) - 1) / STEPS

    def _beside(self, fast: NDArray[np.float32], limit: float) -> Bools:
        """Which neighbours are linked: [N, 8]."""
        assert self.links is not None
        linked = (fast > limit) & (self.links >= 0)
        doubt = np.abs(fast - limit) <= self.product.error
        row, column = np.nonzero(doubt[:, :4] & (self.links[:, :4] >= 0))
        other = self.links[row, column]
        linked[row, column] = linked[other, 7 - column] = self.product.exact_pairs(row, other) > limit
        return linked

    def _density(self, found: Pass) -> float:
        """Share of pairs that are linked; neighbours are judged by their own rule instead of the others'."""
        total = len(self.product)
        pairs = total * (total - 1) / 2
        linked = float((found.sample > self.apart).mean()) * pairs if self.apart_linked and len(found.sample) else 0.0
        if self.beside is not None and found.beside is not None and self.links is not None:
            apart = (found.beside > self.apart) & (self.links >= 0) if self.apart_linked else np.False_
            linked += (int(self.beside.sum()) - int(apart.sum())) / 2
        return linked / pairs if pairs else 0.0

    def touched(self, by: Indices, tokens: Indices) -> Bools:
        """Return which of m `tokens` are linked to one of those in `by`, all of which have a better rank: [m]."""
        linked, doubt = self._fast(by, tokens)
        free: Bools = ~np.any(linked, 0)
        row, column = np.nonzero(doubt & free)
        free[column[self._exact(by[row], tokens[column])]] = False
        return np.logical_not(free)

    def among(self, tokens: Indices) -> Bools:
        """Return the edges among m tokens by rising rank: [m, m], above the diagonal."""
        linked, doubt = self._fast(tokens, tokens)
        row, column = np.nonzero(np.triu(doubt, 1))
        linked[row, column] = self._exact(tokens[row], tokens[column])
        return np.triu(linked, 1)

    def _fast(self, rows: Indices, columns: Indices) -> tuple[Bools, Bools]:
        """Which pairs are linked for certain, and which may be: two of [rows, columns]."""
        linked = np.zeros((len(rows), len(columns)), bool)
        doubt = linked.copy()
        if self.apart_linked:
            fast = self._rows_at(rows, columns)
            linked = fast > self.apart + self.error
            doubt = ~linked & (fast >= self.apart - self.error)
        if self.beside is not None and self.links is not None:
            place = np.full(len(self.product) + 1, -1)
            place[columns] = np.arange(len(columns))
            at = place[self.links[rows]]  # −1 reads the last entry, which is −1
            row, k = np.nonzero(at >= 0)
            linked[row, at[row, k]] = self.beside[rows[row], k]
            doubt[row, at[row, k]] = False
        return linked, doubt

    def _rows_at(self, rows: Indices, columns: Indices) -> NDArray[np.float32]:
        """Fast cosines [rows, columns] where the column has the worse rank; computed if the row was not kept, no pair twice in a search."""
        fast = np.empty((len(rows), len(columns)), np.float32)
        panel = rows // PANEL
        late = panel >= len(self.raw)
        if late.any():
            fast[late] = self.product.block(rows[late], columns)
        for number in np.unique(panel[~late]).tolist():
            mine, start = panel == number, number * PANEL
            within = torch.from_numpy(rows[mine] - start), torch.from_numpy(np.maximum(columns - start, 0))
            fast[mine] = self.product.scaled(self.raw[number][within[0]][:, within[1]], rows[mine], columns)
        return fast

    def _exact(self, a: Indices, b: Indices) -> Bools:
        return self.product.exact_pairs(a, b) > self.apart

    def first_independent(self, alive: Bools, blocking: Indices, limit: int) -> Indices:
        """Return what the greedy loop takes of `alive` [N], none linked to `blocking`, at most `limit`: ranks, rising."""
        waiting = np.flatnonzero(alive)
        found: list[Indices] = [np.empty(0, np.int64)]
        size = most = max(_SMALL, 2 * limit)
        while limit > 0 and len(waiting):
            some, waiting = waiting[:size], waiting[size:]
            some = some[~self.touched(blocking, some)]
            size *= 1 + (len(some) < limit)  # where few are free, more are looked at together
            some, waiting = some[:most], np.concatenate([some[most:], waiting])
            taken = some[independent(self.among(some))][:limit]
            found.append(taken)
            blocking = np.concatenate([blocking, taken])
            limit -= len(taken)
        return np.concatenate(found)


def independent(edges: Bools) -> Bools:
    """Return what the greedy loop takes of m tokens, best first, whose `edges` [m, m] are above the diagonal: [m].

    The loop itself: here a step is one row of bits, and rounds, which suit a GPU, take as many as a chain of tokens is long.
    """
    dead, taken = np.zeros(len(edges), bool), np.zeros(len(edges), bool)
    for token, row in enumerate(edges):
        if not dead[token]:
            taken[token] = True
            np.logical_or(dead, row, out=dead)
    return taken
