"""CDPruner: the greedy determinantal point process, its kernels, and OpenVINO's halves."""

from __future__ import annotations

import numpy as np
import oracles_field
import pytest
import strategies
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import dpp_select, text_relevance

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@CASES
@given(data=st.data())
def test_dpp_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(2, 12))
    features = data.draw(strategies.generic_features(total))
    relevance = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).normal(size=total).astype(np.float32).tolist()
    n, kernel = data.draw(st.integers(1, min(total, 6))), data.draw(st.sampled_from(["product", "blend", "exponential"]))
    weight = data.draw(st.sampled_from([0.25, 0.5, 0.9]))
    expected, closest = oracles_field.dpp(relevance, features, n, kernel, weight)
    assume(closest > 1e-7)
    arguments = (torch.tensor(relevance), torch.from_numpy(features), n)
    assert dpp_select(*arguments, kernel=kernel, weight=weight, order="choice").tolist() == expected
    assert dpp_select(*arguments, kernel=kernel, weight=weight).tolist() == sorted(expected)


ROWS = torch.tensor(
    [[0.9, 0, 0.1, 0.4], [0.8, 0.4, 1, -0.2], [0, 0.4, -0.2, 0], [0.5, 0, 0.7, 0.8], [-0.1, 0.5, 0.5, 0.2], [-0.1, 0.4, 0.2, 0.5]]
)
WEIGHTS = torch.tensor([0.95, 1, 0.6, 0.9, 0.3, 0.7])
EIGHT = torch.tensor(
    [
        [5, 1, -2, 3, 6, -2],
        [2, 5, 8, 0, 4, 1],
        [3, -2, 0, 2, 0, -2],
        [3, 0, 1, 5, -2, 4],
        [8, -1, 6, 9, 4, 5],
        [2, -2, -1, 8, -1, 3],
        [3, 7, 9, 10, 7, 8],
        [2, 2, 5, -3, 9, 4.0],
    ]
)
TEXT = torch.tensor([[7, 0, -3, 6, 7, 0.0]])


def test_golden_with_relevance_as_it_is() -> None:
    """The worked example takes r S r without scaling: r is scaled linearly here, with the ends 0 and 1 added as tokens like no other."""
    similar, r = torch.zeros(8, 6), torch.cat([WEIGHTS, torch.tensor([0.0, 1.0])])
    similar[:6, :4], similar[6, 4], similar[7, 5] = ROWS, 1, 1
    picked = dpp_select(r, similar, 8, order="choice").tolist()
    assert [i for i in picked if i < 6][:3] == [1, 0, 5]


@pytest.mark.parametrize(
    ("negative", "kernel", "halves", "kept"),
    [
        (False, "product", False, [0, 2, 4, 5]),
        (True, "product", False, [1, 2, 3, 7]),
        (False, "blend", False, [0, 1, 2, 5]),
        (False, "exponential", False, [0, 2, 5, 6]),
        (False, "blend", True, [0, 3, 4, 7]),
        (False, "exponential", True, [0, 3, 4, 5]),
    ],
)
def test_golden_variants(negative: bool, kernel: str, halves: bool, kept: list[int]) -> None:
    relevance = text_relevance(EIGHT, TEXT, negative=negative)
    assert dpp_select(relevance, EIGHT, 4, kernel=kernel, halves=halves).tolist() == kept  # type: ignore[arg-type]


def test_orthogonal_tokens_come_before_duplicates() -> None:
    rows = torch.eye(3)[[0, 0, 1, 0, 2]]
    assert dpp_select(torch.ones(5), rows, 5, order="choice").tolist() == [0, 2, 4, 1, 3]


def test_where_the_rank_is_used_up_relevance_fills() -> None:
    rows = torch.tensor([[1.0, 0], [2, 0], [0, 1], [1, 1], [3, 1]])
    picked = dpp_select(torch.tensor([0.5, 1.0, 0.7, 0.9, 0.8]), rows, 4, order="choice").tolist()
    assert len(set(picked[:2])) == 2
    left = [i for i in (1, 3, 4, 2, 0) if i not in picked[:2]]
    assert picked[2:] == left[:2]
    assert dpp_select(torch.ones(3), torch.zeros(3, 2), 2).tolist() == [0, 1]


def test_relevance_is_a_mean_over_the_pieces_of_the_text() -> None:
    features, text = torch.tensor([[1.0, 0], [0, 3]]), torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    torch.testing.assert_close(text_relevance(features, text), torch.tensor([1 / 3, 2 / 3]))
    torch.testing.assert_close(text_relevance(features, text, negative=True), -torch.tensor([1 / 3, 2 / 3]))


def test_halves_of_few_tokens() -> None:
    assert dpp_select(torch.ones(1), torch.ones(1, 2), 1, halves=True).tolist() == [0]
    assert len(dpp_select(torch.rand(5), torch.randn(5, 8), 5, halves=True)) == 5


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="weight is 1"):
        dpp_select(WEIGHTS, ROWS, 3, kernel="exponential", weight=1)
    with pytest.raises(BiaskitError, match="kernel is"):
        dpp_select(WEIGHTS, ROWS, 3, kernel="other")  # type: ignore[arg-type]
    with pytest.raises(BiaskitError, match="text has shape"):
        text_relevance(ROWS, torch.ones(0, 4))
