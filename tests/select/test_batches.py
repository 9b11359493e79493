"""Selections as a device makes them, kernels through the interpreter: the oracles' answers, alone and in batches, from any dtype."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import strategies
import torch
from decisions import CLEAR, FRACTIONS, is_exact
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from biaskit import device as transfer
from biaskit.bench.features import made_up
from biaskit.device import deferred
from biaskit.errors import BiaskitError
from biaskit.select import (
    cells,
    d2_graph,
    d2_select,
    d2_select_many,
    feature_norm,
    max_min_select,
    max_min_select_many,
    mmr_select,
    mmr_select_many,
    relative_attention,
    relative_attention_many,
    top_k_many,
)
from biaskit.select.gpu.batch import codes

pytestmark = pytest.mark.usefixtures("interpreter")
CASES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
)


@pytest.fixture(autouse=True, scope="module")
def device(interpreter):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transfer, "_pretend", True)
        yield


def on_the_cpu(select, *arguments, **settings):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transfer, "_pretend", False)
        return select(*arguments, **settings)


@pytest.mark.parametrize("fill", ["score", "none"])
@CASES
@given(data=st.data())
def test_d2(fill, data):
    where = data.draw(strategies.grids())
    total, batch = len(where), data.draw(st.integers(1, 3))
    features = [data.draw(strategies.exact_features(total)) for _ in range(batch)]
    if batch == 1 and data.draw(st.booleans()):
        features = [data.draw(strategies.generic_features(total))]
    scores = [data.draw(strategies.scores(total)) for _ in range(batch)]
    alpha, theta = data.draw(st.sampled_from(FRACTIONS)), data.draw(st.sampled_from(FRACTIONS))
    pivot_ratio = data.draw(st.sampled_from([0.0, 0.29, 0.5, 0.7, 1.0]))
    exclude, diagonal = data.draw(st.booleans()), data.draw(st.sampled_from(["included", "excluded"]))
    n = data.draw(st.integers(1, total))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])) if is_exact(features[0]) else torch.float32
    found = d2_select_many(
        torch.tensor(scores), torch.from_numpy(np.stack(features)).to(dtype), torch.from_numpy(where), n,
        alpha=alpha, theta=theta, pivot_ratio=pivot_ratio, exclude_pivot_neighbours=exclude, fill=fill, diagonal=diagonal,
    )  # fmt: skip
    for rows, values, keep in zip(features, scores, found, strict=True):
        fused = oracles.fused_similarity(rows, where, alpha, diagonal)
        if not is_exact(rows):
            off = np.abs(fused[~np.eye(total, dtype=bool)] - theta) * np.ptp(oracles.cosine_matrix(rows))
            assume(bool((off > CLEAR).all()) or alpha == 0)
        expected = oracles.d2(values, fused, n, theta, pivot_ratio, "topk", exclude, fill)
        assert keep.indices.tolist() == sorted(expected)
        edges = (fused > np.float32(theta)) & ~np.eye(total, dtype=bool)
        assert keep.info["missing"] == n - len(expected)
        assert keep.info["edge_density"] == pytest.approx(edges.sum() / max(total * (total - 1), 1))


@CASES
@given(data=st.data())
def test_mmr(data):
    total, batch = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 3))
    features = [data.draw(strategies.features(total)) for _ in range(batch)]
    assume(len({rows.shape for rows in features}) == 1)
    n, lam = data.draw(st.integers(1, total)), data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    weights = [data.draw(strategies.scores(total)) for _ in range(batch)]
    wanted = []
    for rows, values in zip(features, weights, strict=True):
        expected, closest = oracles.mmr(values, rows, n, lam)
        assume(closest > CLEAR or lam == 1.0 or (lam == 0.0 and is_exact(rows)))
        wanted.append(expected)
    found = mmr_select_many(torch.tensor(weights), [torch.from_numpy(rows) for rows in features], n, lam=lam, order="choice")
    assert found.tolist() == wanted


@CASES
@given(data=st.data())
def test_max_min(data):
    total, batch = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 3))
    features, n = [data.draw(strategies.exact_features(total)) for _ in range(batch)], data.draw(st.integers(1, total))
    wanted = [oracles.max_min(rows, n)[0] for rows in features]
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    found = max_min_select_many(torch.from_numpy(np.stack(features)).to(dtype), n, order="choice")
    assert found.tolist() == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_like_a_model_s(dtype):
    """More tokens than a block of any kernel, several panels of products, and a strided view of a longer sequence."""
    samples = [made_up(270, 48, seed) for seed in (0, 1)]
    scores, features = (torch.stack([getattr(sample, name) for sample in samples]) for name in ("scores", "features"))
    sequence = torch.randn(2, 290, 48).to(dtype)
    sequence[:, 7:277] = features
    where = torch.stack([sample.where for sample in samples])
    for alpha in (1.0, 0.5):
        expected = [on_the_cpu(d2_select, s.scores, s.features, s.where, 40, alpha=alpha, theta=0.6) for s in samples]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("biaskit.select.gpu.cosines.PANEL", 128)
            found = d2_select_many(scores, [part[7:277] for part in sequence], where, 40, alpha=alpha, theta=0.6)
        for keep, wanted in zip(found, expected, strict=True):
            assert keep.indices.tolist() == wanted.indices.tolist()
            for name, value in wanted.info.items():
                value = round(value * 2**18) / 2**18 if name in ("s_min", "s_max") else value  # as a device rounds cosines
                assert keep.info[name] == pytest.approx(value, abs=1e-4 if name == "edge_density" else 0), name
    kept = mmr_select_many(scores, sequence[:, 7:277], 40)
    assert kept.tolist() == [on_the_cpu(mmr_select, s.scores, s.features, 40).tolist() for s in samples]
    kept = max_min_select_many(sequence[:, 7:277], 40)
    assert kept.tolist() == [on_the_cpu(max_min_select, s.features, 40).tolist() for s in samples]


def test_alone_is_as_in_a_batch_and_memory_is_bounded(monkeypatch):
    samples = [made_up(60, 16, seed) for seed in range(5)]
    scores, features = [s.scores for s in samples], [s.features.half() for s in samples]
    whole = [keep.indices.tolist() for keep in d2_select_many(scores, features, samples[0].where, 12, alpha=0.5, theta=0.5)]
    relevant = mmr_select_many(scores, features, 12).tolist()
    sizes = []
    monkeypatch.setattr("biaskit.select.gpu.cosines.ROOM", 2 * 4 * 60**2)
    monkeypatch.setattr("biaskit.select.gpu.cosines.torch.bmm", lambda a, b, bmm=torch.bmm: sizes.append(len(a)) or bmm(a, b))
    assert [k.indices.tolist() for k in d2_select_many(scores, features, samples[0].where, 12, alpha=0.5, theta=0.5)] == whole
    assert mmr_select_many(scores, features, 12).tolist() == relevant
    assert sizes == [2, 2, 1] * 2
    alone = [d2_select(s, f, samples[0].where, 12, alpha=0.5, theta=0.5).indices.tolist() for s, f in zip(scores, features, strict=True)]
    assert alone == whole
    assert [mmr_select(s, f, 12).tolist() for s, f in zip(scores, features, strict=True)] == relevant


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_of_any_size_and_none(scale, dtype):
    if dtype == torch.float16 and scale != 0.0:
        scale = 6e4 if scale > 1 else 6e-8
    kinds = torch.tensor([[1.0, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    features = (kinds * torch.tensor([1, scale, 1, scale, 1, 1])[:, None]).to(dtype)
    scores = torch.tensor([1.0, 5, 3, 4, 2, 6])
    for theta in (0.4, 0.5, 0.8):
        expected = on_the_cpu(d2_select, scores, features.float(), None, 3, theta=theta, pivot_ratio=0.4)
        found = d2_select(scores, features, None, 3, theta=theta, pivot_ratio=0.4)
        assert found.indices.tolist() == expected.indices.tolist()
        assert (found.info["s_min"], found.info["s_max"]) == (expected.info["s_min"], expected.info["s_max"])
    assert max_min_select(features, 4).tolist() == on_the_cpu(max_min_select, features.float(), 4).tolist()


def test_importance_of_any_size():
    importance = torch.tensor([[-3e38, 0.0, 3e38], [1, 1, 1]])
    assert mmr_select_many(importance, torch.eye(3).expand(2, 3, 3), 3, lam=1.0, order="choice").tolist() == [[2, 1, 0], [0, 1, 2]]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("theta", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_limits_are_those_of_the_comparison(alpha, theta):
    """Two tokens at every cosine around θ: the walk's limit and the fused similarity say the same."""
    angles = torch.linspace(0, 1.5, 24)
    features = torch.stack([angles.cos(), angles.sin()], 1)
    where = cells((2, 12))
    graph = on_the_cpu(d2_graph, features, where, alpha=alpha, theta=theta)
    keep = d2_select(-torch.arange(24.0), features, where, 24, alpha=alpha, theta=theta, pivot_ratio=0.0, fill="none")
    expected = on_the_cpu(d2_select, -torch.arange(24.0), features, where, 24, alpha=alpha, theta=theta, pivot_ratio=0.0, fill="none")
    assert keep.indices.tolist() == expected.indices.tolist()
    assert keep.info["edge_density"] == pytest.approx(graph.density)


@pytest.mark.parametrize("name", ["features", "scores"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_numbers_that_are_not_finite(name, value):
    sample = {"scores": torch.rand(2, 9), "features": torch.rand(2, 9, 4).bfloat16()}
    sample[name][1].view(-1)[5] = value
    with pytest.raises(BiaskitError, match=f"{name} has values that are not finite"):
        d2_select_many(sample["scores"], sample["features"], None, 3)
    with pytest.raises(BiaskitError, match=f"{name.replace('scores', 'importance')} has values that are not finite"):
        mmr_select_many(sample["scores"], sample["features"], 3)
    if name == "features":
        with pytest.raises(BiaskitError, match="features has values that are not finite"):
            max_min_select_many(sample["features"], 3)


@CASES
@given(data=st.data())
def test_top_k(data):
    total, batch = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 3))
    scores, n = [data.draw(strategies.scores(total)) for _ in range(batch)], data.draw(st.integers(1, total))
    wanted = [oracles.descending(values)[:n] for values in scores]
    assert top_k_many(torch.tensor(scores), n, order="choice").tolist() == wanted
    assert top_k_many(torch.tensor(scores), n).tolist() == on_the_cpu(top_k_many, torch.tensor(scores), n).tolist()


def test_top_k_of_numbers_that_are_not_finite():
    for value in (torch.inf, torch.nan):
        with pytest.raises(BiaskitError, match="scores has values that are not finite"):
            top_k_many(torch.tensor([[1.0, 2.0], [value, 1.0]]), 1)


@pytest.mark.parametrize("mode", ["ratio", "difference", "uniform"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_debiased_attention(mode, strength):
    random = torch.Generator().manual_seed(0)
    attention, prior = torch.rand(3, 50, generator=random), torch.rand(3, 50, generator=random)
    attention[0, :20] = prior[1, 7] = 0
    found = relative_attention_many(attention, prior, strength=strength, mode=mode)
    for row, a, p in zip(found, attention, prior, strict=True):
        torch.testing.assert_close(row, on_the_cpu(relative_attention, a, p, strength=strength, mode=mode), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("attention", -1.0, "attention has negative values"),
        ("attention", torch.nan, "attention has values that are not finite"),
        ("prior", torch.inf, "prior has values that are not finite"),
        ("prior", -1.0, "prior has negative values"),
        ("prior", 0.0, "the prior is zero where it divides"),
    ],
)
def test_debiased_attention_is_refused_when_results_are_read(name, value, message):
    numbers = {"attention": torch.rand(2, 9), "prior": torch.rand(2, 9)}
    numbers[name][1, 3] = value
    with pytest.raises(BiaskitError, match=message):
        relative_attention_many(**numbers, eps=0.0)
    read = []
    with pytest.raises(BiaskitError, match=message), deferred():
        scores = relative_attention_many(**numbers, eps=0.0)
        read.append("nothing yet")
        top_k_many(torch.ones_like(scores), 2)
    assert read == ["nothing yet"]
    with pytest.raises(BiaskitError, match=message), deferred():  # and at the end, if nothing is read
        relative_attention_many(**numbers, eps=0.0)


def test_checks_are_put_off_inside_a_block_only():
    features = torch.tensor([[1.0, torch.nan]])
    with pytest.raises(BiaskitError, match="not finite"):
        feature_norm(features)
    seen = []
    with pytest.raises(BiaskitError, match="features has values that are not finite"), deferred():
        seen.append(feature_norm(features))
    assert len(seen) == 1
    with deferred():
        feature_norm(torch.full((2, 9), 3e38))  # a sum that float32 cannot hold is looked at again


def test_what_is_refused_on_a_device_too():
    scores, features, where = torch.rand(2, 6), torch.rand(2, 6, 4), cells((2, 3))
    for arguments, message in (
        ((scores, features, None, 3, {"alpha": 0.5}), "there are no cells"),
        ((scores, features, where, 0, {}), "cannot keep 0"),
        ((scores, features, where * 0, 3, {"alpha": 0.5}), "share one cell"),
        ((scores, features, where * 10**6, 3, {"alpha": 0.5}), "are too large"),
        ((scores, features, where - 1, 3, {"alpha": 0.5}), "negative"),
        ((scores, features, where[1:], 3, {}), r"cells have shape \[5, 3\]"),
        ((scores[:, 1:], features, where, 3, {}), r"scores has shape \[5\], not \[6\]"),
        ((scores, features[..., 0], where, 3, {}), r"features has shape \[6\], not \[N, d\]"),
        ((scores, [features[0], features[1].half()], where, 3, {}), "the samples' features differ"),
        ((scores, features, where, 3, {"theta": 2}), "theta is 2"),
        ((scores, features, where, 3, {"pivot_ratio": -1}), "pivot_ratio is -1"),
    ):
        with pytest.raises(BiaskitError, match=message):
            d2_select_many(*arguments[:-1], **arguments[-1])
    with pytest.raises(BiaskitError, match="lam is 2"):
        mmr_select_many(scores, features, 3, lam=2)


def test_other_switches_take_the_general_way():
    samples = [made_up(40, 8, seed) for seed in (0, 1)]
    scores, features, where = [s.scores for s in samples], [s.features for s in samples], samples[0].where
    for switches in ({"fill": "layers"}, {"fill": "raise_theta"}, {"pivot_mode": "mis"}):
        found = d2_select_many(scores, features, where, 15, alpha=0.5, theta=0.3, **switches)
        expected = [on_the_cpu(d2_select, s, f, where, 15, alpha=0.5, theta=0.3, **switches) for s, f in zip(scores, features, strict=True)]
        assert [keep.indices.tolist() for keep in found] == [keep.indices.tolist() for keep in expected]


@given(strategies.grids())
def test_numbers_of_cells_tell_neighbours(where):
    found = codes(torch.from_numpy(where), len(where), alone=True)
    (code,), width = found
    gap = np.abs(code[:, None].astype(int) - code)
    near = (gap == 1) | ((gap >= width - 1) & (gap <= width + 1))
    apart = np.abs(where[:, None] - where)
    assert np.array_equal(near, (apart[..., 0] == 0) & (apart[..., 1:].max(-1) == 1))
