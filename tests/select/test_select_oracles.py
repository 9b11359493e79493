"""Every selection equals its slow twin, ties included."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import strategies
import torch
from decisions import CLEAR, FRACTIONS, is_exact
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit.select import (
    cells,
    d2_graph,
    d2_select,
    dart_select,
    largest_remainder,
    max_min_select,
    mmr_select,
    neighbours,
    random_select,
    relative_attention,
    top_k,
    uniform_select,
)

CASES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@pytest.mark.parametrize("fill", ["score", "layers", "raise_theta", "none"])
@pytest.mark.parametrize("pivot_mode", ["topk", "mis"])
@CASES
@given(data=st.data())
def test_d2(pivot_mode: str, fill: str, data: st.DataObject) -> None:
    where = data.draw(strategies.grids())
    total = len(where)
    features, scores = data.draw(strategies.features(total)), data.draw(strategies.scores(total))
    alpha, theta = data.draw(st.sampled_from(FRACTIONS)), data.draw(st.sampled_from(FRACTIONS))
    pivot_ratio = data.draw(st.sampled_from([0.0, 0.29, 0.5, 0.7, 1.0]))
    exclude, diagonal = data.draw(st.booleans()), data.draw(st.sampled_from(["included", "excluded"]))
    n = data.draw(st.integers(1, total))

    fused = oracles.fused_similarity(features, where, alpha, diagonal)
    if not is_exact(features):
        levels = [theta + 0.05 * k for k in range(21 if fill == "raise_theta" else 1)]
        off = np.abs(fused[~np.eye(total, dtype=bool)][:, None] - np.array(levels))
        similarity = oracles.cosine_matrix(features)
        assume(bool((off * np.ptp(similarity) > CLEAR).all()) or alpha == 0)
    expected = oracles.d2(scores, fused, n, theta, pivot_ratio, pivot_mode, exclude, fill)
    keep = d2_select(
        torch.tensor(scores), torch.from_numpy(features), torch.from_numpy(where), n,
        alpha=alpha, theta=theta, pivot_ratio=pivot_ratio, pivot_mode=pivot_mode,
        exclude_pivot_neighbours=exclude, fill=fill, diagonal=diagonal,
    )  # fmt: skip
    assert keep.indices.tolist() == sorted(expected)
    assert keep.info["missing"] == n - len(expected)
    assert fill == "none" or keep.info["missing"] == 0


@CASES
@given(data=st.data())
def test_d2_edges(data: st.DataObject) -> None:
    where = data.draw(strategies.grids())
    features = data.draw(strategies.exact_features(len(where)))
    alpha, theta = data.draw(st.sampled_from(FRACTIONS)), data.draw(st.sampled_from(FRACTIONS))
    fused = oracles.fused_similarity(features, where, alpha, "included")
    edges = (fused > np.float32(theta)) & ~np.eye(len(where), dtype=bool)
    graph = d2_graph(torch.from_numpy(features), torch.from_numpy(where), alpha=alpha, theta=theta)
    assert np.array_equal(graph.adjacency().numpy(), edges)
    assert graph.density == pytest.approx(edges.mean() * len(where) / max(len(where) - 1, 1))


@CASES
@given(data=st.data())
def test_neighbours(data: st.DataObject) -> None:
    where = data.draw(strategies.grids())
    found = neighbours(torch.from_numpy(where))
    for i, row in enumerate(found.tolist()):
        apart = np.abs(where - where[i])
        expected = np.flatnonzero((apart[:, 0] == 0) & (apart[:, 1:].max(1) == 1))
        assert sorted(j for j in row if j >= 0) == expected.tolist()
        assert all(found[j, 7 - column] == i for column, j in enumerate(row) if j >= 0)


@CASES
@given(data=st.data())
def test_top_k(data: st.DataObject) -> None:
    scores = data.draw(st.integers(1, 40).flatmap(strategies.scores))
    n = data.draw(st.integers(1, len(scores)))
    expected = oracles.descending(scores)[:n]
    assert top_k(torch.tensor(scores), n, order="choice").tolist() == expected
    assert top_k(torch.tensor(scores), n).tolist() == sorted(expected)


@CASES
@given(data=st.data())
def test_mmr(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 20))
    features, n = data.draw(strategies.features(total)), data.draw(st.integers(1, total))
    lam = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    weights = data.draw(strategies.scores(total))
    expected, closest = oracles.mmr(weights, features, n, lam)
    assume(closest > CLEAR or lam == 1.0 or (lam == 0.0 and is_exact(features)))
    assert mmr_select(torch.tensor(weights), torch.from_numpy(features), n, lam=lam, order="choice").tolist() == expected
    assert mmr_select(torch.tensor(weights), torch.from_numpy(features), n, lam=lam).tolist() == sorted(expected)


@CASES
@given(data=st.data())
def test_mmr_with_ties(data: st.DataObject) -> None:
    """Importance 0 or 1 and cosines of whole halves: every sum is far from or equal to every other."""
    total = data.draw(st.integers(1, 20))
    features, n = data.draw(strategies.exact_features(total)), data.draw(st.integers(1, total))
    weights = data.draw(st.lists(st.sampled_from([0.0, 1024.0]), min_size=total, max_size=total))
    expected, _ = oracles.mmr(np.round(weights) / 1024 * 1e12, features, n, 0.5)  # ε without weight: ties are exact
    assert mmr_select(torch.tensor(weights), torch.from_numpy(features), n, lam=0.5, eps=0.0, order="choice").tolist() == expected


@CASES
@given(data=st.data())
def test_max_min(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 20))
    exact = data.draw(st.booleans())
    features = data.draw(strategies.exact_features(total) if exact else strategies.generic_features(total))
    n = data.draw(st.integers(1, total))
    expected, closest = oracles.max_min(features, n)
    assume(exact or closest > CLEAR)
    assert max_min_select(torch.from_numpy(features), n, order="choice").tolist() == expected
    assert max_min_select(torch.from_numpy(features), n).tolist() == sorted(expected)


@CASES
@given(data=st.data())
def test_dart(data: st.DataObject) -> None:
    total, text = data.draw(st.integers(1, 20)), data.draw(st.integers(0, 6))
    exact = data.draw(st.booleans())
    features = data.draw(strategies.exact_features(total + text) if exact else strategies.generic_features(total + text))
    scores = data.draw(strategies.scores(total + text))
    n = data.draw(st.integers(1, total))
    pivots, text_pivots = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 5))
    expected, closest = oracles.dart(scores[:total], features[:total], scores[total:], features[total:], n, pivots, text_pivots)
    assume(exact or closest > CLEAR)
    mine, theirs = torch.from_numpy(features[:total]), torch.from_numpy(features[total:])
    settings = {"pivots": pivots, "text_pivots": text_pivots}
    kept = dart_select(torch.tensor(scores[:total]), mine, torch.tensor(scores[total:]), theirs, n, **settings)
    assert kept.tolist() == sorted(expected)
    assert len(kept) == n


@CASES
@given(total=st.integers(1, 300), data=st.data())
def test_uniform_along_the_sequence(total: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, total))
    kept = uniform_select(total, n)
    assert kept.tolist() == oracles.spaced(total, n)
    gaps = kept.diff()
    assert n == 1 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


@CASES
@given(where=strategies.grids(most=100), data=st.data())
def test_uniform_on_the_grid(where: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(where)))
    expected = []
    sizes = np.bincount(where[:, 0]).tolist()
    for plane, share in enumerate(oracles.shared_out(sizes, n)):
        rows, cols = where[where[:, 0] == plane].max(0)[1:] + 1
        nodes = oracles.lattice(int(rows), int(cols), share) if share else []
        expected += [where.tolist().index([plane, *node]) for node in nodes]
    assert uniform_select(len(where), n, where=torch.from_numpy(where)).tolist() == sorted(expected)


@CASES
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), data=st.data())
def test_largest_remainder(sizes: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, sum(sizes)))
    shares = largest_remainder(sizes, n)
    assert shares == oracles.shared_out(sizes, n)
    assert sum(shares) == n
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


@CASES
@given(total=st.integers(1, 50), seed=st.integers(0, 99), data=st.data())
def test_random(total: int, seed: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, total))
    kept = random_select(total, n, torch.Generator().manual_seed(seed)).tolist()
    assert kept == random_select(total, n, torch.Generator().manual_seed(seed)).tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == n
    assert max(kept) < total


@CASES
@given(data=st.data())
def test_relative_attention(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 30))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    attention, prior = random.random(total), random.random(total) + 0.05
    strength = data.draw(st.floats(0.05, 1))
    ratio = relative_attention(torch.from_numpy(attention), torch.from_numpy(prior), strength=strength)
    np.testing.assert_allclose(ratio, attention / (prior**strength + 1e-7), rtol=1e-5)
    difference = relative_attention(torch.from_numpy(attention), torch.from_numpy(prior), strength=strength, mode="difference")
    np.testing.assert_allclose(difference, attention / attention.sum() - strength * prior / prior.sum(), atol=1e-6)
    for off in ({"mode": "uniform"}, {"strength": 0.0}):
        raw = relative_attention(torch.from_numpy(attention), torch.from_numpy(prior), **off)
        assert torch.equal(raw, torch.from_numpy(attention).float())


def test_cells_of_a_raster() -> None:
    assert cells((2, 3)).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]
