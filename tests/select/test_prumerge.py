"""PruMerge and PruMerge+."""

from __future__ import annotations

import math

import numpy as np
import oracles_field
import pytest
import strategies
import torch
from decisions import CLEAR, is_exact
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import full_width_attention, outlier_count, prumerge_merge, regular_sample

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@CASES
@given(data=st.data())
def test_prumerge_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(2, 24))
    keys, features = data.draw(strategies.features(total)), data.draw(strategies.features(total))
    attention = data.draw(strategies.scores(total))
    n, plus = data.draw(st.one_of(st.none(), st.integers(1, total))), data.draw(st.booleans())
    neighbours = data.draw(st.integers(0, 6))
    places, contents, closest = oracles_field.prumerge(attention, keys, features, n, plus, neighbours)
    assume(closest > CLEAR or is_exact(keys))
    arguments = (torch.tensor(attention), torch.from_numpy(keys))
    options = {"n": n, "plus": plus, "neighbours": neighbours}
    released = prumerge_merge(*arguments, **options, order="choice")
    assert released.indices.tolist() == places
    np.testing.assert_allclose(released(torch.from_numpy(features)).numpy(), contents, rtol=1e-5, atol=1e-4)
    ours = prumerge_merge(*arguments, **options)
    order = np.argsort(places, kind="stable")
    assert ours.indices.tolist() == [places[i] for i in order]
    np.testing.assert_allclose(ours(torch.from_numpy(features)).numpy(), contents[order], rtol=1e-5, atol=1e-4)


@CASES
@given(data=st.data())
def test_outliers(data: st.DataObject) -> None:
    attention = data.draw(st.lists(st.integers(0, 40).map(float), min_size=1, max_size=60))
    assert outlier_count(torch.tensor(attention)) == oracles_field.outliers(attention)


def test_attention_is_not_split_into_heads() -> None:
    """Over whole rows of 1024 channels: the scale is 1/32, and one softmax, not 16 averaged."""
    random = np.random.default_rng(0)
    query, keys = random.normal(size=1024), random.normal(size=(577, 1024)) * 3
    z = keys @ query / 32
    whole = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    found = full_width_attention(torch.from_numpy(query), torch.from_numpy(keys))
    np.testing.assert_allclose(found.numpy(), whole[1:], rtol=1e-4)
    by_head = torch.softmax(
        torch.einsum("hd,thd->ht", torch.from_numpy(query).view(16, 64), torch.from_numpy(keys).view(577, 16, 64)) / 8, 1
    )
    assert outlier_count(found) != outlier_count(by_head.mean(0)[1:])
    assert math.isclose(float(found.sum()), 1 - whole[0], rel_tol=1e-4)


def test_uniform_attention_keeps_one() -> None:
    merge = prumerge_merge(torch.full((576,), 1 / 576), torch.randn(576, 8, generator=torch.Generator().manual_seed(0)))
    assert len(merge) == 2  # one and the rest
    assert merge.indices.tolist() == [0, 1]


def test_the_regular_sample() -> None:
    attention = torch.zeros(576)
    attention[:32] = torch.arange(32.0, 0, -1)
    assert regular_sample(attention, 32) == [i for i in range(0, 575, 6) if i >= 32]
    assert regular_sample(attention, 300) == list(range(300, 575))  # more than a third kept: a stride of 1, without the last
    merge = prumerge_merge(attention, torch.randn(576, 8, generator=torch.Generator().manual_seed(0)), plus=True)
    few = outlier_count(attention)
    assert len(merge) == few + len(regular_sample(attention, few)) + 1


def test_few_tokens_and_without_a_token_for_the_rest() -> None:
    merge = prumerge_merge(torch.tensor([0.5, 0.25, 0.25]), torch.ones(3, 2), n=2, remainder=False)
    assert merge.indices.tolist() == [0, 1]
    assert merge.weights.tolist() == [[1, 0.25, 0.25], [0.5, 1, 0.25]]  # 32 neighbours are all there are
    everything = prumerge_merge(torch.tensor([0.5, 0.25]), torch.ones(2, 2), n=2)
    assert everything.indices.tolist() == [0, 1]


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="neighbours is -1"):
        prumerge_merge(torch.ones(3), torch.ones(3, 2), neighbours=-1)
    with pytest.raises(BiaskitError, match="keep at least 1"):
        prumerge_merge(torch.ones(3), torch.ones(3, 2), n=0)
    with pytest.raises(BiaskitError, match="keys have shape"):
        full_width_attention(torch.ones(3), torch.ones(4, 2))
