"""The recency law: fits, published slopes, and the padding mask that comes with them."""

from __future__ import annotations

import numpy as np
import pytest

from biaskit.errors import BiaskitError
from biaskit.prior.bias.recency import fastv_bias, fit_recency, published_slopes, recency_bias
from biaskit.prior.bias.report import report
from biaskit.prior.padding import picture_mask
from biaskit.prior.value import PlaneStats, Prior


def prior_of(maps, groups=None, counts=None):
    mean = np.asarray(maps, np.float32)[None]
    stats = PlaneStats(mean)
    if groups is not None:
        stats = PlaneStats(mean, group_mean=np.asarray(groups, np.float32)[:, None], group_count=counts, count=int(counts.sum()))
    return Prior({"image": stats}, (1,), np.ones(1, np.float32), {})


@pytest.mark.parametrize(("rows", "cols"), [(24, 24), (4, 9), (2, 1)])
@pytest.mark.parametrize("k", [-1e-3, 0.0, 2e-3])
def test_a_law_is_found_again(rows, cols, k):
    found = fit_recency(prior_of(recency_bias(rows * cols, k).reshape(rows, cols)), 1)
    assert found.k.value == pytest.approx(k, abs=1e-6)
    assert found.explained.value == pytest.approx(1.0 if k else 0.0, abs=1e-3)
    assert found.growth == pytest.approx(np.exp(575 * k), rel=1e-3)
    assert found.k.low is None


def test_the_slope_is_that_of_numpy_s_line():
    maps = np.random.default_rng(0).random((7, 5)) + 0.1
    place = np.arange(35).reshape(7, 5) * 575 / 34
    slope, _ = np.polyfit(place.mean(1), np.log(maps).mean(1), 1)
    found = fit_recency(prior_of(maps), 1)
    assert found.k.value == pytest.approx(slope, rel=1e-5)
    log = np.log(maps)
    rest = log - log.mean() - slope * (place - place.mean())
    assert found.explained.value == pytest.approx(1 - (rest**2).sum() / ((log - log.mean()) ** 2).sum(), abs=1e-5)


def test_the_interval_covers_the_law_of_noisy_images():
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        groups = recency_bias(64, 2e-3).reshape(8, 8) * random.lognormal(sigma=0.3, size=(16, 8, 8))
        found = fit_recency(prior_of(groups.mean(0), groups, np.full(16, 4, np.int32)), 1)
        covered += found.k.low <= 2e-3 <= found.k.high
        assert found.k.low < found.k.value < found.k.high
        assert 0 < found.explained.value < 1
    assert covered >= 35


def test_scale_and_empty_cells():
    maps = recency_bias(64, 3e-3).reshape(8, 8)
    assert fit_recency(prior_of(maps * 7), 1).k.value == pytest.approx(3e-3, abs=1e-6)
    maps[0, 0] = 0
    assert np.isfinite(fit_recency(prior_of(maps), 1).k.value)
    with pytest.raises(BiaskitError, match="one row"):
        fit_recency(prior_of(np.ones((1, 5))), 1)


def test_published_slopes():
    slopes = {(s.method, s.benchmark): s.k for s in published_slopes()}
    assert len(slopes) == 40
    assert slopes["PyramidDrop", "POPE"] == 4.050629e-3
    assert slopes["TokenCarve", "MM-Vet"] == slopes["TokenCarve", "VQAv2"] == 1.696596e-3
    assert min(slopes.values()) == 1.112505e-3
    assert max(slopes.values()) == 4.637037e-3
    third = recency_bias(576, slopes["PyramidDrop", "POPE"])
    assert third[384:].sum() / 576 == pytest.approx(0.599, abs=5e-4)
    assert third[-1] / third[0] == pytest.approx(10.3, abs=0.05)


def test_fastv_is_a_cubic():
    curve = fastv_bias(576)
    weight = curve[0] / curve
    assert weight[[0, 100, 287, 400, 575]] == pytest.approx([1, 0.846574, 0.787226, 0.660220, 0.358239], abs=1e-6)
    assert (np.diff(weight) < 0).all()


def test_golden_of_weight_and_mask():
    attention, mask = np.array([4, 3, 2, 3.5, 5, 6, 9, 8]), np.array([1, 1, 1, 1, 1, 1, 0, 1])
    weight = 1 / recency_bias(8, np.log(2) / 3 * 7 / 575)
    weight /= weight[0]
    both = attention * mask * weight
    assert both == pytest.approx([4, 2.381102, 1.259921, 1.75, 1.984251, 1.889882, 0, 1.587401], abs=1e-6)
    kept = [sorted(np.argsort(-s, kind="stable")[:3].tolist()) for s in (both, attention * weight, attention * mask, attention)]
    assert kept == [[0, 1, 4], [0, 1, 6], [4, 5, 7], [5, 6, 7]]


@pytest.mark.parametrize(
    ("width", "height", "half", "hundredth", "box"),
    [
        (640, 480, 432, 432, 432),
        (640, 360, 336, 288, 336),
        (640, 400, 384, 336, 384),
        (640, 427, 384, 384, 384),
        (500, 333, 384, 384, 384),
        (300, 640, 288, 240, 288),
        (640, 640, 576, 576, 576),
    ],
)
def test_padding(width, height, half, hundredth, box):
    masks = [picture_mask(width, height), picture_mask(width, height, threshold=0.01), picture_mask(width, height, rule="box")]
    assert [int(mask.sum()) for mask in masks] == [half, hundredth, box]
    for mask in masks:
        assert (mask == mask[::-1, ::-1]).all()
        assert (mask.all(0) | ~mask.any(0)).all() or (mask.all(1) | ~mask.any(1)).all()


def test_padding_lies_on_the_short_side():
    assert np.flatnonzero(picture_mask(300, 640)[0]).tolist() == list(range(6, 18))
    assert np.flatnonzero(picture_mask(300, 640, threshold=0.01)[0]).tolist() == list(range(7, 17))
    assert picture_mask(640, 300)[:, 0].tolist() == picture_mask(300, 640)[0].tolist()


def test_arguments():
    with pytest.raises(BiaskitError, match="slope k is nan"):
        recency_bias(5, float("nan"))
    with pytest.raises(BiaskitError, match="rule is"):
        picture_mask(4, 4, rule="none")
    with pytest.raises(BiaskitError, match="threshold is 2"):
        picture_mask(4, 4, threshold=2)
    with pytest.raises(BiaskitError, match="a picture of 0"):
        picture_mask(0, 4)
    assert len(recency_bias(0, 1e-3)) == 0


@pytest.mark.parametrize("k", [1.2e-3, 2e-3, 3e-3, 4.6e-3])
def test_the_law_is_called_recency(k):
    """Published slopes of all sizes; the steepest are no straight ramp any more."""
    entry = report(prior_of(recency_bias(576, k).reshape(24, 24))).get(1, "image")
    assert entry.verdict == "recency", entry.why
    assert entry.metrics["slope"].value == pytest.approx(k, rel=1e-4)
    assert entry.metrics["law"].value == pytest.approx(1, abs=1e-4)
    assert "of log attention" in entry.why


def test_a_vertical_law_is_bottom_focused():
    maps = np.repeat(np.exp(np.arange(24) * 0.08)[:, None], 24, 1)
    entry = report(prior_of(maps)).get(1, "image")
    assert entry.verdict == "bottom-focused", entry.why
    assert "without growth along the rows" in entry.why
