"""Cosine similarity in float32, rounded so that copies of a token are alike, and never more of it at once than is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1024
"""Rows of the similarity matrix that are held at once where the whole is not needed."""

STEPS = 2.0**18
"""Cosines are whole multiples of 1 / STEPS."""


def unit_rows(features: Tensor) -> Tensor:
    """Scale rows [N, d] of any float dtype to length 1, in float32. A row of zeros stays zero: it is similar to nothing."""
    features = features.to(torch.float32)
    largest = features.abs().amax(-1, keepdim=True) if features.shape[-1] else features.new_ones(len(features), 1)
    features = features / torch.where(largest > 0, largest, 1.0)  # lengths that float32 cannot square
    length = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / torch.where(length > 0, length, 1.0)


def rounded(similarity: Tensor) -> Tensor:
    """Round to multiples of 2⁻¹⁸ ≈ 4e-6: a float32 dot product over thousands of channels is off by up to 1e-6.

    Without this the cosine of a token with its copy is 1 only up to that error, which changes with the order of summation, and decides.
    """
    return (similarity * STEPS).round() / STEPS


def cpu_multiplies_float32() -> bool:
    """Whether a CPU's product of float32 is one: `torch.set_float32_matmul_precision("medium")` makes it one of bfloat16."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:  # torch before 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return matmul.fp32_precision in ("ieee", "none")


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ bᵀ for unit rows a [N, d] and b [M, d] or one row [d]: [N, M] or [N]."""
    if a.device.type == "cpu" and not cpu_multiplies_float32():
        a, b = a.double(), b.double()
    with torch.autocast(a.device.type, enabled=False):
        return rounded(a @ b.mT if b.ndim == 2 else a @ b).to(torch.float32)


def row_blocks(unit: Tensor, own: float | None = None) -> Iterator[Tensor]:
    """Yield the N × N cosines in blocks of rows; `own` replaces each token's cosine with itself."""
    for start in range(0, len(unit), BLOCK):
        block = cosines(unit[start : start + BLOCK], unit)
        if own is not None:
            block.diagonal(start).fill_(own)
        yield block
