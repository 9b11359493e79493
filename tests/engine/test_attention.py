"""The recorder against the model's own eager attention maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.engine.attention import attention_row, attention_rows, record_attention
from biaskit.errors import ModelError
from biaskit.families.checkpoints.tiny import TINY, tiny_model

LAYERS = [0, 2, 5]


def picture(cols, rows, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (rows, cols, 3), dtype=np.uint8))


def padded_pair(processor, config, family):
    """Two samples of different length: one is left-padded."""
    return family.prepare(processor, config, [[picture(200, 150)], [picture(320, 180, 1)]], ["hi", "hello, what is in the picture?"])


def eager_rows(name, inputs, at):
    """The whole maps of the stock model under eager attention, with the position ids generate() would give."""
    model, _, _ = tiny_model(name, attention="eager")
    if not hasattr(model.base_model, "get_rope_index"):
        inputs = {**inputs, "position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions
    return torch.stack([torch.stack([maps[layer][b, :, row] for b, row in enumerate(at)]) for layer in LAYERS])


@pytest.mark.parametrize("name", TINY)
def test_rows_equal_eager_attention_maps(name):
    model, processor, family = tiny_model(name)
    inputs = padded_pair(processor, model.config, family).inputs
    length = inputs["input_ids"].shape[1]
    assert (inputs["attention_mask"][:, 0] == 0).any(), "the pair must exercise padding"
    expected = eager_rows(name, inputs, [length - 1] * 2)
    assert expected.max() > 10 / length, "attention must be far from uniform"
    per_head = attention_rows(model, inputs, LAYERS, per_head=True)
    torch.testing.assert_close(per_head, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention_rows(model, inputs, LAYERS), expected.mean(2), atol=1e-5, rtol=0)
    eager, _, _ = tiny_model(name, attention="eager")
    torch.testing.assert_close(attention_rows(eager, inputs, LAYERS, per_head=True), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["llava-1.5", "internvl-qwen2"])
def test_right_padding_reads_the_last_real_token(name):
    model, processor, family = tiny_model(name)
    inputs = padded_pair(processor, model.config, family).inputs
    mask = inputs["attention_mask"]
    length = mask.shape[1]
    shifts = [int((row == 0).sum()) for row in mask]
    right = {**inputs, "input_ids": inputs["input_ids"].clone(), "attention_mask": mask.clone()}
    for key in ("input_ids", "attention_mask"):
        for b, shift in enumerate(shifts):
            right[key][b] = torch.roll(inputs[key][b], -shift)
    at = [length - 1 - shift for shift in shifts]
    assert at[0] != at[1]
    torch.testing.assert_close(attention_rows(model, right, LAYERS, per_head=True), eager_rows(name, right, at), atol=1e-5, rtol=0)


def test_model_is_left_as_it_was(tiny):
    model, processor, family = tiny
    inputs = padded_pair(processor, model.config, family).inputs
    local = dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    with torch.no_grad():
        before = model(**inputs).logits  # the stock towers leave hooks of their own at the first forward pass
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
        for _ in range(3):
            attention_rows(model, inputs, [2])
        with pytest.raises(RuntimeError, match="mine"), record_attention(model, [1]):
            raise RuntimeError("mine")
        assert torch.equal(model(**inputs).logits, before)
    assert dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == local
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == hooks


def test_forward_stops_after_the_last_wanted_layer(tiny):
    model, processor, family = tiny
    inputs = padded_pair(processor, model.config, family).inputs
    ran = []
    layers = model.get_decoder().layers
    handles = [layer.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(layers)]
    try:
        attention_rows(model, inputs, [0, 2])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0, 1, 2]


def test_no_attention_map_is_made(tiny):
    """Nothing of N × N elements may be allocated on the way to a row."""
    model, processor, family = tiny
    inputs = padded_pair(processor, model.config, family).inputs
    query = torch.randn(2, 4, 3000, 16)
    key = torch.randn(2, 2, 3000, 16)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                seen.append(out.numel())
            return out

    with Watch():
        row = attention_row(query, key)
    assert row.shape == (2, 4, 3000)
    assert max(seen) <= query.numel()
    assert inputs["input_ids"].shape[0] == 2


def test_softmax_runs_over_all_keys():
    """Two heads, one with nearly all its mass on text: normalising over visual keys alone would give both the same vote."""
    visual = torch.tensor([False, True, True])
    key = torch.tensor([[[[0.0], [1.0], [2.0]], [[9.0], [2.0], [1.0]]]])
    query = torch.ones(1, 2, 3, 1)
    row = attention_row(query, key, scaling=1.0)[0]
    overall = row.mean(0)[visual]
    assert overall[1] > overall[0], "the head that looks at the image decides"
    renormalised = (row[:, visual] / row[:, visual].sum(-1, keepdim=True)).mean(0)
    assert abs(float(renormalised[0] - renormalised[1])) < 1e-6


@pytest.mark.parametrize("layers", [[], [-1], [6], [0, 99]])
def test_layers_the_model_lacks(layers):
    model, _, _ = tiny_model("llava-1.5")
    with pytest.raises(ModelError, match="layers 0 … 5"), record_attention(model, layers):
        pass


def naive_row(query, key, allowed, scaling):
    """[heads, keys] by loops over heads and keys."""
    heads, group = query.shape[0], query.shape[0] // key.shape[0]
    out = np.zeros((heads, key.shape[1]))
    for h in range(heads):
        logits = np.array([float(query[h] @ key[h // group, k]) * scaling if allowed[k] else -np.inf for k in range(key.shape[1])])
        weights = np.exp(logits - logits.max())
        out[h] = weights / weights.sum()
    return out


@pytest.mark.parametrize("form", ["none", "bool", "float", "padding"])
@pytest.mark.parametrize("rows", [None, [6, 3]])
def test_every_form_of_mask(form, rows):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 7, 8, generator=generator, dtype=torch.float64)
    key = torch.randn(2, 2, 7, 8, generator=generator, dtype=torch.float64)
    padding = torch.ones(2, 7, dtype=torch.bool)
    if form != "none":
        padding[1, :2] = False
    full = torch.ones(7, 7, dtype=torch.bool).tril() & padding[:, None, None, :]
    mask = {
        "none": None,
        "bool": full,
        "float": torch.zeros(full.shape, dtype=torch.float64).masked_fill(~full, float("-inf")),
        "padding": padding.long(),
    }[form]
    got = attention_row(query, key, mask, rows=None if rows is None else torch.tensor(rows), scaling=0.3)
    for b in range(2):
        at = 6 if rows is None else rows[b]
        expected = naive_row(query[b, :, at].numpy(), key[b].numpy(), full[b, 0, at].numpy(), 0.3)
        np.testing.assert_allclose(got[b].numpy(), expected, atol=1e-12)


def test_half_precision_rows_are_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 2, 5, 64, generator=generator), torch.randn(1, 2, 5, 64, generator=generator)
    half = attention_row(query.bfloat16(), key.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, attention_row(query.bfloat16().float(), key.bfloat16().float()), atol=1e-7, rtol=0)


def test_position_ids_are_those_of_generate(tiny):
    model, processor, family = tiny
    inputs = padded_pair(processor, model.config, family).inputs
    seen = []
    handle = (
        model.get_decoder()
        .layers[0]
        .self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append([part.clone() for part in kwargs["position_embeddings"]]), with_kwargs=True
        )
    )
    real = inputs["attention_mask"].bool()
    try:
        with torch.no_grad():
            model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)
        attention_rows(model, inputs, [0])
    finally:
        handle.remove()
    assert len(seen) == 2, "once in generate(), once for the rows"
    for ours, theirs in zip(seen[1], seen[0], strict=True):
        assert torch.equal(ours.expand_as(theirs)[real], theirs[real])
