"""Convert rows of features for the approximate product and compute their lengths, in one pass through memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.checks import check_finite

_CACHED = 2**18  # numbers converted at a time, so that they stay in the processor's cache


class Rows(NamedTuple):
    """N rows.

    Attributes:
        rows: [N, d] float32 or bfloat16, features scaled by powers of two, which do not change cosines.
        low: [N, d] the same in the dtype of the approximate product.
        length: [N] float64, Euclidean lengths of `rows`.
        lost: the largest rounding error of a row in `low`, relative to its length; 0 if nothing was rounded.
    """

    rows: Tensor
    low: Tensor
    length: NDArray[np.float64]
    lost: float


def chunk(d: int) -> int:
    """Return how many rows of d channels are converted at a time."""
    return max(_CACHED // max(d, 1), 1)


def prepare(features: Tensor, low: torch.dtype) -> Rows:
    """Prepare features [N, d], float32 or half precision, for products in `low`, float32 or bfloat16.

    Raises:
        BiaskitError: values that are not finite.
    """
    features = features.contiguous() if features.dtype in (torch.float32, torch.bfloat16) else features.to(torch.float32)
    found = _convert(features, low)
    if not math.isfinite(found.length.sum()):
        check_finite("features", features)
    if not len(features) or (found.length.min() > 1e-15 and found.length.max() < 1e15):
        return found
    return _convert(_scale(features.to(torch.float32)), low)  # otherwise products would overflow or underflow float32


def _convert(features: Tensor, low: torch.dtype) -> Rows:
    length = torch.empty(len(features), dtype=torch.float64, device="cpu")
    lowered = features if features.dtype == low else torch.empty_like(features, dtype=low)
    size, lost = chunk(features.shape[1]), 0.0
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        wide = features[part].to(torch.float64)
        torch.linalg.vector_norm(wide, dim=1, out=length[part])
        if lowered is not features:
            lowered[part] = features[part]
            off = torch.linalg.vector_norm(features[part].float() - lowered[part], dim=1) / length[part]
            lost = max(lost, 1.001 * float(off.nan_to_num(0).max()))
    return Rows(features, lowered, length.numpy(), lost)


def _scale(features: Tensor) -> Tensor:
    """Scale rows by powers of two so that their largest entry is in 1/2 … 1: no relevant entry is rounded, exact cosines do not change."""
    exponent = np.frexp(features.abs().amax(1).numpy())[1]
    half = exponent // 2  # in two steps, since the whole power may exceed float32
    one = np.float32(1)
    first, second = (torch.from_numpy(np.ldexp(one, -part)[:, None]) for part in (half, exponent - half))
    return features * first * second
