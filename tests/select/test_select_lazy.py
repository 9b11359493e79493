"""The CPU's selections by bounds: the bounds hold, and coarse ones change nothing but the work."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import strategies
import torch
from exact import exact_cosines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from biaskit.bench import authors
from biaskit.bench.features import made_up
from biaskit.select import cells, d2_graph, d2_select, dart_select, graph_select, max_min_select, mmr_select, neighbours, top_k
from biaskit.select.cpu import cosines, d2, extremes, farthest, greedy
from biaskit.select.cpu.cosines import Product
from biaskit.select.cpu.d2 import independent

CASES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # the fixture is the same for all examples


@pytest.fixture(params=["float32", "bfloat16"])
def coarse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small panels and few kept rows, so that a handful of tokens walks through all of the code; and either fast product."""
    monkeypatch.setattr(cosines, "_LARGE", 0)
    monkeypatch.setattr(cosines, "bfloat16_is_faster", lambda: request.param == "bfloat16")
    monkeypatch.setattr(cosines, "_WIDE", 0)
    monkeypatch.setattr(cosines, "_CLEAR", -1)
    monkeypatch.setattr(cosines, "PANEL", 4)
    monkeypatch.setattr(greedy, "CANDIDATES", 3)
    monkeypatch.setattr(farthest, "_WINDOW", 4)
    monkeypatch.setattr(farthest, "_ROWS", 3)
    monkeypatch.setattr(greedy, "_ROWS", 2)
    monkeypatch.setattr(greedy, "_DEAR", 2)
    monkeypatch.setattr(d2, "_SMALL", 2)
    monkeypatch.setattr(d2, "_BLOCK", 3)
    monkeypatch.setattr(d2, "_MOST", 5)
    monkeypatch.setattr(d2, "_MANY", 3)
    monkeypatch.setattr(d2, "_EACH", 1)
    return str(request.param)


@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "bfloat16", "outlier", "huge", "tiny", "zero"])
def test_fast_cosines_are_as_near_as_they_say(kind: str, low: torch.dtype) -> None:
    features = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) + 0.5
    if kind == "bfloat16":
        features = features.bfloat16().float()
    elif kind == "outlier":
        features[:, 7] = 1000
    elif kind in ("huge", "tiny"):
        features *= 1e30 if kind == "huge" else 1e-30
    elif kind == "zero":
        features[::3] = 0
    product = Product(features, low=low)
    wide = features.double() / features.double().norm(dim=1, keepdim=True).clamp_min(1e-300)
    exact = (wide @ wide.T).numpy()
    everyone, some = np.arange(50), np.arange(7, 40, 3)
    approximate = product.columns(everyone)
    error = product.errors(approximate)
    assert (np.abs(approximate - exact) <= error).all()
    assert error.max() <= product.error(1.01)
    small = np.abs(approximate) < 0.2
    assert (np.abs(approximate - exact)[small] <= product.error(0.2)).all()
    approximate = product.columns(some, everyone[::2])
    assert (np.abs(approximate - exact[::2, some]) <= product.errors(approximate)).all()
    low_bound, high_bound = product.bounds(some)
    assert (low_bound <= exact[some]).all() and (exact[some] <= high_bound).all()
    low_bound, high_bound = product.bounds(some, some)
    assert (low_bound <= exact[np.ix_(some, some)]).all() and (exact[np.ix_(some, some)] <= high_bound).all()
    windows = [(first + 16 * w, block) for first, blocks in product.windows(16) for w, block in enumerate(blocks.numpy())]
    assert [(start, len(block)) for start, block in windows] == [(0, 16), (16, 16), (32, 16), (48, 2)]
    for start, block in windows:
        there = slice(start, start + len(block))
        assert (np.abs(block - exact[there, there]) <= product.errors(block)).all()
    for start, panel in product.panels():
        fast = panel.numpy()
        assert (np.abs(fast - exact[start:, start : start + fast.shape[1]]) <= product.errors(fast)).all()
    assert product.error() < (0.02 if low == torch.bfloat16 else 1e-3)
    fast, error = product.columns_with(features[some].float() if kind != "huge" else features[some] * 1e-30)
    assert np.abs(fast - exact[some]).max() <= error < 1e-3
    assert np.abs(product.exact_pairs(np.full(50, 3), everyone) - exact[3]).max() <= 2.0**-25 + 1e-12
    assert np.array_equal(product.exact_table(np.array([3]), everyone)[0], product.exact_pairs(np.full(50, 3), everyone))
    assert product.zeros.tolist() == (features == 0).all(1).tolist()


@CASES
@given(data=st.data())
def test_independent_sets(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 30))
    share = data.draw(st.sampled_from([0.0, 0.05, 0.3, 0.9]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    edges = np.triu(random.random((size, size)) < share, 1)
    expected: list[int] = []
    for token in range(size):
        if not edges[expected, token].any():
            expected.append(token)
    assert np.flatnonzero(independent(edges)).tolist() == expected


@CASES
@given(data=st.data())
def test_without_the_matrix_as_on_the_graph(coarse: str, data: st.DataObject) -> None:
    where = torch.from_numpy(data.draw(strategies.grids()))
    features = torch.from_numpy(data.draw(strategies.exact_features(len(where))))
    scores = torch.tensor(data.draw(strategies.scores(len(where))))
    alpha, theta = data.draw(st.sampled_from([0.0, 0.5, 0.8, 1.0])), data.draw(st.sampled_from([0.25, 0.5, 0.75, 0.8]))
    diagonal, n = data.draw(st.sampled_from(["included", "excluded"])), data.draw(st.integers(1, len(where)))
    switches = {
        "pivot_ratio": data.draw(st.sampled_from([0.0, 0.5, 0.7])),
        "pivot_mode": data.draw(st.sampled_from(["topk", "mis"])),
        "exclude_pivot_neighbours": data.draw(st.booleans()),
        "fill": data.draw(st.sampled_from(["score", "layers", "raise_theta", "none"])),
    }
    graph = d2_graph(features, where, alpha=alpha, theta=theta, diagonal=diagonal)
    expected = graph_select(scores, graph, n, **switches)
    keep = d2_select(scores, features, where, n, alpha=alpha, theta=theta, diagonal=diagonal, **switches)
    assert keep.indices.tolist() == expected.indices.tolist()
    assert {key: keep.info[key] for key in expected.info} == expected.info
    assert (keep.info["s_min"], keep.info["s_max"]) == (graph.s_min, graph.s_max)
    assert keep.info["edge_density"] == pytest.approx(graph.density, abs=1e-9)


def copies(features: Tensor) -> Tensor:
    features = features.clone()
    features[len(features) // 2 :] = features[: -(-len(features) // 2)][: len(features) - len(features) // 2] * 4
    return features


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("seed", range(2))
def test_as_the_loops_do(coarse: str, seed: int, dtype: torch.dtype, doubled: bool) -> None:
    sample = made_up(96, 80, seed)
    features = sample.features
    if dtype != torch.bfloat16:  # bits that bfloat16 does not have
        features = (features.float() * (1 + 0.003 * torch.randn(96, 80, generator=torch.Generator().manual_seed(seed)))).to(dtype)
    features = copies(features) if doubled else features
    sample = type(sample)(features, (sample.scores * 4).round() / 4, sample.where, sample.text_features, sample.text_scores)
    for n in (1, 11, 40, 96):
        for alpha in (0.5, 1.0):
            kept = d2_select(sample.scores, features, sample.where, n, alpha=alpha).indices
            assert torch.equal(kept, authors.d2(sample, n, exact_cosines, alpha=alpha))
        assert torch.equal(mmr_select(sample.scores, features, n), authors.marginal_relevance(sample, n, exact_cosines))
        assert torch.equal(max_min_select(features, n), authors.farthest(sample, n, exact_cosines))
        arguments = (sample.scores, features, sample.text_scores, sample.text_features)
        kept = dart_select(*arguments, n)
        if n >= 4:
            assert torch.equal(kept, authors.least_duplicated(sample, n, exact_cosines))
        assert torch.equal(dart_select(*arguments, n, order="choice").sort().values, kept)
        assert torch.equal(top_k(sample.scores, n), top_k(sample.scores, n, order="choice").sort().values)


def test_all_tokens_alike_are_looked_at_in_blocks(coarse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extremes, "_MANY", 3)
    features = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)).expand(24, -1) * torch.arange(1, 25)[:, None]
    for diagonal in ("included", "excluded"):
        keep = d2_select(torch.zeros(24), features, cells((4, 6)), 7, diagonal=diagonal)
        assert keep.indices.tolist() == list(range(7))
        assert (keep.info["s_min"], keep.info["s_max"]) == (1, 1)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_tokens_too_alike_to_call_are_not_looked_at_pair_by_pair(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """A blank image: no fast cosine tells one token from another."""
    random, asked = torch.Generator().manual_seed(0), 0
    features = (torch.randn(1, 512, generator=random) + noise * torch.randn(800, 512, generator=random)).bfloat16()
    sample = type(made_up(4, 4))(features, torch.rand(800, generator=random), cells((20, 40)), features[:1], torch.ones(1))
    table, pairs = Product.exact_table, Product.exact_pairs

    def exact_table(self: Product, tokens: np.ndarray, others: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(others) if len(tokens) == 1 else 0
        return table(self, tokens, others)

    def exact_pairs(self: Product, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(a)
        return pairs(self, a, b)

    monkeypatch.setattr(Product, "exact_table", exact_table)
    monkeypatch.setattr(Product, "exact_pairs", exact_pairs)
    assert torch.equal(max_min_select(features, 20), authors.farthest(sample, 20, exact_cosines))
    assert asked < 40 * 800, "of 320,000 pairs"
    for pivot_mode in ("topk", "mis"):
        asked = 0
        keep = d2_select(sample.scores, features, None, 80, pivot_mode=pivot_mode)
        if noise and pivot_mode == "topk":
            assert torch.equal(keep.indices, authors.d2(sample, 80, exact_cosines, alpha=1.0))
        assert asked < 100_000, "of 320,000 pairs"


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_greedy_selections_of_tokens_too_alike_to_call_compute_blocks(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    random, asked = torch.Generator().manual_seed(0), 0
    features = (torch.randn(1, 64, generator=random) + noise * torch.randn(600, 64, generator=random)).bfloat16()
    sample = type(made_up(4, 4))(features, torch.rand(600, generator=random), cells((20, 30)), features[:1], torch.ones(1))
    table = Product.exact_table

    def exact_table(self: Product, tokens: np.ndarray, others: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(others) if len(tokens) == 1 else 0
        return table(self, tokens, others)

    monkeypatch.setattr(Product, "exact_table", exact_table)
    assert torch.equal(mmr_select(sample.scores, features, 450), authors.marginal_relevance(sample, 450, exact_cosines))
    asked = 0
    assert torch.equal(max_min_select(features, 450), authors.farthest(sample, 450, exact_cosines))
    assert asked < 40_000, "of 270,000 pairs"


@pytest.mark.parametrize("dear", [0, 1, 16, 10**6])
def test_wherever_exact_cosines_take_over(coarse: str, monkeypatch: pytest.MonkeyPatch, dear: int) -> None:
    monkeypatch.setattr(greedy, "_DEAR", dear)
    for seed in range(3):
        sample = made_up(96, 80, seed)
        sample = type(sample)(copies(sample.features), sample.scores, sample.where, sample.text_features, sample.text_scores)
        assert torch.equal(mmr_select(sample.scores, sample.features, 60), authors.marginal_relevance(sample, 60, exact_cosines))
        assert torch.equal(max_min_select(sample.features, 60), authors.farthest(sample, 60, exact_cosines))


def test_no_block_is_as_large_as_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens are wanted and none is linked: edges among each other are looked at in blocks."""
    monkeypatch.setattr(d2, "_MOST", 64)
    among, most = d2.Edges._among, 0

    def watched(self: d2.Edges, tokens: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, len(tokens))
        return among(self, tokens)

    monkeypatch.setattr(d2.Edges, "_among", watched)
    keep = d2_select(torch.arange(300.0), torch.eye(300), None, 290, pivot_ratio=0.0)
    assert keep.indices.tolist() == list(range(10, 300)) and keep.info["independent"] == 290
    assert most == 64


def test_odd_sizes_are_no_reason_to_warn() -> None:
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1e-12, 1e12):
            for diagonal in ("included", "excluded"):
                small = d2_select(torch.arange(5.0), features * scale, None, 3, diagonal=diagonal)
                assert torch.equal(small.indices, d2_select(torch.arange(5.0), features, None, 3, diagonal=diagonal).indices)
        assert top_k(torch.tensor([1e38, 3e38, -3e38]), 2).tolist() == [0, 1]


@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0])
def test_edges_are_those_of_exact_cosines(alpha: float) -> None:
    """A narrow range of cosines, and θ is met exactly by some pairs: no edge, in the graph as in the selection without it."""
    for seed in range(8):
        random = torch.Generator().manual_seed(seed)
        features = torch.randn(1, 300, generator=random) + 0.005 * torch.randn(70, 300, generator=random)
        where, scores = cells((7, 10)), torch.rand(70, generator=random)
        exact = exact_cosines(features, features)
        meaning = alpha * ((exact - exact.min()) / (exact.max() - exact.min()))
        fused = meaning + (1 - alpha) * ((where[:, None, 1:] - where[None, :, 1:]).abs().amax(2) == 1).double()
        theta = float(fused[0, 1])
        expected = (fused > theta + 1e-11).fill_diagonal_(False)
        assert not expected[0, 1]
        assert torch.equal(d2_graph(features, where, alpha=alpha, theta=theta).adjacency(), expected)
        edges = d2.Edges(features, neighbours(where) if alpha < 1 else None, alpha=alpha, theta=theta, diagonal=True)
        everyone = np.arange(70)
        assert np.array_equal(edges._among(everyone), np.triu(expected.numpy(), 1))
        assert np.array_equal(edges._touched(everyone[9:], everyone[:9]), expected.numpy()[9:, :9].any(1))
        switches = {"alpha": alpha, "theta": theta, "pivot_ratio": 0.0}
        keeps = [d2_select(scores, features, where, 60, fill=fill, **switches) for fill in ("none", "score", "layers", "raise_theta")]
        assert len({keep.info["independent"] for keep in keeps}) == 1, "the fill comes after"
