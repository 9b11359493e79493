"""The greedy selections on a device in one launch: one program per sample makes all picks, instead of about six launches per pick."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from biaskit.select.gpu.cosines import Table


@triton.jit
def rounded_steps(product, inverse, own):
    """A cosine as a whole number of steps of 2⁻¹⁸, halves to even: adding 1.5 · 2²³ rounds a float32 to a whole number."""
    return (product * inverse * own) * 262144.0 + 12582912.0 - 12582912.0


# Imp of `mmr_select`, and the most important
@triton.jit
def _weigh(importance, worth, first, wrong, total, eps, weight, block: tl.constexpr):
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, block)
    inside = token < total
    value = tl.load(importance + sample * total + token, mask=inside, other=0.0)
    bad = inside & ((tl.abs(value) < float("inf")) == 0)
    tl.store(wrong + sample, tl.max(bad.to(tl.int32), 0).to(tl.int8))
    low = tl.min(tl.where(inside, value, float("inf")), 0)
    high = tl.max(tl.where(inside, value, float("-inf")), 0)
    half = tl.where(high - low < float("inf"), 1.0, 0.5)  # the difference may overflow float32
    spread = high * half - low * half + eps * half
    value = tl.div_rn(value * half - low * half, tl.where(spread > 0, spread, 1.0) + tl.zeros((block,), tl.float32))
    best = tl.argmax(tl.where(inside, value, float("-inf")), 0, tie_break_left=True)
    tl.store(first + sample, tl.minimum(best, total - 1))
    tl.store(worth + sample * total + token, weight * value, mask=inside)


# the largest cosine with another token, in steps
@triton.jit
def _closest(products, inverse, nearest, total, rows: tl.constexpr, columns: tl.constexpr):
    sample = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    mine = tl.load(inverse + sample * total + row, mask=row < total, other=0.0)
    start = (sample * total + row) * total
    best = tl.full((rows, columns), -float("inf"), tl.float32)
    for step in range(0, total, columns):
        column = step + tl.arange(0, columns)
        inside = (row < total)[:, None] & (column < total)[None, :] & (row[:, None] != column[None, :])
        product = tl.load(products + start[:, None] + column[None, :], mask=inside, other=0.0)
        theirs = tl.load(inverse + sample * total + column, mask=column < total, other=0.0)
        best = tl.maximum(best, tl.where(inside, rounded_steps(product, theirs[None, :], mine[:, None]), -float("inf")))
    tl.store(nearest + sample * total + row, tl.max(best, 1), mask=row < total)


# a pick waits for the one before it, so a sample is one program, and a batch runs side by side
@triton.jit(do_not_specialize=["n"])
def _pick(products, inverse, worth, first, order, total, n, weight, block: tl.constexpr):
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, block)
    inside = token < total
    value = tl.load(worth + sample * total + token, mask=inside, other=-float("inf"))
    lengths = tl.load(inverse + sample * total + token, mask=inside, other=0.0)
    nearest = tl.full((block,), -1.0, tl.float32)
    pick = tl.load(first + sample).to(tl.int32)
    for count in range(n):
        tl.store(order + sample * n + count, pick)
        row = tl.load(products + (sample * total + pick) * total + token, mask=inside, other=0.0)
        own = tl.load(inverse + sample * total + pick)
        nearest = tl.maximum(nearest, rounded_steps(row, lengths, own) * (1.0 / 262144.0))
        value = tl.where(token == pick, -float("inf"), value)
        pick = tl.argmax(value - weight * nearest, 0, tie_break_left=True).to(tl.int32)
        pick = tl.minimum(pick, total - 1)  # values that are not finite are reported later and must not index out of bounds here


def weighed(importance: Tensor, eps: float, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight · Imp [B, N] of `mmr_select`, the most important token [B], and [B] int8, 1 if a sample is not finite.

    Args:
        importance: [B, N] float32, contiguous.
    """
    batch, total = importance.shape
    worth, first = torch.empty_like(importance), torch.empty(batch, dtype=torch.int64, device=importance.device)
    wrong = torch.empty(batch, dtype=torch.int8, device=importance.device)
    block = triton.next_power_of_2(total)
    _weigh[(batch,)](
        importance, worth, first, wrong, total, float(eps), float(weight), block=block, num_warps=_warps(block), enable_fp_fusion=False
    )
    return worth, first, wrong


def most_isolated(table: Table) -> Tensor:
    """Return the token whose largest cosine with another is smallest, [B] int64. A tie goes to the lower index."""
    batch, total = table.inverse.shape
    nearest = torch.empty_like(table.inverse)
    grid = (triton.cdiv(total, 8), batch)
    _closest[grid](table.products, table.inverse, nearest, total, rows=8, columns=512, num_warps=4, enable_fp_fusion=False)
    return nearest.argmin(1)


def greedy_in_one_launch(table: Table, n: int, first: Tensor, worth: Tensor, weight: float) -> Tensor:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one), for a batch of B samples.

    Args:
        table: whole, of N ≤ `MOST` tokens. n: how many to take, 1 … N.
        first: [B] int64. worth: [B, N] float32, contiguous.

    Returns:
        [B, n] int64, in the order of choice. A tie goes to the lower index.
    """
    batch, total = worth.shape
    order = torch.empty(batch, n, dtype=torch.int64, device=worth.device)
    block = triton.next_power_of_2(total)
    _pick[(batch,)](
        table.products, table.inverse, worth, first, order, total, n, float(weight),
        block=block, num_warps=_warps(block), enable_fp_fusion=False,
    )  # fmt: skip
    return order


def _warps(block: int) -> int:
    return min(32, max(4, block // 256))
