"""Adapters, quantised weights and unfit architectures are refused with what to do; no weights are read."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.catalog import CHECKPOINTS, resolve
from biaskit.families.checkpoints.hub import weights
from biaskit.families.checkpoints.load import load_model, read_checkpoint
from biaskit.families.checkpoints.refused import UNFIT, quantisation


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
    reason, instead = UNFIT[model_type]
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path))
    assert caught.value.message.endswith(f"is a '{model_type}' model: {reason}") and caught.value.hint == instead
    assert instead.startswith("use a ") and model_type not in families


@pytest.mark.parametrize("model_type", ["gemma3n", "gemma4", "paligemma", "shieldgemma2"])
def test_cousins_of_gemma3_are_refused_by_their_stock_config(tmp_path, model_type):
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    words = {"paligemma": "attends in both directions", "shieldgemma2": "says yes or no"}.get(model_type, "reuse keys and values")
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path))


def test_other_sizes_have_short_names():
    wanted = ["llava-next-mistral", "llava-onevision-0.5b", "llava-onevision-72b", "qwen2.5-vl-32b", "qwen2.5-vl-72b", "qwen3-vl-2b"]
    wanted += ["qwen3-vl-32b", "qwen3-vl-30b-a3b", "internvl3-1b", "internvl3-14b", "internvl3.5-8b", "smolvlm-256m"]
    assert set(wanted) <= set(CHECKPOINTS)
    assert resolve("internvl3.5-8b").target == "OpenGVLab/InternVL3_5-8B-HF"
    assert CHECKPOINTS["qwen3-vl-30b-a3b"].model_type == "qwen3_vl_moe"
    assert len({entry.hub_id for entry in CHECKPOINTS.values()}) == len(CHECKPOINTS)
