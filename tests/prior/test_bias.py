from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biaskit.errors import BiaskitError, PriorError
from biaskit.prior.bias.correlation import pearson, ranks, spearman, top_overlap
from biaskit.prior.bias.jackknife import Replicates, jackknife, t_quantile
from biaskit.prior.bias.measures import MEASURES, band, estimate, estimates, strip, top_percent
from biaskit.prior.bias.report import compare, convergence, report
from biaskit.prior.bias.verdict import VERDICTS
from biaskit.prior.resample import resample
from biaskit.prior.value import PlaneStats, Prior

GRIDS = [(24, 24), (12, 30), (40, 16), (7, 9)]


def make_prior(mean=None, groups=None, counts=None, layers=(1,), planes=None, model="org/model"):
    if planes is None:
        planes = {"image": stats(mean, groups, counts)}
    return Prior(planes, tuple(layers), np.full(len(layers), 0.3, np.float32), {"model": model, "n_images": "60"})


def stats(mean=None, groups=None, counts=None):
    """groups [G, L, rows, cols] or [G, rows, cols]."""
    if groups is None:
        mean = np.asarray(mean, np.float32)
        return PlaneStats(mean[None] if mean.ndim == 2 else mean)
    groups = np.asarray(groups, np.float32)
    groups = groups[:, None] if groups.ndim == 3 else groups
    counts = np.full(len(groups), 10, np.int32) if counts is None else np.asarray(counts, np.int32)
    groups = groups * (counts > 0)[:, None, None, None].astype(np.float32)
    mean = np.tensordot(counts / counts.sum(), groups.astype(np.float64), 1).astype(np.float32)
    return PlaneStats(mean, None, groups, counts, None, int(counts.sum()))


def axes(rows, cols):
    return np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(cols) + 0.5) / cols, indexing="ij")


def synthetic(kind, rows, cols):
    y, x = axes(rows, cols)
    order = np.arange(rows * cols).reshape(rows, cols) / (rows * cols)
    border = np.minimum(np.minimum(y, 1 - y), np.minimum(x, 1 - x))
    step = 0.5 + 2.0 * (y > 2 / 3)
    sink = np.ones((rows, cols))
    sink[0, 0] = rows * cols
    if kind == "step with sink":
        step = step.copy()
        step[0, cols // 3] = 0.2 * step.sum()
    maps = {
        "flat": np.ones((rows, cols)),
        "step": step,
        "step with sink": step,
        "steep": np.exp(4 * y),
        "vertical": 0.4 + 1.2 * y,
        "ramp": 0.4 + 1.2 * order,
        "falling ramp": 1.6 - 1.2 * order,
        "last row": np.where(y > 1 - 1 / rows, 6.0, 0.6),
        "top": 1 / (0.1 + y),
        "ring": np.exp(-6 * border),
        "blob": np.exp(-((y - 0.5) ** 2 + (x - 0.5) ** 2) / 0.05),
        "sink": sink,
        "sink on ring": np.exp(-6 * border) + rows * cols * (sink > 1),
        "left": 1.6 - 1.2 * x,
        "checks": 0.4 + 1.2 * (np.indices((rows, cols)).sum(axis=0) % 2),
        "top and bottom": 1.0 + 2.0 * ((y < 1 / 6) | (y > 5 / 6)),
        "ring and bottom": np.exp(-5 * border) * np.exp(1.2 * y),
    }
    return maps[kind]


EXPECTED = {
    "flat": "flat",
    "step": "bottom-focused",
    "step with sink": "bottom-focused",
    "steep": "bottom-focused",
    "vertical": "bottom-focused",
    "last row": "bottom-focused",
    "ramp": "recency",
    "falling ramp": "top-focused",
    "top": "top-focused",
    "ring": "periphery-focused",
    "blob": "centre-focused",
    "sink": "sink-dominated",
    "sink on ring": "sink-dominated",
    "left": "mixed",
    "checks": "mixed",
    "top and bottom": "mixed",
    "ring and bottom": "mixed",
}


def noisy(truth, rng, counts, spread=1.0):
    """Group means of images = truth × heavy-tailed cell noise × smooth content × the image's own mass; every factor has mean 1."""
    rows, cols = truth.shape
    groups = np.zeros((len(counts), rows, cols))
    for index, n in enumerate(counts):
        if n == 0:
            continue
        cell = rng.lognormal(-spread * spread / 2, spread, (n, rows, cols))
        coarse = rng.gamma(2, 0.5, (n, 3, 4))
        smooth = coarse.repeat(-(-rows // 3), axis=1).repeat(-(-cols // 4), axis=2)[:, :rows, :cols]
        groups[index] = (truth * cell * smooth * rng.gamma(4, 0.25, (n, 1, 1))).mean(axis=0)
    return groups


# --- correlation -----------------------------------------------------------------------------------------------------------------


def test_ranks_average_ties():
    assert ranks(np.array([[3, 1, 3, 2], [5, 5, 5, 5]])).tolist() == [[3.5, 1, 3.5, 2], [2.5, 2.5, 2.5, 2.5]]


def test_spearman_is_the_textbook_formula_without_ties():
    rng = np.random.default_rng(0)
    a, b = rng.permutation(30), rng.permutation(30)
    assert spearman(a, b) == pytest.approx(1 - 6 * ((a - b) ** 2).sum() / (30 * (30**2 - 1)))
    assert spearman(a, np.exp(a / 3)) == pytest.approx(1)


def test_pearson_matches_numpy_and_takes_constants_for_uncorrelated():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 3, 40))
    assert pearson(a, b) == pytest.approx([np.corrcoef(a[i], b[i])[0, 1] for i in range(3)])
    assert pearson(np.full(40, 0.3), b[0]) == 0
    assert pearson(np.full(40, 0.3) + 1e-9 * b[0], b[0]) == 0


def test_top_overlap_and_its_chance_level():
    a = np.arange(40)
    assert top_overlap(a, a)[0] == 1
    assert top_overlap(a, -a)[0] == 0
    rng = np.random.default_rng(2)
    drawn = [top_overlap(a, rng.permutation(40))[0] for _ in range(3000)]
    assert top_overlap(a, a)[1] == pytest.approx(np.mean(drawn), abs=0.006)
    assert top_overlap(np.arange(1), np.arange(1)) == (1, pytest.approx(1))


# --- jackknife -------------------------------------------------------------------------------------------------------------------


def test_t_quantiles():
    assert (t_quantile(1), t_quantile(19), t_quantile(30)) == (12.7062, 2.0930, 2.0423)
    assert t_quantile(31) == pytest.approx(2.03951, abs=1e-4)
    assert t_quantile(60) == pytest.approx(2.00030, abs=1e-4)
    assert t_quantile(10**6) == pytest.approx(1.95996, abs=1e-4)
    with pytest.raises(ValueError, match="not 0"):
        t_quantile(0)


def test_jackknife_of_a_mean_of_equal_groups_is_the_standard_error_of_the_mean():
    groups = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    left_out = (groups.sum() - groups) / 4
    centre, error = jackknife(groups.mean(), left_out, np.full(5, 7.0))
    assert centre == pytest.approx(4)
    assert error == pytest.approx(groups.std(ddof=1) / math.sqrt(5))


def test_jackknife_removes_the_bias_of_a_square_with_unequal_groups():
    """E of the plug-in square is μ² + σ²/n; the corrected one is unbiased, and its spread is what the jackknife says."""
    rng = np.random.default_rng(3)
    counts = np.array([4, 9, 2, 7, 8, 10, 5, 3.0])
    n = counts.sum()
    found = []
    for _ in range(4000):
        means = 1 + rng.normal(size=8) / np.sqrt(counts)
        total = (means * counts).sum()
        found.append((*jackknife((total / n) ** 2, ((total - means * counts) / (n - counts)) ** 2, counts), (total / n) ** 2))
    centre, error, plain = np.array(found).T
    assert plain.mean() == pytest.approx(1 + 1 / n, abs=0.012)
    assert centre.mean() == pytest.approx(1, abs=0.012)
    assert np.sqrt((error**2).mean()) == pytest.approx(centre.std(), rel=0.1)


def test_empty_groups_are_dropped_and_one_group_gives_no_interval():
    rng = np.random.default_rng(4)
    groups = rng.random((4, 5, 6))
    with_empty = np.insert(groups, 2, 0, axis=0)
    a = report(make_prior(groups=groups, counts=[3, 5, 7, 9])).layers[0].metrics
    b = report(make_prior(groups=with_empty, counts=[3, 5, 0, 7, 9])).layers[0].metrics
    assert a == b
    assert a["bottom_third"].low is not None
    for prior in (make_prior(groups=groups[:1]), make_prior(mean=groups[0])):
        metrics = report(prior).layers[0].metrics
        assert "split_half" not in metrics
        assert all(m.low is None and m.high is None for m in metrics.values())


def test_split_half_is_the_correlation_of_even_and_odd_groups():
    rng = np.random.default_rng(5)
    groups = synthetic("ring", 8, 8) + rng.random((6, 8, 8))
    counts = np.array([10, 20, 30, 5, 10, 10])
    even = np.average(groups[::2], axis=0, weights=counts[::2])
    odd = np.average(groups[1::2], axis=0, weights=counts[1::2])
    found = report(make_prior(groups=groups, counts=counts)).layers[0].metrics["split_half"]
    assert found.value == pytest.approx(np.corrcoef(even.ravel(), odd.ravel())[0, 1], abs=1e-6)
    assert -1 <= found.low < found.value < found.high <= 1
    few = report(make_prior(groups=groups[:3])).layers[0].metrics["split_half"]
    assert few.low is None
    assert few.high is None


SMOOTH = ["bottom_third", "top_third", "centre_box", "outer_ring", "centre_row", "centre_col", "effective_share"]


@pytest.mark.parametrize(
    ("kind", "counts", "names"),
    [
        ("step", [10] * 20, [*SMOOTH, "ramp_fit"]),
        ("ring", [20, 20, 20, 5, 0, 20, 20, 20, 20, 7], [*SMOOTH, "recency"]),
        ("sink", [10] * 20, [*SMOOTH, "peak", "top_share"]),
        ("ramp", [5] * 8, SMOOTH),
    ],
)
def test_intervals_cover_the_truth(kind, counts, names):
    """300 simulated priors: the 95% interval holds the truth in 88 to 99% of them."""
    truth = synthetic(kind, 9, 12)
    truth = truth / truth.mean()
    rng = np.random.default_rng(1)
    hits = dict.fromkeys(names, 0)
    for _ in range(300):
        groups = noisy(truth, rng, counts)
        replicates = Replicates.of(np.average(groups, axis=0, weights=counts), groups, np.array(counts))
        for name in names:
            found = estimate(name, replicates)
            hits[name] += found.low <= float(MEASURES[name].of(truth)) <= found.high
    assert {name: hit / 300 for name, hit in hits.items() if not 0.88 <= hit / 300 <= 0.99} == {}


# --- measures --------------------------------------------------------------------------------------------------------------------


def test_bands_count_the_cells_they_cut():
    assert band(32, 2 / 3, 1)[21] == pytest.approx(2 / 3)
    assert band(32, 2 / 3, 1).sum() == pytest.approx(32 / 3)
    assert band(10, 0.25, 0.75).tolist() == [0, 0, 0.5, 1, 1, 1, 1, 0.5, 0, 0]
    assert band(2, 0, 1 / 8).tolist() == [0.25, 0]
    assert band(1, 0.25, 0.5).tolist() == [0.25]


@given(rows=st.integers(2, 60), cols=st.integers(2, 60))
def test_uniform_maps_give_uniform_on_every_grid(rows, cols):
    found = estimates(Replicates.of(np.full((rows, cols), 0.37), None, None))
    for name, metric in found.items():
        if metric.uniform is not None:
            assert metric.value == pytest.approx(metric.uniform, abs=1e-12), name
    assert found["outer_ring"].uniform == pytest.approx(7 / 16)
    assert found["bottom_third"].uniform == found["top_third"].uniform == pytest.approx(1 / 3)


def test_measures_on_a_map_done_by_hand():
    found = estimates(Replicates.of(np.array([[1, 1], [1, 1], [1, 5.0]]), None, None))
    assert found["bottom_third"].value == pytest.approx(0.6)
    assert found["bottom_third"].ratio == pytest.approx(1.8)
    assert found["top_third"].value == pytest.approx(0.2)
    assert found["centre_row"].value == pytest.approx((2 / 6 + 2 * 3 / 6 + 6 * 5 / 6) / 10)
    assert found["centre_col"].value == pytest.approx((3 * 0.25 + 7 * 0.75) / 10)
    assert found["peak"].value == pytest.approx(3)
    assert found["top_share"].value == pytest.approx(0.5)
    p = np.array([0.1] * 5 + [0.5])
    assert found["effective_share"].value == pytest.approx(math.exp(-(p * np.log(p)).sum()) / 6)
    assert found["outer_ring"].value == pytest.approx(1 - (0.625 / 3 * (1 + 1) + 1 / 3 * 2 + 0.625 / 3 * (1 + 5)) * 3 * 0.75 / 10)
    assert found["ramp_fit"].value == pytest.approx(np.corrcoef([1, 1, 3], [0, 1, 2])[0, 1] ** 2)


def test_rank_correlation_with_token_order_has_its_sign():
    ramp = synthetic("ramp", 6, 5)
    assert estimate("recency", Replicates.of(ramp, None, None)).value == pytest.approx(1)
    assert estimate("recency", Replicates.of(-ramp + 2, None, None)).value == pytest.approx(-1)


def test_the_top_percent_is_one_percent_rounded_up():
    assert [top_percent(n) for n in (1, 4, 100, 101, 576, 2304)] == [1, 1, 1, 2, 6, 24]


def test_zero_cells_are_fine():
    half = np.zeros((6, 6))
    half[3:] = 1
    found = estimates(Replicates.of(half, None, None))
    assert found["effective_share"].value == pytest.approx(0.5)
    assert found["bottom_third"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", EXPECTED)
def test_scaling_a_map_changes_nothing(kind):
    counts = [4, 5, 6, 7]
    groups = noisy(synthetic(kind, 12, 10), np.random.default_rng(6), counts).astype(np.float32)
    one, other = (report(make_prior(groups=groups * scale, counts=counts)).layers[0] for scale in (1, 0.125))
    assert one == other


@pytest.mark.parametrize("kind", ["steep", "vertical", "ring", "blob", "top", "left", "ring and bottom"])
def test_resampling_a_map_hardly_changes_shares(kind):
    fine = synthetic(kind, 48, 48)
    whole = estimates(Replicates.of(fine, None, None))
    for rows, cols in [(24, 24), (36, 24), (17, 31), (96, 64)]:
        small = estimates(Replicates.of(resample(fine, rows, cols), None, None))
        for name in ("bottom_third", "top_third", "outer_ring", "centre_box", "centre_row", "centre_col"):
            assert small[name].value == pytest.approx(whole[name].value, abs=0.02), (name, rows, cols)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 20), cols=st.integers(2, 20))
def test_transposing_and_flipping_swap_what_they_should(seed, rows, cols):
    values = np.random.default_rng(seed).random((rows, cols)) + 0.01
    found, turned, upside = (estimates(Replicates.of(m, None, None)) for m in (values, values.T, values[::-1]))
    assert turned["centre_row"].value == pytest.approx(found["centre_col"].value)
    assert turned["centre_col"].value == pytest.approx(found["centre_row"].value)
    for name in ("outer_ring", "centre_box", "effective_share", "peak", "top_share"):
        assert turned[name].value == pytest.approx(found[name].value)
    assert upside["top_third"].value == pytest.approx(found["bottom_third"].value)
    assert upside["centre_row"].value == pytest.approx(1 - found["centre_row"].value)
    assert float(strip(values)) == pytest.approx(1)


@pytest.mark.parametrize("kind", EXPECTED)
def test_intervals_stay_in_range_and_hold_the_value(kind):
    counts = [2, 3, 1, 2]
    found = report(make_prior(groups=noisy(synthetic(kind, 7, 9), np.random.default_rng(7), counts, 2.0), counts=counts)).layers[0].metrics
    for name, metric in found.items():
        low, high = (MEASURES[name].low, MEASURES[name].high) if name in MEASURES else (-1, 1)
        assert low <= metric.low <= metric.value <= metric.high <= high, name


# --- verdicts --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "cols"), GRIDS)
@pytest.mark.parametrize(("kind", "verdict"), EXPECTED.items())
def test_verdicts_on_clean_maps(kind, verdict, rows, cols):
    found = report(make_prior(synthetic(kind, rows, cols))).layers[0]
    assert found.verdict == verdict, found.why
    assert found.verdict in VERDICTS
    assert found.why.endswith(".")
    assert found.why[0].isupper()


@pytest.mark.parametrize(("kind", "verdict"), EXPECTED.items())
def test_verdicts_survive_noise(kind, verdict):
    """A thousand images; two of the patterns are finer than the noise and fall back to the coarser name."""
    rng = np.random.default_rng(8)
    counts = [50] * 20
    found = report(make_prior(groups=noisy(synthetic(kind, 20, 24), rng, counts, 0.5), counts=counts)).layers[0]
    allowed = {verdict, "bottom-focused"} if kind == "ramp" else {verdict}
    assert found.verdict in allowed, found.why
    assert "95% CI" in found.why


def test_recency_needs_growth_along_the_rows():
    """A vertical gradient that leans right by a fifth of what a raster ramp does is no ramp in token order."""
    y, x = axes(20, 20)
    lean = [report(make_prior(0.4 + 1.2 * y + share * 1.2 / 20 * x)).layers[0].verdict for share in (-1, 0, 0.2, 0.8, 1.2)]
    assert lean == ["bottom-focused"] * 3 + ["recency"] * 2


def test_a_bright_band_through_the_middle_is_not_the_centre():
    y, x = axes(24, 24)
    for band_of in (y, x):
        found = report(make_prior(1 + 2.0 * (np.abs(band_of - 0.5) < 0.2))).layers[0]
        assert found.metrics["centre_box"].ratio > 1.15
        assert found.verdict == "mixed"


def test_sentences_give_the_numbers():
    def why(kind):
        return report(make_prior(synthetic(kind, 24, 24))).layers[0].why

    assert why("last row") == "The bottom third holds 51.5% of the mass, 1.55 × uniform."
    assert "rank correlation with token order 1.00, but without growth along the rows" in why("vertical")
    assert "rank correlation with token order 1.00, but not as a straight ramp (R² 0.8" in why("steep")
    assert why("step with sink").endswith("(after clipping 1 sink cell with 16.7% of the mass).")
    assert why("sink").startswith("The strongest 6 of 576 cells hold 50.")
    assert "clipped, the map is flat" in why("sink")
    assert "clipped, the map is periphery-focused" in why("sink on ring")
    assert why("ring").endswith("with 4 of 4 edges bright.")
    assert "centre of mass 0.50 down, 0.40 across" in why("left")
    assert why("ring and bottom").count("holds") == 2


@pytest.mark.parametrize(("counts", "spread"), [([50] * 20, 1.0), ([10] * 20, 1.0), ([5] * 10, 0.7), ([6, 7, 0, 5, 6, 2], 0.7)])
def test_noise_alone_is_flat(counts, spread):
    """Even where the mean map of few images looks wild: without intervals it would not be called flat."""
    rng = np.random.default_rng(9)
    verdicts = []
    for _ in range(60):
        cells = rng.lognormal(-spread * spread / 2, spread, (sum(counts), 12, 12))
        groups = np.array([part.mean(axis=0) if len(part) else np.zeros((12, 12)) for part in np.split(cells, np.cumsum(counts)[:-1])])
        verdicts.append(report(make_prior(groups=groups, counts=counts)).layers[0].verdict)
    assert verdicts.count("flat") >= 57
    if sum(counts) < 100:
        assert report(make_prior(mean=groups[0])).layers[0].verdict == "mixed"


def test_noise_is_seen_through_by_the_interval_or_by_the_halves():
    """Heavy tails in few images: the interval of the effective share alone would let some of it pass."""
    rng = np.random.default_rng(9)
    found = [report(make_prior(groups=rng.lognormal(0, 2, (6, 5, 12, 12)).mean(axis=1), counts=[5] * 6)).layers[0] for _ in range(40)]
    assert {entry.verdict for entry in found} == {"flat"}
    reasons = [entry.why for entry in found]
    assert sum(why.startswith("No cell differs from the others by more than noise, effective share 0.") for why in reasons) > 20
    assert sum(why.startswith("Even and odd images show no common pattern, correlation ") for why in reasons) > 4


def test_a_large_effect_that_is_noise_is_not_a_pattern():
    """One group's images are bottom-heavy, the others are not: the size is there, the evidence is not."""
    groups = np.ones((5, 12, 12))
    groups[0, 8:] = 6
    assert report(make_prior(mean=groups.mean(axis=0))).layers[0].verdict == "bottom-focused"
    assert report(make_prior(groups=groups)).layers[0].verdict == "flat"


def test_one_images_outlier_is_no_sink():
    groups = np.repeat(synthetic("step", 12, 12)[None], 6, axis=0)
    groups[2, 0, 0] = 300
    found = report(make_prior(groups=groups)).layers[0]
    assert "sink" not in found.why
    assert "sink" in report(make_prior(mean=groups.mean(axis=0))).layers[0].why


@pytest.mark.parametrize("size", [(2, 2), (2, 3), (3, 2), (2, 40)])
def test_tiny_planes_get_a_verdict(size):
    for kind in EXPECTED:
        assert report(make_prior(synthetic(kind, *size))).layers[0].verdict in VERDICTS


# --- report ----------------------------------------------------------------------------------------------------------------------


def three_planes():
    rng = np.random.default_rng(10)
    sizes = {"base": (6, 6), "canvas": (12, 12), "newline": (12, 1)}
    return make_prior(planes={name: stats(groups=rng.random((4, 2, *size)) + 0.1) for name, size in sizes.items()}, layers=(1, 4))


def test_report_lists_the_primary_plane_first_and_leaves_out_columns():
    found = report(three_planes())
    assert [(entry.plane, entry.layer) for entry in found.layers] == [("canvas", 1), ("canvas", 4), ("base", 1), ("base", 4)]
    assert [(entry.rows, entry.cols) for entry in found.layers[::2]] == [(12, 12), (6, 6)]
    assert found.get(4, "base") is found.layers[3]
    assert found.get(1, "newline") is None
    narrowed = report(three_planes(), layers=[4], planes=["base"])
    assert narrowed.layers == [found.layers[3]]
    with pytest.raises(PriorError, match="no layer 3"):
        report(three_planes(), layers=[3])
    with pytest.raises(PriorError, match="no plane 'image'"):
        report(three_planes(), planes=["image"])


def test_report_is_plain_json():
    found = report(three_planes()).to_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["model"], found["n_images"]) == ("org/model", 60)
    first = found["layers"][0]
    assert set(first) == {"layer", "plane", "rows", "cols", "verdict", "why", "metrics"}
    assert set(first["metrics"]) == {*MEASURES, "split_half"}
    assert set(first["metrics"]["peak"]) == {"value", "low", "high", "uniform", "ratio"}


# --- convergence -----------------------------------------------------------------------------------------------------------------


def test_convergence_against_a_slow_reference():
    rng = np.random.default_rng(11)
    groups, counts = rng.random((5, 2, 6, 7)).astype(np.float32), [40, 60, 0, 80, 120]
    rows = convergence(make_prior(groups=groups, counts=counts, layers=(0, 3)), at=(50, 100, 170, 1000))
    assert [(row["layer"], row["n"]) for row in rows] == [(k, n) for k in (0, 3) for n in (40, 100, 180, 300)]
    images = np.repeat(groups.astype(np.float64), counts, axis=0)
    for row in rows:
        index, n = (0, 3).index(row["layer"]), row["n"]
        first, final = images[:n, index].mean(axis=0).ravel(), images[:, index].mean(axis=0).ravel()
        assert row["r"] == pytest.approx(np.corrcoef(first, final)[0, 1])
        assert row["l1"] == pytest.approx(np.abs(first - final).mean() / final.mean())
        if n < 300:
            assert row["unseen_r"] == pytest.approx(np.corrcoef(first, images[n:, index].mean(axis=0).ravel())[0, 1])
    assert rows[3] == {"n": 300, "plane": "image", "layer": 0, "r": pytest.approx(1), "l1": pytest.approx(0, abs=1e-9), "unseen_r": None}


def test_convergence_merges_what_falls_on_one_boundary_and_needs_groups():
    groups = np.random.default_rng(12).random((3, 4, 4))
    assert [row["n"] for row in convergence(make_prior(groups=groups, counts=[10, 10, 10]))] == [10, 20, 30]
    assert [row["n"] for row in convergence(make_prior(groups=groups, counts=[0, 10, 20]), at=(1, 15, 20))] == [10]
    assert convergence(make_prior(mean=groups[0])) == []


def test_unseen_images_show_that_noise_does_not_converge():
    rng = np.random.default_rng(13)
    row = convergence(make_prior(groups=rng.random((20, 12, 12))), at=(100,))[0]
    assert row["r"] > 0.6
    assert abs(row["unseen_r"]) < 0.3


# --- comparison ------------------------------------------------------------------------------------------------------------------


def test_compare_a_prior_with_itself_and_with_a_multiple():
    prior = make_prior(synthetic("ring", 8, 10))
    (row,) = compare(prior, make_prior(3 * synthetic("ring", 8, 10)))
    assert (row["plane"], row["layer"], row["rows"], row["cols"], row["resampled"]) == ("image", 1, 8, 10, False)
    assert (row["pearson"], row["spearman"], row["top_k"]) == (pytest.approx(1), pytest.approx(1), 1)
    assert row["mean_abs_diff"] == pytest.approx(0, abs=1e-6)
    assert 0.1 < row["top_k_chance"] < 0.2


def test_compare_different_maps():
    a, b = np.array([[1, 1], [1, 1.0]]), np.array([[0, 0], [0, 4.0]])
    (row,) = compare(make_prior(a), make_prior(b))
    assert row["mean_abs_diff"] == pytest.approx(1.5)
    assert row["pearson"] == 0
    (row,) = compare(make_prior(synthetic("top", 9, 9)), make_prior(synthetic("steep", 9, 9)))
    assert row["spearman"] == pytest.approx(-1)
    assert row["top_k"] == 0


def test_compare_takes_the_smaller_rows_and_the_smaller_cols():
    (row,) = compare(make_prior(synthetic("ring", 24, 12)), make_prior(synthetic("ring", 16, 20)))
    assert (row["rows"], row["cols"], row["resampled"]) == (16, 12, True)
    assert row["pearson"] > 0.98


def test_compare_is_over_common_planes_and_layers():
    two = three_planes()
    assert [(row["plane"], row["layer"]) for row in compare(two, two)] == [(p, k) for p in ("canvas", "base", "newline") for k in (1, 4)]
    one = make_prior(planes={"canvas": stats(np.ones((12, 12)))}, layers=(4,))
    assert [(row["plane"], row["layer"]) for row in compare(one, two)] == [("canvas", 4)]
    with pytest.raises(BiaskitError, match=r"share no plane: .*canvas.* and image"):
        compare(two, make_prior(np.ones((4, 4))))
    with pytest.raises(BiaskitError, match="share no layer: 1, 4 and 2"):
        compare(two, make_prior(planes={"canvas": stats(np.ones((12, 12)))}, layers=(2,)))
