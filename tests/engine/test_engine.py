"""The engine beyond the plain case: several stages and images, compact positions, prompts of every kind, signals, offloaded layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from cases import NEW, ONE_OF_EACH, SPECIAL_IDS, batch, check, generate, pruner_of
from reference import Anywhere, Steps, Top, by_hand, cast, model_of, picture

from biaskit.engine.attention import logit_rows
from biaskit.engine.prune import prune
from biaskit.engine.reference import reference_logits
from biaskit.families.base import Prepared
from biaskit.families.checkpoints.tiny import TINY
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, KEYS, NAMES, TEXT_HIDDEN, TEXT_KEYS, Reading
from biaskit.select.keep import Keep

PLAIN_ROPE = ["llava-1.5", "llava-onevision", "internvl-llama"]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", TINY)
def test_several_images_per_prompt(name, layer):
    model, processor, family = model_of(name)
    side = 224 if "internvl" in name else 130
    pictures = [[picture(side, side), picture(side, side, 1)], [picture(side, side, 2)]]
    inputs = family.prepare(processor, model.config, pictures, ["compare", "what is this?"]).inputs
    pruning = check(name, inputs, pruner_of("ragged", layer))
    assert pruning.samples[0].n_visual != pruning.samples[1].n_visual


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", TINY)
def test_system_sentence_and_image_after_text(name, layer):
    model, processor, family = model_of(name)
    image = {"type": "image"}
    system = {"role": "system", "content": [{"type": "text", "text": "You look closely."}]}
    asked = [
        [{"type": "text", "text": "Look at this:"}, image, {"type": "text", "text": "what is it?"}],
        [image, {"type": "text", "text": "?"}],
    ]
    texts = [
        processor.apply_chat_template([system, {"role": "user", "content": asked[0]}], add_generation_prompt=True),
        processor.apply_chat_template([{"role": "user", "content": asked[1]}], add_generation_prompt=True),
    ]
    side = 224 if "internvl" in name else 130
    inputs = dict(processor(images=[[picture(side, side)], [picture(side, side, 1)]], text=texts, padding=True, return_tensors="pt"))
    prepared = Prepared(inputs, family.layout(model.config, inputs))
    first = [int(layout.positions[0] - inputs["attention_mask"][b].argmax()) for b, layout in enumerate(prepared.layouts)]
    assert first[0] > first[1] + 20, "the image must come later than usual"
    check(name, inputs, pruner_of("padded", layer))


KEPT: list = []  # (signals, keep) of every decision


@dataclass(frozen=True)
class Told(Steps):
    """Writes down what it keeps, and checks that it is shown what is left."""

    @property
    def needs(self):
        return frozenset({HIDDEN, ATTENTION} if self.at[0][0] else ())

    def select(self, signals, budget):
        assert not self.needs or len(signals[HIDDEN]) == len(signals[ATTENTION]) == len(signals)
        keep = super().select(signals, budget)
        KEPT.append((signals, keep))
        return keep


@pytest.mark.parametrize("at", [((1, 6), (3, 3)), ((0, 6), (2, 3)), ((0, 7), (1, 5), (4, 2))], ids=str)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_several_stages(name, at):
    KEPT.clear()
    inputs, model = batch(name, "padded"), model_of(name)[0]
    with prune(model, Told(at=at)) as pruning:
        out, tokens, logits = generate(model, cast(inputs, torch.float64))
    left, _ = by_hand(inputs, model.config, KEPT)
    assert [signals.layer for signals, _ in KEPT] == [layer for layer, _ in at for _ in range(2)]
    assert float((reference_logits(model, inputs, tokens, left) - logits).abs().max()) < 1e-6
    sample = pruning.samples[0]
    assert [(layer, count) for layer, count, _ in sample.stages] == list(at)
    counts = [next((n for k, n in reversed(at) if k <= layer), sample.n_visual) for layer in range(6)]
    assert sample.mean_tokens == pytest.approx(sum(counts) / 6)
    text = int(inputs["attention_mask"][1].sum()) - pruning.samples[1].n_visual
    narrow = [text + n if layer >= at[0][0] else inputs["input_ids"].shape[1] for layer, n in enumerate(counts)]
    assert list(sample.cache_lengths) == narrow
    assert [out.past_key_values.get_seq_length(i) for i in range(6)] == [n + NEW - 1 for n in narrow]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("case", ["single", "ragged"])
@pytest.mark.parametrize("name", PLAIN_ROPE)
def test_compact_positions(name, layer, case):
    pruner = pruner_of(case, layer)
    inputs = batch(name, case)
    check(name, inputs, type(pruner)(layer=layer, budget=pruner.budget, share=pruner.share, positions="compact"), compact=True)
    with pytest.raises(AssertionError, match="from the reference"):  # the numbering does matter
        check(name, inputs, pruner, compact=True)


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen2.5-omni", "qwen3-vl"])
def test_multi_axis_positions_stay_and_it_is_said(name):
    with pytest.warns(UserWarning, match="renumbers positions, which is not defined"):
        check(name, batch(name, "single"), Top(positions="compact"))


SEEN: list = []


def test_prompts_without_images_are_left_alone():
    model, processor, _ = model_of("qwen3-vl", dtype=torch.float32)
    inputs = dict(processor.tokenizer(["just text", "and some more text"], return_tensors="pt", padding=True))
    _, tokens, logits = generate(model, inputs)
    with prune(model, Top()) as pruning:
        _, same, same_logits = generate(model, inputs)
    assert torch.equal(tokens, same) and torch.equal(logits, same_logits)
    assert pruning.prefills == 1 and pruning.samples == ()


def test_a_batch_with_and_without_images():
    _, processor, _ = model_of("qwen2.5-vl")
    texts = ["<|vision_start|><|image_pad|><|vision_end|>what?", "no picture in this one"]
    inputs = dict(processor(images=[picture(150, 120)], text=texts, padding=True, return_tensors="pt"))
    pruning = check("qwen2.5-vl", inputs, Anywhere(layer=1))
    assert [sample.n_visual > 0 for sample in pruning.samples] == [True, False]


def test_random_numbers_follow_the_seed_and_not_the_batch():
    model = model_of("llava-1.5", dtype=torch.float32)[0]
    both, alone = batch("llava-1.5", "padded"), batch("llava-1.5", "single")

    def kept(seed, *batches):
        found = []
        with torch.no_grad(), prune(model, Anywhere(layer=1, budget=9), seed=seed) as pruning:
            for inputs in batches:
                model(**inputs)
                found += [sample.indices.tolist() for sample in pruning.samples]
        return found

    assert kept(0, both) == kept(0, both) == kept(0, alone, alone)
    assert kept(0, both)[0] != kept(0, both)[1]
    assert kept(0, both) != kept(1, both)


@pytest.mark.parametrize("name", ["llava-1.5", "qwen3-vl"])
def test_layers_offloaded_to_disk(name, tmp_path):
    """accelerate wraps forwards and moves inputs after our hooks."""
    from accelerate import dispatch_model

    from biaskit.families.checkpoints.tiny import tiny_model

    model, _, _ = tiny_model(name)
    inputs = batch(name, "padded")
    with prune(model, Top()):
        _, tokens, logits = generate(model, inputs)
    places = {"lm_head": "cpu"} | {f"model.{part}": "cpu" for part, _ in model.model.named_children() if part != "language_model"}
    places |= {f"model.language_model.{part}": "cpu" for part, _ in model.model.language_model.named_children() if part != "layers"}
    places |= {f"model.language_model.layers.{i}": "cpu" if i < 3 else "disk" for i in range(6)}
    spread = dispatch_model(model, device_map=places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    with prune(spread, Top()):
        _, same, same_logits = generate(spread, inputs)
    assert torch.equal(tokens, same) and torch.equal(logits, same_logits)


def test_attention_is_read_at_prefill_only(monkeypatch):
    calls = []
    monkeypatch.setattr("biaskit.engine.recorder.logit_rows", lambda *args, **kwargs: calls.append(1) or logit_rows(*args, **kwargs))
    with prune(model_of("llava-1.5")[0], Top()):
        generate(model_of("llava-1.5")[0], cast(batch("llava-1.5", "single"), torch.float64))
    assert len(calls) == 1


@dataclass(frozen=True)
class Peek(Top):
    """Asks for everything, keeps the first tokens, and remembers what it saw."""

    needs: ClassVar[frozenset[Reading]] = frozenset(NAMES)

    def select(self, signals, budget):
        SEEN.append(signals)
        return Keep(torch.arange(budget))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TINY)
def test_signals_are_what_the_model_computes(name, attention):
    model, inputs, layer = model_of(name, attention, torch.float32)[0], batch(name, "padded"), 3
    SEEN.clear()
    with torch.no_grad(), prune(model, Peek(layer=layer)):
        model(**inputs, use_cache=True)
    eager = model_of(name, "eager", torch.float32)[0]
    taken = {}
    handle = eager.get_decoder().layers[layer].register_forward_pre_hook(lambda module, args: taken.update(hidden=args[0]))
    with torch.no_grad():
        out = eager(**inputs, output_attentions=True, use_cache=True)
    handle.remove()
    keys = out.past_key_values.layers[layer - 1].keys
    assert len(SEEN) == 2
    for b, signals in enumerate(SEEN):
        visual = torch.from_numpy(signals.layout.positions)
        text = inputs["attention_mask"][b].bool().clone()
        text[visual] = False
        row = out.attentions[layer - 1][b, :, -1].mean(0)
        close = {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(signals[ATTENTION], row[visual], **close)
        torch.testing.assert_close(signals[HIDDEN], taken["hidden"][b, visual], **close)
        torch.testing.assert_close(signals[TEXT_HIDDEN], taken["hidden"][b, text], **close)
        torch.testing.assert_close(signals[KEYS], keys[b][:, visual], **close)
        torch.testing.assert_close(signals[TEXT_KEYS], keys[b][:, text], **close)
        assert torch.equal(signals.text_positions, text.nonzero()[:, 0])
        assert signals.layer == layer and signals[EMBEDS].shape == signals[HIDDEN].shape and signals.generator is not None
        normed = signals.final_norm(signals[HIDDEN])
        torch.testing.assert_close(normed.detach(), eager.get_decoder().norm(signals[HIDDEN]).detach())
        assert all(x.dtype == torch.float32 for x in (signals[ATTENTION], signals[HIDDEN], signals[KEYS], signals[EMBEDS]))


def test_special_ids_are_really_suppressed():
    assert SPECIAL_IDS[0] == 0 and model_of("llava-1.5")[0].config.image_token_id in SPECIAL_IDS
