"""D2Pruner's selection on the CPU without the graph's matrix: fast cosines decide most edges, exact ones those in doubt that matter.

What is linked to the pivots is out at once; the other tokens are looked at in chunks, best first, and only until enough are found.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.cosine import STEPS
from biaskit.select.cpu.cosines import Floats, Indices, Product
from biaskit.select.cpu.extremes import Seen, look_at_all
from biaskit.select.graph import Graph, fuse

Bools = NDArray[np.bool_]

_SMALL = 64  # tokens looked at together, at least
_MOST = 1024  # … and at the most
_BLOCK = 256  # tokens whose edges to all others are looked at together
_DOUBTFUL = 2**13  # pairs in doubt: where a block has more,
_EACH = 8  # … and more than so many a token, they are not decided one by one
_NEVER = 2.0  # no cosine is above


class Linked:
    """Which tokens are linked, found out where it is asked.

    Attributes:
        s_min, s_max: range of the cosines. density: share of pairs that are linked, by fast cosines of a sample (all up to 512 tokens).
    """

    def __init__(
        self, features: Tensor, links: Tensor | None, *, alpha: float, theta: float, diagonal: bool, blocking: Indices | None = None
    ) -> None:
        """Look at all pairs once.

        Args:
            links: [N, 8] neighbours, −1 where there is none.
            blocking: tokens to which the edges of all others will be asked for: what the look at all pairs tells of the first is kept.
        """
        self.product, self.alpha, self.theta = Product(features), alpha, theta
        self.links: Indices | None = None if links is None else links.numpy()
        self.blocking = blocking if links is None else None
        self.watched = np.empty(0, np.int64) if self.blocking is None else self.blocking[:_BLOCK]
        seen = look_at_all(self.product, self.watched, diagonal=diagonal)
        self.s_min, self.s_max = seen.s_min, seen.s_max
        self.apart = self._no_more_than(beside=False)
        self.near = self.apart if links is None else self._no_more_than(beside=True)
        self.about = min(self.near if self.apart == _NEVER else self.apart, 1.0)
        self.room = self._room(self.about)
        self.density = self._density(seen)
        self.most = seen.nearest - np.float32(self.apart)  # with `watched`

    def _room(self, about: float) -> np.float32:
        """How far `_over` may be off next to what makes no edge, if the cosines were computed about `about`."""
        far = max((abs(limit - about) for limit in (self.apart, self.near) if limit != _NEVER), default=0.0)
        return np.float32(self.product.error(far + 4 * self.product.error(), about=about) + 2.0**-19)  # it rounds a few times

    def _no_more_than(self, *, beside: bool) -> float:
        """The largest cosine that makes no edge: a multiple of 2⁻¹⁸ in −1 … 1, just below −1 if every pair is linked, or `_NEVER`."""
        low, high = -int(STEPS), int(STEPS)
        while low <= high:  # is it below, between or above these?
            steps = np.unique(np.linspace(low, high, 64).astype(np.int64))
            fused = fuse(torch.from_numpy((steps / STEPS).astype(np.float32)), self.s_min, self.s_max, self.alpha)
            none = int(((fused + ((1 - self.alpha) if beside else 0)) <= self.theta).sum())  # edges begin after so many of them
            low, high = low if none == 0 else int(steps[none - 1]) + 1, high if none == len(steps) else int(steps[none]) - 1
        return _NEVER if high == int(STEPS) else high / STEPS

    def _density(self, seen: Seen) -> float:
        """Share of pairs that are linked."""
        linked = pairs = 0
        for tokens, others, fast in seen.sample:
            fast -= np.float32(self.apart)
            place = np.full(len(self.product) + 1, -1)
            place[tokens] = np.arange(len(tokens))
            self._raise_beside(fast, others, place)
            lower = tokens[:, None] > others
            linked += int(np.count_nonzero((fast > 0.5 / STEPS) & lower))  # edges as rounded cosines have them
            pairs += int(lower.sum())
        return linked / pairs if pairs else 0.0

    def _over(self, blocking: Indices, tokens: Indices | None = None) -> Floats:
        """By how much fast cosines of k `tokens`, all by default, with m `blocking` ones exceed what makes no edge: [k, m]."""
        return self._less_limits(self.product.columns(blocking, tokens, about=self.about), blocking, tokens)

    def _edges(self, blocking: Indices, tokens: Indices) -> Bools:
        """Which of k `tokens` and m `blocking` ones are linked, all of them looked at exactly: [k, m]."""
        return self._less_limits(self.product.exact_table(tokens, blocking), blocking, tokens) > 0

    def _less_limits(self, cosine: Floats, blocking: Indices, tokens: Indices | None) -> Floats:
        """Subtract what makes no edge from the cosines of k `tokens` with m `blocking` ones, in place: [k, m]."""
        cosine -= np.float32(self.apart)
        place = np.arange(len(self.product) + 1) if tokens is None else np.full(len(self.product) + 1, -1)
        if tokens is not None:
            place[tokens] = np.arange(len(tokens))
        place[-1] = -1
        self._raise_beside(cosine, blocking, place)
        return cosine

    def _raise_beside(self, over: Floats, blocking: Indices, place: Indices) -> None:
        """Where a block of `_over` is about neighbours, make it tell by how much they exceed their own limit.

        Args:
            place: [N + 1], which row of the block is about each token, −1 if none is; the last entry is −1.
        """
        if self.links is None:
            return
        at = place[self.links[blocking]]  # a link of −1 reads the last entry
        column, k = np.nonzero(at >= 0)
        over[at[column, k], column] += np.float32(self.apart - self.near)

    def _exactly(self, tokens: Indices, blocking: Indices) -> Bools:
        """Which of m pairs are linked: [m]."""
        limit = np.full(len(tokens), self.apart)
        if self.links is not None:
            limit[(self.links[blocking] == tokens[:, None]).any(1)] = self.near
        return self.product.exact_pairs(tokens, blocking) > limit

    def _free(self, blocking: Indices, tokens: Indices) -> tuple[Indices, tuple[Indices, Indices]]:
        """Return the `tokens` that have no certain edge to `blocking` ones, and their pairs (token, blocking) that may be linked."""
        if blocking is not self.blocking:
            return self._looked_at(blocking, tokens)
        most, room = self.most[tokens], self._room(0.0)
        unsure, doubts = self._looked_at(self.watched, tokens[np.abs(most) <= room])
        free = np.zeros(len(self.product), bool)
        free[unsure] = True
        tokens, more = self._looked_at(blocking[len(self.watched) :], tokens[(most < -room) | free[tokens]])
        return tokens, (np.concatenate([doubts[0], more[0]]), np.concatenate([doubts[1], more[1]]))

    def _looked_at(self, blocking: Indices, tokens: Indices) -> tuple[Indices, tuple[Indices, Indices]]:
        """`_free`, from cosines computed for it."""
        doubts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for start in range(0, len(blocking), _BLOCK):
            some = blocking[start : start + _BLOCK]
            if not len(tokens):
                break
            many = len(tokens) > len(self.product) // 2
            over = self._over(some, None if many else tokens)
            place = tokens if many else np.arange(len(tokens))
            most: Floats = torch.from_numpy(over).amax(1).numpy()[place]
            free = most <= self.room
            asked = free & (most >= -self.room)
            doubtful = over[place[asked]] >= -self.room
            if _too_many(doubtful):
                free[asked] = ~self._edges(some, tokens[asked]).any(1)
            else:
                row, column = np.nonzero(doubtful)
                doubts.append((tokens[asked][row], some[column]))
            tokens = tokens[free]
        one, other = (np.concatenate(part) for part in zip(*doubts, strict=True))
        return tokens, (one, other)

    def _decided(self, tokens: Indices, doubts: tuple[Indices, Indices]) -> Indices:
        """Return the `tokens` that turn out not to be linked in the pairs in doubt about them."""
        one, other = doubts
        linked = np.zeros(len(self.product), bool)
        asked = linked.copy()
        asked[tokens] = True
        one, other = one[asked[one]], other[asked[one]]
        linked[one[self._exactly(one, other)]] = True
        return tokens[~linked[tokens]]

    def _among(self, tokens: Indices) -> Bools:
        """Return the edges among m tokens: [m, m], above the diagonal."""
        over = self._over(tokens, tokens)
        linked = over > self.room
        doubtful = np.triu((over >= -self.room) & ~linked, 1)
        if _too_many(doubtful):
            return np.triu(self._edges(tokens, tokens), 1)
        row, column = np.nonzero(doubtful)
        linked[row, column] = self._exactly(tokens[row], tokens[column])
        return np.triu(linked, 1)

    def graph(self) -> Graph:
        """Return the whole graph, as `d2_graph` makes it, from exact cosines: N² · d products in float64 where α > θ."""
        total = len(self.product)
        if self.links is not None:
            one, column = np.nonzero(self.links >= 0)
        if self.links is not None and self.alpha <= self.theta:
            beside: Floats = np.full(self.links.shape, -1, np.float32)
            beside[one, column] = self._fused(self.product.exact_pairs(one, self.links[one, column])) + np.float32(1 - self.alpha)
            links = torch.from_numpy(np.maximum(self.links, 0))
            return Graph(torch.from_numpy(beside), links, self.theta, self.s_min, self.s_max)
        similarity = np.empty((total, total), np.float32)
        for start, block in self.product.exact_panels():
            similarity[start : start + len(block), start:] = block
            similarity[start:, start : start + len(block)] = block.T
        fused = self._fused(similarity)
        if self.links is not None:
            fused[one, self.links[one, column]] += np.float32(1 - self.alpha)
        np.fill_diagonal(fused, -1)
        return Graph(torch.from_numpy(fused), None, self.theta, self.s_min, self.s_max)

    def _fused(self, cosine: Floats) -> Floats:
        """The part of S_fused that is meaning."""
        fused: Floats = fuse(torch.from_numpy(cosine), self.s_min, self.s_max, self.alpha).numpy()
        return fused

    def first_independent(self, tokens: Indices, blocking: Indices, limit: int) -> Indices:
        """Return what the greedy loop takes of `tokens`, best first, none linked to `blocking`, at most `limit`; in this order."""
        nothing = np.empty(0, np.int64)
        waiting, doubts = self._free(blocking, tokens) if limit else (nothing, (nothing, nothing))
        taken, size = nothing, 2 * limit
        while limit > 0 and len(waiting):
            size = min(max(size, _SMALL), _MOST)
            some, waiting = self._decided(waiting[:size], doubts), waiting[size:]
            some = self._decided(*self._free(taken, some))
            mine = some[independent(self._among(some))][:limit]
            taken, limit = np.concatenate([taken, mine]), limit - len(mine)
            size = min(2 * size, 5 * size * limit // max(4 * len(mine), 1))  # a quarter more than it takes at this rate
        return taken


def _too_many(doubtful: Bools) -> bool:
    """Whether so many pairs of a block [k, m] are in doubt that all of it is cheaper."""
    return int(np.count_nonzero(doubtful)) > max(_DOUBTFUL, _EACH * len(doubtful))


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
