"""Cosine similarity, rounded so that equal cosines compare equal.

On a CPU products are in float64 and rounded to 2⁻²⁴ ≈ 6e-8, the resolution of float32 features: copies of a token tie, and almost nothing
else does. On a device they are in float32, with errors up to 1e-6 for sums over thousands of channels, and rounded to 2⁻¹⁸ ≈ 4e-6, which
also ties some cosines that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 1024
"""Rows of the similarity matrix in memory at a time, where the whole matrix is not needed."""

STEPS = 2.0**18
"""Cosines on a device are whole multiples of 1 / STEPS."""

EXACT_STEPS = 2.0**24
"""Cosines on a CPU are whole multiples of 1 / EXACT_STEPS."""


def unit_rows(features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Scale rows [N, d] of any float dtype to length 1, by default in float64 on a CPU, else in float32. A row of zeros is unchanged.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    features = features.to(dtype or (torch.float64 if features.device.type == "cpu" else torch.float32))
    largest = features.abs().amax(-1, keepdim=True) if features.shape[-1] else features.new_ones(len(features), 1)
    features = features / torch.where(largest > 0, largest, 1.0)  # the squares of some lengths overflow float32
    length = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / torch.where(length > 0, length, 1.0)


def rounded(similarity: Tensor) -> Tensor:
    """Round to multiples of 2⁻²⁴ (float64) or 2⁻¹⁸ (float32).

    Without this the cosine of a token with its copy is 1 up to an error that depends on the order of summation and would decide ties.
    """
    steps = EXACT_STEPS if similarity.dtype == torch.float64 else STEPS
    return (similarity * steps).round() / steps


def multiplies_float32(kind: str) -> bool:
    """Return True if products of float32 on this kind of device (`cpu`, `cuda`) are computed in float32, not in TF32 or bfloat16.

    `torch.set_float32_matmul_precision` and `torch.backends.cuda.matmul.allow_tf32` allow the latter.
    """
    if kind not in ("cpu", "cuda"):
        return True
    matmul: Any = torch.backends.cuda.matmul if kind == "cuda" else getattr(torch.backends.mkldnn, "matmul", None)
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision in ("ieee", "none")
    return torch.get_float32_matmul_precision() == "highest"  # torch before 2.9


def products(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ for rows a [..., N, d] and b [..., M, d]: [..., N, M], at least in float32, for all of torch's precision settings."""
    if a.dtype == torch.float32 and not multiplies_float32(a.device.type):
        a, b = a.double(), b.double()
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the rounded cosines of unit rows a [N, d] and b [M, d] or one row [d]: [N, M] or [N], in the dtype of `a`.

    Example:
        >>> unit = unit_rows(torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
        >>> cosines(unit, unit).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    found = products(a, b) if b.ndim == 2 else products(a, b[None])[:, 0]
    return rounded(found.to(a.dtype))


def row_blocks(unit: Tensor, own: float | None = None) -> Iterator[Tensor]:
    """Yield the N × N cosines in blocks of rows; `own`, if given, replaces each token's cosine with itself.

    Example:
        >>> [block.tolist() for block in row_blocks(unit_rows(torch.eye(2)), own=-1.0)]
        [[[-1.0, 0.0], [0.0, -1.0]]]
    """
    for start in range(0, len(unit), BLOCK):
        block = cosines(unit[start : start + BLOCK], unit)
        if own is not None:
            block.diagonal(start).fill_(own)
        yield block
