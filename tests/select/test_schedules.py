"""Schedules: PyramidDrop, layer means, FitPrune."""

from __future__ import annotations

import numpy as np
import oracles
import oracles_field
import pytest
import strategies
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.select import (
    fitprune_deletions,
    fitprune_schedule,
    fitprune_select,
    gated_cost,
    layer_counts,
    pyramid_counts,
    stage_layers,
)

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CASES
@given(data=st.data())
def test_deletions_equal_their_oracle(data: st.DataObject) -> None:
    layers, total = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 15))
    maps = [np.array([data.draw(strategies.scores(total)) for _ in range(layers)]) for _ in range(2)]
    alpha = data.draw(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]))
    assert fitprune_deletions(*maps, alpha) == oracles_field.fitprune(*maps, alpha)


@CASES
@given(data=st.data())
def test_products_decide_at_inference(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 20))
    cross, own = data.draw(strategies.scores(total)), data.draw(strategies.scores(total))
    n = data.draw(st.integers(1, total))
    expected = oracles.descending([a * b for a, b in zip(cross, own, strict=True)])[:n]
    assert fitprune_select(torch.tensor(cross), torch.tensor(own), n, order="choice").tolist() == expected


def test_calibration_deletes_what_both_maps_spare() -> None:
    """Token 0 is low in cross and high in self: by the product it would go, in calibration it stays."""
    cross, own = np.array([[0.01, 1.0, 1, 1]]), np.array([[0.9, 1.0, 1, 1]])
    assert fitprune_deletions(cross, own, 0.1) == [0]
    assert 0 not in fitprune_select(torch.tensor(cross[0]), torch.tensor(own[0]), 3).tolist()
    assert fitprune_deletions(cross, cross, 0.1) == [1]


@pytest.mark.parametrize("saving", [0.0, 0.25, 0.5, 0.75])
def test_a_schedule_saves_what_it_should(saving: float) -> None:
    random = np.random.default_rng(0)
    samples = [(random.random((8, 60)) ** 4, random.random((8, 60)) ** 4) for _ in range(5)]
    cost = gated_cost(16, 32)
    schedule, alpha = fitprune_schedule(samples, saving, cost)
    entering = 60 - np.cumsum([0, *schedule[:-1]])
    assert sum(map(cost, entering)) <= (1 - saving) * 8 * cost(60) * 1.05  # rounded down: a little dearer than the mean over samples
    if saving:
        by_hand = [np.mean([oracles_field.fitprune(*maps, alpha)[layer] for maps in samples]) for layer in range(8)]
        assert schedule == [int(mean) for mean in by_hand]
        looser = max(alpha - 0.02, 0)
        dearer = [60 - np.cumsum([0, *oracles_field.fitprune(*maps, looser)[:-1]]) for maps in samples]
        assert np.mean([sum(map(cost, each)) for each in dearer]) > (1 - saving) * 8 * cost(60)


def test_more_than_the_first_layer_allows() -> None:
    maps = np.ones((2, 10))
    with pytest.raises(BiaskitError, match="no schedule saves 90%"):
        fitprune_schedule([(maps, maps)], 0.9, gated_cost(4, 4))


def test_pyramid() -> None:
    assert pyramid_counts(576) == [288, 144, 72]
    assert pyramid_counts(5) == [2, 1, 1]
    counts = layer_counts(576, 32, list(zip(stage_layers(32), pyramid_counts(576), strict=True)))
    assert counts == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    assert np.mean(counts) == 270
    assert layer_counts(10, 3, [(0, 4), (2, 20)]) == [4, 4, 4]


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="shares are"):
        pyramid_counts(10, (0.25, 0.5))
    with pytest.raises(BiaskitError, match="no room"):
        stage_layers(3, 3)
    with pytest.raises(BiaskitError, match="cuts before layers"):
        layer_counts(10, 4, [(2, 5), (1, 3)])
    with pytest.raises(BiaskitError, match="negative"):
        fitprune_select(-torch.ones(2), torch.ones(2), 1)
    with pytest.raises(BiaskitError, match="maps have shapes"):
        fitprune_deletions(np.ones((1, 2)), np.ones((2, 2)), 0.5)
    with pytest.raises(BiaskitError, match="0 samples"):
        fitprune_schedule([], 0.5, gated_cost(4, 4))
    with pytest.raises(BiaskitError, match="alpha is 2"):
        fitprune_deletions(np.ones((1, 2)), np.ones((1, 2)), 2)
    with pytest.raises(BiaskitError, match="no layers or no visual tokens"):
        fitprune_schedule([(np.ones((2, 4)), np.ones((2, 4))), (np.ones((2, 0)), np.ones((2, 0)))], 0.5, gated_cost(4, 4))
    with pytest.raises(BiaskitError, match="no layers or no visual tokens"):
        fitprune_schedule([(np.ones((0, 4)), np.ones((0, 4)))], 0.5, gated_cost(4, 4))


def test_without_tokens_nothing_is_deleted() -> None:
    assert fitprune_deletions(np.ones((3, 0)), np.ones((3, 0)), 0.5) == [0, 0, 0]
    assert fitprune_select(torch.ones(0), torch.ones(0), 4).tolist() == []
