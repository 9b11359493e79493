"""The paired bootstrap against cases whose answer is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from biaskit.validation.statistics.resampling import Estimate, bootstrap, grouped, half_width, interval


def enumerated(values, statistic):
    """All n^n resamples, equally likely: the statistic's exact bootstrap distribution, as {value: probability}."""
    table = np.asarray(values, dtype=float)
    found = {}
    for draw in itertools.product(range(len(table)), repeat=len(table)):
        value = round(float(statistic(table[list(draw)].mean(axis=0))), 12)
        found[value] = found.get(value, 0) + len(table) ** -len(table)
    return found


@pytest.mark.parametrize(
    "statistic",
    [lambda m: m[..., 0], lambda m: m[..., 0] - m[..., 1], lambda m: m[..., 0] / m[..., 1]],
    ids=["mean", "difference", "ratio"],
)
def test_three_samples_enumerated(statistic):
    values = [[0.0, 1.0], [1.0, 2.0], [5.0, 2.5]]
    exact = enumerated(values, statistic)
    resampled = bootstrap(values, resamples=60_000, seed=1)
    draws = np.round(statistic(resampled.draws), 12)
    assert set(draws) <= set(exact)
    for value, share in exact.items():
        assert np.mean(draws == value) == pytest.approx(share, abs=4 * math.sqrt(share / 60_000))
    # the percentile interval of 27 resamples at 80 %: where the exact distribution passes 10 % and 90 %
    ordered = sorted(exact)
    passed = np.cumsum([exact[value] for value in ordered])
    low, high = ordered[int(np.searchsorted(passed, 0.1))], ordered[int(np.searchsorted(passed, 0.9))]
    found = resampled.estimate(statistic, "percentile", 0.8)
    assert (round(found.low, 9), round(found.high, 9)) == (round(low, 9), round(high, 9))


def test_bca_against_the_formulas_by_hand():
    """Efron's definitions written out for a skewed sample, from the same draws."""
    from statistics import NormalDist

    normal = NormalDist()
    values = np.random.default_rng(0).exponential(size=25)
    resampled = bootstrap(values[:, None], resamples=4000, seed=2)
    draws, theta = resampled.draws[:, 0], values.mean()
    z0 = normal.inv_cdf(float(np.mean(draws < theta)))
    left = np.array([np.delete(values, i).mean() for i in range(25)])
    gaps = left.mean() - left
    a = (gaps**3).sum() / (6 * (gaps**2).sum() ** 1.5)
    ends = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        share = normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        ends.append(np.quantile(draws, share))
    assert [resampled.mean(0).low, resampled.mean(0).high] == pytest.approx(ends)
    plain = resampled.mean(0, "percentile")
    assert resampled.mean(0).high > plain.high  # a long right tail: BCa reaches further to the right
    np.testing.assert_allclose(resampled.left_out[:, 0], left)


@pytest.mark.parametrize("kind", ["bca", "percentile"])
def test_intervals_of_normal_differences_cover_what_they_say(kind):
    """True difference 0.3, correlated columns: 95 % intervals hold it in 92–97 % of 600 studies, and are about ±1.96 σ/√n wide."""
    random = np.random.default_rng(3)
    hits, widths = 0, []
    for study in range(600):
        common = random.normal(size=(60, 1))
        values = common + random.normal(size=(60, 2)) * 0.5 + [0.3, 0.0]
        found = bootstrap(values, resamples=600, seed=study).difference(0, 1, kind)
        hits += found.low <= 0.3 <= found.high
        widths.append(found.high - found.low)
    assert 0.92 <= hits / 600 <= 0.97
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.5 * math.sqrt(2 / 60), rel=0.05)


def test_images_are_drawn_as_wholes():
    """Ten questions on each image, all with the image's luck: drawn by question the interval is √10 too narrow, and rarely covers."""
    random = np.random.default_rng(4)
    hits = {"image": 0, "question": 0}
    groups = np.repeat(np.arange(40), 10).tolist()
    for study in range(150):
        values = np.repeat(random.normal(size=40), 10)[:, None]
        for unit, given in (("image", groups), ("question", None)):
            found = bootstrap(values, given, resamples=300, seed=study).mean(0)
            hits[unit] += found.low <= 0 <= found.high
    assert 0.90 <= hits["image"] / 150 <= 0.98
    assert hits["question"] / 150 < 0.6


def test_groups_of_one_are_samples_and_order_does_not_matter():
    values = np.random.default_rng(5).random((30, 3))
    plain = bootstrap(values, resamples=50, seed=1)
    np.testing.assert_allclose(bootstrap(values, list("abcdefghijklmnopqrstuvwxyzABCD"), resamples=50, seed=1).draws, plain.draws)
    sums, sizes = grouped(values[:5], ["a", "b", "a", "c", "b"])
    np.testing.assert_allclose(sums, [values[0] + values[2], values[1] + values[4], values[3]])
    assert sizes.tolist() == [2, 2, 1]


def test_columns_are_resampled_together():
    """A method that is always a tenth better is a tenth better in every resample: no interval at all."""
    values = np.random.default_rng(6).random(80)
    resampled = bootstrap(np.stack([values * 1.1, values], axis=1), resamples=500)
    found = resampled.ratio(0, 1)
    assert (found.low, found.high) == pytest.approx((1.1, 1.1))
    shifted = bootstrap(np.stack([values + 0.1, values], axis=1), resamples=500).difference(0, 1)
    assert (shifted.low, shifted.high) == pytest.approx((0.1, 0.1))


def test_all_right_is_not_certainty():
    """Thirty of thirty right: the exact binomial interval begins at 0.025^(1/30)."""
    found = bootstrap(np.ones((30, 1)), resamples=200).mean(0)
    assert found == Estimate(1.0, pytest.approx(0.025 ** (1 / 30)), 1.0)
    none = bootstrap(np.zeros((30, 1)), resamples=200).mean(0)
    assert none == Estimate(0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 30)))


def test_undefined_ratios_stay_undefined():
    found = bootstrap(np.array([[1.0, 0.0], [0.0, 0.0]]), resamples=100).ratio(0, 1)
    assert math.isnan(found.value) and math.isnan(found.low)
    assert interval(1.0, np.array([math.nan, 2.0, 2.0]), np.array([]), "percentile") == (2.0, 2.0)


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    values = np.random.default_rng(7).random((50, 2))
    whole = bootstrap(values, resamples=300, seed=9).draws
    np.testing.assert_array_equal(bootstrap(values, resamples=300, seed=9).draws, whole)
    assert not np.array_equal(bootstrap(values, resamples=300, seed=8).draws, whole)
    monkeypatch.setattr("biaskit.validation.statistics.resampling._BLOCK", 50 * 7)
    np.testing.assert_allclose(bootstrap(values, resamples=300, seed=9).draws, whole)


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.ones(3)])
def test_what_is_no_table_is_refused(values):
    with pytest.raises(ValueError, match="not samples by methods"):
        bootstrap(values)
    with pytest.raises(ValueError, match="2 groups for 3 samples"):
        bootstrap(np.ones((3, 1)), ["a", "b"])


def test_half_width_of_groups():
    """Of single samples the usual standard error; of images asked twice that of the images; of one image nothing."""
    values = np.random.default_rng(3).normal(size=40)
    alone = 1.96 * np.std(values, ddof=1) / math.sqrt(40)
    assert half_width(values) == pytest.approx(alone)
    assert half_width(np.repeat(values, 2), np.repeat(np.arange(40), 2).tolist()) == pytest.approx(alone)
    assert half_width(np.repeat(values, 2)) < 0.8 * alone
    assert math.isnan(half_width(values, ["one"] * 40))
