"""The greedy selections: bounds for all tokens from approximate cosines, exact cosines only for undecided comparisons.

A token's value worth − weight · (largest cosine with a chosen one) only falls as more are chosen, so an upper bound remains valid (lazy
greedy: Minoux, 1978). The loop runs among the tokens with the highest bounds, on their mutual cosines, as long as its best is above all
other bounds; then the cosines of all tokens with those it chose are computed together. If the bounds of the best and the next best overlap,
the best is computed exactly; if that happens too often, as when all tokens are alike, all further cosines are computed exactly, in blocks.
A tie goes to the lower index.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from biaskit.select.cpu.cosines import Exact, Floats, Indices, Product, greedy_dtype
from biaskit.select.cpu.farthest import farthest_token

CANDIDATES = 256
"""Tokens that the loop runs among."""

_ROWS = 64  # chosen tokens whose cosines with all are computed together
_DEAR = 128  # cost of a single exact cosine, in exact cosines computed in blocks


def lazy_greedy(features: Tensor, n: int, first: int | None, worth: Exact, weight: float) -> Indices:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one): [n] in the order of choice.

    Args:
        features: [N, d]. worth: [N] float64. first: an index; None: the token farthest from its nearest neighbour.
    """
    product = Product(features, low=greedy_dtype(features))
    loop = _Greedy(product, n, worth, weight)
    loop.choose(farthest_token(product) if first is None else first)
    while loop.count < n:
        loop.update()
        loop.choose_among(_best(loop.worth - weight * loop.low, CANDIDATES))
    return loop.order


class _Best(NamedTuple):
    """The tokens of highest value in ascending order, their values, and of the other tokens the highest value and the first that has it."""

    tokens: Indices
    value: Exact
    outside: float
    first: int


def _best(value: Exact, size: int) -> _Best:
    """Find the `size` highest of values [N] above −∞; a tie goes to the lower index."""
    order = np.argsort(-value, kind="stable")
    order = order[: np.count_nonzero(value > -np.inf)]
    tokens = np.sort(order[:size])
    first = int(order[size]) if len(order) > size else len(value)
    return _Best(tokens, value[tokens], value[first] if first < len(value) else -np.inf, first)


class _Greedy:
    """The state of the loop over N tokens.

    Attributes:
        order: [n] the tokens in the order of choice, `count` of them so far.
        worth: [N], −∞ for the chosen. low, high: [N] bounds of the largest cosine with a chosen token.
    """

    def __init__(self, product: Product, n: int, worth: Exact, weight: float) -> None:
        total = len(product)
        self.product, self.worth, self.weight = product, worth.astype(np.float64), weight
        self.order: Indices = np.empty(n, np.int64)
        self.count = self.noted = 0  # tokens chosen, and how many of them are included in `low` and `high`
        self.low: Exact = np.full(total, -1.0)
        self.high = self.low.copy()
        self._highs = np.empty((n, total), np.float32)  # upper bounds of the cosines with every chosen token
        self._exact, self._seen = self.low.copy(), np.zeros(total, np.int64)  # exact largest cosine with the first `_seen` chosen
        self._asked = 0  # single exact cosines so far; −1: all cosines are computed exactly from now on

    def choose(self, token: int) -> None:
        """Take a token."""
        self.order[self.count] = token
        self.count += 1
        self.worth[token] = -np.inf

    def update(self) -> None:
        """Update the bounds of all tokens with those chosen since the last update."""
        if self._asked * _DEAR > self._highs.size:
            self._asked, self.noted = -1, 0
            self.low[:] = self.high[:] = -1
        for start in range(self.noted, self.count, _ROWS):
            stop = min(start + _ROWS, self.count)
            below, above = self._bounds(self.order[start:stop])
            self._highs[start:stop] = above
            np.maximum(self.low, below.max(0), out=self.low)
            np.maximum(self.high, above.max(0), out=self.high)
        self.noted = self.count

    def _bounds(self, index: Indices, tokens: Indices | None = None) -> tuple[Floats, Floats] | tuple[Exact, Exact]:
        """Return `product.bounds`, or exact cosines as both bounds."""
        if self._asked >= 0:
            return self.product.bounds(index, tokens)
        exact = self.product.exact_table(index, np.arange(len(self.product)) if tokens is None else tokens)
        return exact, exact

    def choose_among(self, best: _Best) -> None:
        """Take the best of some tokens, one after another, until another token may be better."""
        tokens, value, outside, first = best
        low, high, worth = self.low[tokens], self.high[tokens], self.worth[tokens]
        below, above = self._bounds(tokens, tokens)
        taken: list[int] = []
        while self.count < len(self.order):
            best_one = int(value.argmax())
            most, least = value[best_one], worth[best_one] - self.weight * high[best_one]
            if most < outside:
                break
            if least < most:
                value[best_one] = -np.inf
                if least <= max(value[value.argmax()], outside):
                    low[best_one] = high[best_one] = self._largest(int(tokens[best_one]), low[best_one], above[taken, best_one])
                    value[best_one] = worth[best_one] - self.weight * low[best_one]
                    continue
            elif most == outside and tokens[best_one] > first:
                break
            self.choose(int(tokens[best_one]))
            taken.append(best_one)
            worth[best_one] = -np.inf
            np.maximum(low, below[best_one], out=low)
            np.maximum(high, above[best_one], out=high)
            np.subtract(worth, np.multiply(low, self.weight, out=value), out=value)
        self.low[tokens], self.high[tokens] = low, high

    def _largest(self, token: int, at_least: float, recent: Floats | Exact) -> float:
        """Return the exact largest cosine of `token` with the chosen ones; `at_least` is a lower bound.

        `recent`: upper bounds of its cosines with those chosen since the last update.
        """
        seen = self._seen[token]
        high = np.concatenate([self._highs[seen : self.noted, token], recent[max(seen - self.noted, 0) :]])
        candidates = self.order[seen : self.count][(high >= at_least) & (high > self._exact[token])]
        if len(candidates):
            self._asked += len(candidates)
            self._exact[token] = max(self._exact[token], self.product.exact_table(np.array([token]), candidates).max())
        self._seen[token] = self.count
        return float(self._exact[token])


def least_similar(features: Tensor, centres: Tensor, mine: Indices, n: int, *, in_order: bool) -> Indices:
    """Take `mine`, then for each of `centres` [m, d] in turn its share of the tokens least similar to it: [n].

    Args:
        in_order: sort each centre's tokens by rising cosine, which needs more exact cosines.
    """
    product = Product(features, low=torch.bfloat16 if features.dtype == torch.bfloat16 else torch.float32)  # nothing to convert
    picked, missing = [mine], n - len(mine)
    quota = -(-missing // max(len(centres), 1))
    approximate, error = product.columns_with(centres)
    reach = np.float32(2 * error)
    approximate[:, mine] = np.inf
    for centre, row in zip(centres, approximate, strict=True):
        take = min(quota, missing)
        if not take:
            break
        last = np.partition(row, take - 1)[take - 1]
        certain = np.flatnonzero(row < last - reach) if not in_order else np.empty(0, np.int64)
        undecided = np.flatnonzero((row <= last + reach) & (row >= last - reach if not in_order else True))
        undecided = undecided[np.argsort(product.exact_with(centre, undecided), kind="stable")]
        taken = np.concatenate([certain, undecided[: take - len(certain)]])
        approximate[:, taken] = np.inf
        picked.append(taken)
        missing -= take
    return np.concatenate(picked)
