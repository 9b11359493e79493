"""Scores that stand alone, the rule for budgets, and arguments that make no sense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from biaskit.errors import BiaskitError
from biaskit.select import (
    cells,
    d2_graph,
    d2_select,
    dart_select,
    feature_norm,
    max_min_select,
    min_max,
    mmr_select,
    neighbours,
    relative_attention,
    selector_score,
    soft_top_k,
    top_k,
    uniform_select,
)
from biaskit.select.keep import budget


def test_selector_score_is_the_mean_over_all_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(30, 8, generator=random)
    query, key = ((torch.randn(4, 8, generator=random), torch.randn(4, generator=random)) for _ in range(2))
    q, k = features @ query[0].T + query[1], features @ key[0].T + key[1]
    score = selector_score(features, query, key)
    torch.testing.assert_close(score, (q @ k.T / 2).mean(1), rtol=1e-5, atol=1e-5)
    shuffle = torch.cat([torch.tensor([0]), 1 + torch.randperm(29, generator=random)])
    torch.testing.assert_close(selector_score(features[shuffle], query, key)[0], score[0])
    with pytest.raises(BiaskitError, match="for features of size 8, these have 5"):
        selector_score(torch.ones(3, 5), query, key)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.9])
def test_soft_top_k_adds_up(share: float) -> None:
    scores = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 30
    soft = soft_top_k(scores, share)
    assert float(soft.sum()) == pytest.approx(share * 200, rel=1e-4)
    assert torch.equal(soft.sort().values, soft[scores.sort().indices])
    assert soft_top_k(torch.zeros(5)).tolist() == pytest.approx([0.2] * 5)


def test_min_max_and_norm() -> None:
    assert min_max(torch.tensor([3.0, 1, 2]), eps=0).tolist() == [1, 0, 0.5]
    assert min_max(torch.tensor([7.0, 7]), eps=0).tolist() == [0, 0]
    assert feature_norm(torch.tensor([[3.0, 4], [0, 0]])).tolist() == [5, 0]


def test_budget_rounds_halves_up() -> None:
    assert [budget(5, 0.5), budget(3, 0.5), budget(10, 0.25), budget(576, 0.1), budget(3, 0.01), budget(7, 1.0)] == [3, 2, 3, 58, 1, 7]
    assert budget(50, 0.29) == 15  # 14.5, although 0.29 * 50 is 14.499999999999998
    for wrong in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(BiaskitError, match=r"not in 0 < r ≤ 1"):
            budget(10, wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k(torch.ones(2, 3), 1), r"scores has shape \[2, 3\], not \[N\]"),
        (lambda: top_k(torch.tensor([1.0, float("nan")]), 1), "not finite"),
        (lambda: mmr_select(torch.ones(2), torch.ones(3, 4), 1), r"importance has shape \[2\], not \[3\]"),
        (lambda: mmr_select(torch.ones(3), torch.ones(3, 4), 1, lam=1.5), "lam is 1.5"),
        (lambda: max_min_select(torch.full((3, 2), float("inf")), 1), "not finite"),
        (lambda: max_min_select(torch.ones(3, 2), 1, order="best"), "order is 'best'"),
        (lambda: d2_graph(torch.ones(3, 2), None, alpha=0.5), "alpha is 0.5, but there are no cells"),
        (lambda: d2_graph(torch.ones(3, 2), cells((2, 2))), r"not \[3, 3\]"),
        (lambda: d2_graph(torch.ones(3, 2), None, theta=2), "theta is 2"),
        (lambda: d2_select(torch.ones(3), torch.ones(3, 2), None, 1, fill="all"), "fill is 'all'"),
        (lambda: d2_select(torch.ones(3), torch.ones(3, 2), None, 1, pivot_ratio=-1), "pivot_ratio is -1"),
        (lambda: neighbours(torch.zeros(2, 3, dtype=torch.int64)), "share one cell"),
        (lambda: neighbours(torch.full((1, 3), -1)), "negative"),
        (lambda: uniform_select(3, 2, where=cells((2, 2))[:3]), "not a full rectangle"),
        (lambda: dart_select(torch.ones(3), torch.ones(3, 2), torch.ones(0), torch.ones(0, 2), 1, pivots=0), "0 visual and 4 text pivots"),
        (lambda: relative_attention(torch.ones(3), torch.ones(2)), r"prior has shape \[2\], not \[3\]"),
        (lambda: relative_attention(torch.ones(3), -torch.ones(3)), "prior has negative values"),
        (lambda: relative_attention(torch.ones(3), torch.zeros(3)), "zero where it divides"),
        (lambda: relative_attention(torch.ones(3), torch.ones(3), strength=2), "strength is 2"),
        (lambda: relative_attention(torch.ones(3), torch.ones(3), mode="minus"), "mode is 'minus'"),
        (lambda: soft_top_k(torch.ones(3), 1.0), "share is 1.0"),
    ],
)
def test_arguments_that_make_no_sense(call: Callable[[], object], message: str) -> None:
    with pytest.raises(BiaskitError, match=message) as caught:
        call()
    assert caught.value.hint
