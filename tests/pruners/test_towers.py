"""Methods that read the vision tower: which families they take, what they merge, how tiles share a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from cases import batch, generate
from reference import by_hand, cast, model_of

from biaskit import get_pruner, prune
from biaskit.engine.reference import reference_logits
from biaskit.errors import BiaskitError, ModelError
from biaskit.grid import Layout, PatchIndex, Plane, raster
from biaskit.pruners import pruners
from biaskit.pruners.base import Pruner
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import FEATURES, TowerPruner, tile_of, tower_row
from biaskit.select import capped_shares, globalcom2_ratios, top_k, visionzip_merge
from biaskit.select.keep import Keep

SETTINGS = {"hiprune": {"middle": 0, "attend": "cls"}}
TOWERS = [name for name, cls in pruners if issubclass(cls, TowerPruner) and cls.__module__.startswith("biaskit.")]
WITH_CLASS_TOKEN = ["llava-1.5", "llava-next", "internvl-qwen2"]
KEYS = Reading("keys", "tower", layer=-2)
MERGING = ["visionzip", "prumerge", "prumerge+"]


def build(method, **more):
    return get_pruner(method, **{"budget": 7, "positions": "original", **SETTINGS.get(method, {}), **more})


def into(found):
    """An observer that writes down what a pruner saw and kept."""

    def observe(signals, keep):
        found.append((signals, keep))
        return {}

    return observe


def run(name, pruner, case="padded"):
    """Prune a model in float64; return the report, what was seen and kept, tokens and logits."""
    seen = []
    model = model_of(name, "sdpa", torch.float64)[0]
    with prune(model, pruner, observe=into(seen), say=lambda line: None) as pruning:
        _, tokens, logits = generate(model, cast(batch(name, case), torch.float64))
    return pruning, seen, tokens, logits


@pytest.mark.parametrize("name", WITH_CLASS_TOKEN)
@pytest.mark.parametrize("method", TOWERS)
def test_the_class_token_s_row(method, name):
    pruning, _, _, logits = run(name, build(method), "ragged")
    assert [len(sample) for sample in pruning.samples] == [7, 7]
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl", "qwen3-vl"])
@pytest.mark.parametrize("method", TOWERS)
def test_towers_without_a_class_token_are_refused_before_anything_runs(method, name):
    model = model_of(name, "sdpa", torch.float64)[0]
    ran = []
    handles = [module.register_forward_pre_hook(lambda *_: ran.append(1)) for module in model.modules()]
    try:
        with pytest.raises(ModelError, match="no CLS token") as caught, prune(model, build(method)):
            generate(model, cast(batch(name, "single"), torch.float64))
    finally:
        for handle in handles:
            handle.remove()
    assert not ran
    assert "llava" in caught.value.hint


@pytest.mark.parametrize("name", ["llava-1.5", "llava-next", "internvl-qwen2", "qwen2.5-vl", "qwen3-vl"])
@pytest.mark.parametrize("method", MERGING)
def test_merged_tokens_equal_the_reference(method, name):
    """The slow model gets the same rows put in by hand, at the same positions."""
    pruner = build(method, attend="cls" if name in WITH_CLASS_TOKEN else "mean", budget=6, pool="prompt")
    _, decided, tokens, logits = run(name, pruner)
    inputs = batch(name, "padded")
    model = model_of(name)[0]
    assert len(decided) == len(tokens) and all(keep.info["merged"] > 0 and keep.values is not None for _, keep in decided)
    left, values = by_hand(inputs, model.config, decided)
    expected = reference_logits(model, inputs, tokens, left, values=values)
    assert float((expected - logits).abs().max()) < 1e-6
    same = reference_logits(model, inputs, tokens, left)
    assert float((expected - same)[:, 0].abs().amax(-1).min()) > 1e-4, "the contents must matter"


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl"])
def test_contents_are_merged_before_the_projector(name):
    """VisionZip by hand: target + mean of the tower's features, projected; dominant tokens as the model made them."""
    attend = "cls" if name in WITH_CLASS_TOKEN else "mean"
    model, found = model_of(name, "sdpa", torch.float64)[0], []

    pruner = build("visionzip", attend=attend, contextual=0.5, budget=6, pool="prompt")
    with torch.no_grad(), prune(model, pruner, observe=into(found)):
        model(**cast(batch(name, "single"), torch.float64))
    signals, keep = found[0]
    merge = visionzip_merge(signals[tower_row(attend)], signals[KEYS], 3, 3)
    assert keep.indices.tolist() == merge.indices.tolist()
    features = signals.patch_rows(FEATURES, torch.arange(len(signals)))
    for place, weights, row in zip(keep.indices.tolist(), merge.weights, keep.values, strict=True):
        if (weights != 0).sum() == 1:
            torch.testing.assert_close(row, signals[EMBEDS][place])
        else:
            rows = torch.einsum("n,ngd->gd", weights.double(), features.double())
            torch.testing.assert_close(row.double(), signals.project(rows[None].to(features.dtype))[0].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("budget", "merged"), [(64, 10), (128, 20), (192, 30)])
def test_published_counts_of_visionzip(budget, merged):
    """54 + 10 is 64 tokens of the language model, 108 + 20 and 162 + 30 twice and three times as many."""
    layout, generator = raster(Plane("image", 24, 24)), torch.Generator().manual_seed(0)
    random = {reading: torch.rand(*shape, generator=generator) for reading, shape in (
        (tower_row("cls"), (576,)), (KEYS, (576, 8)), (FEATURES, (576, 8)), (EMBEDS, (576, 8)),
    )}  # fmt: skip
    index = PatchIndex(np.arange(576)[:, None], (576,))
    signals = Signals(
        Layout(np.arange(576), layout.planes, layout.plane, layout.row, layout.col), 0, random, index, project=lambda rows: rows.sum(1)
    )
    keep = get_pruner("visionzip", budget=budget).select(signals, budget)
    assert len(keep) == budget and keep.info["merged"] == merged


def test_tiles_share_a_budget_and_newlines_go_first():
    found = []
    model = model_of("llava-next", "sdpa", torch.float64)[0]
    with torch.no_grad(), prune(model, build("fastervlm", retention=0.5, budget=None), observe=into(found)):
        model(**cast(batch("llava-next", "single"), torch.float64))
    signals, keep = found[0]
    tile = tile_of(signals)
    assert int((tile < 0).sum()) == sum(signals.layout.planes[plane].name == "newline" for plane in signals.layout.plane)
    assert not bool((tile[keep.indices] < 0).any())
    sizes = torch.bincount(tile[tile >= 0]).double()
    shares = torch.bincount(tile[keep.indices], minlength=len(sizes)).double()
    assert float((shares - sizes * len(keep) / sizes.sum()).abs().max()) < 1
    for number in range(len(sizes)):
        mine = torch.nonzero(tile == number)[:, 0]
        best = mine[top_k(signals[tower_row("cls")][mine], int(shares[number]))]
        assert torch.isin(best, keep.indices).all()


@pytest.mark.parametrize(("name", "attend"), [("llava-next", "cls"), ("qwen2.5-vl", "mean")])
def test_a_reading_at_some_tokens_is_the_whole_reading_at_those(name, attend):
    """In any order, for heads joined and not; newlines have no patch and read 0, and contents are means of the patches behind."""
    each = tower_row(attend, heads="each")
    found = []

    @dataclass(frozen=True)
    class Reads(Pruner):
        needs = frozenset({FEATURES, each, EMBEDS})

        def choose(self, signals, budget):
            found.append(signals)
            return Keep(torch.arange(budget))

    with torch.no_grad(), prune(model_of(name, "sdpa", torch.float64)[0], Reads(budget=3, layer=0)):
        model_of(name, "sdpa", torch.float64)[0](**cast(batch(name, "single"), torch.float64))
    (signals,) = found
    index = torch.from_numpy(signals.patch_index.index)
    tokens = torch.arange(len(signals)).flip(0)[::2]
    assert bool((index < 0).any()) == (name == "llava-next") and (index.shape[1] > 1) == (name == "qwen2.5-vl")
    for reading in (FEATURES, each, EMBEDS):
        assert torch.equal(signals.at(reading, tokens), signals[reading].index_select(reading.axis, tokens))
    for reading in (FEATURES, each):
        rows = signals.patch_rows(reading, tokens)
        patches = torch.cat(signals.patches(reading), reading.axis)
        for place, token in enumerate(tokens.tolist()):
            mine, behind = rows.select(reading.axis, place), index[token][index[token] >= 0]
            torch.testing.assert_close(mine.narrow(reading.axis, 0, len(behind)), patches.index_select(reading.axis, behind))
            assert not mine.narrow(reading.axis, len(behind), index.shape[1] - len(behind)).any()
            mean = mine.sum(reading.axis) / max(len(behind), 1)
            torch.testing.assert_close(signals[reading].select(reading.axis, token), mean)
    with pytest.raises(BiaskitError, match="embeds is not a reading of the vision tower"):
        signals.patch_rows(EMBEDS, tokens)


def four_tiles():
    """A small picture of 4 × 4 tokens, a canvas of 4 × 4 of which each tile of the tower covers a quarter, and newlines."""
    base, canvas, newline = Plane("base", 4, 4), Plane("canvas", 4, 4), Plane("newline", 4, 1, None)
    rows, cols = np.divmod(np.arange(16), 4)
    body_row, body_col = np.divmod(np.arange(20), 5)
    is_newline = body_col == 4
    plane = np.concatenate([np.zeros(16, np.int64), np.where(is_newline, 2, 1)])
    row, col = np.concatenate([rows, body_row]), np.concatenate([cols, np.where(is_newline, 0, body_col)])
    layout = Layout(np.arange(36) + 5, (base, canvas, newline), plane, row, col)
    tile = body_row // 2 * 2 + body_col.clip(max=3) // 2
    patch = np.where(is_newline, -1, 16 + tile * 4 + body_row % 2 * 2 + body_col % 2)
    index = PatchIndex(np.concatenate([np.arange(16), patch])[:, None], (16, 4, 4, 4, 4))
    return layout, index, np.concatenate([np.full(16, 4), np.where(is_newline, -1, tile)])


def test_hired_gives_the_hot_tile_what_the_tiles_get():
    layout, index, tile = four_tiles()
    early = torch.zeros(32)
    early[[0, 1, 4, 5]] = 1.0  # the upper left quarter of the small picture
    late = torch.arange(32.0)
    pruner = get_pruner("hired", budget=6, alpha=0.75)
    signals = Signals(layout, 0, {tower_row("cls", 0): early, tower_row("cls"): late}, index)
    kept = pruner.select(signals, 4).indices
    assert torch.bincount(torch.from_numpy(tile)[kept], minlength=5).tolist() == [1, 0, 0, 0, 3]
    even = get_pruner("hired", budget=6, alpha=0.0)
    assert torch.bincount(torch.from_numpy(tile)[even.select(signals, 8).indices], minlength=5).tolist() == [2, 2, 2, 2, 0]


def test_globalcom2_ranks_a_tile_by_both_views():
    layout, index, tile = four_tiles()
    logits = torch.zeros(32)
    logits[[0, 1, 4, 5]] = 5.0  # the upper left quarter: one tile's sum is 20 above the others'
    signals = Signals(layout, 0, {tower_row("cls", -1, what="logits"): logits}, index)
    kept = get_pruner("globalcom2", budget=16).select(signals, 16).indices
    shares = torch.bincount(torch.from_numpy(tile)[kept], minlength=5).tolist()
    ratios = globalcom2_ratios(logits[:16], torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]), 4, 0.5)
    assert shares == capped_shares([4 * r for r in ratios.tolist()] + [8.0], [4, 4, 4, 4, 16], 16)
    assert shares[0] == max(shares[:4])
    everything = get_pruner("globalcom2", budget=16).select(signals, 33).indices
    assert len(everything) == 33
    assert set(range(36)) - set(everything.tolist()) <= set(np.flatnonzero(tile < 0).tolist())


def test_pooling_averages_the_grid():
    layout = Layout(np.arange(16), (Plane("image", 4, 4),), np.zeros(16, np.int64), *np.divmod(np.arange(16), 4))
    rows = torch.arange(16.0)[:, None]
    keep = get_pruner("pool", budget=4).select(Signals(layout, 0, {EMBEDS: rows}), 4)
    blocks = rows.view(2, 2, 2, 2).mean((1, 3)).flatten()
    assert keep.indices.tolist() == [5, 7, 13, 15]
    assert keep.values.flatten().tolist() == blocks.tolist()


def test_relevance_is_to_the_prompt():
    layout = Layout(np.arange(4), (Plane("image", 2, 2),), np.zeros(4, np.int64), *np.divmod(np.arange(4), 2))
    rows = torch.eye(4)
    text = Reading("hidden", "projector", tokens="text")
    seen = Signals(layout, 0, {EMBEDS: rows, text: torch.tensor([[0.0, 0, 2, 0], [0, 1, 0, 0]])})
    assert get_pruner("cdpruner", budget=2).select(seen, 2).indices.tolist() == [1, 2]
    own = get_pruner("cdpruner", budget=2, relevance=lambda signals: signals[EMBEDS] @ torch.tensor([3.0, 0, 0, 2]))
    assert own.select(Signals(layout, 0, {EMBEDS: rows}), 2).indices.tolist() == [0, 3]
    with pytest.raises(BiaskitError, match="relevance is 'clip'"):
        get_pruner("cdpruner", budget=2, relevance="clip")
