"""What pruning refuses, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import inspect
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import transformers
from cases import First, batch, generate
from reference import Anywhere, Steps, Top, cast, model_of, positions_left
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.engine.prune import prune
from biaskit.engine.reference import reference_logits
from biaskit.errors import BiaskitError, ModelError, PriorError
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners.readings import KEYS, Reading
from biaskit.select.keep import Keep

NAME = "llava-1.5"


def plain(name=NAME):
    return model_of(name, dtype=torch.float32)[0]


def traces(model):
    """Everything that a block could leave behind."""
    hooks = {
        (path, kind): list(getattr(module, kind))
        for path, module in model.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    }
    own = {path: sorted(key for key in vars(module) if key != "rope_deltas") for path, module in model.named_modules()}
    return hooks, own, dict(ALL_ATTENTION_FUNCTIONS._local_mapping), {id(p): p._version for p in model.parameters()}


@dataclass(frozen=True)
class Breaks(Top):
    """Raises in the middle of a prefill."""

    error: type[BaseException] = RuntimeError

    def select(self, signals, budget):
        raise self.error("mine")


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, ModelError])
@pytest.mark.parametrize("name", TINY)
def test_the_model_is_as_before(name, error):
    model, inputs = plain(name), batch(name, "padded")
    _, tokens, logits = generate(model, inputs)
    before = traces(model)
    if error is None:
        with prune(model, Top()):
            generate(model, inputs)
    else:
        make = error if error is not ModelError else lambda text: ModelError(text, "")
        with pytest.raises(error, match="mine"), prune(model, Breaks(error=make)):
            generate(model, inputs)
        with pytest.raises(error, match="mine"), prune(model, Top()):
            generate(model, inputs)
            raise make("mine")
    assert traces(model) == before
    _, same, same_logits = generate(model, inputs)
    assert torch.equal(tokens, same) and torch.equal(logits, same_logits)


def test_a_block_goes_on_after_a_failed_prefill():
    model, inputs = plain("qwen3-vl"), batch("qwen3-vl", "single")
    with prune(model, Top(layer=1)) as pruning:
        _, _, logits = generate(model, inputs)
        with pytest.raises(ValueError, match="mm_token_type_ids"):
            model(**{**inputs, "mm_token_type_ids": None})
        text = {"input_ids": inputs["input_ids"][:, -4:], "attention_mask": inputs["attention_mask"][:, -4:]}
        with torch.no_grad():
            alone = model(**text).logits
        assert pruning.samples == ()
        _, _, same_logits = generate(model, inputs)
    assert torch.equal(logits, same_logits)
    with torch.no_grad():
        assert torch.equal(model(**text).logits, alone)


@pytest.mark.parametrize("layer, text", [(6, "layers 0 … 5"), (-1, "layers 0 … 5")])
def test_layers_the_model_lacks(layer, text):
    with pytest.raises(ModelError, match=text), prune(plain(), Anywhere(layer=layer)):
        pass


def test_stages_must_ascend():
    with pytest.raises(ModelError, match="do not ascend"), prune(plain(), Steps(at=((2, 9), (2, 5)))):
        pass


def test_a_pruner_that_reads_attention_before_there_is_any():
    with pytest.raises(BiaskitError, match="Top reads attention"), prune(plain(), Top(layer=0)):
        pass


def test_one_block_at_a_time():
    model = plain()
    with prune(model, Top()), pytest.raises(BiaskitError, match="being pruned already"), prune(model, Top()):
        pass
    with prune(model, Top()):
        pass


def mistral(window):
    """LLaVA with a text model whose attention slides, as LLaVA-NeXT's has one."""
    config = copy.deepcopy(model_of(NAME)[0].config)
    shared = {
        key: value for key, value in config.text_config.to_dict().items() if key in inspect.signature(transformers.MistralConfig).parameters
    }
    config.text_config = transformers.MistralConfig(**{**shared, "sliding_window": window, "head_dim": 16})
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa").double().eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize("layer", [0, 2])
def test_a_sliding_window_shorter_than_the_prompt(layer):
    """Flash attention and static caches count the window in rows, not in positions of the prompt."""
    model = mistral(64)
    with prune(model, Anywhere(layer=layer)), pytest.raises(ModelError, match="window of 64 tokens is shorter"):
        generate(model, inputs64(), cache_implementation="static", disable_compile=True)


def inputs64():
    return cast(batch(NAME, "padded"), torch.float64)


WINDOWS = {"holds a part of the image": 64, "outgrown by the answer": 2, "holds everything": 4096}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("layer", [0, 2])
def test_windows_are_of_positions(layer, window):
    inputs = inputs64()
    model = mistral(WINDOWS[window] + (inputs["input_ids"].shape[1] if WINDOWS[window] == 2 else 0))
    with prune(model, Anywhere(layer=layer)) as pruning:
        _, tokens, logits = generate(model, inputs)
    expected = reference_logits(model, inputs, tokens, positions_left(inputs, pruning.samples, model.config))
    assert float((expected - logits).abs().max()) < 1e-6


def test_masks_that_are_not_causal():
    inputs = dict(batch(NAME, "single"))
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool)
    with prune(plain(), Top()), pytest.raises(ModelError, match="not plainly causal"):
        plain()(**inputs)


@pytest.mark.parametrize("case", ["padded", "ragged"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_a_window_that_cuts_an_image_seen_both_ways(layer, case, monkeypatch):
    """Gemma 3: of three layers two have a window, here shorter than the image; the answer's keys are those of the last 60 positions."""
    model, inputs = model_of("gemma3")[0], cast(batch("gemma3", case), torch.float64)
    monkeypatch.setattr(model.get_decoder().config, "sliding_window", 60)
    with prune(model, Anywhere(layer=layer)) as pruning:
        _, tokens, logits = generate(model, inputs)
    expected = reference_logits(model, inputs, tokens, positions_left(inputs, pruning.samples, model.config))
    assert float((expected - logits).abs().max()) < 1e-6
    monkeypatch.undo()
    unlike = reference_logits(model, inputs, tokens, positions_left(inputs, pruning.samples, model.config))
    assert float((unlike - logits).abs().max()) > 1e-3, "the window must have cut something"


@pytest.mark.parametrize("layer", [0, 2])
def test_images_that_see_both_ways_are_not_taken_for_causal(layer):
    """Without token types the stock Gemma 3 masks its image as text, silently."""
    model, inputs = model_of("gemma3")[0], cast(batch("gemma3", "padded"), torch.float64)
    inputs.pop("token_type_ids")
    with prune(model, Anywhere(layer=layer)), pytest.raises(ModelError, match="not that of its architecture") as caught:
        generate(model, inputs)
    assert "token_type_ids" in caught.value.hint


def test_flash_attention_shows_no_image_both_ways():
    model, _, _ = tiny_model("gemma3")
    model.get_decoder().config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="in both directions"), prune(model, Top()):
        pass


def test_unknown_attention():
    model, _, _ = tiny_model(NAME)
    model.get_decoder().config._attn_implementation = "flex_attention"
    with pytest.raises(ModelError, match="flex_attention"), prune(model, Top()):
        pass


def test_right_padding():
    inputs = dict(batch(NAME, "padded"))
    shift = int((inputs["attention_mask"][0] == 0).sum())
    for key in ("input_ids", "attention_mask"):
        inputs[key] = torch.stack([torch.roll(inputs[key][0], -shift), inputs[key][1]])
    with prune(plain(), Top()), pytest.raises(ModelError, match="padded on the right"):
        plain()(**inputs)


def test_embeddings_without_ids():
    with prune(plain(), Top()), pytest.raises(ModelError, match="inputs_embeds alone"):
        plain()(inputs_embeds=torch.zeros(1, 5, 64))


def test_images_encoded_outside_the_block():
    model, inputs = plain(), dict(batch(NAME, "single"))
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this release does not take encoded images")
    with torch.no_grad():
        encoded = model.base_model.get_image_features(pixel_values=inputs.pop("pixel_values"), return_dict=True)
    with prune(model, Top()), pytest.raises(ModelError, match="encoded elsewhere"):
        model(**inputs, mm_encoder_outputs={"image": encoded})


@torch.no_grad()
def test_a_cache_from_elsewhere():
    model, inputs = plain(), batch(NAME, "single")
    cache = model(**inputs, use_cache=True).past_key_values
    with prune(model, Top()), pytest.raises(ModelError, match="not filled inside this block"):
        model(input_ids=torch.tensor([[77]]), past_key_values=cache)


@torch.no_grad()
def test_a_cropped_cache():
    model, inputs = plain(), batch(NAME, "single")
    length = inputs["input_ids"].shape[1]
    with prune(model, Top()):
        cache = model(**inputs, use_cache=True).past_key_values
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :-2], layer.values[:, :, :-2]
        with pytest.raises(ModelError, match="do not follow"):
            model(input_ids=torch.tensor([[77]]), past_key_values=cache, position_ids=torch.tensor([[length]]))


@torch.no_grad()
def test_a_cache_with_other_rows():
    model, inputs = plain(), batch(NAME, "padded")
    with prune(model, Top()):
        cache = model(**inputs, use_cache=True).past_key_values
        cache.batch_select_indices(torch.tensor([1]))
        with pytest.raises(ModelError, match="1 × 1 new tokens do not follow the 2 ×"):
            model(input_ids=torch.tensor([[77]]), past_key_values=cache, position_ids=torch.tensor([[600]]))


@torch.no_grad()
def test_a_later_turn_after_pruning_before_the_model():
    """generate() counts layer 0, which is short, and would send tokens twice."""
    model, inputs = plain(), batch(NAME, "single")
    with prune(model, Anywhere()):
        first, _, _ = generate(model, inputs)
        ids = torch.cat([first.sequences, torch.tensor([[60, 70]])], 1)
        with pytest.raises(ModelError, match="do not follow"):
            generate(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, past_key_values=first.past_key_values)


@torch.no_grad()
def test_single_steps_after_pruning_before_the_model_need_positions():
    model, inputs = plain(), batch(NAME, "single")
    length = inputs["input_ids"].shape[1]
    with prune(model, First()):
        out = model(**inputs, use_cache=True)
        token = out.logits[:, -1].argmax(-1)[:, None]
        with pytest.raises(ModelError, match="do not follow"):
            model(input_ids=token, past_key_values=out.past_key_values)
        step = model(input_ids=token, past_key_values=out.past_key_values, position_ids=torch.tensor([[length]]))
        _, tokens, logits = generate(model, inputs, suppress_tokens=[], max_new_tokens=2)
    assert torch.equal(token, tokens[:, :1])
    torch.testing.assert_close(step.logits[:, 0], logits[:, 1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_image_in_a_later_turn():
    model, inputs = plain(), batch(NAME, "single")
    with prune(model, Top()):
        cache = model(**inputs, use_cache=True).past_key_values
        with pytest.raises(ModelError, match="a later turn has an image"):
            model(**{**inputs, "attention_mask": None}, past_key_values=cache)


@dataclass(frozen=True)
class Keys(Top):
    """Reads keys."""

    needs: ClassVar[frozenset[Reading]] = frozenset({KEYS})


def test_keys_under_eager_attention_without_a_cache():
    """They are read where the attention function gets them, so neither cache nor implementation matters."""
    seen = []

    @dataclass(frozen=True)
    class Looks(Keys):
        def select(self, signals, budget):
            seen.append(signals[KEYS])
            return Keep(torch.arange(budget))

    for attention, cached in (("eager", False), ("eager", True), ("sdpa", True)):
        model = model_of(NAME, attention, torch.float32)[0]
        with torch.no_grad(), prune(model, Looks()):
            model(**batch(NAME, "single"), use_cache=cached)
    assert torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[0], seen[2], atol=1e-5, rtol=1e-5)


@dataclass(frozen=True)
class Wrong(Top):
    """Answers with whatever it was given."""

    answer: tuple = ()
    dtype: torch.dtype = torch.int64

    def select(self, signals, budget):
        return Keep(torch.tensor(self.answer, dtype=self.dtype))


@pytest.mark.parametrize(
    "answer, dtype, text",
    [
        ((3, 2), torch.int64, "ascending"),
        ((1, 1), torch.int64, "ascending"),
        ((0, 576), torch.int64, "below N"),
        ((-1, 2), torch.int64, "below N"),
        ((), torch.int64, "n ≥ 1"),
        ((1, 2), torch.int32, "int64"),
    ],
)
def test_answers_that_make_no_sense(answer, dtype, text):
    with torch.no_grad(), prune(plain(), Wrong(answer=answer, dtype=dtype)), pytest.raises(BiaskitError) as found:
        plain()(**batch(NAME, "single"))
    assert "Wrong answered with" in found.value.message and text in found.value.hint


def flat_prior(model_type="llava", layers=(1,), value=1.0, hot=None):
    mean = np.full((len(layers), 24, 24), value, dtype=np.float32)
    if hot is not None:
        mean[:, hot[0], hot[1]] = 50.0
    return Prior(
        {"image": PlaneStats(mean)}, tuple(layers), np.ones(len(layers), dtype=np.float32), {"model_type": model_type, "kind": "imported"}
    )


def test_priors_of_other_models_and_layers():
    with pytest.raises(PriorError, match="not 'llava'"), prune(plain(), Top(), prior=flat_prior("internvl")):
        pass
    with pytest.raises(PriorError, match="no layer 1"), prune(plain(), Top(), prior=flat_prior(layers=(4,))):
        pass


@torch.no_grad()
def test_the_prior_reaches_the_pruner():
    """A flat prior changes nothing; a strong one at the place of the best token drops it."""
    model, inputs = plain(), batch(NAME, "single")

    def kept(prior):
        with prune(model, Top(budget=1), prior=prior) as pruning:
            model(**inputs)
        return int(pruning.samples[0].indices[0])

    best = kept(None)
    assert kept(flat_prior()) == best
    assert kept(flat_prior(hot=divmod(best, 24))) != best


def test_a_prior_that_nobody_reads_is_mentioned():
    with pytest.warns(UserWarning, match="prior is not used: Anywhere"), prune(plain(), Anywhere(layer=2), prior=flat_prior()):
        pass
    said = []
    with warnings.catch_warnings(), prune(plain(), Anywhere(), prior=flat_prior(), say=said.append):
        warnings.simplefilter("error")
    assert len(said) == 2 and "Anywhere with these parameters does not debias attention" in said[0]
    assert said[1].startswith("nothing was pruned: the model saw no prompt")


def test_a_forward_pass_returns_the_narrowed_sequence():
    model, inputs = plain(), batch(NAME, "single")
    with torch.no_grad(), prune(model, Anywhere(layer=1)) as pruning:
        out = model(**inputs)
    assert out.logits.shape[1] == inputs["input_ids"].shape[1] - 576 + 5 == pruning.samples[0].cache_lengths[-1]
