"""Products of all pairs of tokens of a batch, on a device, for selections that read them row by row.

Features in half precision are multiplied in it, with float32 sums: products of bfloat16 are exact in float32, so only the sums round.
Lengths are taken from the products' diagonal, and readers of the table divide by them, so that a token and its copies have cosine 1
for any order of summation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from biaskit.select.cosine import multiplies_float32

ROOM = 2**30
"""Most bytes of the tables that are in memory together; a single sample may need more."""

PANEL = 1024
"""Rows multiplied at a time if only the upper triangle is needed."""


@dataclass(frozen=True, eq=False)
class Table:
    """Products of the scaled rows of B samples.

    Attributes:
        products: [B, N, N] float32; with `triangle`, entries below the diagonal are undefined.
        inverse: [B, N] float32, 1 / length of each scaled row, 0 for a row of zeros: products · inverse · inverse are cosines.
        wrong: [B, N] int8, 1 if a token's features are not finite.
    """

    products: Tensor
    inverse: Tensor
    wrong: Tensor


# one program per token: scale it by a power of two, which does not round, so that its square fits into float32
@triton.jit(do_not_specialize=["shift"])
def _scale(source, order, target, wrong, stride, dim, shift, ordered: tl.constexpr, block: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    place = token
    if ordered:
        place = tl.load(order + token)
    column = tl.arange(0, block)
    inside = column < dim
    value = tl.load(source + place * stride + column, mask=inside, other=0.0).to(tl.float32)
    size = tl.abs(value)
    tl.store(wrong + token, tl.max((size < float("inf")).to(tl.int32) ^ 1, 0).to(tl.int8))
    exponent = tl.max(size, 0).to(tl.int32, bitcast=True) >> 23
    power = tl.minimum(tl.maximum(254 + shift - exponent, 1), 254)
    scale = (power << 23).to(tl.float32, bitcast=True)
    tl.store(target + token * dim + column, (value * scale).to(target.dtype.element_ty), mask=inside)


@triton.jit
def _invert(products, inverse, total, block: tl.constexpr):
    sample = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * block + tl.arange(0, block)
    inside = token < total
    square = tl.load(products + (sample * total + token) * total + token, mask=inside, other=0.0)
    length = tl.sqrt(tl.where(square > 0, square, 1.0))
    tl.store(inverse + sample * total + token, tl.where(square > 0, 1.0 / length, 0.0), mask=inside)


def chunks(batch: int, n_tokens: int) -> Iterator[slice]:
    """Yield slices of a batch whose tables fit into `ROOM` bytes together, each with at least one sample."""
    step = max(1, ROOM // (4 * n_tokens**2))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


def multiply(features: Sequence[Tensor], order: Tensor | None = None, *, triangle: bool = False) -> Table:
    """Multiply every token with every other, sample by sample, without synchronisation.

    Args:
        features: B tensors [N, d] of one float dtype, half precision or float32. Channels must be contiguous, rows need not be.
        order: [B, N] int64; row and column r of the table are the token order[r]; None: unchanged order.
        triangle: entries (r, c) with r > c are not needed, which saves a third of the work.
    """
    (total, dim), batch, dtype = features[0].shape, len(features), features[0].dtype
    rows = torch.empty(batch, total, dim, dtype=dtype, device=features[0].device)
    wrong = torch.empty(batch, total, dtype=torch.int8, device=rows.device)
    block = triton.next_power_of_2(dim)
    for number, source in enumerate(features):
        source = source if source.stride(1) == 1 else source.contiguous()
        _scale[(total,)](
            source, rows if order is None else order[number], rows[number], wrong[number], source.stride(0), dim,
            14 if dtype == torch.float16 else 0,  # keeps small channels in float16's range
            ordered=order is not None, block=block, num_warps=min(16, max(1, block // 512)),
        )  # fmt: skip
    products = torch.empty(batch, total, total, dtype=torch.float32, device=rows.device)
    step = PANEL if triangle else total
    for start in range(0, total, step):
        _product(rows[:, start : start + step], rows[:, start:], products[:, start : start + step, start:])
    inverse = torch.empty(batch, total, dtype=torch.float32, device=rows.device)
    _invert[(triton.cdiv(total, 128), batch)](products, inverse, total, block=128, num_warps=4)
    return Table(products, inverse, wrong)


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write a bᵀ, [B, m, k] float32, for rows a [B, m, d] and b [B, k, d]."""
    if a.is_cuda and a.dtype != torch.float32:
        with torch.autocast(a.device.type, enabled=False):
            torch.bmm(a, b.mT, out_dtype=torch.float32, out=out)
    else:
        kind = torch.float32 if multiplies_float32(a.device.type) else torch.float64
        with torch.autocast(a.device.type, enabled=False):
            out.copy_(torch.bmm(a.to(kind), b.to(kind).mT))
