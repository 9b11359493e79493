"""The exact range of the cosines of all pairs, from one pass over approximate ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from biaskit.select.cpu.cosines import Floats, Indices, Product

_MANY = 2**16  # if more candidate pairs remain, all pairs are computed in blocks instead of one by one
_ALL = 512  # up to this many tokens the sample has all pairs
_STEP = 23  # every 23rd token is sampled: rows of an image are rarely a multiple of 23 tokens long


class Range(NamedTuple):
    """The result of one pass over all pairs of N tokens.

    Attributes:
        s_min, s_max: range of the exact cosines; (1, 1) if there is no pair.
        sample: approximate cosines of an even sample of pairs, as (tokens [k], others [m], their cosines [k, m]); of all pairs up to 512
            tokens. Only entries whose row's token has the higher index count, so that each pair counts once.
    """

    s_min: float
    s_max: float
    sample: list[tuple[Indices, Indices, Floats]]


def cosine_range(product: Product, *, diagonal: bool) -> Range:
    """Find the range in one pass over all pairs. `diagonal`: True if a token's cosine with itself counts."""
    total = len(product)
    if not total or (total == 1 and not diagonal):
        return Range(1.0, 1.0, [])
    ends = [_Extreme(product, sign) for sign in ((1,) if diagonal else (1, -1))]
    step = 1 if total <= _ALL else _STEP
    sample = []
    for start, block in product.panels():
        sample.append((np.arange(start, total, step), np.arange(start, start + block.shape[1]), block[::step].numpy().copy()))
        for end in ends:
            end.look(block, start)
    if diagonal:
        own = np.where(product.zeros, 0.0, 1.0)  # a token's cosine with itself
        return Range(float(min(ends[0].find(), own.min())), float(own.max()), sample)
    return Range(ends[0].find(), ends[1].find(), sample)


class _Extreme:
    """The smallest (sign 1) or largest (sign −1) exact cosine of two different tokens, from blocks of approximate ones."""

    def __init__(self, product: Product, sign: int) -> None:
        self.product, self.sign = product, sign
        self.best = np.inf
        self.pairs: list[tuple[Floats, Indices, Indices]] = []
        self.many = False

    def look(self, block: Tensor, start: int) -> None:
        """Add the candidate pairs of a block [N − start, m]. The block's diagonal is overwritten."""
        if self.many:
            return
        block.fill_diagonal_(self.sign * 4.0)
        nearest: Floats = (block.amin(1) if self.sign > 0 else block.amax(1).neg_()).numpy()
        self.best = min(self.best, float(nearest.min()))
        most = 2 * self.product.error()
        limit = np.float32(self.best + 2 * self.product.error(min(abs(self.best) + most, 1.0)))
        some = np.flatnonzero(nearest <= limit)
        value = self.sign * block.numpy()[some]
        row, column = np.nonzero(value <= limit)
        self.pairs.append((value[row, column], some[row] + start, column + start))
        self.many = len(row) > _MANY

    def find(self) -> float:
        """Return the exact extreme cosine."""
        best = np.inf
        if self.many:  # as when all tokens are alike
            for _, block in self.product.exact_panels():
                np.fill_diagonal(block, self.sign * np.inf)
                best = min(best, float((self.sign * block).min()))
            return self.sign * best
        approximate, a, b = (np.concatenate(part) for part in zip(*self.pairs, strict=True))
        least = approximate - self.product.errors(approximate)
        order = np.argsort(least, kind="stable")
        for start in range(0, len(order), 64):
            some = order[start : start + 64]
            if least[some[0]] > best:
                break
            best = min(best, float((self.sign * self.product.exact_pairs(a[some], b[some])).min()))
        return self.sign * best
