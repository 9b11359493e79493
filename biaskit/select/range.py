"""The exact range of the cosines of all pairs, from one pass over fast ones on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biaskit.select.product import Floats, Indices, Product

_DOUBTFUL = 2**16  # pairs: more than this that may be the extreme are not looked at one by one
_COUNTED = 512  # tokens: up to here the sample of pairs is all of them
_STEP = 23  # of so many tokens one is sampled; no row of an image is as long as that or a multiple of it, as a rule


@dataclass(frozen=True)
class Seen:
    """What one look at all pairs of N tokens found.

    Attributes:
        s_min, s_max: range of the exact cosines; (1, 1) where there is no pair.
        sample: fast cosines of an even sample of pairs, as (tokens [m], start, cosines of tokens start … N − 1 with them: [N − start, m]);
            of all pairs up to 512 tokens. Each pair stands in it once, with the token of lower index in the columns; what is on and above
            the diagonal of tokens is to be left out.
    """

    s_min: float
    s_max: float
    sample: tuple[tuple[Indices, int, Floats], ...]


def look_at_all(product: Product, *, diagonal: bool) -> Seen:
    """Look at all pairs once. `diagonal`: whether a token's cosine with itself counts in the range."""
    total = len(product)
    ends = [_Extreme(product, sign) for sign in ((1,) if diagonal else (1, -1))]
    step = 1 if total <= _COUNTED else _STEP
    sample = []
    for start, block, scale in product.panels():
        sample.append((np.arange(start, start + block.shape[1], step), start, block[:, ::step] * scale[:, None]))
        for end in ends:
            end.look(block, scale, start)
    if not total or (total == 1 and not diagonal):
        return Seen(1.0, 1.0, ())
    if diagonal:
        own = np.where(product.zeros, 0.0, 1.0)  # a token's cosine with itself
        return Seen(float(min(ends[0].find(), own.min())), float(own.max()), tuple(sample))
    return Seen(ends[0].find(), ends[1].find(), tuple(sample))


class _Extreme:
    """The smallest (sign 1) or largest (sign −1) exact cosine of two different tokens, from blocks of fast ones."""

    def __init__(self, product: Product, sign: int) -> None:
        self.product, self.sign = product, sign
        self.best = np.float32(np.inf)
        self.pairs: list[tuple[Floats, Indices, Indices]] = []
        self.many = False

    def look(self, block: Floats, scale: Floats, start: int) -> None:
        """Note the pairs of a block [N − start, m] that may be the extreme one. The block's diagonal is overwritten."""
        if self.many:
            return
        np.fill_diagonal(block, self.sign * 1e20)  # times 1 / lengths, which are 1e-15 … 1e15, still far from any cosine
        nearest = (block.min(1) if self.sign > 0 else -block.max(1)) * scale
        self.best = min(self.best, nearest.min())
        most = 2 * self.product.error()
        limit = self.best + np.float32(2 * self.product.error(min(abs(float(self.best)) + most, 1.0)))
        some = np.flatnonzero(nearest <= limit)
        value = self.sign * block[some] * scale[some, None]
        row, column = np.nonzero(value <= limit)
        self.pairs.append((value[row, column], some[row] + start, column + start))
        self.many = len(row) > _DOUBTFUL

    def find(self) -> float:
        """Return the exact extreme cosine."""
        if self.many:
            return self.sign * self._by_all()
        fast, a, b = (np.concatenate(part) for part in zip(*self.pairs, strict=True))
        least = fast - self.product.errors(fast)
        order = np.argsort(least, kind="stable")
        best = np.inf
        for start in range(0, len(order), 64):
            some = order[start : start + 64]
            if least[some[0]] > best:
                break
            best = min(best, float((self.sign * self.product.exact_pairs(a[some], b[some])).min()))
        return self.sign * best

    def _by_all(self) -> float:
        """Where too many pairs are too close to call, as when all tokens are alike: all of them exactly."""
        best = np.inf
        for _, block in self.product.exact_panels():
            np.fill_diagonal(block, self.sign * np.inf)
            best = min(best, float((self.sign * block).min()))
        return best
