"""Qwen2.5-Omni: of a whole checkpoint the thinker alone is read, silently, with images and no audio."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
import transformers as hf
from cases import check
from reference import Anywhere, model_of, picture

from biaskit import get_pruner, load_model, prune, wrap_model
from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.catalog import resolve
from biaskit.families.checkpoints.load import read_checkpoint
from biaskit.families.checkpoints.part import family_of, supported_types
from biaskit.families.checkpoints.tiny import tiny_model

TALKER = {
    "vocab_size": 40, "embedding_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
}  # fmt: skip
DIT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16, "emb_dim": 16, "num_embeds": 16, "mel_dim": 8,
    "enc_emb_dim": 8, "enc_dim": 8, "enc_channels": [8, 8, 8, 8, 24], "enc_attention_channels": 8, "enc_res2net_scale": 2,
    "enc_se_channels": 4,
}  # fmt: skip
VOCODER = {
    "mel_dim": 8, "upsample_initial_channel": 16, "upsample_rates": [2], "upsample_kernel_sizes": [4], "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
}  # fmt: skip
HEARING = {
    "feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 300, "feature_size": 128, "hop_length": 160, "n_fft": 400,
    "n_samples": 4800000, "nb_max_frames": 30000, "sampling_rate": 16000, "padding_value": 0.0, "return_attention_mask": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    """A model that sees, hears and speaks, around the tiny thinker."""
    thinker = tiny_model("qwen2.5-omni")[0]
    speech = {"talker_config": TALKER, "token2wav_config": {"dit_config": DIT, "bigvgan_config": VOCODER}}
    model = hf.Qwen2_5OmniForConditionalGeneration(hf.Qwen2_5OmniConfig(thinker_config=thinker.config.to_dict(), **speech))
    model.thinker.load_state_dict(thinker.state_dict())
    return model.eval()


@pytest.fixture(scope="module")
def full(whole, checkpoint, tmp_path_factory):
    """Its checkpoint as the published ones look: one file of settings for seeing and hearing, a generation config without an end."""
    place = tmp_path_factory.mktemp("omni") / "full"
    whole.save_pretrained(place)
    for path in checkpoint("qwen2.5-omni").iterdir():
        if not (place / path.name).exists():
            shutil.copy(path, place)
    settings = json.loads((place / "preprocessor_config.json").read_text())
    (place / "preprocessor_config.json").write_text(json.dumps({**HEARING, **settings, "processor_class": "Qwen2_5OmniProcessor"}))
    (place / "generation_config.json").write_text("{}")
    return place


def copied(full, tmp_path, **changes):
    shutil.copytree(full, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    kept = {name: value for name, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(kept))
    return str(tmp_path / "copy")


def test_the_thinker_of_a_whole_checkpoint_is_loaded_alone(full, checkpoint):
    mine, alone = load_model(str(full)), load_model(str(checkpoint("qwen2.5-omni")))
    assert type(mine.model).__name__ == type(alone.model).__name__ == "Qwen2_5OmniThinkerForConditionalGeneration"
    expected = alone.model.state_dict()
    assert {name: torch.equal(weight, expected[name]) for name, weight in mine.model.state_dict().items()} == dict.fromkeys(expected, True)
    assert alone.processor_settings.items() <= mine.processor_settings.items(), "the file of a whole checkpoint has what it hears with, too"
    assert mine.model.config.model_type == "qwen2_5_omni_thinker" and mine.family is alone.family
    ready = [one.family.prepare(one.processor, one.model.config, [[picture(150, 120)]], ["what?"]).inputs for one in (mine, alone)]
    assert all(torch.equal(value, ready[1][name]) for name, value in ready[0].items())


def test_parts_that_are_left_out_are_not_remarked_upon(full):
    """The tokenizer's loader reads the whole config; older releases report every weight that was not used."""
    said = []

    class Tell(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    log, tell, once = logging.getLogger("transformers"), Tell(), hf.utils.logging.warning_once.cache_clear
    before = log.level
    log.addHandler(tell)
    log.setLevel(logging.WARNING)
    try:
        once()
        load_model(str(full))
        assert said == []
        once()
        hf.AutoConfig.from_pretrained(full)
        assert said, "afterwards remarks are made again"
    finally:
        log.removeHandler(tell)
        log.setLevel(before)


def test_a_weight_that_the_thinker_lacks_is_still_reported(full, tmp_path, caplog):
    from safetensors.torch import load_file, save_file

    place = copied(full, tmp_path)
    weights = {
        name: value for name, value in load_file(f"{place}/model.safetensors").items() if not name.endswith("layers.2.mlp.up_proj.weight")
    }
    save_file(weights, f"{place}/model.safetensors", {"format": "pt"})
    log = logging.getLogger("transformers")
    log.addHandler(caplog.handler)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        load_model(place)
    finally:
        log.removeHandler(caplog.handler)
        log.setLevel(level)
    assert "layers.2.mlp.up_proj.weight" in caplog.text and "MISSING" in caplog.text


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [({}, 2, 2), ({"eos_token_id": [7, 8]}, 2, 2), ({"eos_token_id": [7, 8]}, None, [7, 8]), ({}, None, 2)],
    ids=["of the thinker's config", "not of the speech", "of the only one", "of the tokenizer"],
)
def test_answers_of_a_whole_checkpoint_end(full, tmp_path, generation, config, ends):
    """The generation config beside a whole checkpoint need not be the thinker's."""
    place = shutil.copytree(full, tmp_path / "copy")
    settings = json.loads((place / "config.json").read_text())
    for part in (settings["thinker_config"], settings["thinker_config"]["text_config"]):
        part["eos_token_id"] = config
    (place / "config.json").write_text(json.dumps(settings))
    (place / "generation_config.json").write_text(json.dumps(generation))
    assert load_model(str(place)).model.generation_config.eos_token_id == ends


@pytest.mark.parametrize(("generation", "ends"), [({}, 2), ({"eos_token_id": [7, 8]}, [7, 8])])
def test_answers_of_a_thinker_alone_end(checkpoint, tmp_path, generation, ends):
    """Its own generation config goes first."""
    place = shutil.copytree(checkpoint("qwen2.5-omni"), tmp_path / "copy")
    (place / "generation_config.json").write_text(json.dumps(generation))
    assert load_model(str(place)).model.generation_config.eos_token_id == ends


def test_inspecting_reads_the_part(full):
    _, family, config, _ = read_checkpoint(str(full))
    assert family.title == "Qwen2.5-Omni" and config.model_type == "qwen2_5_omni_thinker" and config.vision_config.window_size == 112


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"thinker_config": None}, "config.json of .* has no thinker_config of a Qwen2.5-Omni model", "again"),
        ({"thinker_config": {"model_type": "llava"}}, "has no thinker_config of a Qwen2.5-Omni model", "again"),
        ({"quantization_config": {"bits": 4}}, r"quantised together with parts that are left out \(talker, token2wav\)", "in bfloat16"),
    ],
)
def test_whole_checkpoints_that_do_not_load(full, tmp_path, changes, message, hint):
    place = copied(full, tmp_path, **changes)
    for load in (load_model, read_checkpoint):
        with pytest.raises(ModelError, match=message) as caught:
            load(place)
        assert hint in caught.value.hint


def test_a_thinker_without_the_mark_before_an_image(full, tmp_path):
    thinker = json.loads((full / "config.json").read_text())["thinker_config"]
    del thinker["vision_start_token_id"]
    with pytest.raises(ModelError, match="has no vision_start_token_id") as caught:
        load_model(copied(full, tmp_path, thinker_config=thinker))
    assert "151652" in caught.value.hint


def test_a_whole_model_in_memory_names_its_thinker(whole):
    processor = tiny_model("qwen2.5-omni")[1]
    with pytest.raises(ModelError, match=r"Qwen2_5OmniForConditionalGeneration has further parts beside its thinker") as caught:
        wrap_model(whole, processor)
    assert caught.value.hint == "give model.thinker"
    with pytest.raises(ModelError, match="beside its thinker"), prune(whole, get_pruner("fastv", retention=0.5)):
        pass
    assert wrap_model(whole.thinker, processor).family.title == "Qwen2.5-Omni"


def test_a_batch_with_and_without_images():
    _, processor, _ = model_of("qwen2.5-omni")
    texts = ["<|vision_bos|><|IMAGE|><|vision_eos|>what?", "no picture in this one"]
    inputs = dict(processor(images=[picture(150, 120)], text=texts, padding=True, return_tensors="pt"))
    for layer in (0, 1):
        pruning = check("qwen2.5-omni", inputs, Anywhere(layer=layer))
        assert [sample.n_visual > 0 for sample in pruning.samples] == [True, False]


def test_names_and_words():
    assert resolve("qwen2.5-omni").target == "Qwen/Qwen2.5-Omni-7B" and resolve("qwen2.5-omni-3b").target == "Qwen/Qwen2.5-Omni-3B"
    mine, cousin = families.get("qwen2_5_omni_thinker"), families.get("qwen2_5_vl")
    assert mine.wording.region == cousin.wording.region and mine.box_convention == cousin.box_convention
    assert mine.wording.region_source != cousin.wording.region_source and "issue 392" in mine.wording.region_source
    assert family_of("qwen2_5_omni") is mine and "qwen2_5_omni" not in families
    assert {"qwen2_5_omni", "qwen2_5_omni_thinker"} <= set(supported_types())
