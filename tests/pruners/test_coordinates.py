"""IVC-Prune's coordinate tokens: the card's golden vectors, and the positions of stock models."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from reference import Steps

from biaskit.engine.prune import prune
from biaskit.engine.recorder import mean_rotations
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
from biaskit.pruners import get_pruner
from biaskit.pruners.readings import Reading
from biaskit.select.coordinates import coordinate_tokens
from biaskit.select.keep import Keep


@dataclass(frozen=True)
class Looks(Steps):
    """Remembers the rotations that it sees."""

    seen: list = field(default_factory=list)
    needs = frozenset({Reading("rotations")})

    def select(self, signals, budget):
        self.seen.append(signals[Reading("rotations")])
        return Keep(torch.arange(budget))


def seen_by(model, inputs, k):
    looks = Looks(at=((k, 5),))
    with torch.no_grad(), prune(model, looks):
        model(**inputs)
    return looks.seen


def frequencies(width, base):
    return base ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)


def table(positions, width=128, base=1e4):
    return mean_rotations(torch.as_tensor(positions), frequencies(width, base))[0]


def first(column, count):
    return column.sort(descending=True, stable=True).indices[:count].tolist()


def test_golden_vectors():
    """Method cards 35.3."""
    small = table(torch.arange(5, 21)[None], 8)
    assert first(small[:, 0], 2) == [1, 2] and first(small[:, 1], 2) == [9, 15]
    np.testing.assert_allclose(small[:3, 0], [0.789996, 0.945922, 0.879068], atol=1e-6)
    assert coordinate_tokens(small, 2).tolist() == [1, 2, 9, 15]
    far = table(torch.arange(35, 35 + 576)[None])
    assert first(far[:, 0], 8) == [2, 1, 15, 8, 3, 9, 0, 22] and first(far[:, 1], 8) == [344, 470, 469, 402, 293, 403, 345, 294]
    near = table(torch.arange(5, 5 + 576)[None])
    assert first(near[:, 0], 8) == [0, 1, 2, 3, 4, 5, 7, 6] and first(near[:, 1], 8) == [374, 500, 499, 432, 323, 433, 375, 324]
    thirds = np.bincount(coordinate_tokens(far, 29) // 192)
    assert thirds.tolist() == [30, 11, 17]
    grid = torch.stack([torch.full((16,), 15), 15 + torch.arange(16) // 4, 15 + torch.arange(16) % 4])[:, None]
    axes = table(grid, base=1e6)
    assert first(axes[:, 0], 2) == [15, 3] and first(axes[:, 1], 2) == [0, 1]


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl", "qwen3-vl", "internvl-llama"])
def test_positions_are_those_that_the_model_counts(name, k):
    """Left padding: a prompt beside a longer one, which shows something else, has the rotations that it has alone."""
    model, processor, family = tiny_model(name)
    pictures = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)) for seed in (0, 1)]
    prompts = ["What?", "Where in this picture is the very small red cup?"]
    both = family.prepare(processor, model.config, [[picture] for picture in pictures], prompts).inputs
    alone = family.prepare(processor, model.config, [[pictures[1]]], prompts[:1]).inputs
    both, alone = (with_positions(model, inputs) for inputs in (both, alone))
    (first, second), (one,) = seen_by(model, both, k), seen_by(model, alone, k)
    assert first.shape == (len(first), 2) and float(first.abs().max()) <= 1
    torch.testing.assert_close(first, one, atol=1e-6, rtol=0)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)  # the picture comes before the question: same places, same turns


def with_positions(model, inputs):
    """As generate() does it, where the model does not count by itself."""
    if hasattr(model.base_model, "get_rope_index"):
        return inputs
    return {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def test_coordinates_are_kept_and_the_rest_is_drawn():
    model, processor, family = tiny_model("llava-1.5")
    inputs = tiny_inputs(family, processor, model.config)
    kept = []
    for seed in (0, 1):
        with torch.no_grad(), prune(model, get_pruner("coordinates", budget=64), seed=seed) as pruning:
            model.generate(**inputs, max_new_tokens=2, do_sample=False)
        kept.append(set(pruning.samples[0].indices.tolist()))
        assert len(kept[-1]) == 64
    counted = inputs["attention_mask"][0].cumsum(0) - 1
    start = int(counted[inputs["input_ids"][0] == model.config.image_token_id][0])
    inverse = model.base_model.language_model.rotary_emb.inv_freq
    expected = set(coordinate_tokens(mean_rotations(torch.arange(start, start + 576)[None], inverse)[0], 16).tolist())
    assert 16 < len(expected) <= 32 and expected <= kept[0] & kept[1] and kept[0] != kept[1]
    assert pruning.samples[0].info == {"coordinates": float(len(expected))}


def test_readings_that_make_no_sense():
    for more in ({"at": "tower"}, {"layer": 0}, {"heads": "each"}, {"queries": "text"}):
        with pytest.raises(BiaskitError):
            Reading("rotations", **more)
    with pytest.raises(BiaskitError, match=r"not \[N, 2\]"):
        coordinate_tokens(torch.zeros(3), 1)
    with pytest.raises(BiaskitError, match="4 of 3 tokens"):
        coordinate_tokens(torch.zeros(3, 2), 4)
