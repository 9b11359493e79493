"""SparseVLM: raters, counts by stage, recycling."""

from __future__ import annotations

import numpy as np
import oracles_field
import pytest
import strategies
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import (
    SPARSEVLM_COUNTS,
    kept_and_recycled,
    rank_deletions,
    rater_scores,
    recycled_count,
    sparsevlm_merge,
    text_raters,
)

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@CASES
@given(data=st.data())
def test_recycling_equals_its_oracle(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 90))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    hidden, scores = random.normal(size=(total, data.draw(st.integers(1, 6)))), random.permutation(total).astype(float).tolist()
    keep, nearest = data.draw(st.integers(1, total)), data.draw(st.integers(1, 6))
    hidden = hidden.astype(np.float32).astype(np.float64)
    places, contents, closest = oracles_field.sparsevlm(scores, hidden, keep, nearest)
    assume(closest > 1e-9)
    arguments = (torch.tensor(scores), torch.from_numpy(hidden), keep)
    released = sparsevlm_merge(*arguments, nearest=nearest, order="choice")
    assert released.indices.tolist() == places
    np.testing.assert_allclose(released(torch.from_numpy(hidden)).numpy(), contents, rtol=1e-5, atol=1e-5)
    ours = sparsevlm_merge(*arguments, nearest=nearest)
    assert ours.indices.tolist() == sorted(places)
    np.testing.assert_allclose(ours(torch.from_numpy(hidden)).numpy(), contents[np.argsort(places)], rtol=1e-5, atol=1e-5)


@CASES
@given(data=st.data())
def test_raters_equal_their_oracle(data: st.DataObject) -> None:
    visual, text = data.draw(strategies.generic_features(data.draw(st.integers(1, 9)))), data.draw(st.integers(1, 9))
    words = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(text, visual.shape[1]))
    assert text_raters(torch.from_numpy(visual), torch.from_numpy(words)).tolist() == oracles_field.raters(visual, words)


def test_texts_that_are_alike_all_rate() -> None:
    assert text_raters(torch.ones(3, 2), torch.ones(4, 2)).tolist() == [True] * 4


def test_counts_of_the_published_stages() -> None:
    """Label 192 of v1: 576 in layers 0 to 2, 309 in four, 204 in nine, 113 in sixteen."""
    counts = [576]
    for keep in SPARSEVLM_COUNTS["v1", 192]:
        counts.append(keep + recycled_count(counts[-1] - keep))
    assert counts == [576, 309, 204, 113]
    assert np.repeat(counts, [3, 4, 9, 16]).mean() == pytest.approx(206.5, abs=0.05)
    means = {label: np.repeat([576, *SPARSEVLM_COUNTS["v1", label]], [3, 4, 9, 16]).mean() for label in (192, 128, 96, 64)}
    assert means == pytest.approx({192: 202.8, 128: 140.8, 96: 110.3, 64: 79.2}, abs=0.051)


@pytest.mark.parametrize("total", [1, 2, 30, 109, 576])
def test_a_budget_with_recycled_tokens_is_met(total: int) -> None:
    generator = torch.Generator().manual_seed(total)
    scores, hidden = torch.rand(total, generator=generator), torch.randn(total, 5, generator=generator)
    for n in range(2, total + 1, max(total // 7, 1)):
        kept, recycled = kept_and_recycled(total, n)
        assert (kept >= 1, kept + recycled) == (True, n)
        assert recycled in (recycled_count(total - kept), n // 2)
        assert len(sparsevlm_merge(scores, hidden, kept, clusters=recycled)) == n


def test_scores_are_of_the_heads_that_look_at_the_picture() -> None:
    attention = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    attention[2] += 1
    raters = torch.tensor([True, False, True])
    torch.testing.assert_close(rater_scores(attention, raters), attention[:, [0, 2]].mean((0, 1)))
    torch.testing.assert_close(rater_scores(attention, raters, heads=1), attention[2, [0, 2]].mean(0))
    torch.testing.assert_close(rater_scores(attention, raters, heads=9), rater_scores(attention, raters))


def test_equal_states_are_no_distance_apart() -> None:
    """The squares of copies' distances, by one product, are rounding, below 0 too: then not the first of each kind were its centre."""
    kinds = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)) * 3
    states = torch.cat([torch.zeros(1, 7), kinds.repeat(10, 1)])
    merge = sparsevlm_merge(torch.arange(41.0, 0, -1), states, 1, clusters=4, nearest=2)
    assert merge.indices.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(merge(states)[1:].numpy(), kinds.numpy(), rtol=1e-5)


def test_deletions_by_rank() -> None:
    assert rank_deletions(torch.eye(3, 10)) == 7
    assert rank_deletions(torch.eye(10)) == 0
    assert rank_deletions(torch.zeros(2, 10)) == 9


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="nearest is 0"):
        sparsevlm_merge(torch.ones(3), torch.ones(3, 2), 1, nearest=0)
    with pytest.raises(BiaskitError, match="raters"):
        rater_scores(torch.ones(2, 3, 4), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(BiaskitError, match="heads is 0"):
        rater_scores(torch.ones(2, 3, 4), torch.ones(3, dtype=torch.bool), heads=0)
    with pytest.raises(BiaskitError, match="scale is 2"):
        rank_deletions(torch.ones(2, 3), scale=2)
    with pytest.raises(BiaskitError, match="visual has shape"):
        text_raters(torch.ones(0, 2), torch.ones(1, 2))
