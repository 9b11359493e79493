"""What each method adds to its selection: debiasing, newlines, several images, pivots, importances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from samples import changed, signals, two_images, with_newlines
from torch import Tensor

from biaskit.engine.made_up import sample_signals
from biaskit.errors import BiaskitError
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners import Pruner, get_pruner, pruners
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, KEYS, NAMES, TEXT_HIDDEN, TEXT_KEYS, Reading
from biaskit.select import cells, d2_select, dart_select, feature_norm, max_min_select, mmr_select, relative_attention, top_k
from biaskit.select.keep import Keep


def test_each_method_is_its_selection() -> None:
    s = signals()
    rel = relative_attention(s[ATTENTION], s.a_bias)
    assert get_pruner("fastv", budget=9).select(s, 9).indices.tolist() == top_k(rel, 9).tolist()
    plain = changed(s, a_bias=None)
    assert get_pruner("fastv", budget=9).select(plain, 9).indices.tolist() == top_k(s[ATTENTION], 9).tolist()
    for alpha in (0.5, 1.0):
        expected = d2_select(rel, s[HIDDEN], cells(s.layout), 9, alpha=alpha)
        keep = get_pruner("d2pruner", budget=9, alpha=alpha).select(s, 9)
        assert keep.indices.tolist() == expected.indices.tolist()
        assert dict(keep.info) == pytest.approx(dict(expected.info))
    assert get_pruner("divprune", budget=9).select(s, 9).indices.tolist() == max_min_select(s[EMBEDS], 9).tolist()
    expected = mmr_select(feature_norm(s[EMBEDS]), s[EMBEDS], 9, lam=0.3)
    assert get_pruner("idpruner", budget=9, lam=0.3).select(s, 9).indices.tolist() == expected.tolist()


def test_defaults_of_the_papers() -> None:
    d2 = get_pruner("d2pruner", budget=9)
    assert (d2.layer, d2.alpha, d2.theta, d2.pivot_ratio, d2.eps, d2.positions) == (2, 1.0, 0.8, 0.7, 1e-7, "original")
    assert (d2.pivot_mode, d2.exclude_pivot_neighbours, d2.fill, d2.prior_layout, d2.diagonal) == (
        "topk",
        True,
        "score",
        "grid2d",
        "included",
    )
    assert (d2.newline, d2.pool, d2.strength, d2.mode) == ("prune", "prompt", 1.0, "ratio")
    found = {preset: get_pruner("d2pruner", preset=preset, budget=9) for preset in pruners.get("d2pruner").presets}
    assert {preset: (p.alpha, p.layer) for preset, p in found.items()} == {
        "understanding": (1.0, 2),
        "localization": (0.5, 2),
        "localization-llava-1.5": (0.5, 5),
    }
    assert get_pruner("d2pruner", preset="localization", layer=7, budget=9).layer == 7
    dart, div, mmr = (get_pruner(name, budget=9) for name in ("dart", "divprune", "idpruner"))
    assert (dart.layer, dart.pivots, dart.text_pivots) == (2, 4, 4)
    assert (div.layer, div.positions) == (0, "compact")
    assert (mmr.layer, mmr.lam, mmr.positions) == (0, 0.5, "original")


@pytest.mark.parametrize("name", ["fastv", "d2pruner", "idpruner"])
class TestDebiasing:
    def build(self, name: str, **parameters: Any) -> Pruner:
        extra = {"importance": "debiased", "layer": 2} if name == "idpruner" else {}
        return get_pruner(name, retention=0.3, **{**extra, **parameters})

    def test_the_unit_of_the_prior_does_not_matter(self, name: str) -> None:
        s, pruner = signals(), self.build(name)
        expected = pruner.select(s, 11).indices
        for factor in (1000.0, 1 / 64):
            assert torch.equal(pruner.select(changed(s, a_bias=s.a_bias * factor), 11).indices, expected)

    def test_a_flat_prior_is_no_prior(self, name: str) -> None:
        s = signals()
        flat = changed(s, a_bias=torch.full((36,), 0.37))
        raw = self.build(name, strength=0.0).select(s, 11).indices
        assert torch.equal(self.build(name).select(flat, 11).indices, raw)
        assert torch.equal(self.build(name, mode="uniform").select(s, 11).indices, raw)
        assert not torch.equal(self.build(name).select(s, 11).indices, raw)
        if name != "d2pruner":
            assert torch.equal(self.build(name, mode="difference").select(flat, 11).indices, raw)

    def test_half_precision_signals(self, name: str) -> None:
        s = signals()
        rank = torch.randperm(36, generator=torch.Generator().manual_seed(0)).float()
        s = changed(s, attention=(rank + 1) / 64, a_bias=torch.ones(36), embeds=(s[EMBEDS] * 4).round() / 4)
        s = changed(s, hidden=torch.eye(36)[:, :12].roll(3, 0))
        expected = self.build(name).select(s, 5).indices
        for dtype in (torch.float16, torch.bfloat16):
            half = {NAMES[reading]: s[reading].to(dtype) for reading in (ATTENTION, EMBEDS, HIDDEN)} | {"a_bias": s.a_bias.to(dtype)}
            assert torch.equal(self.build(name).select(changed(s, **half), 5).indices, expected)

    def test_strength_is_checked(self, name: str) -> None:
        with pytest.raises(BiaskitError, match=r"strength is 1\.5"):
            self.build(name, strength=1.5)
        with pytest.raises(BiaskitError, match="mode is 'minus'"):
            self.build(name, mode="minus")


def test_a_prior_that_is_missing() -> None:
    plain = signals(a_bias=None)
    for name, parameters in (("d2pruner", {}), ("idpruner", {"importance": "debiased", "layer": 2})):
        with pytest.raises(BiaskitError, match="needs a prior") as caught:
            get_pruner(name, budget=9, **parameters).select(plain, 9)
        assert "biaskit calibrate" in caught.value.hint
    assert len(get_pruner("d2pruner", budget=9, strength=0.0).select(plain, 9)) == 9


def test_attention_needs_a_layer() -> None:
    for name, parameters in (("fastv", {}), ("d2pruner", {}), ("idpruner", {"importance": "attention"})):
        with pytest.raises(BiaskitError, match="of layer K − 1, but layer is 0"):
            get_pruner(name, budget=9, layer=0, **parameters)


def test_pools() -> None:
    s = signals(two_images())
    low = torch.cat([torch.full((16,), 0.9), torch.full((8,), 0.1)]) + torch.arange(24) / 1000
    s = changed(s, attention=low / 24, a_bias=torch.ones(24))
    together = get_pruner("d2pruner", budget=9, theta=1.0).select(s, 9).indices
    apart = get_pruner("d2pruner", budget=9, theta=1.0, pool="per_image").select(s, 9).indices
    assert (int((together >= 16).sum()), int((apart >= 16).sum())) == (0, 3)
    for start, stop, n in ((0, 16, 6), (16, 24, 3)):
        mine = slice(start, stop)
        pruner = get_pruner("d2pruner", budget=9, pool="per_image", alpha=0.5)
        expected = d2_select(s[ATTENTION][mine], s[HIDDEN][mine], cells(s.layout)[mine], n, alpha=0.5).indices + start
        found = pruner.select(s, 9).indices
        assert found[(found >= start) & (found < stop)].tolist() == expected.tolist()


def test_newlines() -> None:
    s = signals(with_newlines())
    newline = {7, 11, 15}

    def keep(n: int, how: str, **parameters: Any) -> Keep:
        return get_pruner("d2pruner", budget=n, newline=how, **parameters).select(s, n)

    assert newline <= set(keep(8, "keep_all").indices.tolist())
    assert len(keep(8, "keep_all")) == 8
    assert keep(3, "keep_all").indices.tolist() == sorted(newline)
    with pytest.raises(BiaskitError, match="keeps 3 newline tokens, but the budget is 2"):
        keep(2, "keep_all")
    assert not newline & set(keep(8, "drop_all").indices.tolist())
    assert len(keep(8, "drop_all")) == 8
    all_but = keep(15, "drop_all")
    assert set(all_but.indices.tolist()) == set(range(16)) - newline
    assert all_but.info["missing"] == 2
    bright = changed(s, attention=torch.tensor([1.0 if i in newline else 0.1 for i in range(16)]), a_bias=torch.ones(16))
    assert get_pruner("d2pruner", budget=3, theta=1.0).select(bright, 3).indices.tolist() == sorted(newline)
    others = sorted(set(range(16)) - newline)
    rel = relative_attention(s[ATTENTION], s.a_bias)[others]
    expected = d2_select(rel, s[HIDDEN][others], cells(s.layout)[others], 6, alpha=0.5).indices
    assert keep(6, "drop_all", alpha=0.5).indices.tolist() == [others[i] for i in expected]


def test_newline_tokens_are_neighbours_of_their_row_s_end() -> None:
    s = signals(with_newlines(), hidden=torch.ones(16, 4), a_bias=torch.ones(16))
    attention = torch.full((16,), 0.1)
    attention[6], attention[7] = 1.0, 0.9  # the end of the first row, and its newline
    keep = get_pruner("d2pruner", budget=4, alpha=0.5, pivot_ratio=0.3, fill="none").select(changed(s, attention=attention), 4)
    assert 6 in keep.indices
    assert 7 not in keep.indices


def test_fill_none_may_keep_fewer() -> None:
    keep = get_pruner("d2pruner", budget=20, fill="none", pivot_ratio=0.0).select(signals(hidden=torch.ones(36, 4)), 20)
    assert len(keep) == 1
    assert keep.info["missing"] == 19


def test_dart_pivots_and_features() -> None:
    s = signals()
    after = torch.arange(5, 9)
    norm = lambda keys: keys.abs().sum((0, 2))  # noqa: E731
    expected = dart_select(norm(s[KEYS]), s[HIDDEN] * 2, norm(s[TEXT_KEYS][:, after]), s[TEXT_HIDDEN][after] * 2, 13)
    assert get_pruner("dart", budget=13).select(s, 13).indices.tolist() == expected.tolist()
    louder = s[TEXT_KEYS].clone()
    louder[:, :5] *= 100  # text before the image never is a pivot
    assert get_pruner("dart", budget=13).select(changed(s, text_keys=louder), 13).indices.tolist() == expected.tolist()


@pytest.mark.parametrize(("retention", "n"), [(0.25, 12), (0.5, 20), (0.1, 4), (0.99, 36)])
def test_dart_s_published_count(retention: float, n: int) -> None:
    pruner = get_pruner("dart", retention=retention, count="paper")
    (stage,) = pruner.stages()
    assert len(pruner.select(signals(), stage.tokens(36))) == n == min(4 + 8 * int(36 * retention / 8), 36)
    assert len(get_pruner("dart", budget=17, count="paper").select(signals(), 17)) == 4 + 8 * 2


def test_uniform_on_the_grid() -> None:
    keep = get_pruner("uniform", budget=9, spacing="grid").select(signals(), 9)
    assert keep.indices.tolist() == [row * 6 + col for row in (1, 3, 5) for col in (1, 3, 5)]
    assert len(get_pruner("uniform", budget=7, spacing="grid").select(signals(with_newlines()), 7)) == 7


def test_random_needs_a_generator() -> None:
    pruner = get_pruner("random", budget=9)
    with pytest.raises(BiaskitError, match="needs a generator"):
        pruner.select(signals(generator=None), 9)
    seeds = [pruner.select(signals(generator=torch.Generator().manual_seed(seed)), 9).indices.tolist() for seed in range(5)]
    assert len({tuple(kept) for kept in seeds}) > 1


def test_idpruner_importances() -> None:
    s = signals()

    def kept(**parameters: Any) -> list[int]:
        return get_pruner("idpruner", budget=9, **parameters).select(s, 9).indices.tolist()

    def expected(weights: Tensor) -> list[int]:
        return mmr_select(weights, s[EMBEDS], 9).tolist()

    mine = torch.rand(36, generator=torch.Generator().manual_seed(3))
    assert kept(importance=mine) == expected(mine)
    assert kept(importance=lambda seen: -seen[EMBEDS][:, 0]) == expected(-s[EMBEDS][:, 0])
    assert kept(importance="attention", layer=1) == expected(s[ATTENTION])
    assert kept(importance="debiased", layer=1) == expected(relative_attention(s[ATTENTION], s.a_bias))
    assert get_pruner("idpruner", budget=9, importance="attention", layer=1).needs == {EMBEDS, ATTENTION}
    assert get_pruner("idpruner", budget=9).needs == {EMBEDS}
    with pytest.raises(BiaskitError, match=r"importance has shape \[36\], not \[16\]"):
        get_pruner("idpruner", budget=9, importance=mine).select(signals((4, 4)), 9)
    with pytest.raises(BiaskitError, match="importance is 'atention'"):
        get_pruner("idpruner", budget=9, importance="atention")


def prior(**planes: np.ndarray) -> Prior:
    stats = {name: PlaneStats(mean[None].astype(np.float32)) for name, mean in planes.items()}
    return Prior(stats, (1,), np.array([0.5], np.float32), {})


def test_prior_layouts() -> None:
    held = prior(image=np.arange(1, 7).reshape(2, 3))
    same, turned = signals((2, 3)).layout, signals((3, 2)).layout
    for how in ("grid2d", "flat1d", "repeat"):
        pruner = get_pruner("fastv", budget=2, prior_layout=how)
        assert pruner.fit_prior(held, same, 1).tolist() == [1, 2, 3, 4, 5, 6]
    fits = {how: get_pruner("d2pruner", budget=2, prior_layout=how).fit_prior(held, turned, 1) for how in ("grid2d", "flat1d", "repeat")}
    assert fits["grid2d"].tolist() == held.for_layout(turned, 1).tolist() != [1, 2, 3, 4, 5, 6]
    assert fits["flat1d"].tolist() == fits["repeat"].tolist() == [1, 2, 3, 4, 5, 6]
    larger = signals((3, 3)).layout
    assert get_pruner("fastv", budget=2, prior_layout="repeat").fit_prior(held, larger, 1).tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3]
    line = get_pruner("fastv", budget=2, prior_layout="flat1d").fit_prior(held, larger, 1)
    assert (line[0], line[4], line[8]) == (1, 3.5, 6)
    with pytest.raises(BiaskitError, match="prior_layout is 'flat'"):
        get_pruner("fastv", budget=2, prior_layout="flat")
    with pytest.raises(BiaskitError, match="no layer 3"):
        get_pruner("fastv", budget=2).fit_prior(held, same, 3)
    with pytest.raises(BiaskitError, match="no plane 'base'"):
        get_pruner("fastv", budget=2, prior_layout="repeat").fit_prior(held, with_newlines(), 1)


def test_dart_before_the_language_model() -> None:
    """TensorRT-Edge-LLM's place for it: pivots and similarities of input embeddings."""
    text = Reading("hidden", "projector", tokens="text")
    pruner = get_pruner("dart", budget=12, layer=0)
    assert pruner.needs == {EMBEDS, text}
    s = sample_signals(signals().layout, frozenset(pruner.needs), layer=0)
    assert s.text_positions is not None
    words = s[text][s.text_positions > int(s.layout.positions[-1])]
    expected = dart_select(s[EMBEDS].abs().sum(1), s[EMBEDS], words.abs().sum(1), words, 12)
    assert pruner.select(s, 12).indices.tolist() == expected.tolist()
