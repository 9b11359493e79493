"""Budgets of tiles: HiRED and GlobalCom²."""

from __future__ import annotations

import numpy as np
import oracles_field
import pytest
import strategies
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError
from biaskit.prior.resample import resample
from biaskit.select import (
    canvas_scores,
    capped_shares,
    globalcom2_ratios,
    globalcom2_scores,
    hired_budgets,
    largest_remainder,
    tile_regions,
)

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CASES
@given(data=st.data())
def test_hired_equals_its_oracle(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    tiles = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    early, regions = data.draw(strategies.scores(rows * cols)), tile_regions(rows, cols, tiles)
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=tiles[0] * tiles[1], max_size=tiles[0] * tiles[1]))
    n, alpha = data.draw(st.integers(1, rows * cols + sum(sizes))), data.draw(st.sampled_from([0.0, 0.29, 0.5, 1.0]))
    expected = oracles_field.hired(early, regions.tolist(), sizes, n, alpha)
    assert hired_budgets(torch.tensor(early), regions, sizes, n, alpha=alpha, rounding="released") == expected
    whole, shares = hired_budgets(torch.tensor(early), regions, sizes, n, alpha=alpha)
    assert whole + sum(shares) == n
    assert whole <= rows * cols
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    if not any(share == size for share, size in zip(shares, sizes, strict=True)) and expected[0] == whole and any(expected[1]):
        assert all(0 <= share - cut <= 1 for share, cut in zip(shares, expected[1], strict=True))


@CASES
@given(data=st.data())
def test_globalcom2_equals_its_oracle(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    tiles = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    logits = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).normal(size=rows * cols) * 5
    retention = data.draw(st.sampled_from([0.1, 0.25, 0.9, 1.0]))
    regions = tile_regions(rows, cols, tiles)
    expected = oracles_field.globalcom2(logits.tolist(), regions.tolist(), tiles[0] * tiles[1], retention)
    found = globalcom2_ratios(torch.from_numpy(logits), regions, tiles[0] * tiles[1], retention)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@CASES
@given(data=st.data())
def test_shares_add_up_and_stay_below_their_caps(data: st.DataObject) -> None:
    caps = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    weights = data.draw(st.lists(st.integers(0, 5).map(float), min_size=len(caps), max_size=len(caps)))
    n = data.draw(st.integers(0, sum(caps)))
    shares = capped_shares(weights, caps, n)
    assert sum(shares) == n
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))
    exact = [n * w / sum(weights) if sum(weights) else 0 for w in weights]
    if sum(weights) and all(e <= cap for e, cap in zip(exact, caps, strict=True)):
        assert all(abs(share - e) < 1 for share, e in zip(shares, exact, strict=True))


@CASES
@given(data=st.data())
def test_by_their_sizes_parts_get_the_largest_remainders(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    n = data.draw(st.integers(0, sum(sizes)))
    assert capped_shares([float(size) for size in sizes], sizes, n) == largest_remainder(sizes, n)


def test_a_tie_goes_to_the_earlier_part() -> None:
    """3 · 7 / 9 leaves a third as 3 · 1 / 9 does, but a little more of one in floating point."""
    assert capped_shares([1.0, 1.0, 7.0], [99] * 3, 3) == largest_remainder([1, 1, 7], 3) == [1, 0, 2]


def test_regions_are_quadrants_and_not_strips() -> None:
    """All attention in the upper left quadrant: the first tile gets all; the released strips share it with the second."""
    early = torch.zeros(24, 24)
    early[:12, :12] = torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) + 1
    sizes = [576] * 4
    options = {"alpha": 0.75, "rounding": "released"}  # 144 cells are marked
    whole, shares = hired_budgets(early.flatten(), tile_regions(24, 24, (2, 2)), sizes, 288, **options)
    assert (whole, shares) == (216, [72, 0, 0, 0])
    _, strips = hired_budgets(early.flatten(), tile_regions(24, 24, (2, 2), strips=True), sizes, 288, **options)
    assert strips == [36, 36, 0, 0]


def test_even_scores_give_every_tile_the_same() -> None:
    regions = tile_regions(24, 24, (2, 2))
    assert globalcom2_ratios(torch.ones(576), regions, 4, 0.25).tolist() == [0.25] * 4


def test_temperature_is_for_logits() -> None:
    """Of probabilities the largest possible spread is 0.0064; logits of a common size go beyond."""
    regions = tile_regions(24, 24, (2, 2))
    probabilities = torch.zeros(576)
    probabilities[0] = 1
    ratios = globalcom2_ratios(probabilities, regions, 4, 0.25)
    assert 0.0063 < float(ratios.max() - ratios.min()) < 0.0065
    ratios = globalcom2_ratios(torch.randn(576, generator=torch.Generator().manual_seed(0)), regions, 4, 0.25)
    assert float(ratios.max() - ratios.min()) > 0.01
    assert float(ratios.mean()) == pytest.approx(0.25)


def test_a_tile_s_scores_and_the_thumbnail_s_weigh_the_same() -> None:
    local, crop = torch.tensor([3.0, -4]), torch.tensor([300.0, 400])
    torch.testing.assert_close(globalcom2_scores(local, crop), torch.tensor([1.2, 0.0]))
    assert globalcom2_scores(torch.zeros(2), crop).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(("rows", "cols"), [(4, 6), (48, 36), (3, 3)])
def test_the_canvas_is_resized_as_priors_are(rows: int, cols: int) -> None:
    thumbnail = np.random.default_rng(0).random((4, 3))
    np.testing.assert_allclose(canvas_scores(torch.from_numpy(thumbnail), rows, cols).numpy(), resample(thumbnail, rows, cols), atol=1e-6)


def test_arguments() -> None:
    with pytest.raises(BiaskitError, match="regions have shape"):
        globalcom2_ratios(torch.ones(4), torch.tensor([0, 0, 1]), 2, 0.25)
    with pytest.raises(BiaskitError, match="retention is 0"):
        globalcom2_ratios(torch.ones(2), torch.tensor([0, 1]), 2, 0)
    with pytest.raises(BiaskitError, match="alpha is 2"):
        hired_budgets(torch.ones(2), torch.tensor([0, 1]), [2, 2], 2, alpha=2)
    with pytest.raises(BiaskitError, match="cannot share"):
        capped_shares([1.0], [1, 2], 2)
    with pytest.raises(BiaskitError, match="cannot cut"):
        tile_regions(0, 4, (1, 1))
    with pytest.raises(BiaskitError, match="cannot resize"):
        canvas_scores(torch.ones(4), 2, 2)
