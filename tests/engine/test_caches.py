"""The engine under other caches, masks and ways to decode: static caches, beams, flash attention, no cache, later turns."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from cases import NEW, ONE_OF_EACH, First, batch, check, generate, pruner_of
from reference import Ragged, Top, cast, model_of, picture, positions_left
from transformers import StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.engine.prune import prune
from biaskit.engine.reference import reference_logits
from biaskit.families.checkpoints.tiny import TINY
from biaskit.pruners.readings import Reading

SEEN: list = []


@pytest.mark.parametrize(
    "attention, dtype, tolerance", [("sdpa", torch.float64, 1e-6), ("eager", torch.float32, 1e-4)], ids=["sdpa", "eager"]
)
@pytest.mark.parametrize("case", ["single", "padded", "ragged"])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_static_cache(name, layer, case, attention, dtype, tolerance):
    options = {"cache_implementation": "static", "disable_compile": True}
    pruning = check(name, batch(name, case), pruner_of(case, layer), dtype=dtype, attention=attention, tolerance=tolerance, **options)
    prompt = batch(name, case)["input_ids"].shape[1]
    assert list(pruning.samples[0].cache_lengths[:layer]) == [prompt] * layer
    assert max(pruning.samples[0].cache_lengths[layer:]) < prompt


QUERIES = ["last", "text", "visual", "mean", "question", "null"]


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("name", ["llava-1.5", "qwen3-vl"])
def test_readings_under_a_static_cache(name, layer):
    """It hands the model another mask than the processor's; which rows are padding is the same."""
    model, inputs = model_of(name)[0], batch(name, "padded")
    assert bool((inputs["attention_mask"] == 0).any())
    readings = frozenset(Reading("attention", layer=layer, queries=queries) for queries in QUERIES)

    @dataclass(frozen=True)
    class Looks(First):
        needs: ClassVar[frozenset] = readings

    seen = []
    for options in ({}, {"cache_implementation": "static", "disable_compile": True}):
        with prune(model, Looks(layer=2), observe=lambda signals, keep: seen.append(signals) or {}):
            generate(model, cast(inputs, torch.float64), max_new_tokens=1, **options)
    assert len(seen) == 4
    for dynamic, static in zip(seen[:2], seen[2:], strict=True):
        for reading in readings:
            assert bool(static[reading].isfinite().all()), reading
            torch.testing.assert_close(static[reading], dynamic[reading], atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_beams(name, layer):
    """The score of each returned beam is what the reference gives its tokens."""
    model, processor, family = model_of(name)
    sizes = [(224, 224), (224, 224)] if "internvl" in name else [(150, 120), (120, 200)]
    inputs = family.prepare(processor, model.config, [[picture(*sizes[0])], [picture(*sizes[1], 1)]], ["hi", "what is this?"]).inputs
    with prune(model, pruner_of("ragged", layer)) as pruning:
        out, tokens, _ = generate(model, cast(inputs, torch.float64), num_beams=3, num_return_sequences=2, output_scores=True)
    samples = pruning.samples
    assert len(samples) == 6
    for b in range(2):
        assert all(torch.equal(samples[3 * b].indices, samples[3 * b + i].indices) for i in (1, 2)), (
            "beams of a sample share the tokens kept"
        )
    assert len(samples[0]) != len(samples[3])
    copied = {
        key: value.repeat_interleave(2, 0) for key, value in inputs.items() if key in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    doubled = family.prepare(
        processor,
        model.config,
        [[picture(*size, b)] for b, size in enumerate(sizes) for _ in range(2)],
        [p for p in ("hi", "what is this?") for _ in range(2)],
    ).inputs
    assert torch.equal(doubled["input_ids"], copied["input_ids"])
    left = positions_left(doubled, [samples[i] for i in (0, 1, 3, 4)], model.config)
    expected = reference_logits(model, doubled, tokens, left)
    scores = expected.log_softmax(-1).gather(2, tokens[:, :, None]).sum((1, 2)) / NEW
    assert float((scores - out.sequences_scores).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["llava-1.5", "qwen3-vl"])
def test_several_returned_sequences(name):
    model, inputs = model_of(name)[0], batch(name, "ragged")
    torch.manual_seed(0)
    with prune(model, Ragged(layer=1, budget=None, share=0.5)) as pruning:
        _, tokens, logits = generate(model, cast(inputs, torch.float64), do_sample=True, top_k=5, num_return_sequences=2)
    kept = [sample.indices for sample in pruning.samples]
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[2], kept[3]) and len(kept[0]) != len(kept[2])
    left = positions_left(inputs, pruning.samples[::2], model.config)
    for copy in (0, 1):
        expected = reference_logits(model, inputs, tokens[copy::2], left)
        assert float((expected - logits[copy::2]).abs().max()) < 1e-6


def unpadding_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, position_ids=None, **kwargs):
    """What flash attention does with a 2-D mask, in plain torch: cut padding out, causal from the right end, zeros for padding."""
    assert attention_mask is None or (attention_mask.ndim == 2 and attention_mask.shape[1] == key.shape[2])
    SEEN.append((module.layer_idx, query.shape[2], position_ids))
    groups = query.shape[1] // key.shape[1]
    out = torch.zeros_like(query)
    for b in range(len(query)):
        alive = torch.ones(key.shape[2], dtype=torch.bool) if attention_mask is None else attention_mask[b].bool()
        asks = alive[-query.shape[2] :]
        keys, values = (x[b][:, alive].repeat_interleave(groups, 0) for x in (key, value))
        asking = query[b][:, asks]
        logits = asking @ keys.transpose(1, 2) * scaling
        causal = torch.ones(logits.shape[1:], dtype=torch.bool).tril(logits.shape[2] - logits.shape[1])
        out[b][:, asks] = logits.masked_fill(~causal, -torch.inf).softmax(-1) @ values
    return out.transpose(1, 2), None


@contextmanager
def flash_emulated(model):
    """Run a model through `unpadding_attention`, under flash attention's name and with its masks."""
    config = model.get_decoder().config
    stock = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS["flash_attention_2"] = unpadding_attention
    config._attn_implementation = "flash_attention_2"
    SEEN.clear()
    try:
        yield
    finally:
        config._attn_implementation = stock
        del ALL_ATTENTION_FUNCTIONS["flash_attention_2"]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("case", ["single", "padded", "ragged"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_masks_of_flash_attention(name, case, layer):
    check(name, batch(name, case), pruner_of(case, layer), under=flash_emulated)
    narrowed = [positions for number, _, positions in SEEN if number >= layer]
    assert narrowed and all(positions is None for positions in narrowed), "gaps in position ids look like packed sequences"
    assert {queries for _, queries, _ in SEEN} >= {1}


@pytest.mark.parametrize(("name", "static"), [*((name, False) for name in TINY), ("llava-1.5", True), ("qwen3-vl", True), ("gemma3", True)])
def test_later_turn_with_a_kept_cache(name, static):
    """Layers below K hold all of the first turn, so generate() knows what is cached, and the second turn is exact."""
    model, inputs = model_of(name)[0], batch(name, "padded")
    size = inputs["input_ids"].shape[1] + 3 * NEW
    cache = {"past_key_values": StaticCache(model.config.get_text_config(), max_cache_len=size), "disable_compile": True} if static else {}
    with prune(model, Top(layer=2)) as pruning:
        first, _, _ = generate(model, cast(inputs, torch.float64), **cache)
        samples = pruning.samples
        more = torch.tensor([[60, 70, 80, 90]]).expand(2, -1)
        ids = torch.cat([first.sequences, more], 1)
        real = torch.ones(2, NEW + 4, dtype=torch.int64)
        real[0, NEW : NEW + 2] = 0  # the second turn of the first sample is shorter
        mask = torch.cat([inputs["attention_mask"], real], 1)
        extra = {}
        if "mm_token_type_ids" in inputs:
            extra["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros(2, NEW + 4, dtype=torch.int64)], 1)
        cache["past_key_values"] = first.past_key_values
        second, _, logits = generate(model, {"input_ids": ids, "attention_mask": mask, **extra}, **cache)
        assert pruning.prefills == 1
    left = positions_left(inputs, samples, model.config)
    later = second.sequences[:, inputs["input_ids"].shape[1] :]
    real = torch.cat([real, torch.ones(2, NEW, dtype=torch.int64)], 1)
    expected = reference_logits(model, inputs, later, left, real=real)
    assert float((expected[:, -NEW:] - logits).abs().max()) < 1e-6


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", TINY)
def test_without_a_cache_every_step_is_decided_anew(name, layer):
    """With a pruner that always answers the same, that is the same."""
    model, inputs = model_of(name)[0], batch(name, "padded")
    with prune(model, First(layer=layer)) as pruning:
        _, tokens, logits = generate(model, cast(inputs, torch.float64), use_cache=False)
        assert pruning.prefills == NEW and pruning.samples[0].cache_lengths is None
        _, same, same_logits = generate(model, cast(inputs, torch.float64))
    assert torch.equal(tokens, same)
    torch.testing.assert_close(logits, same_logits, atol=1e-6, rtol=0)


def test_two_prompts_in_turn_in_one_block():
    """What a cache holds is remembered for each cache."""
    model = model_of("llava-1.5")[0]
    a, b = (cast(batch("llava-1.5", case), torch.float64) for case in ("single", "ragged"))
    with torch.no_grad(), prune(model, Ragged(layer=1, budget=None, share=0.5)):
        caches = [model(**inputs, use_cache=True).past_key_values for inputs in (a, b)]
        logits = []
        for inputs, cache in zip((a, b), caches, strict=True):
            rows = len(inputs["input_ids"])
            mask = torch.cat([inputs["attention_mask"], torch.ones(rows, 1, dtype=torch.int64)], 1)
            step = {"input_ids": torch.full((rows, 1), 77), "position_ids": (mask.sum(1) - 1)[:, None], "past_key_values": cache}
            logits.append(model(**step, attention_mask=mask).logits)
    assert [len(x) for x in logits] == [1, 2]
    with torch.no_grad(), prune(model, Ragged(layer=1, budget=None, share=0.5)) as pruning:
        model(**a)
        cache = model(**b, use_cache=True).past_key_values
        mask = torch.cat([b["attention_mask"], torch.ones(2, 1, dtype=torch.int64)], 1)
        again = model(input_ids=torch.full((2, 1), 77), position_ids=(mask.sum(1) - 1)[:, None], past_key_values=cache, attention_mask=mask)
    assert torch.equal(again.logits, logits[1]) and len(pruning.samples) == 2
