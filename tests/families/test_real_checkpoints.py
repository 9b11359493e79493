"""On the checkpoints' own small files: prompts, placeholders and layouts are those of the files, at the real geometry."""

from __future__ import annotations

import json

import pytest
from conftest import DWARFS
from PIL import Image

from biaskit.families.checkpoints.load import read_checkpoint

VISUAL = {
    "llava-1.5-7b-hf": 576,
    "llava-v1.6-vicuna-7b-hf": 2340,
    "llava-v1.6-mistral-7b-hf": 2340,
    "llava-onevision-qwen2-7b-ov-hf": 2929,
    "Qwen2-VL-7B-Instruct": 391,
    "Qwen2.5-VL-7B-Instruct": 391,
    "Qwen2.5-VL-3B-Instruct": 391,
    "Qwen3-VL-8B-Instruct": 300,
    "InternVL2_5-8B-MPO-hf": 3328,
    "InternVL2_5-2B-MPO-hf": 3328,
    "InternVL3-8B-hf": 3328,
}


@pytest.mark.parametrize("name", DWARFS)
def test_placeholders_of_a_coco_sized_image(dwarf, name):
    place, family, config, processor = read_checkpoint(str(dwarf(name)))
    assert place.local and config.model_type == json.loads((dwarf(name) / "config.json").read_text())["model_type"]
    prepared = family.prepare(processor, config, [[Image.new("RGB", (640, 480))]], ["Describe the image."])
    assert len(prepared.layouts[0]) == VISUAL[name]
