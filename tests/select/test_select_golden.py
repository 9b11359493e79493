"""Worked examples, computed once by hand and by an independent script."""

from __future__ import annotations

import math

import pytest
import torch

from biaskit.select import cells, d2_select, max_min_select, mmr_select, relative_attention, top_k

A_REL = torch.tensor([6, 3, 11, 7, 10, 1, 12, 5, 8, 2, 14, 13, 9, 4, 16, 15.0])
A_ORI = torch.tensor([6, 3, 11, 7, 10, 1, 12, 5, 16, 4, 28, 26, 36, 16, 64, 60.0])
A_BIAS = torch.tensor([1.0, 1, 2, 4]).repeat_interleave(4)
FEATURES = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).repeat(4, 1)
WHERE = cells((4, 4))


def test_debiased_score() -> None:
    torch.testing.assert_close(relative_attention(A_ORI, A_BIAS), A_REL)


def test_importance_alone() -> None:
    assert top_k(A_ORI, 6).tolist() == [8, 10, 11, 12, 14, 15]  # 8 and 13 tie at 16
    assert top_k(relative_attention(A_ORI, A_BIAS), 6).tolist() == [2, 6, 10, 11, 14, 15]


@pytest.mark.parametrize(
    ("alpha", "pivot_mode", "exclude", "kept", "independent"),
    [
        (0.5, "topk", True, [2, 4, 10, 12, 14, 15], 6),
        (0.5, "topk", False, [2, 4, 10, 11, 14, 15], 6),
        (0.5, "mis", True, [4, 6, 10, 12, 14, 15], 4),
        (0.5, "mis", False, [2, 4, 6, 12, 14, 15], 6),
        (1.0, "topk", True, [4, 6, 10, 11, 14, 15], 4),
    ],
)
def test_d2_variants(alpha: float, pivot_mode: str, exclude: bool, kept: list[int], independent: int) -> None:
    keep = d2_select(
        relative_attention(A_ORI, A_BIAS), FEATURES, WHERE, 6,
        alpha=alpha, pivot_ratio=0.5, pivot_mode=pivot_mode, exclude_pivot_neighbours=exclude,
    )  # fmt: skip
    assert keep.indices.tolist() == kept
    assert keep.info["independent"] == independent
    assert keep.info["filled"] == 6 - independent
    assert (keep.info["s_min"], keep.info["s_max"]) == (0, 1)
    assert keep.info["edge_density"] == (32 if alpha == 0.5 else 56) / 120


def test_d2_with_the_papers_pivot_ratio() -> None:
    keep = d2_select(A_REL, FEATURES, WHERE, 6, alpha=0.5)
    assert keep.indices.tolist() == [2, 4, 10, 11, 14, 15]
    assert keep.info["pivots"] == 4


ANGLES = torch.tensor([math.radians(a) for a in (0, 10, 20, 50, 60, 90)])
ON_CIRCLE = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
IN_SPACE = torch.tensor([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0.1, 0.9, 0.1], [0, 0, 1], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize(("lam", "order"), [(0.5, [1, 5, 3, 0]), (0.75, [1, 0, 3, 5]), (1.0, [1, 0, 3, 5]), (0.0, [1, 5, 3, 0])])
def test_mmr_on_the_circle(lam: float, order: list[int]) -> None:
    weights = torch.tensor([0.9, 1.0, 0.2, 0.8, 0.1, 0.5])
    assert mmr_select(weights, ON_CIRCLE, 4, lam=lam, order="choice").tolist() == order


@pytest.mark.parametrize(("lam", "order"), [(0.5, [1, 3, 0]), (1.0, [1, 0, 3]), (0.0, [1, 4, 2])])
def test_mmr_in_space(lam: float, order: list[int]) -> None:
    weights = torch.tensor([0.95, 1.0, 0.6, 0.9, 0.3, 0.7])
    assert mmr_select(weights, IN_SPACE, 3, lam=lam, order="choice").tolist() == order
    assert top_k(weights, 3, order="choice").tolist() == [1, 0, 3]


def test_max_min() -> None:
    assert max_min_select(ON_CIRCLE, 4, order="choice").tolist() == [5, 0, 3, 2]
    assert max_min_select(IN_SPACE, 3, order="choice").tolist() == [4, 0, 2]


FREE_OF_TIES = torch.tensor(
    [[0.9, 0, 0.1, 0.4], [0.8, 0.4, 1, -0.2], [0, 0.4, -0.2, 0], [0.5, 0, 0.7, 0.8], [-0.1, 0.5, 0.5, 0.2], [-0.1, 0.4, 0.2, 0.5]]
)


def test_where_no_step_ties() -> None:
    """Card 35.8: SCOPE and CDPruner, in their own files, choose others again."""
    weights = torch.tensor([0.95, 1, 0.6, 0.9, 0.3, 0.7])
    assert max_min_select(FREE_OF_TIES, 3, order="choice").tolist() == [2, 3, 4]
    assert mmr_select(weights, FREE_OF_TIES, 3, lam=0.5, order="choice").tolist() == [1, 2, 0]
    assert mmr_select(weights, FREE_OF_TIES, 3, lam=0.0, order="choice").tolist() == [1, 2, 5]
