"""Pruned generate() equals the slow reference, which recomputes everything and drops the same rows by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from cases import NEW, SPECIAL_IDS, batch, generate, pruner_of
from reference import Anywhere, cast, model_of, positions_left

from biaskit.engine.prune import prune
from biaskit.engine.reference import reference_logits
from biaskit.families.checkpoints.tiny import TINY


@cache
def unpruned(name, case):
    inputs = batch(name, case)
    model = model_of(name)[0]
    _, tokens, logits = generate(model, cast(inputs, torch.float64))
    nothing = [[] for _ in inputs["input_ids"]]
    found = float((reference_logits(model, inputs, tokens, nothing) - logits).abs().max())
    assert found < 1e-6, "the reference must be right where nothing is pruned"
    return logits


@pytest.mark.parametrize(
    "attention, dtype, tolerance", [("sdpa", torch.float64, 1e-6), ("eager", torch.float32, 1e-4)], ids=["sdpa64", "eager32"]
)
@pytest.mark.parametrize("case", ["single", "padded", "ragged"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
@pytest.mark.parametrize("name", TINY)
def test_generate_equals_the_reference(name, layer, case, attention, dtype, tolerance):
    inputs = batch(name, case)
    if case != "single":
        assert (inputs["attention_mask"][:, 0] == 0).any(), "a sample must be padded"
    model = model_of(name, attention, dtype)[0]
    with prune(model, pruner_of(case, layer)) as pruning:
        out, tokens, logits = generate(model, cast(inputs, dtype))
    samples = pruning.samples
    expected = reference_logits(model_of(name)[0], inputs, tokens, positions_left(inputs, samples, model.config))
    error = float((expected - logits).abs().max())
    assert error < tolerance
    if dtype == torch.float64:
        expected[:, :, SPECIAL_IDS] = -torch.inf
        assert torch.equal(expected.argmax(-1), tokens)
    changed = (logits[:, 0].double() - unpruned(name, case)[:, 0]).abs().amax(1)
    assert changed.min() > 1e-3, "pruning must change every sample's logits"
    if case == "ragged":
        assert len({len(sample) for sample in samples}) == 2, "samples must keep different numbers"
    check_cache(out.past_key_values, inputs, samples, layer)


def check_cache(cache, inputs, samples, layer):
    """Layers below K hold the padded prompt, the others the longest sample's text and kept tokens; all hold the decoded tokens."""
    text = [int(mask.sum()) - sample.n_visual for mask, sample in zip(inputs["attention_mask"], samples, strict=True)]
    narrow = max(t + len(sample) for t, sample in zip(text, samples, strict=True))
    expected = [inputs["input_ids"].shape[1]] * layer + [narrow] * (6 - layer)
    assert list(samples[0].cache_lengths) == expected
    assert [cache.get_seq_length(i) for i in range(6)] == [n + NEW - 1 for n in expected]
    itemsize = cache.layers[0].keys.element_size()
    held = [
        min(n, kept.sliding_window - 1) if getattr(kept, "is_sliding", False) else n for n, kept in zip(expected, cache.layers, strict=True)
    ]
    assert samples[0].cache_bytes == sum(held) * 2 * 2 * 16 * itemsize, "keys and values of 2 heads of 16"
    for sample in samples:
        assert sample.mean_tokens == pytest.approx((layer * sample.n_visual + (6 - layer) * len(sample)) / 6)
        assert np.all(np.diff(sample.indices.numpy()) > 0)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", TINY)
def test_retention_one_is_bit_identical(name, layer):
    model = model_of(name, dtype=torch.float32)[0]
    inputs = batch(name, "ragged")
    _, tokens, logits = generate(model, inputs)
    with prune(model, Anywhere(layer=layer, budget=None, share=1.0)) as pruning:
        _, same_tokens, same_logits = generate(model, inputs)
    assert torch.equal(tokens, same_tokens) and torch.equal(logits, same_logits)
    assert all(len(sample) == sample.n_visual for sample in pruning.samples)
