"""Selections on a CUDA device: the CPU's answers, alone and in batches, in half precision too, and one wait."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from biaskit import device as transfer
from biaskit import get_pruner, prune
from biaskit.bench.features import made_up
from biaskit.engine.dropper import _Layer
from biaskit.engine.made_up import sample_layouts, sample_signals
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
from biaskit.prior.value import flat_prior
from biaskit.select import (
    cells,
    d2_select,
    d2_select_many,
    max_min_select,
    max_min_select_many,
    mmr_select,
    mmr_select_many,
    top_k,
    top_k_many,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]
HALF = [torch.float32, torch.bfloat16, torch.float16]


def exact(batch, total, seed=0):
    """Cosines of whole halves, which are exact on every device, with ties and copies everywhere."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randint(0, 2, (batch, total, 4), generator=random).float() * 2 - 1
    features *= 2.0 ** torch.randint(-3, 4, (batch, total, 1), generator=random)
    features[:, :: max(2, total // 3)] = 0
    return torch.randint(0, 5, (batch, total), generator=random).float(), features


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows, cols", [(1, 1), (1, 7), (20, 25), (33, 65)])
def test_exact_cosines(rows, cols, dtype):
    total = rows * cols
    scores, features = exact(3, total)
    where, there = cells((rows, cols)), (scores.cuda(), features.cuda().to(dtype))
    for n in sorted({1, (total + 7) // 8, total}):
        for alpha, theta in ((1.0, 0.8), (1.0, 0.5), (0.5, 0.5), (0.5, 0.75), (0.8, 0.8), (0.0, 0.3)):
            for more in ({}, {"diagonal": "excluded"}, {"exclude_pivot_neighbours": False}, {"fill": "none", "pivot_ratio": 0.29}):
                settings = {"alpha": alpha, "theta": theta, **more}
                expected = [d2_select(s, f, where, n, **settings) for s, f in zip(scores, features, strict=True)]
                found = d2_select_many(*there, where, n, **settings)
                assert [keep.indices.tolist() for keep in found] == [keep.indices.tolist() for keep in expected]
                for keep, wanted in zip(found, expected, strict=True):
                    assert keep.info["s_min"] == wanted.info["s_min"] and keep.info["s_max"] == wanted.info["s_max"]
                    assert keep.info["missing"] == wanted.info["missing"]
        expected = [mmr_select(s, f, n, order="choice").tolist() for s, f in zip(scores, features, strict=True)]
        assert mmr_select_many(*there, n, order="choice").tolist() == expected
        assert [mmr_select(s, f, n, order="choice").tolist() for s, f in zip(*there, strict=True)] == expected
        expected = [max_min_select(f, n, order="choice").tolist() for f in features]
        assert max_min_select_many(there[1], n, order="choice").tolist() == expected
        assert [max_min_select(f, n, order="choice").tolist() for f in there[1]] == expected
        assert top_k_many(there[0], n).tolist() == [top_k(s, n).tolist() for s in scores]


@pytest.mark.parametrize("switches", [{"fill": "layers"}, {"fill": "raise_theta"}, {"pivot_mode": "mis"}])
def test_the_general_way(switches):
    scores, features = exact(1, 300)
    expected = d2_select(scores[0], features[0], cells((15, 20)), 60, alpha=0.5, theta=0.5, **switches)
    found = d2_select(scores[0].cuda(), features[0].cuda(), cells((15, 20)), 60, alpha=0.5, theta=0.5, **switches)
    assert found.indices.tolist() == expected.indices.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_like_a_model_s(dtype):
    """Float32 sums may decide otherwise where cosines are closer than their rounding: of 129 tokens, few."""
    samples = [made_up(1152, 1024, seed) for seed in range(4)]
    scores, features = torch.stack([s.scores for s in samples]).cuda(), [s.features.cuda().to(dtype) for s in samples]
    for alpha in (1.0, 0.5):
        expected = [d2_select(s.scores, s.features, s.where, 129, alpha=alpha, theta=0.6) for s in samples]
        found = d2_select_many(scores, features, samples[0].where, 129, alpha=alpha, theta=0.6)
        for keep, wanted in zip(found, expected, strict=True):
            assert len(set(keep.indices.tolist()) & set(wanted.indices.tolist())) >= 127
            assert keep.info["s_min"] == pytest.approx(wanted.info["s_min"], abs=2**-16)
            assert keep.info["s_max"] == 1
            assert keep.info["edge_density"] == pytest.approx(wanted.info["edge_density"], rel=0.05, abs=1e-3)
    for kept, sample in zip(mmr_select_many(scores, features, 129), samples, strict=True):
        assert len(set(kept.tolist()) & set(mmr_select(sample.scores, sample.features, 129).tolist())) >= 120
    for kept, sample in zip(max_min_select_many(features, 129), samples, strict=True):
        assert len(set(kept.tolist()) & set(max_min_select(sample.features, 129).tolist())) >= 100


@pytest.mark.parametrize("dtype", HALF)
def test_copies_have_cosine_one(dtype):
    kinds = torch.randn(40, 4096, generator=torch.Generator().manual_seed(0)).to(dtype)
    features = torch.cat([kinds, 4 * kinds, 0.25 * kinds])[None].expand(8, -1, -1).cuda()
    for picked in max_min_select_many(features, 60, order="choice").tolist():
        assert {pick % 40 for pick in picked[:40]} == set(range(40))
        assert picked[40:] == sorted(set(range(120)) - set(picked[:40]))[:20]


def test_numbers_that_are_not_finite():
    scores, features = exact(2, 50)
    features[1, 7, 2] = torch.nan
    for dtype in HALF:
        with pytest.raises(BiaskitError, match="features has values that are not finite"):
            d2_select_many(scores.cuda(), features.cuda().to(dtype), None, 9)
        with pytest.raises(BiaskitError, match="features has values that are not finite"):
            max_min_select(features[1].cuda().to(dtype), 9)
    scores[0, 3] = torch.inf
    with pytest.raises(BiaskitError, match="importance has values that are not finite"):
        mmr_select_many(scores.cuda(), features[:1].expand(2, -1, -1).cuda(), 9)


@pytest.fixture
def reads(monkeypatch):
    """How often results are waited for."""
    counted = []
    read = transfer.Fetch.read
    monkeypatch.setattr(transfer.Fetch, "read", lambda self: (counted.append(len(self._done)), read(self))[1])
    return counted


def test_one_wait(reads):
    samples = [made_up(576, 256, seed) for seed in range(3)]
    scores, features = torch.stack([s.scores for s in samples]).cuda(), [s.features.cuda().bfloat16() for s in samples]
    calls = (
        lambda: d2_select_many(scores, features, samples[0].where, 64, alpha=0.5),
        lambda: d2_select(scores[0], features[0], None, 64),
        lambda: mmr_select_many(scores, features, 64),
        lambda: max_min_select_many(features, 64),
        lambda: top_k_many(scores, 64),
    )
    for call in calls:
        call()
        reads.clear()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert sum(reads) == 1


def test_memory_is_bounded():
    features, scores = torch.randn(10, 4096, 64, device="cuda").bfloat16(), torch.rand(10, 4096, device="cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    mmr_select_many(scores, features, 8)
    d2_select_many(scores, features, None, 8)
    assert torch.cuda.max_memory_allocated() - before < 1.15 * 2**30


@pytest.mark.parametrize("name, settings", [("d2pruner", {"alpha": 0.5}), ("fastv", {}), ("idpruner", {}), ("divprune", {})])
def test_pruners_decide_for_a_batch(name, settings):
    pruner = get_pruner(name, budget=7, **settings)
    layout = sample_layouts()["any-res"]
    host = [sample_signals(layout, layer=max(pruner.layer, 1), seed=seed) for seed in range(3)]
    moved = [type(s)(**{k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in vars(s).items()}) for s in host]
    found = pruner.select_many(moved, [7] * 3)
    assert [keep.indices.tolist() for keep in found] == [pruner.select(s, 7).indices.tolist() for s in host]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["d2pruner", "fastv", "divprune"])
def test_the_engine_waits_once(method, dtype, reads, monkeypatch):
    """The decision layer's hook may wait for nothing but fetched results; what it keeps is what it keeps without that watch."""
    model, processor, family = tiny_model("llava-next", dtype=dtype)
    inputs = {name: value.cuda() for name, value in tiny_inputs(family, processor, model.config).items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    model, pruner = model.cuda(), get_pruner(method, retention=0.1)
    prior = flat_prior(family.canonical(model.config), [1], {"model_type": model.config.model_type}) if pruner.debiases else None

    def kept():
        with torch.no_grad(), prune(model, pruner, prior=prior, say=lambda line: None) as pruning:
            model(**inputs)
        return [sample.indices.tolist() for sample in pruning.samples]

    expected, narrow = kept(), _Layer._narrow

    def watched(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return narrow(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_Layer, "_narrow", watched)
    reads.clear()
    assert kept() == expected
    assert sum(map(bool, reads)) <= 2 + len({len(indices) for indices in expected})
