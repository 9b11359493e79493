"""The greedy selections on the CPU, lazily: bounds for all tokens from fast cosines, exact cosines only for tokens that may be next.

A token's value worth − weight · (largest cosine with a chosen one) only falls as more are chosen, so a bound from above stays one. The
token with the highest bound is made exact; if it is still the highest, no other can be better, and it is next (Minoux, 1978). The answer
is the plain loop's, ties included: exact values are compared, and the lowest index of equals wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from biaskit.select.product import Floats, Indices, Product

AHEAD = 96
"""Rows computed at a time."""

_FEW = 32  # rows computed at a time for the most isolated token
_WINDOW = 64  # tokens in sequence among which an isolated one's neighbours are looked for first
_SMALL = 2**22  # numbers: so many bounds are held in float32 (16 MiB), which is faster; more of them in half precision
_SPARE = 2**24  # numbers: so much of the rows computed ahead of their use is kept (64 MiB)
_PATIENCE = 8  # exact cosines a token: after so many one by one all are computed at once

_HALF = np.float32(2.0**-11)  # what a cosine loses in half precision

Rows = dict[int, tuple[Floats, float]]
"""Fast cosines with all tokens, [N], and what they were computed about, by token."""


def lazy_greedy(product: Product, n: int, first: int, worth: Floats, weight: float, *, ahead: Rows | None = None) -> Indices:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one): [n] in the order of choice.

    n · N half-precision numbers beside the features, and 64 MiB. `ahead`: rows of tokens that are known already; it is used up.
    """
    total, share = len(product), np.float32(weight)
    low: Floats = np.full(total, -1.0, np.float32)  # bounds of the largest cosine with a chosen one
    high = low.copy()
    value, shifted = np.empty_like(low), np.empty_like(low)
    worth = worth.copy()
    order: Indices = np.empty(n, np.int64)
    known = _Known(product, n, {} if ahead is None else ahead)
    pick = first
    for count in range(n):
        order[count] = pick
        worth[pick] = -np.inf
        if count == n - 1:
            break
        row, error = known.add(count, pick, value, low)
        np.maximum(low, np.subtract(row, error, out=shifted), out=low)
        np.maximum(high, np.add(row, error, out=shifted), out=high)
        np.subtract(worth, np.multiply(low, share, out=value), out=value)
        pick = int(value.argmax())
        while high[pick] > low[pick]:
            low[pick] = high[pick] = known.largest(pick, order[: count + 1], low[pick])
            value[pick] = worth[pick] - share * low[pick]
            pick = int(value.argmax())
    return order


class _Known:
    """Fast cosines with the chosen tokens, some rows ahead of their use, and the exact largest one of a token on demand."""

    def __init__(self, product: Product, n: int, ahead: Rows) -> None:
        total = len(product)
        self.product = product
        few = n * total < _SMALL
        self._high = np.empty((max(n - 1, 0), total), np.float32 if few else np.float16)  # bounds from above
        self._lost = np.float32(0 if few else _HALF)
        self._ahead = ahead
        self._seen = np.zeros(total, np.int64)  # how many of the chosen the exact value of a token takes in
        self._exact: Floats = np.full(total, -1.0, np.float32)

    def add(self, count: int, token: int, value: Floats, low: Floats) -> tuple[Floats, Floats | np.float32]:
        """Return the fast cosines of `token`, the pick number `count`, with all, and their errors: two of [N].

        `value` tells which tokens may come soon; `low` how near they are to the chosen ones, which is where cosines must be told apart.
        """
        if token not in self._ahead:
            some = min(AHEAD, len(self.product))
            best = np.argpartition(value, len(value) - some)[-some:] if count else np.empty(0, np.int64)
            likely = [i for i in best.tolist() if i != token and i not in self._ahead and value[i] > -np.inf]
            about = float(np.median(low[best])) if count else 0.0
            self._ahead.update(rows(self.product, [token, *likely[: AHEAD - 1]], about))
        row, centre = self._ahead.pop(token)
        error = self.product.errors(row, about=centre)
        while len(self._ahead) * len(row) > _SPARE and len(self._ahead) >= AHEAD:
            del self._ahead[next(iter(self._ahead))]  # the oldest guess; computed again if it comes true
        np.add(row, error, out=self._high[count], casting="same_kind")
        return row, error

    def largest(self, token: int, chosen: Indices, at_least: np.float32) -> np.float32:
        """Return the exact largest cosine of `token` with the chosen ones, which is known to be `at_least` a number."""
        seen = self._seen[token]
        high = self._high[seen : len(chosen), token].astype(np.float32) + self._lost
        candidates = chosen[seen:][(high >= at_least) & (high > self._exact[token])]
        if len(candidates):
            self._exact[token] = max(self._exact[token], self.product.exact(token, candidates).max())
        self._seen[token] = len(chosen)
        largest: np.float32 = self._exact[token]
        return largest


def rows(product: Product, tokens: Sequence[int], about: float) -> Rows:
    """Return fast cosines of some tokens with all, computed about `about`. Copies: views of a block would hold all of it."""
    return {token: (row.copy(), about) for token, row in zip(tokens, product.rows(np.array(tokens, np.int64), about=about), strict=True)}


def most_isolated(product: Product) -> tuple[int, Rows]:
    """Return argmin over i of i's largest cosine with another token, the lowest index of equals, and the rows computed on the way.

    Most tokens have a near neighbour close by in the sequence, which says that they are not it. Of those that may be, all cosines are
    looked at, the lowest bound first, until the lowest bound is an exact value.
    """
    total = len(product)
    if total == 1:
        return 0, {}
    bound: Floats = np.full(total, -np.inf, np.float32)
    for start, block in product.windows(_WINDOW):
        np.fill_diagonal(block, -2)
        largest = block.max(1)
        bound[start : start + len(block)] = largest - product.errors(largest)
    exact = np.zeros(total, bool)
    found: Rows = {}
    asked = 0
    token = int(bound.argmin())
    while not exact[token]:
        if asked > _PATIENCE * total:  # as when all tokens are alike
            bound[:] = _nearest(product)
            exact[:] = True
        elif token not in found:
            while len(found) * total > _SPARE:
                del found[next(iter(found))]  # the oldest; computed again if it is asked for
            new = [i for i in np.argsort(bound, kind="stable").tolist() if i not in found][:_FEW]
            fresh = rows(product, new, about=max(float(bound[new].max()), 0.0))
            for i, (row, about) in fresh.items():
                least = row - product.errors(row, about=about)
                least[i] = -2
                np.maximum(bound, least, out=bound)
                bound[i] = max(bound[i], least.max())
            found |= fresh
        else:
            row, about = found[token]
            near = np.flatnonzero(row + product.errors(row, about=about) >= bound[token])
            near = near[near != token]
            bound[token] = product.exact(token, near).max() if len(near) else -1.0
            exact[token] = True
            asked += len(near)
        token = int(bound.argmin())
    return token, found


def _nearest(product: Product) -> Floats:
    """Return every token's largest exact cosine with another one: [N]."""
    largest: Floats = np.full(len(product), -1.0, np.float32)
    for start, block in product.exact_panels():
        np.fill_diagonal(block, -2)
        rows, columns = largest[start : start + len(block)], largest[start:]
        np.maximum(columns, block.max(0), out=columns)
        np.maximum(rows, block.max(1), out=rows)
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
