"""D2Pruner's graph and its greedy expansion on a device: a constant number of launches for a whole batch, without synchronisation.

Tokens are numbered by rank, 0 is best, so that the greedy loop needs only the upper triangle of the table: row r from column r + 1 on.
Edges are not stored but computed on demand from the cosine: the fused similarity grows with the cosine, so for a given range there is a
threshold cosine above which two tokens are linked, and a second threshold for neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from biaskit.select.gpu.cosines import Table
from biaskit.select.gpu.greedy import rounded_steps

FACTS = 8
"""Numbers reported per sample: s_min, s_max, threshold cosine in steps, the same for neighbours, flags for features and scores that are not
finite, linked pairs of those counted, tokens kept before the fill, tokens kept."""

_SAMPLED = 256  # rows from which the share of linked pairs is counted


@triton.jit
def _range(products, inverse, low, high, total, own, rows: tl.constexpr, columns: tl.constexpr):
    """Smallest and largest cosine of each block of rows; `own` is 0 if those of tokens with themselves count, else 1."""
    sample = tl.program_id(1).to(tl.int64)
    begin = tl.program_id(0) * rows
    row = begin + tl.arange(0, rows)
    mine = tl.load(inverse + sample * total + row, mask=row < total, other=0.0)
    start = (sample * total + row) * total
    least = tl.full((rows, columns), 2.0, tl.float32)
    most = tl.full((rows, columns), -2.0, tl.float32)
    for step in range(begin, total, columns):
        column = step + tl.arange(0, columns)
        inside = (column < total)[None, :] & (column[None, :] >= row[:, None] + own)
        product = tl.load(products + start[:, None] + column[None, :], mask=inside, other=0.0)
        theirs = tl.load(inverse + sample * total + column, mask=column < total, other=0.0)
        cosine = product * theirs[None, :] * mine[:, None]
        least = tl.minimum(least, tl.where(inside, cosine, 2.0))
        most = tl.maximum(most, tl.where(inside, cosine, -2.0))
    place = sample * tl.num_programs(0) + tl.program_id(0)
    tl.store(low + place, tl.min(tl.min(least, 1), 0))
    tl.store(high + place, tl.max(tl.max(most, 1), 0))


@triton.jit
def _limit(s_min, span, alpha, more, theta):
    """The largest cosine, in steps, whose fused similarity is at most θ; −2¹⁸ − 1 if there is none. Compared as in `fuse`."""
    none = tl.full((), 0, tl.int32)
    some = tl.full((), 524289, tl.int32)  # bisection over cosines k − 2¹⁸: those below `none` do not link, those from `some` on do
    for _ in range(20):
        middle = (none + some) >> 1
        scaled = tl.div_rn((middle - 262144).to(tl.float32) * (1.0 / 262144.0) - s_min, tl.where(span < 1e-5, 1.0, span))
        fused = tl.where(span < 1e-5, alpha, alpha * scaled) + more
        linked = fused > theta
        some = tl.where((none < some) & linked, middle, some)
        none = tl.where((none < some) & (linked == 0), middle + 1, none)
    return (some - 262145).to(tl.float32)


@triton.jit(do_not_specialize=["parts"])
def _settle(
    low, high, wrong, scores, facts, total, parts, alpha, more, theta,
    block: tl.constexpr, part_block: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """The range of each sample's cosines, the thresholds that follow from it, and whether its values are finite."""
    sample = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, part_block)
    least = tl.min(tl.load(low + sample * parts + part, mask=part < parts, other=2.0), 0)
    most = tl.max(tl.load(high + sample * parts + part, mask=part < parts, other=-2.0), 0)
    least = tl.where(most < -1.5, 1.0, least)  # there is no pair
    most = tl.where(most < -1.5, 1.0, most)
    s_min = rounded_steps(least, 1.0, 1.0) * (1.0 / 262144.0)
    s_max = rounded_steps(most, 1.0, 1.0) * (1.0 / 262144.0)
    span = s_max - s_min
    token = tl.arange(0, block)
    bad = tl.load(wrong + sample * total + token, mask=token < total, other=0).to(tl.int32)
    score = tl.load(scores + sample * total + token, mask=token < total, other=0.0)
    bad = bad | (((tl.abs(score) < float("inf")).to(tl.int32) ^ 1) * 2)
    features_bad = tl.max(bad & 1, 0)
    scores_bad = tl.max(bad >> 1, 0)
    fact = facts + sample * width
    tl.store(fact, s_min)
    tl.store(fact + 1, s_max)
    tl.store(fact + 2, _limit(s_min, span, alpha, 0.0, theta))
    tl.store(fact + 3, _limit(s_min, span, alpha, more, theta))
    tl.store(fact + 4, (features_bad + 2 * scores_bad).to(tl.float32))


@triton.jit
def _linked(product, theirs, mine, code, my_code, apart, beside, width, placed: tl.constexpr):
    """Which pairs are linked, from their products, inverse lengths and cells (see `codes`)."""
    steps = rounded_steps(product, theirs, mine)
    linked = steps > apart
    if placed:
        gap = tl.abs(code - my_code)
        near = (gap == 1) | ((gap >= width - 1) & (gap <= width + 1))
        linked = (near & (steps > beside)) | ((near == 0) & linked)
    return linked


@triton.jit
def _cell(code, order, sample, total, stride, rank, known, placed: tl.constexpr):
    """The cells (see `codes`) of the tokens of some ranks; undefined if place does not count."""
    cell = rank
    if placed:
        token = tl.load(order + sample * total + rank, mask=known, other=0)
        cell = tl.load(code + sample * stride + token, mask=known, other=0)
    return cell


@triton.jit(do_not_specialize=["pivots", "width"])
def _touch(
    products, inverse, order, code, facts, excluded, total, pivots, width, stride,
    placed: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, facts_width: tl.constexpr,
):  # fmt: skip
    """Mark the pivots, which have the best ranks, and tokens linked to one: [B, N] int8. `stride` is 0 if samples share their cells."""
    sample = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    inside = column < total
    theirs = tl.load(inverse + sample * total + column, mask=inside, other=0.0)
    apart = tl.load(facts + sample * facts_width + 2)
    beside = tl.load(facts + sample * facts_width + 3)
    their_code = _cell(code, order, sample, total, stride, column, inside, placed)
    found = tl.zeros((rows, columns), tl.int32)
    for step in range(0, pivots, rows):
        row = step + tl.arange(0, rows)
        known = row < pivots
        mine = tl.load(inverse + sample * total + row, mask=known, other=0.0)
        my_code = _cell(code, order, sample, total, stride, row, known, placed)
        asked = known[:, None] & inside[None, :] & (column[None, :] > row[:, None])
        product = tl.load(products + ((sample * total + row) * total)[:, None] + column[None, :], mask=asked, other=0.0)
        linked = _linked(product, theirs[None, :], mine[:, None], their_code[None, :], my_code[:, None], apart, beside, width, placed)
        found = found | (asked & linked).to(tl.int32)
    linked_to_pivot = (tl.max(found, 0) > 0) | (column < pivots)
    tl.store(excluded + sample * total + column, linked_to_pivot.to(tl.int8), mask=inside)


@triton.jit(do_not_specialize=["every", "width"])
def _count(
    products, inverse, order, code, facts, counts, total, every, width, stride,
    placed: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, facts_width: tl.constexpr,
):  # fmt: skip
    """Count the linked pairs of every k-th row, [B, parts]."""
    sample = tl.program_id(1).to(tl.int64)
    begin = tl.program_id(0) * rows
    row = (begin + tl.arange(0, rows)) * every
    known = row < total
    mine = tl.load(inverse + sample * total + row, mask=known, other=0.0)
    apart = tl.load(facts + sample * facts_width + 2)
    beside = tl.load(facts + sample * facts_width + 3)
    my_code = _cell(code, order, sample, total, stride, row, known, placed)
    found = tl.zeros((rows, columns), tl.int32)
    for step in range(begin * every, total, columns):
        column = step + tl.arange(0, columns)
        inside = column < total
        theirs = tl.load(inverse + sample * total + column, mask=inside, other=0.0)
        their_code = _cell(code, order, sample, total, stride, column, inside, placed)
        asked = known[:, None] & inside[None, :] & (column[None, :] > row[:, None])
        product = tl.load(products + ((sample * total + row) * total)[:, None] + column[None, :], mask=asked, other=0.0)
        linked = _linked(product, theirs[None, :], mine[:, None], their_code[None, :], my_code[:, None], apart, beside, width, placed)
        found += (asked & linked).to(tl.int32)
    tl.store(counts + sample * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.sum(found, 1), 0))


# a pick waits for the one before it, so a sample is one program, and a batch runs side by side
@triton.jit(do_not_specialize=["pivots", "n", "parts", "width"])
def _walk(
    products, inverse, order, code, counts, excluded, facts, kept, total, pivots, n,
    parts, width, stride,
    placed: tl.constexpr, fill: tl.constexpr, block: tl.constexpr, part_block: tl.constexpr, facts_width: tl.constexpr,
):  # fmt: skip
    """Take the best token that is not excluded and exclude the tokens linked to it, until n are kept; then fill up by rank."""
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, block)
    inside = token < total
    lengths = tl.load(inverse + sample * total + token, mask=inside, other=0.0)
    place = tl.load(order + sample * total + token, mask=inside, other=0)
    fact = facts + sample * facts_width
    apart = tl.load(fact + 2)
    beside = tl.load(fact + 3)
    cell = _cell(code, order, sample, total, stride, token, inside, placed)
    waiting = (tl.load(excluded + sample * total + token, mask=inside, other=1).to(tl.int32) ^ 1) & inside.to(tl.int32)
    chosen = (token < pivots).to(tl.int32)
    count = tl.sum(chosen, 0)
    best = tl.min(tl.where(waiting > 0, token, block), 0)
    while (count < n) & (best < total):
        row = tl.load(products + (sample * total + best) * total + token, mask=inside & (token > best), other=0.0)
        mine = tl.load(inverse + sample * total + best)
        my_cell = _cell(code, order, sample, total, stride, best, best < total, placed)
        linked = _linked(row, lengths, mine, cell, my_cell, apart, beside, width, placed)
        chosen = chosen | (token == best).to(tl.int32)
        waiting = waiting & ((linked == 0) & (token > best)).to(tl.int32)
        count += 1
        best = tl.min(tl.where(waiting > 0, token, block), 0)
    tl.store(fact + 6, count.to(tl.float32))
    if fill:
        left = inside.to(tl.int32) & (chosen ^ 1)
        chosen = chosen | (left & (tl.cumsum(left, 0) <= n - count).to(tl.int32))
    tl.store(fact + 7, tl.sum(chosen, 0).to(tl.float32))
    part = tl.arange(0, part_block)
    tl.store(fact + 5, tl.sum(tl.load(counts + sample * parts + part, mask=part < parts, other=0), 0).to(tl.float32))
    tl.store(kept + sample * total + place, chosen.to(tl.int8), mask=inside)


def walk(
    table: Table, order: Tensor, scores: Tensor, code: Tensor | None, width: int, n: int, pivots: int,
    *, alpha: float, theta: float, exclude: bool, fill: bool, diagonal: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Select from B samples of N tokens, without synchronisation.

    Args:
        table: in the order of rank; the upper triangle is enough. order: [B, N] int64, best first. scores: [B, N] float32, contiguous.
        code, width: cells in the tokens' own order, [B or 1, N] int32, and their width, from `codes`; None if place does not count.
        n: how many to keep, 1 … N. pivots: how many of them are pivots, the best-ranked.
        exclude: exclude the pivots' neighbours from the expansion. fill: keep n even if the graph leaves fewer.
        diagonal: True if cosines of tokens with themselves count in the range.

    Returns:
        [B, N] int8, 1 if a token is kept, in the tokens' own order; and [B, `FACTS`] float32.
    """
    batch, total = order.shape
    device, products, inverse = order.device, table.products, table.inverse
    exact: dict[str, Any] = {"enable_fp_fusion": False, "num_warps": 4}
    grid = (triton.cdiv(total, 8), batch)
    low, high = torch.empty(2, *reversed(grid), dtype=torch.float32, device=device)
    _range[grid](products, inverse, low, high, total, 0 if diagonal else 1, rows=8, columns=256, **exact)
    facts = torch.empty(batch, FACTS, dtype=torch.float32, device=device)
    block, part_block = triton.next_power_of_2(total), triton.next_power_of_2(grid[0])
    more, limits = 1 - alpha, (float(alpha), float(1 - alpha), float(theta))
    _settle[(batch,)](
        low, high, table.wrong, scores, facts, total, grid[0], *limits, block=block, part_block=part_block, width=FACTS, **exact
    )
    place: dict[str, Any] = {"placed": code is not None and more > 0, "facts_width": FACTS}
    cell = order if code is None else code
    where = (width, 0 if len(cell) == 1 else total)
    excluded = torch.empty(batch, total, dtype=torch.int8, device=device)
    marks = (products, inverse, order, cell, facts)
    if exclude:
        _touch[(triton.cdiv(total, 64), batch)](*marks, excluded, total, pivots, *where, **place, rows=32, columns=64, **exact)
    else:
        excluded[:, :pivots], excluded[:, pivots:] = 1, 0
    every = max(1, total // _SAMPLED)
    parts = triton.cdiv(triton.cdiv(total, every), 8)
    counts = torch.empty(batch, parts, dtype=torch.int32, device=device)
    _count[(parts, batch)](*marks, counts, total, every, *where, **place, rows=8, columns=256, **exact)
    kept = torch.empty(batch, total, dtype=torch.int8, device=device)
    _walk[(batch,)](
        products, inverse, order, cell, counts, excluded, facts, kept, total, pivots, n, parts, *where, **place,
        fill=fill, block=block, part_block=triton.next_power_of_2(parts), enable_fp_fusion=False, num_warps=min(32, max(4, block // 256)),
    )  # fmt: skip
    return kept, facts


def counted(total: int) -> int:
    """Return how many pairs are sampled for the share of linked ones."""
    every = max(1, total // _SAMPLED)
    return sum(total - 1 - row for row in range(0, total, every))
