"""Adapters, quantised weights and unfit architectures are refused with what to do; no weights are read."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from biaskit.engine.masks import read_mask
from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.catalog import CHECKPOINTS, resolve
from biaskit.families.checkpoints.hub import weights
from biaskit.families.checkpoints.load import load_model, read_checkpoint
from biaskit.families.checkpoints.refused import UNFIT, quantisation
from biaskit.families.checkpoints.tiny_parts import VIT, text_sizes


def adapter(directory):
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "llava-hf/llava-1.5-7b-hf", "peft_type": "LORA"}))
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, directory / "adapter_model.safetensors")
    return str(directory)


@pytest.mark.parametrize("load", [load_model, read_checkpoint])
def test_an_adapter_names_its_base_and_how_to_merge_it(tmp_path, load):
    with pytest.raises(ModelError, match=r"is an adapter of llava-hf/llava-1\.5-7b-hf, not a checkpoint") as caught:
        load(adapter(tmp_path))
    assert "merge_and_unload" in caught.value.hint and "'llava-hf/llava-1.5-7b-hf'" in caught.value.hint


def test_an_adapter_beside_a_checkpoint(checkpoint, tmp_path):
    shutil.copytree(checkpoint("llava-1.5"), tmp_path / "both")
    before = weights(resolve(str(tmp_path / "both")), None)
    with pytest.raises(ModelError, match=r"an adapter .* beside a full checkpoint") as caught:
        load_model(adapter(tmp_path / "both"))
    assert "move adapter_" in caught.value.hint
    assert weights(resolve(str(tmp_path / "both")), None) == before, "an adapter is no shard"


QUANTISED = {
    "bitsandbytes": ({"load_in_4bit": True, "quant_method": "bitsandbytes"}, r"bitsandbytes \(4 bit\)"),
    "old bitsandbytes": ({"load_in_8bit": True}, r"bitsandbytes \(8 bit\)"),
    "awq": ({"bits": 4, "quant_method": "awq"}, r"AWQ \(4 bit\)"),
    "gptq": ({"bits": 4, "quant_method": "gptq"}, r"GPTQ \(4 bit\)"),
    "compressed-tensors": ({"format": "pack-quantized", "quant_method": "compressed-tensors"}, "compressed-tensors"),
    "fp8": ({"quant_method": "fp8", "fmt": "e4m3"}, "FP8"),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_weights_are_named(checkpoint, tmp_path, name):
    settings, title = QUANTISED[name]
    shutil.copytree(checkpoint("qwen2.5-vl"), tmp_path / "q")
    path = tmp_path / "q" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))
    with pytest.raises(ModelError, match=f"are quantised with {title}, which runs on a GPU") as caught:
        load_model(str(tmp_path / "q"), device="cpu")
    assert "the original checkpoint" in caught.value.hint


def test_quantised_weights_on_a_gpu_need_their_library(monkeypatch):
    awq = {"quantization_config": {"bits": 4, "quant_method": "awq"}}
    monkeypatch.setattr("biaskit.families.checkpoints.refused.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"quantised with AWQ \(4 bit\)") as caught:
        quantisation(awq, "X", "cuda:0")
    assert "install gptqmodel" in caught.value.hint
    monkeypatch.setattr("biaskit.families.checkpoints.refused.find_spec", lambda name: name)
    assert quantisation(awq, "X", "cuda:0") == "AWQ (4 bit)" and quantisation({}, "X", "cpu") == ""


@pytest.mark.parametrize("model_type", UNFIT)
def test_unfit_architectures_say_why(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ModelError, match=f"is a '{model_type}' model: it") as caught:
        load_model(str(tmp_path))
    assert caught.value.hint.startswith("use a ") and model_type not in families


def masks_of(kind, window, length):
    """The mask of every layer of a tiny Gemma 3 for one image of four tokens in a prompt, by the stock library itself."""
    vision = hf.SiglipVisionConfig(**VIT, num_hidden_layers=1, image_size=56, patch_size=14, vision_use_head=False)
    text = hf.Gemma3TextConfig(**text_sizes(6), head_dim=16, sliding_window=window)
    config = hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=9, boi_token_index=10)
    model, masks = hf.AutoModelForImageTextToText.from_config(config).eval(), []
    for layer in model.get_decoder().layers:
        layer.register_forward_pre_hook(lambda _module, _args, given: masks.append(given["attention_mask"]), with_kwargs=True)
    ids = torch.full((1, length), 5)
    given = {}
    if kind == "image":
        ids[0, 3:7] = 9
        given = {"pixel_values": torch.rand(1, 3, 56, 56), "token_type_ids": (ids == 9).long()}
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
    return masks


def test_gemma3_is_refused_for_what_its_masks_are():
    """Looked at in the model: images in both directions in every layer, a window in five of six. The engine takes neither for causal."""
    for mask in masks_of("image", 512, 10):
        assert bool(mask[0, 0, 3:7, 3:7].all()) and not bool(mask[0, 0, 2, 3])
        with pytest.raises(ModelError, match="not plainly causal"):
            read_mask(mask, 1, 10)
    found = []
    for mask in masks_of("text", 4, 10):
        try:
            read_mask(mask, 1, 10)
        except ModelError:
            found.append(False)
        else:
            found.append(True)
    assert found == [False] * 5 + [True]


def test_other_sizes_have_short_names():
    wanted = ["llava-next-mistral", "llava-onevision-0.5b", "llava-onevision-72b", "qwen2.5-vl-32b", "qwen2.5-vl-72b", "qwen3-vl-2b"]
    wanted += ["qwen3-vl-32b", "qwen3-vl-30b-a3b", "internvl3-1b", "internvl3-14b", "internvl3.5-8b", "smolvlm-256m"]
    assert set(wanted) <= set(CHECKPOINTS)
    assert resolve("internvl3.5-8b").target == "OpenGVLab/InternVL3_5-8B-HF"
    assert CHECKPOINTS["qwen3-vl-30b-a3b"].model_type == "qwen3_vl_moe"
    assert len({entry.hub_id for entry in CHECKPOINTS.values()}) == len(CHECKPOINTS)
