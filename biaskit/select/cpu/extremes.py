"""The exact range of the cosines of all pairs, from one pass over fast ones on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from biaskit.select.cpu.cosines import Floats, Indices, Product

_DOUBTFUL = 2**16  # pairs: more than this that may be the extreme are not looked at one by one
_COUNTED = 512  # tokens: up to here the sample of pairs is all of them
_STEP = 23  # of so many tokens one is sampled; no row of an image is as long as that or a multiple of it, as a rule


@dataclass(frozen=True)
class Seen:
    """What one look at all pairs of N tokens found.

    Attributes:
        s_min, s_max: range of the exact cosines; (1, 1) where there is no pair.
        sample: fast cosines of an even sample of pairs, as (tokens [k], others [m], their cosines [k, m]); of all pairs up to 512 tokens.
            Each pair stands in it once, with the token of higher index in the rows; where it is not higher the entry is to be left out.
        nearest: [N] each token's largest fast cosine with one of those that were to be watched, itself included; −2 if there are none.
    """

    s_min: float
    s_max: float
    sample: tuple[tuple[Indices, Indices, Floats], ...]
    nearest: Floats


def look_at_all(product: Product, watched: Indices, *, diagonal: bool) -> Seen:
    """Look at all pairs once. `watched`: [m] tokens. `diagonal`: whether a token's cosine with itself counts in the range."""
    total = len(product)
    ends = [_Extreme(product, sign) for sign in ((1,) if diagonal else (1, -1))]
    step = 1 if total <= _COUNTED else _STEP
    sample = []
    nearest: Floats = np.full(total, -2.0, np.float32)
    for start, block, scale in product.panels():
        cosine, stop = block.numpy(), start + block.shape[1]
        sample.append((np.arange(start, total, step), np.arange(start, stop), cosine[::step] * scale[::step, None]))
        if len(here := watched[(watched >= start) & (watched < stop)] - start):
            np.maximum(nearest[start:], torch.from_numpy(cosine[:, here]).amax(1).numpy() * scale, out=nearest[start:])
        if len(later := watched[watched >= stop] - start):
            np.maximum(nearest[start:stop], (cosine[later] * scale[later, None]).max(0), out=nearest[start:stop])
        for end in ends:
            end.look(block, scale, start)
    if not total or (total == 1 and not diagonal):
        return Seen(1.0, 1.0, (), nearest)
    if diagonal:
        own = np.where(product.zeros, 0.0, 1.0)  # a token's cosine with itself
        return Seen(float(min(ends[0].find(), own.min())), float(own.max()), tuple(sample), nearest)
    return Seen(ends[0].find(), ends[1].find(), tuple(sample), nearest)


class _Extreme:
    """The smallest (sign 1) or largest (sign −1) exact cosine of two different tokens, from blocks of fast ones."""

    def __init__(self, product: Product, sign: int) -> None:
        self.product, self.sign = product, sign
        self.best = np.float32(np.inf)
        self.pairs: list[tuple[Floats, Indices, Indices]] = []
        self.many = False

    def look(self, block: Tensor, scale: Floats, start: int) -> None:
        """Note the pairs of a block [N − start, m] that may be the extreme one. The block's diagonal is overwritten."""
        if self.many:
            return
        block.fill_diagonal_(self.sign * 1e20)  # times 1 / lengths, which are 1e-15 … 1e15, still far from any cosine
        nearest = (block.amin(1) if self.sign > 0 else block.amax(1).neg_()).numpy() * scale
        self.best = min(self.best, nearest.min())
        most = 2 * self.product.error()
        limit = self.best + np.float32(2 * self.product.error(min(abs(float(self.best)) + most, 1.0)))
        some = np.flatnonzero(nearest <= limit)
        value = self.sign * block.numpy()[some] * scale[some, None]
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
