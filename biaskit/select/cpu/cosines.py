"""Cosines on the CPU as the greedy selections want them: many at once, fast and within a known error; and a few at a time, exactly.

A processor with matrix units multiplies bfloat16 six times faster than float32, but rounds what comes out to bfloat16: off by up to one
part in 256. Where decisions hang on cosines near some μ, μ times the lengths is subtracted before that rounding: then they are off by one
part in 256 of their distance to μ. The bound on what is left is proven from the rows at hand and not guessed; wherever a decision hangs on
less than that, the few cosines it hangs on are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.cosine import STEPS, cosines, cpu_multiplies_float32, unit_rows
from biaskit.select.cpu.rows import chunk, prepared

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

PANEL = 192
"""Columns of the similarity matrix held at once where all pairs are looked at; twice as many of short rows."""

_MULTIPLE = 32  # products are this many columns wide or a multiple of it: others are slower, and each new shape costs a kernel
_ROOM = 2.0**18  # elements: below this the fast product gains nothing
_WIDE = 384  # channels: below this it gains nothing for the greedy selections, which ask for more exact cosines
_NARROW = 512  # channels: below this few rows are multiplied with all, and not all with few
_LONG = 2048  # channels: rows above this are long
_CLEAR = 8  # the cosines' standard deviation, in errors of the fast product: below this it leaves too much in doubt
_HELD = 512  # rows held in float64 (16 MiB at 4,096 channels)


@cache
def _has_matrix_units() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16", False))


@cache
def _subtracts_before_rounding() -> bool:
    """Whether `addmm` of bfloat16 adds in float32 and rounds the sum, and not the product as well."""
    ones = torch.ones(64, 1024, dtype=torch.bfloat16, device="cpu")
    ones[:, 0] = 2  # products of 1,027, which bfloat16 does not have
    added = _multiply(ones, ones, torch.full((64, 64), -1024, dtype=torch.bfloat16, device="cpu"))
    return bool((added == 3).all())


def greedy_dtype(features: Tensor) -> torch.dtype:
    """Which fast product makes the greedy selections on [N, d] cheapest: bfloat16 only where its error is small among the cosines."""
    total, d = features.shape
    if not _has_matrix_units() or features.numel() < _ROOM or d < _WIDE or total < 2:
        return torch.float32
    similar = cosines(some := unit_rows(features[:: -(-total // 64)]), some)
    spread = float(similar[torch.ones_like(similar, dtype=torch.bool).triu(1)].std(correction=0))
    exact = features.dtype == torch.bfloat16 and _subtracts_before_rounding()
    return torch.bfloat16 if spread > _CLEAR * (_summed(d) if exact else 2.0**-8) else torch.float32


def _summed(d: int, lengths: float | None = None) -> float:
    """What float32 sums of d products are off by, in any order; two lengths, as long sums if not known better; and what is subtracted."""
    return 1.1 * d * 2.0**-24 + (1.1 * (d + 8) * 2.0**-24 if lengths is None else lengths) + 2.0**-16


class Product:
    """Cosines of the rows of features [N, d], float32 or half precision, on the CPU.

    Attributes:
        zeros: [N] which rows are all zero; their cosines are 0.
    """

    def __init__(self, features: Tensor, *, low: torch.dtype | None = None) -> None:
        """Prepare the rows. `low` is the fast product's dtype if not the size chooses it.

        Raises:
            BiaskitError: values that are not finite.
        """
        n, d = features.shape
        if low is None:
            low = torch.bfloat16 if _has_matrix_units() and features.numel() >= _ROOM else torch.float32
        rows = prepared(features, low)
        self._rows, self._low, off = rows.rows, rows.low, rows.lost
        self._length = rows.length
        self._inverse = torch.where(rows.length > 0, 1 / rows.length, 0.0)
        self.zeros = (self._inverse == 0).numpy()
        self._exact_length = np.full(n, -1.0)  # in float64, each computed when it is asked for
        self._held: dict[int, tuple[NDArray[np.float64], float]] = {}
        if low == torch.float32 and not cpu_multiplies_float32():
            off = 2.0**-8  # torch was told to round the rows to bfloat16 on the way
        self._shifts = low == torch.bfloat16 and _subtracts_before_rounding()
        self._units = 1.02 * 2.0**-8 * (1 + off) ** 2 if low == torch.bfloat16 else 0.0
        self._least = 2 * off + off**2 + _summed(d, 2 * rows.off) + 1 / STEPS

    def __len__(self) -> int:
        """Return N."""
        return len(self._rows)

    def error(self, far: float = 1.0, *, about: float = 0.0) -> float:
        """Bound on |fast cosine − exact cosine| where the fast one, computed about `about`, is no farther than `far` from it."""
        return self._least + self._units * (far if self._shifts or not about else 1.0)

    def errors(self, fast: Floats, *, about: float = 0.0) -> Floats | np.float32:
        """Bound on |fast cosine − exact cosine| of every one of those computed about `about`; one number if it is the same for all."""
        if not self._units:
            return np.float32(self._least)
        found: Floats = np.abs(fast - np.float32(about if self._shifts else 0.0))
        found *= np.float32(self._units)
        found += np.float32(self._least)
        return found

    def columns(self, index: Indices, tokens: Indices | None = None, *, about: float = 0.0) -> Floats:
        """Return fast cosines of `tokens` [k], all of them by default, with the m tokens at `index`: [k, m]."""
        right, low, scale = self._picked(index)
        if tokens is None:
            left = self._low, self._length, self._inverse
        else:
            left = (right[: len(index)], low[: len(index)], scale[: len(index)]) if tokens is index else self._picked(tokens, pad=False)
        less = self._less(left[1], low, about)
        products = _multiply(left[0], right, less).to(torch.float32)
        products = products if less is None else products.sub_(less)
        block: Floats = products.mul_(scale).mul_(left[2][:, None]).numpy()
        return block[:, : len(index)]

    def rows(self, index: Indices, *, about: float = 0.0) -> Floats:
        """Return fast cosines of the m tokens at `index` with all: [m, N]."""
        right, low, scale = self._picked(index)
        less = self._less(self._length, low, about)
        if self._low.shape[1] < _NARROW:
            products = _multiply(right, self._low, None if less is None else less.T).to(torch.float32)
        else:
            products = _multiply(self._low, right, less).T.contiguous().to(torch.float32)  # this way round is faster
        products = products if less is None else products.sub_(less.T.contiguous())
        block: Floats = products.mul_(self._inverse).mul_(scale[:, None]).numpy()
        return block[: len(index)]

    def bounds(self, index: Indices, tokens: Indices | None = None, *, about: float) -> tuple[Floats, Floats]:
        """Return bounds from below and above of the cosines of the m tokens at `index` with `tokens` [k], all by default: two of [m, k]."""
        fast = self.rows(index, about=about) if tokens is None else self.columns(tokens, index, about=about)
        error = self.errors(fast, about=about)
        return fast - error, fast + error

    def panels(self) -> Iterator[tuple[int, Tensor, Floats]]:
        """Yield all pairs once, as (s, block, scale): block · scale[:, None] are fast cosines of tokens s … N − 1 with s … s + m − 1.

        A block is overwritten by the next one.
        """
        width = PANEL if self._low.shape[1] > _LONG else 2 * PANEL
        room = torch.empty(len(self), width, dtype=torch.float32, device="cpu")  # for all of them: new memory is slow
        for start in range(0, len(self), width):
            products = _multiply(self._low[start:], self._low[start : start + width])
            block = room.flatten()[: products.numel()].view(products.shape).copy_(products)
            yield start, block.mul_(self._inverse[start : start + width]), self._inverse[start:].numpy()

    def windows(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (s, fast cosines among the tokens of windows that follow one another from s: [w, m, m]); m is `size`, less in the last."""
        whole = len(self) // size * size
        for start, stop, width in ((0, whole, size), (whole, len(self), len(self) - whole)):
            if start < stop:
                low, scale = self._low[start:stop].unflatten(0, (-1, width)), self._inverse[start:stop].unflatten(0, (-1, width))
                yield start, _multiply(low, low).float().mul_(scale[:, None]).mul_(scale[:, :, None])

    def rows_with(self, vectors: Tensor) -> tuple[Floats, float]:
        """Return cosines of m other float32 vectors [m, d] with all, [m, N], and a bound on their errors, which is that of float32 sums."""
        unit = unit_rows(vectors).to(torch.float32 if cpu_multiplies_float32() else torch.float64)
        found = np.empty((len(unit), len(self)), np.float32)
        size = chunk(unit.shape[1])
        for start in range(0, len(self), size):  # a few rows at a time, for they may have to be widened
            found[:, start : start + size] = _multiply(unit, self._rows[start : start + size].to(unit.dtype)).numpy()
        found *= self._inverse.numpy()
        return found, _summed(unit.shape[1]) + 1 / STEPS

    def _picked(self, index: Indices, *, pad: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Rows for the fast product [m, d], their lengths and 1 / lengths [m]; m filled up to a good width of a product."""
        if pad:
            index = np.concatenate([index, np.repeat(index[-1:], -len(index) % _MULTIPLE)])
        where = torch.from_numpy(index)
        return self._low.index_select(0, where), self._length[where], self._inverse[where]

    def _less(self, one: Tensor, other: Tensor, about: float) -> Tensor | None:
        """What to subtract from products before they are rounded: `about` times their lengths [k] and [m]: [k, m]."""
        return torch.outer(one, other * -about).to(torch.bfloat16) if about and self._shifts else None

    def exact_with(self, vector: Tensor, others: Indices) -> Floats:
        """Return exact cosines of another vector [d] with m tokens, rounded to 2⁻¹⁸: [m]."""
        wide = vector.double().numpy()
        return self._rounded(self._wide(others) @ wide, np.sqrt(wide @ wide) * self._lengths(others))

    def exact(self, token: int, others: Indices) -> Floats:
        """Return exact cosines of one token with m others, rounded to 2⁻¹⁸: [m]. Rows are held for the next time."""
        mine, length = self._hold(token)
        held = [self._hold(other) for other in others.tolist()]
        cosine = [float(mine @ row) / (length * own) if length * own > 0 else 0.0 for row, own in held]
        return (np.rint(np.array(cosine) * STEPS) / STEPS).astype(np.float32)

    def exact_pairs(self, a: Indices, b: Indices) -> Floats:
        """Return exact cosines of m pairs, rounded to 2⁻¹⁸: [m]."""
        found = np.empty(len(a), np.float32)
        size = chunk(self._rows.shape[1])
        for start in range(0, len(a), size):
            i, j = a[start : start + size], b[start : start + size]
            one, other = self._wide(i), self._wide(j)
            dots, *squares = (np.einsum("md,md->m", x, y) for x, y in ((one, other), (one, one), (other, other)))
            found[start : start + size] = self._rounded(dots, np.sqrt(squares[0]) * np.sqrt(squares[1]))
        return found

    def exact_table(self, tokens: Indices, others: Indices) -> Floats:
        """Return exact cosines of k tokens with m others, rounded to 2⁻¹⁸: [k, m]. Cheaper than pair by pair where most are asked for."""
        mine, lengths = self._wide(tokens), self._lengths(tokens)[:, None]
        found = np.empty((len(tokens), len(others)), np.float32)
        for start in range(0, len(others), PANEL):
            some = others[start : start + PANEL]
            found[:, start : start + PANEL] = self._rounded(mine @ self._wide(some).T, lengths * self._lengths(some))
        return found

    def exact_panels(self) -> Iterator[tuple[int, Floats]]:
        """Yield all pairs once, as (s, exact cosines of tokens s … s + m − 1 with s … N − 1: [m, N − s]). In float64, so slow."""
        for start in range(0, len(self), PANEL):
            later = np.arange(start, len(self))
            yield start, self.exact_table(later[:PANEL], later)

    def _rounded(self, dots: NDArray[np.float64], length: NDArray[np.float64]) -> Floats:
        cosine = np.divide(dots, length, out=np.zeros_like(dots), where=length > 0)
        return (np.rint(cosine * STEPS) / STEPS).astype(np.float32)

    def _wide(self, index: Indices) -> NDArray[np.float64]:
        """Rows in float64: [m, d]."""
        return self._rows.index_select(0, torch.from_numpy(index)).double().numpy()

    def _hold(self, token: int) -> tuple[NDArray[np.float64], float]:
        """One row in float64, [d], and its length, from those held."""
        if token not in self._held:
            if len(self._held) >= _HELD:
                self._held.clear()
            row = self._rows[token].double().numpy()
            self._held[token] = row, math.sqrt(row @ row)
        return self._held[token]

    def _lengths(self, index: Indices) -> NDArray[np.float64]:
        """Euclidean lengths in float64, each computed once."""
        new = index[self._exact_length[index] < 0]
        if len(new):
            rows = self._wide(new)
            self._exact_length[new] = np.sqrt(np.einsum("md,md->m", rows, rows))
        return self._exact_length[index]


def _multiply(a: Tensor, b: Tensor, less: Tensor | None = None) -> Tensor:
    """Products of rows, [k, d] and [m, d] to [k, m], or of a batch; `less` [k, m] is added before they are rounded."""
    with torch.autocast("cpu", enabled=False):
        return a @ b.mT if less is None else torch.addmm(less, a, b.mT)
