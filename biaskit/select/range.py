"""One pass over all pairs on the CPU: the exact range of their cosines, and what of the fast ones a graph's selection will ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.product import Floats, Product

Indices = NDArray[np.int64]

PANEL = 512
"""Rows of the similarity matrix held at once."""

_SAMPLED = 256  # rows from which the share of linked pairs is counted
_DOUBTFUL = 2**16  # pairs: more than this that may be the extreme are not looked at one by one


@dataclass
class Pass:
    """What one look at all pairs found out.

    Attributes:
        s_min, s_max: range of the exact cosines.
        raw: of every panel of the first tokens, its raw products with all tokens from its first one on.
        sample: fast cosines of an even sample of pairs, of all pairs up to 512 tokens.
        beside: [N, 8] fast cosines with the neighbours, or None.
    """

    s_min: float
    s_max: float
    raw: list[Tensor]
    sample: Floats
    beside: Floats | None


def look_at_all(product: Product, links: Indices | None, kept: int, *, diagonal: bool) -> Pass:
    """Pass over all pairs once.

    Args:
        links: [N, 8] the neighbours, −1 where there is none. kept: of how many tokens to keep the products.
        diagonal: whether a token's cosine with itself counts in the range.
    """
    total = len(product)
    raw: list[Tensor] = []
    beside = None if links is None else np.zeros(links.shape, np.float32)
    low, high = _Extreme(product, 1), _Extreme(product, -1)
    stride = max(1, total // _SAMPLED)
    sample = [np.empty(0, np.float32)]
    for start in range(0, total, PANEL):
        stop = min(start + PANEL, total)
        products = product.raw(start, stop, start)
        if start < kept:
            raw.append(products)
        block = product.scaled(products, slice(start, stop), slice(start, None))
        if beside is not None and links is not None:
            _read_beside(block, start, links, beside)
        sample += [block[row - start, row - start + 1 :].copy() for row in range(-(-start // stride) * stride, stop, stride)]
        low.look(block, start)
        if not diagonal:
            high.look(block, start)
    if not diagonal:
        s_min, s_max = (low.find(), high.find()) if total > 1 else (1.0, 1.0)
    else:
        own = np.where(product.zeros, 0.0, 1.0)  # a token's cosine with itself
        s_min, s_max = min(low.find(), own.min(initial=1.0)), own.max(initial=0.0) if total else 1.0
    return Pass(float(s_min), float(s_max), raw, np.concatenate(sample), beside)


def _read_beside(block: Floats, start: int, links: Indices, beside: Floats) -> None:
    """Read the cosines of neighbours off a block [m, N − start]; every pair is in the block of its first token."""
    row, column = np.nonzero(links[start : start + len(block)] >= start)
    other = links[row + start, column]
    value = block[row, other - start]
    beside[row + start, column] = value
    beside[other, 7 - column] = value


class _Extreme:
    """The smallest (sign 1) or largest (sign −1) exact cosine of two different tokens, from blocks of fast ones."""

    def __init__(self, product: Product, sign: int) -> None:
        self.product, self.sign = product, sign
        self.reach = np.float32(2 * product.error)
        self.best = np.float32(np.inf)
        self.pairs: list[tuple[Floats, Indices, Indices]] = []
        self.many = False

    def look(self, block: Floats, start: int) -> None:
        """Note the pairs of a block [m, N − start] that may be the extreme one. The block's diagonal is overwritten."""
        np.fill_diagonal(block, self.sign * 2)
        extreme = block.min() if self.sign > 0 else -block.max()
        if self.many or extreme > self.best + self.reach:
            return
        self.best = min(self.best, extreme)
        limit = self.best + self.reach
        row, column = np.nonzero(block <= limit if self.sign > 0 else block >= -limit)
        self.pairs.append((self.sign * block[row, column], row + start, column + start))
        self.many = len(row) > _DOUBTFUL

    def find(self) -> float:
        """Return the exact extreme cosine; ±inf, which no minimum or maximum keeps, if there is no pair."""
        if self.many:
            return self.sign * self._by_all()
        if not self.pairs:
            return float(self.sign * np.inf)
        fast, a, b = (np.concatenate(part) for part in zip(*self.pairs, strict=True))
        order = np.argsort(fast, kind="stable")
        best, error = np.inf, self.product.error
        for start in range(0, len(order), 64):
            some = order[start : start + 64]
            if fast[some[0]] - error > best:
                break
            best = min(best, float((self.sign * self.product.exact_pairs(a[some], b[some])).min()))
        return self.sign * best

    def _by_all(self) -> float:
        """Where too many pairs are too close to call, as when all tokens are alike: all of them exactly."""
        best = np.inf
        for start in range(0, len(self.product), PANEL):
            block = self.sign * self.product.exact_block(start, min(start + PANEL, len(self.product)))
            np.fill_diagonal(block[:, start:], np.inf)
            best = min(best, float(block.min()))
        return best
