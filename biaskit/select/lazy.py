"""The greedy selections on the CPU, lazily: bounds for all tokens from fast cosines, exact cosines only for tokens that may be next.

A token's value worth − weight · (largest cosine with a chosen one) only falls as more are chosen, so a bound from above stays one. The
token with the highest bound is made exact; if it is still the highest, no other can be better, and it is next (Minoux, 1978). The answer
is the plain loop's, ties included: exact values are compared, and the lowest index of equals wins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from biaskit.select.product import Floats, Product

Indices = NDArray[np.int64]

AHEAD = 32
"""Rows computed at a time: the next pick's, and those of the tokens that look best after it."""

PANEL = 512
"""Rows of the similarity matrix held at once where all pairs are looked at."""


def lazy_greedy(product: Product, n: int, first: int, worth: Floats, weight: float) -> Indices:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one): [n] in the order of choice.

    n · N half-precision numbers beside the features.
    """
    total, share = len(product), np.float32(weight)
    low: Floats = np.full(total, -1.0, np.float32)  # bounds of the largest cosine with a chosen one
    high = low.copy()
    value, shifted = np.empty_like(low), np.empty_like(low)
    worth = worth.copy()
    order: Indices = np.empty(n, np.int64)
    known = _Known(product, n)
    pick = first
    for count in range(n):
        order[count] = pick
        worth[pick] = -np.inf
        if count == n - 1:
            break
        row = known.add(count, pick, value)
        np.maximum(low, np.subtract(row, known.error, out=shifted), out=low)
        np.maximum(high, np.add(row, known.error, out=shifted), out=high)
        np.subtract(worth, np.multiply(low, share, out=value), out=value)
        pick = int(value.argmax())
        while high[pick] > low[pick]:
            low[pick] = high[pick] = known.largest(pick, order[: count + 1], low[pick])
            value[pick] = worth[pick] - share * low[pick]
            pick = int(value.argmax())
    return order


class _Known:
    """Fast cosines with the chosen tokens, some rows ahead of their use, and the exact largest one of a token on demand."""

    def __init__(self, product: Product, n: int) -> None:
        total = len(product)
        self.product, self.error = product, np.float32(product.error)
        self._rows = np.empty((max(n - 1, 0), total), np.float16)
        self._column_error = np.float32(product.error + 2.0**-11)  # what half precision adds
        self._ahead: dict[int, Floats] = {}
        self._seen = np.zeros(total, np.int64)  # how many of the chosen the exact value of a token takes in
        self._exact: Floats = np.full(total, -1.0, np.float32)

    def add(self, count: int, token: int, value: Floats) -> Floats:
        """Return the fast cosines of `token`, the pick number `count`, with all: [N]. `value` tells which tokens may come soon."""
        if token not in self._ahead:
            some = min(AHEAD, len(self.product))
            likely = np.argpartition(value, len(value) - some)[-some:] if count else np.empty(0, np.int64)
            likely = np.array([i for i in likely.tolist() if i != token and i not in self._ahead and value[i] > -np.inf], np.int64)
            wanted = np.concatenate([np.array([token], np.int64), likely[: AHEAD - 1]])
            self._ahead.update(zip(wanted.tolist(), self.product.rows(wanted), strict=True))
        row = self._ahead.pop(token)
        self._rows[count] = row
        return row

    def largest(self, token: int, chosen: Indices, at_least: np.float32) -> np.float32:
        """Return the exact largest cosine of `token` with the chosen ones, which is known to be `at_least` a number."""
        seen = self._seen[token]
        near = self._rows[seen : len(chosen), token].astype(np.float32) + self._column_error
        candidates = chosen[seen:][(near >= at_least) & (near > self._exact[token])]
        if len(candidates):
            self._exact[token] = max(self._exact[token], self.product.exact(token, candidates).max())
        self._seen[token] = len(chosen)
        return self._exact[token]


def most_isolated(product: Product) -> int:
    """Return the token whose nearest neighbour is farthest: argmin over i of the largest cosine with another. A tie goes to the lower index."""
    total = len(product)
    bound: Floats = np.full(total, -np.inf, np.float32)
    for start in range(0, total, PANEL):
        block = product.block(start, min(start + PANEL, total), start)
        np.fill_diagonal(block, -np.inf)
        bound[start : start + PANEL] = np.maximum(bound[start : start + PANEL], block.max(1))
        bound[start:] = np.maximum(bound[start:], block.max(0))
    bound -= np.float32(product.error)
    exact = np.zeros(total, bool)
    rows: dict[int, Floats] = {}
    token = int(bound.argmin())
    while not exact[token]:
        if token not in rows:
            some = np.argsort(bound + np.where(exact, np.float32(np.inf), np.float32(0)), kind="stable")[:AHEAD]
            rows = dict(zip(some.tolist(), product.rows(some), strict=True))
        row = rows[token]
        row[token] = -np.inf
        candidates = np.flatnonzero(row + np.float32(product.error) >= bound[token])
        near = candidates[candidates != token]
        bound[token] = product.exact(token, near).max() if len(near) else -1.0
        exact[token] = True
        token = int(bound.argmin())
    return token
