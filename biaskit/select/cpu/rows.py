"""Rows of features on the CPU as `product` multiplies them: in the fast product's dtype, with their lengths, in one walk through memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from biaskit.select.checks import check_finite

_CACHED = 2**18  # numbers of rows that are worked on at a time, so that they stay in the processor's cache (1 MiB)

_GROUP = 256
"""Channels whose squares are summed by themselves where d is a multiple of it: sums of few numbers are off by less."""


def chunk(d: int) -> int:
    """Return how many rows of d channels are worked on at a time."""
    return max(_CACHED // max(d, 1), 1)


class Prepared(NamedTuple):
    """N rows.

    Attributes:
        rows: [N, d] float32 or bfloat16, features times powers of two, by which cosines do not change.
        low: [N, d] the same in the fast product's dtype. length: [N] float32, of `rows`.
        off: bound of what a length is off by, as a share of it.
        lost: the largest share of a row's length that its rounding to `low` took; 0 for what comes from a model in bfloat16.
    """

    rows: Tensor
    low: Tensor
    length: Tensor
    off: float
    lost: float


def prepared(features: Tensor, low: torch.dtype) -> Prepared:
    """Prepare features [N, d], float32 or half precision; `low` is float32 or bfloat16.

    Raises:
        BiaskitError: values that are not finite.
    """
    features = features.contiguous() if features.dtype in (torch.float32, torch.bfloat16) else features.to(torch.float32)
    found = _in_chunks(features, low)
    if not len(features) or not features.shape[1] or (float(found.length.min()) > 1e-15 and float(found.length.max()) < 1e15):
        return found  # all is finite: something else would have made a length that is not
    if not math.isfinite(float(found.length.sum())):
        check_finite("features", features)
    return _in_chunks(_scaled(features.to(torch.float32)), low)  # squares that float32 cannot hold


def _in_chunks(features: Tensor, low: torch.dtype) -> Prepared:
    """`prepared`, without care for rows of odd size."""
    length = torch.empty(len(features), dtype=torch.float32, device="cpu")
    lowered = features if features.dtype == low else torch.empty_like(features, dtype=low)
    d = features.shape[1]
    group = _GROUP if d % _GROUP == 0 and d else max(d, 1)
    size, most = chunk(d), 0.0
    room = torch.empty((0 if features.dtype == torch.float32 else min(size, len(features)), d), dtype=torch.float32, device="cpu")
    for start in range(0, len(features), size):
        part, mine = features[start : start + size], length[start : start + size]
        rows = part if part.dtype == torch.float32 else room[: len(part)].copy_(part)
        torch.linalg.vector_norm(torch.linalg.vector_norm(rows.unflatten(1, (-1, group)), dim=2), dim=1, out=mine)
        if lowered is not features:
            kept = lowered[start : start + size].copy_(part)
            if low == torch.bfloat16 and int(np.bitwise_or.reduce(rows.numpy().view(np.uint32), axis=None)) & 0xFFFF:
                lost = torch.linalg.vector_norm(rows - kept, dim=1) / mine
                most = max(most, 1.001 * float(lost.nan_to_num(0).max()))
    return Prepared(features, lowered, length, 1.1 * (group / 2 + d / group / 2 + 2) * 2.0**-24, most)


def _scaled(features: Tensor) -> Tensor:
    """Rows times powers of two, their largest entry in 1/2 … 1: no entry that counts is rounded, so exact cosines stay exact."""
    exponent = np.frexp(features.abs().amax(1).numpy())[1]
    half = exponent // 2  # the whole power may not be a float32
    one = np.float32(1)
    first, second = (torch.from_numpy(np.ldexp(one, -part)[:, None]) for part in (half, exponent - half))
    return features * first * second
