"""What a user may get wrong, and what must not be silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import model_of, picture

from biaskit.engine.prune import prune
from biaskit.errors import BiaskitError, ModelError
from biaskit.prior.value import flat_prior
from biaskit.pruners import get_pruner
from biaskit.pruners.readings import ATTENTION, EMBEDS


def inputs_of(name="llava-1.5"):
    model, processor, family = model_of(name, dtype=torch.float32)
    return model, family.prepare(processor, model.config, [[picture(120, 90)]], ["what?"]).inputs


def test_localization_is_at_another_depth_for_llava():
    """D2Pruner, implementation details: K = 5 for LLaVA-1.5, 2 elsewhere."""
    assert get_pruner("d2pruner", retention=0.1, preset="localization", model_type="llava").layer == 5
    assert get_pruner("d2pruner", retention=0.1, preset="localization", model_type="internvl").layer == 2
    assert get_pruner("d2pruner", retention=0.1, preset="localization", model_type="llava", layer=3).layer == 3


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("fastv", {"strength": "high"}),
        ("fastv", {"retention": "0.1"}),
        ("fastv", {"budget": True}),
        ("d2pruner", {"alpha": None}),
        ("d2pruner", {"exclude_pivot_neighbours": "no"}),
        ("dart", {"pivots": 2.5}),
        ("idpruner", {"importance": 3}),
    ],
)
def test_parameters_of_a_wrong_type(name, wrong):
    with pytest.raises(BiaskitError, match=next(iter(wrong))):
        get_pruner(name, **{"retention": 0.5, **wrong})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dart", {"layer": 3}),
        ("fastv", {"strength": 0.0, "layer": 3}),
        ("fastv", {"mode": "uniform", "layer": 3}),
        ("idpruner", {"layer": 3}),
        ("idpruner", {"importance": "attention", "layer": 3}),
    ],
)
def test_a_prior_that_is_not_read_need_not_fit(name, options):
    model, inputs = inputs_of()
    said = []
    with (
        torch.no_grad(),
        prune(
            model,
            get_pruner(name, retention=0.2, **options),
            prior=flat_prior({"image": (24, 24)}, [0], {"model_type": "llava"}),
            say=said.append,
        ) as pruning,
    ):
        model.generate(**inputs, max_new_tokens=1)
    assert len(pruning.samples[0]) == 115
    assert any("the prior is not used" in line for line in said)


def test_missing_prior_is_named_before_anything_runs():
    with pytest.raises(BiaskitError, match="d2pruner needs a prior"):
        get_pruner("d2pruner", retention=0.1).check_prior(None)
    with pytest.raises(BiaskitError, match="importance='debiased' needs a prior"):
        get_pruner("idpruner", retention=0.1, importance="debiased", layer=2).check_prior(None)
    get_pruner("d2pruner", retention=0.1, strength=0.0).check_prior(None)


@pytest.mark.parametrize("n", [36, 2880])
def test_a_prior_times_a_thousand_changes_nothing_in_idpruner(n):
    from biaskit.grid import Layout, Plane, raster
    from biaskit.pruners.signals import Signals

    generator = torch.Generator().manual_seed(0)
    tokens = raster(Plane("image", 6, n // 6))
    layout = Layout(np.arange(n), tokens.planes, tokens.plane, tokens.row, tokens.col)
    attention = torch.rand(n, generator=generator).softmax(0) * 0.1
    bias, embeds = torch.rand(n, generator=generator) + 0.05, torch.randn(n, 16, generator=generator)
    method = get_pruner("idpruner", retention=0.1, importance="debiased", layer=2, eps=0.0)
    readings = {ATTENTION: attention, EMBEDS: embeds}
    kept = [method.select(Signals(layout, 2, readings, a_bias=bias * scale), n // 10).indices for scale in (1, 1000)]
    assert torch.equal(*kept)


def test_importance_of_the_users_own():
    model, inputs = inputs_of()
    chosen = np.linspace(0, 1, 576)
    functions = [chosen, list(chosen), torch.from_numpy(chosen), lambda signals: signals[EMBEDS].norm(dim=-1)]
    for importance in functions:
        with torch.no_grad(), prune(model, get_pruner("idpruner", budget=9, importance=importance, lam=1.0)) as pruning:
            model.generate(**inputs, max_new_tokens=1)
        assert len(pruning.samples[0]) == 9
    with torch.no_grad(), prune(model, get_pruner("idpruner", budget=9, importance=lambda signals: signals[ATTENTION], layer=2)) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    assert len(pruning.samples[0]) == 9


def test_videos_are_refused():
    """A video of one frame pair: the picture twice."""
    model, inputs = inputs_of("qwen2.5-vl")
    image, video = model.config.image_token_id, model.config.video_token_id
    ids = torch.where(inputs["input_ids"] == image, video, inputs["input_ids"])
    kinds = inputs["mm_token_type_ids"] * 2
    clip = {"pixel_values_videos": inputs["pixel_values"], "video_grid_thw": inputs["image_grid_thw"], "mm_token_type_ids": kinds}
    clip |= {"input_ids": ids, "attention_mask": inputs["attention_mask"], "second_per_grid_ts": torch.ones(1)}
    with torch.no_grad(), prune(model, get_pruner("fastv", retention=0.5)), pytest.raises(ModelError, match="video"):
        model.generate(**clip, max_new_tokens=1)
