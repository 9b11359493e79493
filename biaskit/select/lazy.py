"""The greedy selections on the CPU, lazily: bounds for all tokens from fast cosines, exact cosines only for tokens that may be next.

A token's value worth − weight · (largest cosine with a chosen one) only falls as more are chosen, so a bound from above stays one. The
token with the highest bound is made exact; if it is still the highest, no other can be better, and it is next (Minoux, 1978). The answer
is the plain loop's, ties included: exact values are compared, and the lowest index of equals wins.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.product import AHEAD, Floats, Product

Indices = NDArray[np.int64]
Halves = NDArray[np.float16]

PANEL = 512
"""Rows of the similarity matrix held at once where all pairs are looked at."""


_WHOLE = 4096  # tokens: up to here fast cosines that are computed anyway are kept (32 MiB)
_SPARE = 2**24  # numbers: so much of the rows computed ahead of their use is kept (64 MiB)


def lazy_greedy(product: Product, n: int, first: int, worth: Floats, weight: float, *, upper: Halves | None = None) -> Indices:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one): [n] in the order of choice.

    n · N half-precision numbers beside the features, and 64 MiB. `upper`: [N, N] fast cosines on and above the diagonal, if there are any.
    """
    total, share = len(product), np.float32(weight)
    low: Floats = np.full(total, -1.0, np.float32)  # bounds of the largest cosine with a chosen one
    high = low.copy()
    value, shifted = np.empty_like(low), np.empty_like(low)
    worth = worth.copy()
    order: Indices = np.empty(n, np.int64)
    known = _Known(product, n, upper)
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

    def __init__(self, product: Product, n: int, upper: Halves | None) -> None:
        total = len(product)
        self.product, self.upper = product, upper
        self.error = np.float32(product.error + (0 if upper is None else 2.0**-11))
        self._rows = np.empty((max(n - 1, 0), total), np.float16)
        self._column_error = np.float32(product.error + 2.0**-11)  # what half precision adds
        self._ahead: dict[int, Floats] = {}
        self._seen = np.zeros(total, np.int64)  # how many of the chosen the exact value of a token takes in
        self._exact: Floats = np.full(total, -1.0, np.float32)

    def add(self, count: int, token: int, value: Floats) -> Floats:
        """Return the fast cosines of `token`, the pick number `count`, with all: [N]. `value` tells which tokens may come soon."""
        if self.upper is not None:
            self._rows[count, :token], self._rows[count, token:] = self.upper[:token, token], self.upper[token, token:]
            whole: Floats = self._rows[count].astype(np.float32)
            return whole
        if token not in self._ahead:
            some = min(AHEAD, len(self.product))
            best = np.argpartition(value, len(value) - some)[-some:].tolist() if count else []
            likely = [i for i in best if i != token and i not in self._ahead and value[i] > -np.inf]
            wanted = np.array([token, *likely[: AHEAD - 1]], np.int64)
            self._ahead.update(zip(wanted.tolist(), self.product.rows(wanted), strict=True))
        row = self._ahead.pop(token)
        while len(self._ahead) * len(row) > _SPARE and len(self._ahead) >= AHEAD:
            del self._ahead[next(iter(self._ahead))]  # the oldest guess; computed again if it comes true
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
        largest: np.float32 = self._exact[token]
        return largest


def most_isolated(product: Product) -> tuple[int, Halves | None]:
    """Return argmin over i of i's largest cosine with another token, and `upper` of `lazy_greedy` if that is small.

    The tokens that may be it are made exact, the one with the lowest bound first, until that is an exact one; the lowest index of equals.
    """
    total = len(product)
    upper = np.empty((total, total), np.float16) if total <= _WHOLE else None
    bound: Floats = np.full(total, -np.inf, np.float32)
    for start in range(0, total, PANEL):
        stop = min(start + PANEL, total)
        block = product.scaled(product.raw(start, stop, start), slice(start, stop), slice(start, None))
        if upper is not None:
            upper[start : start + PANEL, start:] = block
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
    return token, upper


def least_similar(features: Tensor, centres: Tensor, mine: Indices, n: int, *, in_order: bool) -> Indices:
    """Take `mine`, then for each of `centres` [m, d] in turn its share of the tokens least similar to it: [n].

    Args:
        in_order: sort each centre's tokens by rising cosine; it takes more exact cosines.
    """
    product = Product(features, low=torch.float32)
    picked, missing = [mine], n - len(mine)
    quota = -(-missing // max(len(centres), 1))
    fast, reach = product.rows_with(centres), np.float32(2 * product.error)
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
