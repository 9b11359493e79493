"""The greedy selections on the CPU, lazily: bounds for all tokens from fast cosines, exact cosines only where bounds do not decide.

A token's value worth − weight · (largest cosine with a chosen one) only falls as more are chosen, so a bound from above stays one (Minoux,
1978). The loop therefore runs among the tokens with the highest bounds, on their cosines with one another, as long as its best is above all
bounds outside; then the cosines of all tokens with those it chose are computed together. Where the bounds of the best and the next best
overlap, the best is made exact; where that happens too often, as when all tokens are alike, all further cosines are exact ones, computed in
blocks. The answer is the plain loop's, ties included: the lowest index of equals wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from biaskit.select.cpu.cosines import Floats, Indices, Product
from biaskit.select.cpu.farthest import Bounds

AMONG = 256
"""Tokens the loop runs among."""

_TOGETHER = 64  # chosen tokens whose cosines with all are computed at once
_SMALL = 2**22  # numbers: so many bounds are held in float32 (16 MiB), which is faster; more of them in half precision
_HALF = np.float32(2.0**-11)  # what a cosine loses in half precision
_DEAR = 128  # an exact cosine asked for by itself costs as much as so many computed in blocks


def lazy_greedy(product: Product, n: int, first: int, worth: Floats, weight: float, *, known: Bounds | None = None) -> Indices:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one): [n] in the order of choice.

    It holds n · N half-precision numbers beside the features. `known`: bounds that are there already.
    """
    greedy = _Greedy(product, n, worth, weight, known or {})
    greedy.choose(first)
    while greedy.count < n:
        greedy.look_around()
        greedy.choose_among(_best(greedy.worth - greedy.weight * greedy.low, AMONG))
    return greedy.order


class _Best(NamedTuple):
    """The tokens of highest value, by index, their values, the highest value outside and the first token with that."""

    tokens: Indices
    value: Floats
    outside: np.float32
    first: int


def _best(value: Floats, size: int) -> _Best:
    """Find the `size` highest of values [N], of equals the lowest indices, without those of −∞."""
    last = np.partition(value, -size)[-size] if size < len(value) else np.float32(-np.inf)
    tokens, ties = np.flatnonzero(value > last), np.flatnonzero(value == last)
    outside, first = last, len(value)
    if last > -np.inf:
        room = size - len(tokens)
        tokens = np.sort(np.concatenate([tokens, ties[:room]]))
        if len(ties) > room:
            first = int(ties[room])
        else:
            below = np.where(value < last, value, np.float32(-np.inf))
            first = int(below.argmax())
            outside = below[first]
    return _Best(tokens, value[tokens], outside, first)


class _Greedy:
    """The loop, and what it knows of N tokens.

    Attributes:
        order: [n] the tokens in the order of choice, `count` of them so far.
        worth: [N], −∞ for the chosen. low: [N] bound of the largest cosine with a chosen token from below.
    """

    def __init__(self, product: Product, n: int, worth: Floats, weight: float, known: Bounds) -> None:
        total = len(product)
        self.product, self.worth, self.weight, self.known = product, worth.copy(), np.float32(weight), known
        self.order: Indices = np.empty(n, np.int64)
        self.count = self.noted = 0  # how many are chosen, and of how many the cosines with all tokens are known
        self.low: Floats = np.full(total, -1.0, np.float32)
        self.high = self.low.copy()
        self.about = 0.0  # where cosines have to be told apart
        few = n * total < _SMALL
        self._highs = np.empty((n, total), np.float32 if few else np.float16)  # bounds of the cosines with every chosen token
        self._lost = np.float32(0 if few else _HALF)
        self._seen = np.zeros(total, np.int64)  # how many of the chosen the exact value of a token takes in
        self._exact = self.low.copy()
        self._asked = 0  # exact cosines so far; −1: by now all are

    def choose(self, token: int) -> None:
        """Take a token."""
        self.order[self.count] = token
        self.count += 1
        self.worth[token] = -np.inf

    def look_around(self) -> None:
        """Bring the bounds of all tokens up to date with what was chosen."""
        if self._asked * _DEAR > self._highs.size:
            self._asked, self.noted, self.known = -1, 0, {}
            self.low[:] = self.high[:] = -1
        new = np.arange(self.noted, self.count)
        there = np.array([token in self.known for token in self.order[new].tolist()], bool)
        for position in new[there].tolist():
            below, above = self.known[int(self.order[position])]
            self._note(slice(position, position + 1), below[None], above[None])
        fresh = new[~there]
        for start in range(0, len(fresh), _TOGETHER):
            some = fresh[start : start + _TOGETHER]
            self._note(some, *self._bounds(self.order[some]))
        self.noted = self.count

    def _bounds(self, index: Indices, tokens: Indices | None = None) -> tuple[Floats, Floats]:
        """Return `product.bounds`, or the exact cosines twice."""
        if self._asked >= 0:
            return self.product.bounds(index, tokens, about=self.about)
        exact = self.product.exact_table(index, np.arange(len(self.product)) if tokens is None else tokens)
        return exact, exact

    def _note(self, positions: Indices | slice, below: Floats, above: Floats) -> None:
        """Take in bounds [m, N] of the cosines with the tokens chosen at these positions."""
        self._highs[positions] = above
        np.maximum(self.low, below.max(0), out=self.low)
        np.maximum(self.high, above.max(0), out=self.high)

    def choose_among(self, best: _Best) -> None:
        """Take the best of some tokens, one after another, until a token outside may be better."""
        tokens, value, outside, first = best
        low, high, worth = self.low[tokens], self.high[tokens], self.worth[tokens]
        self.about = float(np.partition(low, len(low) // 2)[len(low) // 2])
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

    def _largest(self, token: int, at_least: np.float32, recent: Floats) -> np.float32:
        """Return the exact largest cosine of `token` with the chosen ones, which is known to be `at_least` a number.

        `recent`: bounds from above of its cosines with those chosen since the last look around.
        """
        seen = self._seen[token]
        high = self._highs[seen : self.noted, token].astype(np.float32) + self._lost
        high = np.concatenate([high, recent[max(seen - self.noted, 0) :]])
        candidates = self.order[seen : self.count][(high >= at_least) & (high > self._exact[token])]
        if len(candidates):
            self._asked += len(candidates)
            self._exact[token] = max(self._exact[token], self.product.exact(token, candidates).max())
        self._seen[token] = self.count
        largest: np.float32 = self._exact[token]
        return largest


def least_similar(features: Tensor, centres: Tensor, mine: Indices, n: int, *, in_order: bool) -> Indices:
    """Take `mine`, then for each of `centres` [m, d] in turn its share of the tokens least similar to it: [n].

    Args:
        in_order: sort each centre's tokens by rising cosine; it takes more exact cosines.
    """
    product = Product(features, low=torch.bfloat16 if features.dtype == torch.bfloat16 else torch.float32)  # nothing to convert
    picked, missing = [mine], n - len(mine)
    quota = -(-missing // max(len(centres), 1))
    fast, error = product.rows_with(centres)
    reach = np.float32(2 * error)
    fast[:, mine] = np.inf
    for centre, row in zip(centres, fast, strict=True):
        take = min(quota, missing)
        if not take:
            break
        last = np.partition(row, take - 1)[take - 1]
        sure = np.flatnonzero(row < last - reach) if not in_order else np.empty(0, np.int64)
        doubt = np.flatnonzero((row <= last + reach) & (row >= last - reach)) if not in_order else np.flatnonzero(row <= last + reach)
        doubt = doubt[np.argsort(product.exact_with(centre, doubt), kind="stable")]
        taken = np.concatenate([sure, doubt[: take - len(sure)]])
        fast[:, taken] = np.inf
        picked.append(taken)
        missing -= take
    return np.concatenate(picked)
