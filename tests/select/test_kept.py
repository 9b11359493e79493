"""Measures of a kept set: against the card's numbers, slow NumPy versions written from the definitions, and what must hold for any set."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import layout, signals, two_images, with_newlines
from strategies import features as some_features
from strategies import grids

from biaskit.errors import BiaskitError
from biaskit.grid import Layout, Plane, raster
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN
from biaskit.select import cells, max_min_select, top_k
from biaskit.select.keep import Keep
from biaskit.select.kept import (
    box_tokens,
    box_weights,
    coverage,
    hopkins,
    importance_retention,
    jaccard,
    jaccard_by_chance,
    nearest_cosine_distance,
    overlap_coefficient,
    spacing,
)
from biaskit.validation.ask.observe import Analysis, region_coverage

SQRT_HALF = 1 / math.sqrt(2)


@st.composite
def sets(draw, least=1):
    """(N, kept) with the kept indices in any order."""
    total = draw(st.integers(max(2, least), 24))
    return total, draw(st.lists(st.integers(0, total - 1), min_size=least, max_size=total, unique=True))


# --- importance ----------------------------------------------------------------------------------------------------------------------


@given(sets(), st.integers(0, 2**32 - 1))
def test_importance_retention_is_the_share_of_the_sum(drawn, seed):
    total, kept = drawn
    weights = np.random.default_rng(seed).gamma(1, size=total).astype(np.float32)
    found = importance_retention(torch.from_numpy(weights), torch.tensor(kept))
    assert found == pytest.approx(sum(float(weights[i]) for i in kept) / sum(map(float, weights)), abs=1e-9)
    assert found <= importance_retention(torch.from_numpy(weights), top_k(torch.from_numpy(weights), len(kept))) + 1e-12
    assert importance_retention(torch.from_numpy(weights), torch.arange(total)) == 1


def test_importance_of_a_random_set_is_its_share_on_average():
    weights = torch.rand(40, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    found = [importance_retention(weights, torch.randperm(40, generator=random)[:10]) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.25, abs=4 * np.std(found) / math.sqrt(2000))


def test_importance_refuses_scores_of_any_sign():
    with pytest.raises(BiaskitError, match="importance goes down to -1") as caught:
        importance_retention(torch.tensor([1.0, -1.0]), torch.tensor([0]))
    assert "min_max" in caught.value.hint
    with pytest.raises(BiaskitError, match="0 everywhere"):
        importance_retention(torch.zeros(3), torch.tensor([0]))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (torch.tensor([True, False]), "torch.bool"),
        (torch.tensor([0.0]), "float32"),
        (torch.tensor([], dtype=torch.int64), r"\[0\]"),
        (torch.tensor([0, 3]), "names token 3 of 3"),
        (torch.tensor([-1, 0]), "names token -1 of 3"),
        (torch.tensor([1, 1]), "twice"),
    ],
)
def test_what_is_no_kept_set_is_refused(kept, message):
    with pytest.raises(BiaskitError, match=message):
        importance_retention(torch.ones(3), kept)


# --- Hopkins -------------------------------------------------------------------------------------------------------------------------


def slow_hopkins(features, kept, points):
    """u / (u + s) by loops, from the definition."""
    u = sum(min(1 - oracles.cosine(r, features[v]) for v in kept) for r in points)
    s = sum(min(1 - oracles.cosine(features[v], features[w]) for w in kept if w != v) for v in kept)
    return (u / (u + s) if u + s > 1e-9 else 0.5), s / len(kept)


def test_the_cards_golden_value():
    chosen, points = torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.tensor([[1.0, 0], [1, 1], [-1, 0]])
    found = hopkins(chosen, torch.arange(3), points=points)
    assert found.value == pytest.approx(0.532289, abs=5e-6)
    assert found.nearest == pytest.approx(1 - SQRT_HALF, abs=5e-6)
    assert (found.reference, found.draws, found.sd) == ("given", 1, 0)


@given(sets(least=2), st.integers(0, 2**32 - 1), st.data())
def test_hopkins_with_a_given_reference(drawn, seed, data):
    total, kept = drawn
    features = data.draw(some_features(total))
    points = np.random.default_rng(seed).normal(size=(len(kept), features.shape[1])).astype(np.float32)
    found = hopkins(torch.from_numpy(features), torch.tensor(kept), points=torch.from_numpy(points))
    value, nearest = slow_hopkins(features, kept, points)
    assert found.value == pytest.approx(value, abs=2e-4)
    assert found.nearest == pytest.approx(nearest, abs=1e-5)
    assert nearest_cosine_distance(torch.from_numpy(features), torch.tensor(kept)) == pytest.approx(nearest, abs=1e-5)


@pytest.mark.parametrize("reference", ["box", "resample", "sphere"])
def test_hopkins_is_the_mean_over_seeded_draws_and_says_so(reference):
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + 1
    kept = torch.arange(0, 60, 4)
    found = hopkins(features, kept, reference=reference, draws=30)
    assert hopkins(features, kept, reference=reference, draws=30) == found
    assert hopkins(features, kept, reference=reference, draws=30, seed=1) != found
    assert found.reference == reference
    assert found.draws == 30
    assert 0 < found.value < 1
    assert found.sd > 0
    assert f"(reference {reference}, 30 draws, sd" in str(found)


def test_the_box_spans_all_tokens_and_resampled_points_are_tokens():
    features = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    from biaskit.select.kept.features import _draw

    box = _draw(features, 4000, "box", torch.Generator().manual_seed(0))
    assert float(box.min()) >= 1
    assert float(box.max()) <= 2
    assert box.mean(0).tolist() == pytest.approx([1.5, 1.5], abs=0.03)
    some = _draw(features, 3, "resample", torch.Generator().manual_seed(0))
    assert len({tuple(row) for row in some.tolist()}) == 3
    assert {tuple(row) for row in some.tolist()} <= {tuple(row) for row in features.tolist()}
    sphere = _draw(features, 4000, "sphere", torch.Generator().manual_seed(0))
    assert sphere.mean(0).tolist() == pytest.approx([0, 0], abs=0.08)


def test_clustered_sets_score_high_and_spread_ones_low():
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 16, generator=random)
    features = centres.repeat_interleave(25, 0) + 0.05 * torch.randn(200, 16, generator=random)
    clustered, spread = torch.arange(25), max_min_select(features, 25)
    for reference in ("box", "resample", "sphere"):
        high, low = (hopkins(features, kept, reference=reference).value for kept in (clustered, spread))
        assert high > 0.9
        assert low < high


def test_hopkins_of_a_random_set_of_a_uniform_cloud_is_a_half():
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    found = [hopkins(features, torch.randperm(400, generator=random)[:40], reference="sphere", draws=20).value for _ in range(20)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


def test_the_limits_of_hopkins():
    features = torch.ones(4, 3)
    assert hopkins(features, torch.arange(4), points=torch.ones(4, 3)).value == 0.5
    one = hopkins(features, torch.tensor([2]))
    assert math.isnan(one.value)
    assert math.isnan(one.nearest)
    with pytest.raises(BiaskitError, match="reference is 'cube'"):
        hopkins(features, torch.arange(2), reference="cube")
    with pytest.raises(BiaskitError, match="0 draws"):
        hopkins(features, torch.arange(2), draws=0)


# --- places --------------------------------------------------------------------------------------------------------------------------


@given(grids(), st.data())
def test_spacing_stays_within_planes(where, data):
    kept = data.draw(st.lists(st.integers(0, len(where) - 1), min_size=1, unique=True))
    nearest = []
    for i in kept:
        others = [math.dist(where[i, 1:], where[j, 1:]) for j in kept if j != i and where[i, 0] == where[j, 0]]
        nearest += [min(others)] if others else []
    found = spacing(torch.from_numpy(where), torch.tensor(kept))
    assert math.isnan(found) if not nearest else found == pytest.approx(np.mean(nearest), abs=1e-9)


def test_spacing_of_known_sets():
    where = cells((6, 6))
    assert spacing(where, torch.arange(36)) == 1
    assert spacing(where, torch.tensor([0, 3, 18, 21])) == 3
    assert math.isnan(spacing(where, torch.tensor([7])))
    assert math.isnan(spacing(cells(two_images()), torch.tensor([0, 16])))  # one token in each of two planes


def slow_weights(where: Layout, box, image):
    """Area of each cell inside the box, by sampling its interior finely."""
    grid = (np.arange(200) + 0.5) / 200
    found = np.zeros(len(where))
    for i in range(len(where)):
        plane = where.planes[where.plane[i]]
        if plane.image != image or plane.box is None:
            continue
        left, top, right, bottom = plane.box
        x = left + (right - left) * (where.col[i] + grid) / plane.cols
        y = top + (bottom - top) * (where.row[i] + grid) / plane.rows
        found[i] = np.mean((x > max(box[0], 0)) & (x < min(box[2], 1))) * np.mean((y > max(box[1], 0)) & (y < min(box[3], 1)))
    return found


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.6, 0.9), (0.0, 0.0, 1.0, 1.0), (-0.5, 0.3, 0.31, 1.5), (0.501, 0.501, 0.502, 0.502)])
@pytest.mark.parametrize("image", [0, 1])
def test_box_weights_are_areas(box, image):
    where = layout(
        raster(Plane("base", 3, 3)),
        raster(Plane("canvas", 4, 5, (-0.2, 0.0, 1.2, 1.0))),
        raster(Plane("newline", 4, 1, None)),
        raster(Plane("image", 2, 4, (0.25, 0.0, 0.75, 1.0), image=1)),
    )
    found = box_weights(where, box, image)
    assert found == pytest.approx(slow_weights(where, box, image), abs=0.011)
    assert box_tokens(where, box, image).tolist() == [i for i, weight in enumerate(found) if weight > 0]
    assert coverage(found, torch.arange(len(where))) == pytest.approx(1)


def test_coverage_counts_cells_at_the_border_by_their_part():
    where = layout(raster(Plane("image", 4, 4)))
    weights = box_weights(where, (0.0, 0.0, 0.375, 0.25))  # one cell and a half
    assert box_tokens(where, (0.0, 0.0, 0.375, 0.25)).tolist() == [0, 1]
    assert box_tokens(where, (0.0, 0.0, 0.375, 0.25), least=0.5).tolist() == [0]
    assert coverage(weights, torch.tensor([0, 9])) == pytest.approx(2 / 3)
    assert coverage(weights, torch.tensor([1])) == pytest.approx(1 / 3)
    assert coverage(weights, torch.tensor([9])) == 0


def test_a_box_that_cannot_be_placed():
    cropped = layout(raster(Plane("image", 4, 4, (0.25, 0.0, 0.75, 1.0))))
    assert math.isnan(coverage(box_weights(cropped, (0.0, 0.0, 0.2, 1.0)), torch.arange(16)))
    with pytest.raises(BiaskitError, match="no plane says which part of image 0") as caught:
        box_weights(layout(raster(Plane("image", 4, 4, None))), (0, 0, 1, 1))
    assert "family.prepare" in caught.value.hint
    with pytest.raises(BiaskitError, match="has no area"):
        box_weights(cropped, (0.5, 0.5, 0.5, 0.7))


# --- overlap -------------------------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 20), min_size=1), st.sets(st.integers(0, 20), min_size=1))
def test_overlaps_are_those_of_python_sets(a, b):
    first, second = torch.tensor(sorted(a)), torch.tensor(sorted(b, reverse=True))
    assert jaccard(first, second) == len(a & b) / len(a | b)
    assert overlap_coefficient(first, second) == len(a & b) / min(len(a), len(b))


def test_overlap_by_chance_is_that_of_random_sets():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        a, b = (set(rng.permutation(30)[:size].tolist()) for size in (8, 12))
        found.append(len(a & b) / len(a | b))
    assert jaccard_by_chance(30, 8, 12) == pytest.approx(np.mean(found), abs=4 * np.std(found) / math.sqrt(4000))
    assert jaccard_by_chance(9, 9, 9) == pytest.approx(1)
    with pytest.raises(BiaskitError, match="sets of 0 and 3"):
        jaccard_by_chance(9, 0, 3)
    empty = torch.tensor([], dtype=torch.int64)
    with pytest.raises(BiaskitError, match="empty"):
        jaccard(empty, empty)
    with pytest.raises(BiaskitError, match="empty"):
        overlap_coefficient(empty, torch.tensor([1]))


# --- everything at once --------------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.sampled_from([two_images(), with_newlines(), layout(raster(Plane("image", 6, 6)))]), st.integers(0, 99))
def test_an_analysis_holds_finite_numbers_that_the_functions_give(where, seed):
    seen = signals(where, seed=seed)
    kept = torch.arange(0, len(where), 3)
    found = Analysis()(seen, Keep(kept))
    assert found["importance"] == pytest.approx(importance_retention(seen[ATTENTION], kept), abs=1e-6)
    assert found["importance_debiased"] == pytest.approx(importance_retention(seen[ATTENTION] / (seen.a_bias + 1e-7), kept), abs=1e-6)
    assert found["hopkins"] == pytest.approx(hopkins(seen[EMBEDS], kept).value, abs=1e-6)
    assert found["nearest_feature"] == pytest.approx(nearest_cosine_distance(seen[EMBEDS], kept), abs=1e-6)
    assert found["share_kept"] == pytest.approx(len(kept) / len(where), abs=1e-6)
    assert found["spacing"] == pytest.approx(spacing(cells(where), kept), abs=1e-6)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


def test_an_analysis_leaves_out_what_cannot_be_had():
    bare = signals(layer=0, attention=None, hidden=None, a_bias=None)
    assert set(Analysis()(bare, torch.tensor([4]))) == {"share_kept"}
    assert set(Analysis()(bare, torch.tensor([4, 5]))) == {"share_kept", "spacing", "hopkins", "hopkins_sd", "nearest_feature"}
    assert Analysis().needs == {ATTENTION, EMBEDS}
    assert Analysis(features="hidden").needs == {ATTENTION, EMBEDS, HIDDEN}
    assert Analysis(reference="sphere").settings()["hopkins_reference"] == "sphere"


def test_an_analysis_can_measure_hidden_states():
    seen = signals()
    kept = torch.arange(9)
    found = Analysis(features="hidden", reference="resample", draws=3, seed=5)(seen, kept)
    assert found["hopkins"] == pytest.approx(hopkins(seen[HIDDEN], kept, reference="resample", draws=3, seed=5).value, abs=1e-6)


def test_coverage_of_a_region_counts_rows_first():
    where = layout(raster(Plane("image", 4, 2)))
    kept = torch.tensor([0, 1])  # the top row
    assert region_coverage(where, (0.0, 0.0, 0.5, 1.0), kept) == {"coverage": 0.5}  # top, left, bottom, right
    assert region_coverage(where, (0.0, 0.0, 1.0, 0.5), kept) == {"coverage": 0.25}
    assert region_coverage(where, None, kept) == {}
    cropped = layout(raster(Plane("image", 4, 4, (0.25, 0.0, 0.75, 1.0))))
    assert region_coverage(cropped, (0.0, 0.0, 1.0, 0.2), kept) == {}
