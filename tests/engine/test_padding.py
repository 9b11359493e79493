"""Padding around a picture is left out of the choice, apart from any prior: LLaVA-1.5 with pictures padded to squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from biaskit.engine.attention import attention_rows
from biaskit.engine.prune import prune
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.families.frame import square_by
from biaskit.prior.padding import picture_mask
from biaskit.pruners import get_pruner

COUNTS = {(640, 480): 432, (640, 360): 336, (640, 400): 384, (300, 640): 288, (320, 320): 576}
"""Size → tokens of 576 that show the picture (card 26, threshold .5)."""


def picture(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def prepared(sizes, mode="pad", dtype=torch.float32):
    model, processor, family = tiny_model("llava-1.5", dtype=dtype)
    processor.image_processor = square_by(processor.image_processor, mode)
    prompts = ["What is it?", "Where is the very small red thing?"][: len(sizes)]
    inputs = family.prepare(processor, model.config, [[picture(size)] for size in sizes], prompts).inputs
    return model, {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", COUNTS)
def test_padding_is_found_in_the_pixels(size, dtype):
    """Nothing is left over for padding: a budget beyond the picture keeps the picture."""
    model, inputs = prepared([size], dtype=dtype)
    with torch.no_grad(), prune(model, get_pruner("fastv", budget=570, padding="suppress")) as pruning:
        model(**inputs)
    kept = pruning.samples[0].indices.numpy()
    expected = np.flatnonzero(picture_mask(*size)) if COUNTS[size] < 576 else kept
    assert len(kept) == min(COUNTS[size], 570)
    np.testing.assert_array_equal(kept, expected)


def test_a_batch_chooses_among_its_pictures_alone():
    """Pictures of two shapes and prompts of two lengths: what is kept is the best of what is not padding, in every sample."""
    sizes = [(640, 360), (300, 640)]
    model, inputs = prepared(sizes)
    rows = attention_rows(model, inputs, [1])[0]
    for budget in (40, 300):
        with torch.no_grad(), prune(model, get_pruner("fastv", budget=budget, padding="suppress")) as pruning:
            model.generate(**inputs, max_new_tokens=2, do_sample=False)
        for number, size in enumerate(sizes):
            attention = rows[number][inputs["input_ids"][number] == model.config.image_token_id].numpy()
            mask = picture_mask(*size).ravel()
            order = np.argsort(-np.where(mask, attention, -1), kind="stable")[: min(budget, mask.sum())]
            assert sorted(order.tolist()) == pruning.samples[number].indices.tolist()
    with torch.no_grad(), prune(model, get_pruner("fastv", budget=40)) as pruning:
        model(**inputs)
    assert not picture_mask(*sizes[0]).ravel()[pruning.samples[0].indices.numpy()].all()


@pytest.mark.parametrize("name", ["d2pruner", "idpruner", "pyramiddrop", "sparsevlm"])
def test_every_method_leaves_padding_out(name):
    more = {"d2pruner": {"strength": 0.0}, "idpruner": {"importance": "attention", "layer": 2}, "pyramiddrop": {"layer": 2, "every": 1}}
    stages = {"layer": 2, "second_layer": 3, "third_layer": 4}
    model, inputs = prepared([(640, 360), (300, 640)])
    pruner = get_pruner(name, budget=30, padding="suppress", **more.get(name, stages))
    with torch.no_grad(), prune(model, pruner) as pruning:
        model(**inputs)
    for sample, size in zip(pruning.samples, [(640, 360), (300, 640)], strict=True):
        assert len(sample) == 30 and picture_mask(*size).ravel()[sample.indices.numpy()].all()


def test_where_nothing_is_padded_nothing_changes():
    for mode, size in (("crop", (640, 360)), ("pad", (320, 320))):
        model, inputs = prepared([size], mode)
        found = []
        for padding in ("keep", "suppress"):
            with torch.no_grad(), prune(model, get_pruner("fastv", budget=40, padding=padding)) as pruning:
                model(**inputs)
            found.append(pruning.samples[0].indices.tolist())
        assert found[0] == found[1]
