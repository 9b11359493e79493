"""Cosines on the CPU as the greedy selections want them: many at once, fast and within a known error; and a few at a time, exactly.

A processor with matrix units multiplies bfloat16 six times faster than float32. Each such product is off by up to `error`, which is proven
from the rows at hand and not guessed; wherever a decision hangs on less than that, the few cosines it hangs on are computed in float64.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.cosine import STEPS, cosines, cpu_multiplies_float32, unit_rows

Floats = NDArray[np.float32]

AHEAD = 32
"""Rows computed at a time."""

_CHUNK = 128  # rows prepared at a time, so that they stay in the processor's cache
_ROOM = 2.0**18  # elements: below this the fast product gains nothing
_WIDE = 384  # channels: below this it gains nothing for the greedy selections, which ask for more exact cosines
_CLEAR = 8  # the cosines' standard deviation, in errors of the fast product: below this it leaves too much in doubt


@cache
def _has_matrix_units() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16", False))


def greedy_dtype(features: Tensor) -> torch.dtype:
    """Which fast product makes the greedy selections on [N, d] cheapest: bfloat16 only where its error is small among the cosines."""
    total, d = features.shape
    if not _has_matrix_units() or features.numel() < _ROOM or d < _WIDE or total < 2:
        return torch.float32
    similar = cosines(some := unit_rows(features[:: -(-total // 128)]), some)
    spread = float(similar[torch.ones_like(similar, dtype=torch.bool).triu(1)].std(correction=0))
    return torch.bfloat16 if spread > _CLEAR * 2.0**-8 else torch.float32


class Product:
    """Cosines of the rows of features [N, d], finite and float32 on the CPU.

    Attributes:
        error: bound on |fast cosine − exact cosine|, for every pair.
        zeros: [N] which rows are all zero; their cosines are 0.
    """

    def __init__(self, features: Tensor, *, order: Tensor | None = None, low: torch.dtype | None = None) -> None:
        """Prepare the rows, which are known by their place in `order` [N]; `low` is the fast product's dtype if not the size chooses it."""
        features = features.float()
        n, d = features.shape
        if low is None:
            low = torch.bfloat16 if _has_matrix_units() and features.numel() >= _ROOM else torch.float32
        length = torch.linalg.vector_norm(features, dim=1)
        if n and d and not (float(length.min()) > 1e-15 and float(length.max()) < 1e15):  # squares that float32 cannot hold
            features = _scaled(features)
            length = torch.linalg.vector_norm(features, dim=1)
        inverse = torch.where(length > 0, 1 / length, 0.0)
        self._features, self._length = features.contiguous().numpy(), np.full(n, -1.0)
        self._place = np.arange(n) if order is None else order.numpy()
        self._inverse: Floats = inverse.numpy()[self._place]
        self.zeros = self._inverse == 0
        self._low, off = _lowered(features, inverse, low, order)
        units = {torch.float32: 0.0, torch.bfloat16: 2.0**-8}[low]
        if low == torch.float32 and not cpu_multiplies_float32():
            off = 2.0**-8  # torch was told to round the rows to bfloat16 on the way
        summed = 4 * d * 2.0**-24  # float32 sums of d products in any order, and the lengths
        self.error = 2 * off + off**2 + units * (1 + 2 * off) + summed + 1 / STEPS

    def __len__(self) -> int:
        """Return N."""
        return len(self._features)

    def rows(self, index: NDArray[np.int64]) -> Floats:
        """Return fast cosines of the m tokens at `index` with all: [m, N]."""
        found = np.empty((len(index), len(self)), np.float32)
        for start in range(0, len(index), AHEAD):
            some = index[start : start + AHEAD]
            padded = np.pad(some, (0, min(AHEAD, len(self)) - len(some)), mode="edge")  # one shape: new ones cost a kernel each
            found[start : start + AHEAD] = _multiply(self._low, self._low[torch.from_numpy(padded)]).float().numpy().T[: len(some)]
        found *= self._inverse
        found *= self._inverse[index, None]
        return found

    def rows_with(self, vectors: Tensor) -> Floats:
        """Return fast cosines of m other float32 vectors [m, d] with all: [m, N]. The fast product must be float32."""
        found: Floats = _multiply(self._low, unit_rows(vectors)).numpy().T.copy()
        found *= self._inverse
        return found

    def exact_with(self, vector: Tensor, others: NDArray[np.int64]) -> Floats:
        """Return exact cosines of another vector [d] with m tokens, rounded to 2⁻¹⁸: [m]."""
        wide, places = vector.numpy().astype(np.float64), self._place[others]
        dots = self._features[places].astype(np.float64) @ wide
        return self._rounded(dots, np.sqrt(wide @ wide) * self._lengths(places))

    def raw(self, start: int, stop: int, first: int = 0) -> Tensor:
        """Return products of tokens start … stop − 1 with tokens first … N − 1, in the fast dtype: [stop − start, N − first]."""
        return _multiply(self._low[start:stop], self._low[first:])

    def scaled(self, raw: Tensor, rows: NDArray[np.int64] | slice, columns: NDArray[np.int64] | slice) -> Floats:
        """Return fast cosines from raw products of tokens `rows` with tokens `columns`."""
        found: Floats = raw.to(torch.float32, copy=True).numpy()
        found *= self._inverse[columns]
        found *= self._inverse[rows, None]
        return found

    def block(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        """Return fast cosines of the tokens `rows` with the tokens `columns`, and of no others."""
        raw = _multiply(self._low[torch.from_numpy(rows)], self._low[torch.from_numpy(columns)])
        return self.scaled(raw, rows, columns)

    def exact(self, token: int, others: NDArray[np.int64]) -> Floats:
        """Return exact cosines of one token with m others, rounded to 2⁻¹⁸: [m]."""
        mine, theirs = self._place[token], self._place[others]
        dots = self._features[theirs].astype(np.float64) @ self._features[mine].astype(np.float64)
        return self._rounded(dots, self._lengths(np.array([mine]))[0] * self._lengths(theirs))

    def exact_pairs(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Floats:
        """Return exact cosines of m pairs, rounded to 2⁻¹⁸: [m]."""
        found = np.empty(len(a), np.float32)
        for start in range(0, len(a), _CHUNK):
            i, j = self._place[a[start : start + _CHUNK]], self._place[b[start : start + _CHUNK]]
            dots = np.einsum("md,md->m", self._features[i].astype(np.float64), self._features[j].astype(np.float64))
            found[start : start + _CHUNK] = self._rounded(dots, self._lengths(i) * self._lengths(j))
        return found

    def exact_block(self, start: int, stop: int) -> Floats:
        """Return exact cosines of tokens start … stop − 1 with all, rounded to 2⁻¹⁸: [stop − start, N]. Slow."""
        mine = self._place[start:stop]
        rows = self._features[mine].astype(np.float64)
        parts = [range(first, min(first + 512, len(self))) for first in range(0, len(self), 512)]
        dots = np.concatenate([rows @ self._features[self._place[part]].astype(np.float64).T for part in parts], 1)
        return self._rounded(dots, self._lengths(mine)[:, None] * self._lengths(self._place))

    def _rounded(self, dots: NDArray[np.float64], length: NDArray[np.float64]) -> Floats:
        cosine = np.divide(dots, length, out=np.zeros_like(dots), where=length > 0)
        return (np.rint(cosine * STEPS) / STEPS).astype(np.float32)

    def _lengths(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Euclidean lengths in float64, each computed once."""
        new = index[self._length[index] < 0]
        if len(new):
            rows = self._features[new].astype(np.float64)
            self._length[new] = np.sqrt(np.einsum("md,md->m", rows, rows))
        return self._length[index]


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return a @ b.mT


def _scaled(features: Tensor) -> Tensor:
    """Rows times powers of two, their largest entry in 1/2 … 1: no entry that counts is rounded, so exact cosines stay exact."""
    exponent = np.frexp(features.abs().amax(1).numpy())[1]
    half = exponent // 2  # the whole power may not be a float32
    one = np.float32(1)
    first, second = (torch.from_numpy(np.ldexp(one, -part)[:, None]) for part in (half, exponent - half))
    return features * first * second


def _lowered(features: Tensor, inverse: Tensor, low: torch.dtype, order: Tensor | None) -> tuple[Tensor, float]:
    """The rows in the dtype of the fast product and in `order`, and the largest share of a row's length that this lost."""
    if low == torch.float32:
        return features if order is None else features[order], 0.0
    bits = features.numpy().view(np.uint32)
    if not int(np.bitwise_or.reduce(bits[:1], axis=None)) & 0xFFFF and not int(np.bitwise_or.reduce(bits, axis=None)) & 0xFFFF:
        return features.to(low) if order is None else features.to(low)[order], 0.0  # from a model in bfloat16: nothing is lost
    lowered, off = torch.empty_like(features, dtype=low), 0.0
    for start in range(0, len(features), _CHUNK):
        mine = slice(start, start + _CHUNK) if order is None else order[start : start + _CHUNK]
        rows = features[mine]
        lowered[start : start + _CHUNK] = rows
        lost = torch.linalg.vector_norm(rows - lowered[start : start + _CHUNK], dim=1) * inverse[mine]
        off = max(off, float(lost.max()))
    return lowered, off * 1.001
