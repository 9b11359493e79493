"""The greedy selections on a GPU in one launch: one program a sample walks through all picks, instead of some six launches a pick."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST = 8192
"""Tokens that one program can hold; the table of cosines is 256 MiB there."""


@triton.jit  # a pick waits for the one before it, so a sample is one program, and a batch runs side by side
def _pick(table: Any, worth: Any, first: Any, order: Any, total: Any, n: Any, weight: Any, block: tl.constexpr) -> None:
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, block)
    inside = token < total
    value = tl.load(worth + sample * total + token, mask=inside, other=float("-inf"))
    nearest = tl.full((block,), -1.0, tl.float32)
    pick = tl.load(first + sample)
    for count in range(n):
        tl.store(order + sample * n + count, pick)
        row = tl.load(table + (sample * total + pick) * total + token, mask=inside, other=-1.0)
        nearest = tl.maximum(nearest, row)
        value = tl.where(token == pick, float("-inf"), value)
        pick = tl.argmax(value - weight * nearest, 0, tie_break_left=True).to(tl.int64)


def greedy_in_one_launch(table: Tensor, n: int, first: Tensor, worth: Tensor, weight: float) -> Tensor:
    """Take `first`, then n − 1 times the highest worth − weight · (largest cosine with a chosen one), for a batch of B samples.

    Args:
        table: [B, N, N] float32 cosines, N ≤ `MOST`. n: how many to take, 1 … N.
        first: [B] int64. worth: [B, N] float32.

    Returns:
        [B, n] int64, in the order of choice. A tie goes to the lower index.
    """
    batch, total = worth.shape
    order = torch.empty(batch, n, dtype=torch.int64, device=table.device)
    block = triton.next_power_of_2(total)
    _pick[(batch,)](
        table.contiguous(), worth.contiguous(), first.contiguous(), order, total, n, weight,
        block=block, num_warps=min(32, max(4, block // 256)), enable_fp_fusion=False,
    )  # fmt: skip
    return order
