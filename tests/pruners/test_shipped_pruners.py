"""Every built-in method, as people use it: on every family, with a calibrated prior, through `prune` and stock `generate()`."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from cases import SPECIAL_IDS

from biaskit import calibrate, get_pruner, prune
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.images.generated import GeneratedSource
from biaskit.pruners import pruners
from biaskit.select.keep import budget
from biaskit.testing import check_pruner

SHARE = 0.15
METHODS = {  # name → (pruner, parameters, whether it gets the prior)
    "random": ("random", {}, False),
    "uniform": ("uniform", {}, False),
    "uniform on the grid": ("uniform", {"spacing": "grid"}, False),
    "fastv": ("fastv", {}, False),
    "fastv, debiased": ("fastv", {}, True),
    "fastv, the question's rows": ("fastv", {"rows": "question"}, False),
    "fastv, priortr": ("fastv", {"rows": "question", "debias": "null", "mode": "p_log"}, False),
    "fastv, null row": ("fastv", {"debias": "null"}, False),
    "fastv, recency": ("fastv", {"debias": "recency", "slope": 4e-3}, False),
    "d2pruner, understanding": ("d2pruner", {"preset": "understanding"}, True),
    "d2pruner, localization": ("d2pruner", {"preset": "localization"}, True),
    "dart": ("dart", {}, False),
    "dart, K = 0": ("dart", {"layer": 0}, False),
    "divprune": ("divprune", {}, False),
    "idpruner, norm": ("idpruner", {"layer": 0, "importance": "norm"}, False),
    "idpruner, attention": ("idpruner", {"layer": 2, "importance": "attention"}, False),
    "fastervlm": ("fastervlm", {"attend": "mean"}, False),
    "vispruner": ("vispruner", {"attend": "mean", "step": 1}, False),
    "scope": ("scope", {"attend": "mean"}, False),
    "visionzip": ("visionzip", {"attend": "mean", "contextual": 0.3}, False),
    "hiprune": ("hiprune", {"middle": 0, "alpha": 1.0}, False),
    "prumerge": ("prumerge", {"attend": "mean"}, False),
    "prumerge+": ("prumerge+", {"attend": "mean"}, False),
    "hired": ("hired", {"attend": "mean"}, False),
    "globalcom2": ("globalcom2", {"attend": "mean"}, False),
    "cdpruner": ("cdpruner", {}, False),
    "cdpruner, openvino": ("cdpruner", {"preset": "openvino"}, False),
    "pool": ("pool", {}, False),
    "coordinates": ("coordinates", {}, False),
}
ELSEWHERE = {"visionselector", "pyramiddrop", "sparsevlm", "fitprune", "tome"}  # weights, stages, merging in the tower: their own tests
K0 = ("divprune", "idpruner, norm", "fastervlm", "vispruner", "scope", "visionzip", "hiprune", "prumerge", "prumerge+")
K0 += ("hired", "globalcom2", "cdpruner", "cdpruner, openvino", "pool", "dart, K = 0")
PLACES = dict.fromkeys(K0, 0)  # K; 2 for the others
DEBIASED = [method for method, (_, _, biased) in METHODS.items() if biased]
PICTURES = GeneratedSource(3, 5)
LARGER = [(360, 270), (280, 420), (240, 240)]

SIZES = {
    "internvl": [(224, 224), (200, 100), (90, 90)],
    **dict.fromkeys(("aya", "qwen", "glm", "mistral"), LARGER),
}  # few tiles; enough tokens
OTHER_SIZES = [(160, 120), (120, 200), (90, 90)]


def build(method, **more):
    name, parameters, _ = METHODS[method]
    return get_pruner(name, **{"retention": SHARE, **parameters, **more})


def test_every_built_in_method_is_here():
    shipped = {name for name, cls in pruners if cls.__module__.startswith("biaskit.")}
    assert shipped == {name for name, _, _ in METHODS.values()} | ELSEWHERE


def pictures_for(name):
    sizes = next((sizes for start, sizes in SIZES.items() if name.startswith(start)), OTHER_SIZES)
    return [PICTURES.load(i).resize(size) for i, size in enumerate(sizes)]


@functools.cache
def batch(name):
    """Two prompts: a short one with one picture, padded on the left, and one with two of other sizes."""
    _, processor, family = built(name)
    first, second, third = pictures_for(name)
    pictures = [[first], [second, third]]
    return family.prepare(processor, built(name)[0].config, pictures, ["hi", "which of the two pictures is brighter, and why?"])


@functools.cache
def built(name):
    return tiny_model(name)


@functools.cache
def prior_of(name):
    """Attention of this very model, averaged over three generated pictures, at all layers."""
    return calibrate(Loaded(*built(name), name, "test"), GeneratedSource(3, 0), workers=0, layers="all")


@torch.no_grad()
def generate(model, inputs, **options):
    """Greedy answers: tokens [B, 3], logits [B, 3, V]. Special tokens are out: no model takes an image placeholder back."""
    settings = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": SPECIAL_IDS, **options}
    out = model.generate(**inputs, **settings, return_dict_in_generate=True, output_logits=True)
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1)


@functools.cache
def unpruned(name):
    return generate(built(name)[0], batch(name).inputs)


@functools.cache
def weights(name):
    """Copies of everything a model holds, taken before any pruning of it."""
    return {key: value.clone() for key, value in built(name)[0].state_dict().items()}


@functools.cache
def pruned(name, method):
    """One run of a method, for all that is asked about it: the report, tokens, logits."""
    with prune(built(name)[0], build(method), prior=prior_of(name) if METHODS[method][2] else None, say=lambda line: None) as pruning:
        return pruning, *generate(built(name)[0], batch(name).inputs)


def kept(samples):
    return [sample.indices.tolist() for sample in samples]


@pytest.fixture(scope="module", params=TINY)
def family_name(request):
    """Each family in turn; its prior and its unpruned answers are made once."""
    weights(request.param), unpruned(request.param), prior_of(request.param)
    return request.param


def test_the_batch_is_what_the_tests_below_need(family_name):
    prepared = batch(family_name)
    mask = prepared.inputs["attention_mask"]
    assert mask[0, 0] == 0 and mask[:, -1].all() and mask[1].all(), "the first prompt is padded on the left"
    assert [max(plane.image for plane in layout.planes) for layout in prepared.layouts] == [0, 1]
    assert len(prepared.layouts[0]) != len(prepared.layouts[1])


@pytest.mark.parametrize("method", METHODS)
def test_on_every_family(family_name, method):
    model, prepared = built(family_name)[0], batch(family_name)
    pruning, tokens, logits = pruned(family_name, method)
    assert tokens.shape == (2, 3) and bool(logits.isfinite().all())
    assert pruning.prefills == 1 and len(pruning.samples) == 2
    place = PLACES.get(method, 2)
    for sample, layout in zip(pruning.samples, prepared.layouts, strict=True):
        n = budget(len(layout), SHARE)
        assert sample.n_visual == len(layout) and len(sample) == n < len(layout)
        indices = sample.indices
        assert indices.dtype == torch.int64 and bool((indices.diff() > 0).all()) and indices[0] >= 0 and indices[-1] < len(layout)
        assert [(layer, left) for layer, left, _ in sample.stages] == [(place, n)]
        depth = len(sample.cache_lengths)
        assert sample.mean_tokens == pytest.approx((place * len(layout) + (depth - place) * n) / depth)
    first = (logits[:, 0] - unpruned(family_name)[1][:, 0]).abs().amax(-1)
    assert float(first.min()) > 1e-4, "pruning either sample must show in the first answer token's logits"
    again_tokens, again = generate(model, prepared.inputs)
    assert torch.equal(again, unpruned(family_name)[1]) and torch.equal(again_tokens, unpruned(family_name)[0])
    state = model.state_dict()
    assert state.keys() == weights(family_name).keys() and all(
        torch.equal(state[key], value) for key, value in weights(family_name).items()
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_is_decided_alone(method):
    """Padding and the other sample of the batch change nothing; random draws by the sample's number, so the first is asked alone."""
    name = "qwen2.5-vl"
    model, processor, family = built(name)
    prior = prior_of(name) if METHODS[method][2] else None
    alone = family.prepare(processor, model.config, [pictures_for(name)[:1]], ["hi"]).inputs
    found = []
    for inputs in (batch(name).inputs, alone):
        with prune(model, build(method), prior=prior, say=lambda line: None) as pruning:
            generate(model, inputs, max_new_tokens=1)
        found.append(kept(pruning.samples)[0])
    assert found[0] == found[1]


def test_methods_differ(family_name):
    """Else a method could be another one under its name; a prior that is not read would also show here."""
    found = {method: kept(pruned(family_name, method)[0].samples)[1] for method in METHODS}
    same = [(a, b) for a in found for b in found if a < b and found[a] == found[b]]
    alike = {("pool", "uniform on the grid")}  # the same places, with other contents
    if all(plane.name != "canvas" for plane in batch(family_name).layouts[1].planes):
        alike |= {("fastervlm", "hired"), ("globalcom2", "prumerge")}  # without tiles: late attention alone; logits alone, other contents
    assert set(same) <= alike


@pytest.mark.parametrize("method", DEBIASED)
def test_the_prior_is_that_of_layer_k_minus_1(method):
    """A prior whose other layers are noise gives the same decision; one whose layer K − 1 is noise does not."""
    name = "llava-1.5"
    model, prior = built(name)[0], prior_of(name)

    def noisy(layer):
        planes = {}
        for plane, stats in prior.planes.items():
            mean = stats.mean.copy()
            mean[layer] = np.random.default_rng(0).uniform(0.05, 5, mean[layer].shape)
            planes[plane] = dataclasses.replace(stats, mean=mean)
        return dataclasses.replace(prior, planes=planes)

    found = []
    for given in (prior, noisy(0), noisy(2), noisy(1)):
        with prune(model, build(method), prior=given) as pruning:
            generate(model, batch(name).inputs, max_new_tokens=1)
        found.append(kept(pruning.samples))
    assert found[0] == found[1] == found[2] != found[3]


@pytest.mark.parametrize("method", METHODS)
def test_the_contract(method):
    check_pruner(build(method))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llava-1.5", "qwen3-vl"])
def test_half_precision_models(name, dtype):
    """All methods run; the signals are float32, so the counts are the same and nothing overflows."""
    model = tiny_model(name, dtype=dtype)[0]
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch(name).inputs.items()}
    plain = generate(model, inputs, max_new_tokens=2)[1]
    for method, (_, _, biased) in METHODS.items():
        with prune(model, build(method), prior=prior_of(name) if biased else None, say=lambda line: None) as pruning:
            logits = generate(model, inputs, max_new_tokens=2)[1]
        assert bool(logits.isfinite().all()), method
        assert [len(sample) for sample in pruning.samples] == [budget(len(layout), SHARE) for layout in batch(name).layouts], method
        assert not torch.equal(logits[:, 0], plain[:, 0]), method
    assert torch.equal(generate(model, inputs, max_new_tokens=2)[1], plain)
