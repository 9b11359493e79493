"""How many images are enough: against a model with a known answer, and Spearman and Brown's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from biaskit.errors import BiaskitError
from biaskit.prior.value import PlaneStats, Prior
from biaskit.validation.studies.enough import images_for, needed, settle, step_up
from biaskit.validation.studies.enough_figure import draw_enough

SIGNAL, NOISE, BLOCKS, SIZE = 0.1, 0.6, 100, 10


def noisy(blocks=BLOCKS, counts=None, seed=0, side=24):
    """A prior whose images are one map of variance SIGNAL² plus noise of variance NOISE² a cell: the reliability of n is known."""
    rng = np.random.default_rng(seed)
    counts = np.full(blocks, SIZE) if counts is None else np.asarray(counts)
    truth = rng.normal(8, SIGNAL, (1, 2, side, side))
    means = truth + rng.normal(0, NOISE, (len(counts), 2, side, side)) / np.sqrt(np.maximum(counts, 1))[:, None, None, None]
    means = (means * (counts > 0)[:, None, None, None]).astype(np.float32)
    mean = np.average(means, axis=0, weights=counts).astype(np.float32)
    stats = PlaneStats(mean, group_mean=means, group_count=counts.astype(np.int32), count=int(counts.sum()))
    return Prior({"image": stats}, (1, 5), np.full(2, 0.5, np.float32), {})


def reliability(n):
    return SIGNAL**2 / (SIGNAL**2 + NOISE**2 / n)


def test_a_known_reliability_is_found():
    rows = settle(noisy())
    assert [row.n for row in rows if row.layer == 5] == [10, 20, 50, 100, 200, 500, 1000]
    for row in rows:
        assert row.reliability == pytest.approx(reliability(row.n), abs=0.05)
        assert row.truth == pytest.approx(math.sqrt(reliability(row.n)), abs=0.05)
        assert (row.halves is None) == (row.n > 500)
        if row.halves is not None:
            assert row.halves == pytest.approx(reliability(row.n), abs=0.05)
            assert row.halves_sd > 0
    last = rows[-1]
    assert last.n == 1000
    assert last.full == pytest.approx(1)


def test_the_number_of_images_that_it_takes():
    exact = SIGNAL**2, NOISE**2
    found = needed(settle(noisy()))
    for layer in (1, 5):
        for wanted in (0.95, 0.99):
            right = wanted**2 / (1 - wanted**2) * exact[1] / exact[0]
            assert found[layer][wanted] == pytest.approx(right, rel=0.2)
    assert images_for(reliability(10), 10, math.sqrt(reliability(70))) == 70
    assert images_for(0.0, 10, 0.9) is None
    assert images_for(1.0, 10, 0.9) == 1


def test_spearman_brown():
    assert step_up(0.5, 2) == pytest.approx(2 / 3)  # the textbook's doubling
    assert step_up(2 / 3, 0.5) == pytest.approx(0.5)
    assert step_up(-0.2, 5) == 0
    assert step_up(1.0, 5) == 1


def test_the_same_seed_draws_the_same_splits_and_blocks_without_images_are_left_out():
    counts = np.full(40, 10)
    counts[[3, 9]] = 0
    assert settle(noisy(counts=counts)) == settle(noisy(counts=counts))
    assert settle(noisy(counts=counts), seed=1) != settle(noisy(counts=counts))
    assert settle(noisy(counts=counts))[-1].n == 380


def test_a_prior_without_blocks_is_refused():
    with pytest.raises(BiaskitError, match="four blocks"):
        settle(noisy(blocks=3))


def test_the_figure_has_a_line_a_layer(tmp_path):
    rows = settle(noisy(side=8))
    figure = draw_enough(rows, tmp_path / "enough.png", title="A title")
    assert (tmp_path / "enough.png").stat().st_size > 10_000
    assert len(figure.axes) == 2
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["layer 1", "layer 5"]
    with pytest.raises(BiaskitError, match="exists"):
        draw_enough(rows, tmp_path / "enough.png")
