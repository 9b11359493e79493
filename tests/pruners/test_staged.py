"""Methods in several stages: counts by layer, whose attention is read, new contents, exactness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import batch, generate
from reference import by_hand, cast, model_of

from biaskit import get_pruner, prune
from biaskit.engine.limits import multi_axis
from biaskit.engine.reference import reference_logits
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import TINY
from biaskit.pruners.readings import ATTENTION, HIDDEN, Reading
from biaskit.select import layer_counts
from biaskit.testing import check_pruner

STAGED = {
    "pyramiddrop": ("pyramiddrop", {"layer": 1, "every": 1}),
    "pyramiddrop, null row": ("pyramiddrop", {"layer": 1, "every": 1, "debias": "null", "rows": "question"}),
    "sparsevlm": ("sparsevlm", {"layer": 1, "second_layer": 2, "third_layer": 3}),
    "sparsevlm, version 2": ("sparsevlm", {"layer": 1, "second_layer": 2, "third_layer": 3, "recycle": False, "heads": 1}),
}


def build(method, **more):
    name, settings = STAGED[method]
    return get_pruner(name, **{"retention": 0.2, **settings, **more})


@pytest.mark.parametrize("method", STAGED)
def test_the_contract(method):
    check_pruner(build(method))


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("method", STAGED)
@pytest.mark.parametrize("name", TINY)
def test_pruned_generation_equals_the_reference(name, method, positions):
    if positions == "compact" and multi_axis(model_of(name)[0]):
        pytest.skip("multi-axis positions are never renumbered")
    seen, pruner = [], build(method, positions=positions)

    def observe(signals, keep):
        seen.append((signals, keep))
        return {}

    model, inputs = model_of(name, "sdpa", torch.float64)[0], batch(name, "padded")
    with prune(model, pruner, observe=observe, say=lambda line: None) as pruning:
        _, tokens, logits = generate(model, cast(inputs, torch.float64))
    left, values = by_hand(inputs, model.config, seen)
    expected = reference_logits(model_of(name)[0], inputs, tokens, left, values=values, compact=positions == "compact")
    assert float((expected - logits).abs().max()) < 1e-6
    assert [layer for layer, _ in left[0]] == [1, 2, 3]
    for sample in pruning.samples:
        kept = [n for _, n, _ in sample.stages]
        assert sample.n_visual > kept[0] > kept[1] > kept[2]
        assert sample.mean_tokens == pytest.approx(
            (sample.n_visual + kept[0] + kept[1] + kept[2] * (len(sample.cache_lengths) - 3)) / len(sample.cache_lengths)
        )


@pytest.mark.parametrize(
    ("preset", "counts"),
    [("192-v1", [309, 204, 113]), ("192-v2", [300, 200, 118]), ("128-v2", [238, 108, 60]), ("64-v2", [66, 34, 20])],
)
def test_published_counts_of_sparsevlm(preset, counts):
    pruner = get_pruner("sparsevlm", preset=preset)
    assert [stage.tokens(576) for stage in pruner.stages()] == counts
    assert [stage.layer for stage in pruner.stages()] == [3, 7, 16]
    by_layer = layer_counts(576, 32, [(stage.layer, stage.tokens(576)) for stage in pruner.stages()])
    assert by_layer == [576] * 3 + [counts[0]] * 4 + [counts[1]] * 9 + [counts[2]] * 16


@pytest.mark.parametrize(("label", "mean"), [(192, 206.5), (128, 145.4), (96, 114.1), (64, 82.3)])
def test_layer_means_of_sparsevlm(label, mean):
    stages = get_pruner("sparsevlm", preset=f"{label}-v1").stages()
    counts = layer_counts(576, 32, [(stage.layer, stage.tokens(576)) for stage in stages])
    assert np.mean(counts) == pytest.approx(mean, abs=0.051)


def test_published_counts_of_pyramiddrop():
    stages = get_pruner("pyramiddrop", retention=0.125).stages()
    cuts = [(stage.layer, stage.tokens(576)) for stage in stages]
    assert cuts == [(8, 288), (16, 144), (24, 72)]
    assert np.mean(layer_counts(576, 32, cuts)) == 270
    assert [stage.tokens(7) for stage in get_pruner("pyramiddrop", budget=7).stages()] == [7, 7, 7]
    assert [stage.tokens(1) for stage in stages] == [1, 1, 1]
    assert [stage.tokens(0) for stage in stages] == [0, 0, 0]


@pytest.mark.parametrize(("layer", "moves"), [(1, True), (0, False)])
def test_pyramiddrop_reads_the_layer_about_to_run(layer, moves):
    """Without queries at that layer all keys are alike to it; without those of the layer before they are not."""
    model = model_of("llava-1.5", "sdpa", torch.float64)[0]
    pruner, found = get_pruner("pyramiddrop", budget=5, layer=1, cuts=1), []

    def observe(signals, keep):
        found.append(pruner.score(signals))
        return {}

    weight = model.get_decoder().layers[layer].self_attn.q_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
        try:
            with prune(model, pruner, observe=observe, say=lambda line: None):
                model(**cast(batch("llava-1.5", "single"), torch.float64))
        finally:
            weight.copy_(before)
    assert (float(found[0].max() - found[0].min()) < 1e-9) == moves


def test_what_is_read():
    assert build("pyramiddrop").needs == {Reading("attention", layer=0)}
    assert build("pyramiddrop, null row").needs == {Reading("attention", layer=0, queries=q) for q in ("question", "null")}
    assert build("sparsevlm").needs == {Reading("attention", queries="question"), HIDDEN}
    assert build("sparsevlm, version 2").needs == {Reading("attention", queries="question", heads="each"), HIDDEN}
    assert ATTENTION in build("sparsevlm", rows="last").needs


def test_arguments():
    with pytest.raises(BiaskitError, match="0 stages"):
        build("pyramiddrop", cuts=0)
    with pytest.raises(BiaskitError, match="layers ascend"):
        build("sparsevlm", third_layer=2)
    with pytest.raises(BiaskitError, match="heads is 0"):
        build("sparsevlm", heads=0)
