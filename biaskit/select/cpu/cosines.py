"""Cosines of all rows of a sample: approximate ones, many at once and within a known error; and exact ones, in float64."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.cosine import EXACT_STEPS, cosines, multiplies_float32, unit_rows
from biaskit.select.cpu.rows import chunk, prepare

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]
Indices = NDArray[np.int64]

PANEL = 192
"""Columns of the similarity matrix held at once where all pairs are looked at; twice as many of short rows."""

_LARGE = 2**18  # elements of the features; below, a bfloat16 product gains nothing
_WIDE = 384  # channels; below, the greedy selections gain nothing from it, because they need more exact cosines
_LONG = 2048  # channels; longer rows are multiplied in narrower panels
_MULTIPLE = 32  # columns of a product are padded to a multiple: others are slower, and oneDNN compiles a kernel per shape
_CLEAR = 8  # bfloat16 is used if the cosines' standard deviation is more than this many times its error: else too many undecided pairs
_ROUNDED = 2.0**-8  # relative error of rounding to bfloat16
_SLACK = 2.0**-18  # bound for the few float32 roundings after the product


@cache
def bfloat16_is_faster() -> bool:
    """Return True if this processor multiplies bfloat16 1.5 times as fast as float32 (AMX, AVX512-BF16); measured once, in about 10 ms."""
    times = {torch.float32: np.inf, torch.bfloat16: np.inf}
    for _ in range(4):
        for dtype in times:
            rows = torch.ones(256, 1024, dtype=dtype, device="cpu")
            start = time.perf_counter()
            _multiply(rows, rows)
            times[dtype] = min(times[dtype], time.perf_counter() - start)
    return times[torch.float32] > 1.5 * times[torch.bfloat16]


def greedy_dtype(features: Tensor) -> torch.dtype:
    """Return the cheapest approximate product for the greedy selections on [N, d]: bfloat16 if its error is small among the cosines."""
    total, d = features.shape
    if features.numel() < _LARGE or d < _WIDE or total < 2 or not bfloat16_is_faster():
        return torch.float32
    some = unit_rows(features[:: -(-total // 64)])
    similar = cosines(some, some)[torch.ones(len(some), len(some), dtype=torch.bool, device="cpu").triu(1)]
    error = _ROUNDED * (float(similar.square().mean().sqrt()) + (0 if features.dtype == torch.bfloat16 else 1))
    return torch.bfloat16 if float(similar.std(correction=0)) > _CLEAR * error else torch.float32


class Product:
    """Cosines of the rows of features [N, d], float32 or half precision, on the CPU.

    Attributes:
        zeros: [N] bool, rows that are all zero; their cosines are 0.
    """

    def __init__(self, features: Tensor, *, low: torch.dtype | None = None) -> None:
        """Prepare the rows. `low` is the dtype of the approximate product; None chooses it by size.

        Raises:
            BiaskitError: values that are not finite.
        """
        if low is None:
            low = torch.bfloat16 if features.numel() >= _LARGE and bfloat16_is_faster() else torch.float32
        self._rows, self._low, self._length, lost = prepare(features, low)
        self.zeros = self._length == 0
        self._inverse = torch.from_numpy(np.divide(1, self._length, out=np.zeros_like(self._length), where=~self.zeros)).float()
        if low == torch.float32 and not multiplies_float32("cpu"):
            lost = _ROUNDED  # torch's precision setting lets it round the rows to bfloat16
        self._share = 1.02 * _ROUNDED * (1 + lost) ** 2 if low == torch.bfloat16 else 0.0
        self._least = 2 * lost + lost**2 + _summed(features.shape[1])

    def __len__(self) -> int:
        """Return N."""
        return len(self._rows)

    def error(self, cosine: float = 1.0) -> float:
        """Return the bound on |approximate − exact cosine| for approximate cosines up to this absolute value."""
        return self._least + self._share * cosine

    def errors(self, approximate: Floats) -> Floats | np.float32:
        """Return the bound on |approximate − exact cosine| for each; one number if it is the same for all."""
        if not self._share:
            return np.float32(self._least)
        found: Floats = np.abs(approximate)
        found *= np.float32(self._share)
        found += np.float32(self._least)
        return found

    def columns(self, index: Indices, tokens: Indices | None = None) -> Floats:
        """Return approximate cosines of `tokens` [k], all of them by default, with the m tokens at `index`: [k, m]."""
        padded = torch.from_numpy(np.concatenate([index, np.repeat(index[-1:], -len(index) % _MULTIPLE)]))
        right = self._low.index_select(0, padded)
        left, inverse = self._low, self._inverse
        if tokens is not None:
            where = torch.from_numpy(tokens)
            left, inverse = right[: len(index)] if tokens is index else left.index_select(0, where), inverse[where]
        block: Floats = _multiply(left, right).float().mul_(self._inverse[padded]).mul_(inverse[:, None]).numpy()
        return block[:, : len(index)]

    def bounds(self, index: Indices, tokens: Indices | None = None) -> tuple[Floats, Floats]:
        """Return lower and upper bounds of the cosines of the m tokens at `index` with `tokens` [k], all by default: two of [m, k]."""
        approximate = np.ascontiguousarray(self.columns(index, tokens).T)
        error = self.errors(approximate)
        return approximate - error, approximate + error

    def panels(self) -> Iterator[tuple[int, Tensor]]:
        """Yield all pairs once, as (s, approximate cosines of tokens s … N − 1 with s … s + m − 1). The next block overwrites it."""
        width = PANEL if self._low.shape[1] > _LONG else 2 * PANEL
        buffer = torch.empty(len(self), width, dtype=torch.float32, device="cpu")  # reused: allocating new memory is slow
        for start in range(0, len(self), width):
            found = _multiply(self._low[start:], self._low[start : start + width])
            block = buffer.flatten()[: found.numel()].view(found.shape).copy_(found)
            yield start, block.mul_(self._inverse[start : start + width]).mul_(self._inverse[start:, None])

    def windows(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (s, approximate cosines inside each of w consecutive windows of m tokens from s: [w, m, m]); m is `size` or the rest."""
        whole = len(self) // size * size
        for start, stop, width in ((0, whole, size), (whole, len(self), len(self) - whole)):
            if start < stop:
                low, inverse = self._low[start:stop].unflatten(0, (-1, width)), self._inverse[start:stop].unflatten(0, (-1, width))
                yield start, _multiply(low, low).float().mul_(inverse[:, None]).mul_(inverse[:, :, None])

    def columns_with(self, vectors: Tensor) -> tuple[Floats, float]:
        """Return cosines of m other vectors [m, d] with all, [m, N], from float32 sums, and the bound on their errors."""
        unit = unit_rows(vectors).to(torch.float32 if multiplies_float32("cpu") else torch.float64)
        found = np.empty((len(unit), len(self)), np.float32)
        size = chunk(unit.shape[1])
        for start in range(0, len(self), size):  # a few rows at a time, since they may have to be converted
            found[:, start : start + size] = _multiply(unit, self._rows[start : start + size].to(unit.dtype)).numpy()
        found *= self._inverse.numpy()
        return found, _summed(unit.shape[1])

    def exact_with(self, vector: Tensor, others: Indices) -> Exact:
        """Return exact cosines of another vector [d] with m tokens: [m]."""
        wide = vector.double().numpy()
        return _cosines(self._wide(others) @ wide, np.sqrt(wide @ wide) * self._length[others])

    def exact_pairs(self, a: Indices, b: Indices) -> Exact:
        """Return exact cosines of m pairs: [m]."""
        found = np.empty(len(a), np.float64)
        size = chunk(self._rows.shape[1])
        for start in range(0, len(a), size):
            i, j = a[start : start + size], b[start : start + size]
            dots = np.einsum("md,md->m", self._wide(i), self._wide(j))
            found[start : start + size] = _cosines(dots, self._length[i] * self._length[j])
        return found

    def exact_table(self, tokens: Indices, others: Indices) -> Exact:
        """Return exact cosines of k tokens with m others: [k, m]. Cheaper than pair by pair if most of them are needed."""
        mine, found = self._wide(tokens), np.empty((len(tokens), len(others)), np.float64)
        for start in range(0, len(others), PANEL):
            some = others[start : start + PANEL]
            found[:, start : start + PANEL] = _cosines(mine @ self._wide(some).T, self._length[tokens, None] * self._length[some])
        return found

    def exact_panels(self) -> Iterator[tuple[int, Exact]]:
        """Yield all pairs once, as (s, exact cosines of tokens s … s + m − 1 with s … N − 1: [m, N − s]). Slow, in float64."""
        for start in range(0, len(self), PANEL):
            later = np.arange(start, len(self))
            yield start, self.exact_table(later[:PANEL], later)

    def _wide(self, index: Indices) -> Exact:
        """Return rows in float64: [m, d]."""
        return self._rows.index_select(0, torch.from_numpy(index)).double().numpy()


def _cosines(dots: Exact, lengths: Exact) -> Exact:
    """Divide and round as `cosine.rounded` does; 0 for rows of zeros."""
    cosine = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return np.rint(cosine * EXACT_STEPS) / EXACT_STEPS


def _summed(d: int) -> float:
    """Bound on the error of float32 sums of d products of unit rows, in any order, and of the roundings that follow."""
    return 1.1 * (d + 8) * 2.0**-24 + 2.0**-16 + _SLACK


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ for rows [k, d] and [m, d], or a batch of them."""
    with torch.autocast("cpu", enabled=False):
        return a @ b.mT
