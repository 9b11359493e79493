"""The prompts of the engine's tests, how they are generated from, and the comparison with the reference."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from reference import Anywhere, Ragged, Top, cast, model_of, picture, positions_left

from biaskit.engine.prune import prune
from biaskit.engine.reference import reference_logits
from biaskit.families.checkpoints.tiny_parts import OMNI, SPECIAL, special_id
from biaskit.select.keep import Keep

NEW = 8


# a random model may generate an image placeholder, which no model takes back, or Qwen2.5-Omni's mark before an image
SPECIAL_IDS = [*range(len(SPECIAL)), *(special_id(token, OMNI) for token in OMNI)]


SIZES = {f"internvl-{text}": [(448, 224), (224, 224)] for text in ("llama", "qwen2", "qwen3")}
SIZES["aya-vision"] = [(224, 112), (112, 112)]
SIZES |= {name: [(300, 100), (150, 150)] for name in ("llava-next", "llava-next-video")}


PROMPTS = ["hi", "hello, what is in the picture?"]


@cache
def batch(name, case):
    """The processor's output: one sample, or two of which the first is left-padded."""
    _, processor, family = model_of(name)
    sizes = SIZES.get(name, [(150, 120), (120, 200)])
    if case == "single":
        pictures, prompts = [[picture(*sizes[0])]], PROMPTS[1:]
    else:
        second = sizes[1] if case == "ragged" else sizes[0]
        pictures, prompts = [[picture(*sizes[0])], [picture(*second, seed=1)]], PROMPTS
    return family.prepare(processor, model_of(name)[0].config, pictures, prompts).inputs


def pruner_of(case, layer):
    if case == "ragged":
        return Ragged(layer=layer, budget=None, share=0.5)
    return Top(layer=layer) if layer else Anywhere(budget=5)


@torch.no_grad()
def generate(model, inputs, **options):
    settings = {"max_new_tokens": NEW, "do_sample": False, "suppress_tokens": SPECIAL_IDS, **options}
    out = model.generate(**inputs, **settings, return_dict_in_generate=True, output_logits=True)
    return out, out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1)


ONE_OF_EACH = ["llava-1.5", "llava-onevision", "qwen2.5-vl", "qwen3-vl", "internvl-qwen2"]


def check(name, inputs, pruner, *, dtype=torch.float64, attention="sdpa", tolerance=1e-6, compact=False, under=nullcontext, **options):
    """Generate pruned, compare with the reference, return the report."""
    model = model_of(name, attention, dtype)[0]
    with under(model), prune(model, pruner) as pruning:
        _, tokens, logits = generate(model, cast(inputs, dtype), **options)
    left = positions_left(inputs, pruning.samples, model.config)
    expected = reference_logits(model_of(name)[0], inputs, tokens, left, compact=compact)
    error = float((expected - logits).abs().max())
    assert error < tolerance, f"{error:.1e} from the reference"
    assert any(len(sample) < sample.n_visual for sample in pruning.samples)
    return pruning


@dataclass(frozen=True)
class First(Anywhere):
    """The first tokens."""

    def select(self, signals, budget):
        return Keep(torch.arange(budget))
