"""On the checkpoints' own small files: prompts, placeholders and layouts are those of the files, at the real geometry."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers as hf
from checkpoints import DWARFS
from geometry import distances, features, gradient, transparent
from PIL import Image

from biaskit.errors import ModelError
from biaskit.families.checkpoints.load import load_model, read_checkpoint

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


SIZES = [(640, 480), (300, 1000), (120, 90)]
ONE_OF_EACH = [name for name in DWARFS if name not in ("Qwen2.5-VL-3B-Instruct", "InternVL2_5-2B-MPO-hf", "llava-v1.6-vicuna-7b-hf")]


def check_places(directory, sizes=SIZES, images=1, **options):
    """Every visual token looks where the layout says, to a tenth of a cell."""
    loaded = load_model(str(directory), device="cpu", dtype="float32", **options)
    transparent(loaded.model)
    for size in sizes:
        prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[gradient(*size)] * images], ["Where?"])
        found = distances(features(loaded.model, prepared.inputs), prepared.layouts[0], loaded.processor.image_processor)
        assert max(found.values()) < 0.1, (size, found)
    return loaded


def edited(source, target, name, **keys):
    """Copy a checkpoint and write keys into one of its files; a key of None is taken out."""
    shutil.copytree(source, target)
    settings = {**json.loads((target / name).read_text(encoding="utf-8")), **keys}
    (target / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}), encoding="utf-8")
    return target


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_tokens_look_where_the_layout_says(dwarf, name):
    check_places(dwarf(name))


def test_several_images_of_onevision_are_padded_to_squares(dwarf):
    check_places(dwarf("llava-onevision-qwen2-7b-ov-hf"), [(640, 480), (200, 300)], images=2)


@pytest.mark.parametrize("suffix", ["", "Fast"])
def test_llava_with_an_image_processor_that_pads(dwarf, tmp_path, suffix):
    """As the checkpoint says, without torchvision too."""
    directory = edited(
        dwarf("llava-1.5-7b-hf"), tmp_path / "padded", "preprocessor_config.json",
        image_processor_type=f"LlavaImageProcessor{suffix}", do_pad=True,
    )  # fmt: skip
    loaded = check_places(directory)
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[gradient(640, 480)]], ["Where?"])
    assert prepared.layouts[0].planes[0].box == (0.0, pytest.approx(-1 / 6), 1.0, pytest.approx(7 / 6))


@pytest.fixture
def siglip(dwarf, tmp_path):
    """The shape of llava-interleave: the class of LLaVA-1.5 with a SigLIP tower of 27 × 27 patches."""
    source = dwarf("llava-onevision-qwen2-7b-ov-hf")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kept = {key: config[key] for key in ("image_token_index", "text_config", "vision_config", "vision_feature_layer", "torch_dtype")}
    kept |= {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "vision_feature_select_strategy": "full"}
    pixels = {
        "do_normalize": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5] * 3, "processor_class": "LlavaProcessor", "resample": 3, "size": {"height": 384, "width": 384},
    }  # fmt: skip
    whole = {"image_token": "<image>", "num_additional_image_tokens": 0, "patch_size": 14, "vision_feature_select_strategy": "full"}
    files = {
        "config.json": kept,
        "preprocessor_config.json": pixels,
        "processor_config.json": {**whole, "processor_class": "LlavaProcessor"},
    }
    directory = tmp_path / "interleave"
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        shutil.copy(source / name, directory / name)
    hf.AutoTokenizer.from_pretrained(source).backend_tokenizer.save(str(directory / "tokenizer.json"))
    model = hf.AutoModelForImageTextToText.from_config(hf.AutoConfig.from_pretrained(directory), dtype=torch.float16)
    model.save_pretrained(tmp_path / "weights")
    shutil.copy(tmp_path / "weights" / "model.safetensors", directory)
    return directory


def test_llava_with_a_siglip_tower(siglip):
    """729 visual tokens, which read 378 of the 384 pixels; the image is not cropped."""
    loaded = check_places(siglip)
    layout = loaded.family.prepare(loaded.processor, loaded.model.config, [[gradient(640, 480)]], ["Where?"]).layouts[0]
    assert len(layout) == 729 and layout.planes[0].box == (0.0, 0.0, 378 / 384, 378 / 384)


def test_a_siglip_tower_that_would_lose_a_patch_is_refused(siglip):
    config = json.loads((siglip / "config.json").read_text(encoding="utf-8"))
    (siglip / "config.json").write_text(json.dumps({**config, "vision_feature_select_strategy": "default"}), encoding="utf-8")
    with pytest.raises(ModelError, match="vision_feature_select_strategy is 'default'"):
        read_checkpoint(str(siglip))


def test_an_unknown_image_processor_is_named(dwarf, tmp_path):
    directory = edited(dwarf("llava-1.5-7b-hf"), tmp_path / "odd", "preprocessor_config.json", image_processor_type="OddImageProcessor")
    with pytest.raises(ModelError, match=r'preprocessor_config.json of .*: image_processor_type is "OddImageProcessor"') as caught:
        read_checkpoint(str(directory))
    assert "CLIPImageProcessor" in caught.value.hint
