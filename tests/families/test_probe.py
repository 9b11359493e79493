"""A checkpoint whose files do not fit together is refused on load, by the file and the key; no picture is blamed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from biaskit.errors import ImageSkipped, ModelError
from biaskit.families.checkpoints.load import load_model, read_checkpoint


@pytest.fixture
def broken(checkpoint, tmp_path):
    """Copy a tiny checkpoint and write keys into one of its files; None takes a key out, no keys at all the file."""

    def make(name, file, **keys):
        directory = tmp_path / "broken"
        shutil.copytree(checkpoint(name), directory)
        if not keys:
            (directory / file).unlink()
            return str(directory)
        settings = {**json.loads((directory / file).read_text(encoding="utf-8")), **keys}
        (directory / file).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}), encoding="utf-8")
        return str(directory)

    return make


WHOLE, PIXELS, WORDS = "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"
FAULTS = [
    ("llava-1.5", WHOLE, {"patch_size": None}, f"{WHOLE} of .* lacks patch_size, which the model needs", '"patch_size": 14'),
    ("llava-1.5", WHOLE, {"num_additional_image_tokens": None}, "has num_additional_image_tokens = 0 for a model that needs 1", ": 1"),
    ("llava-1.5", PIXELS, {"crop_size": {"height": 224, "width": 224}}, f"{PIXELS} of .* has crop_size = .* for a model", '"height": 336'),
    ("llava-next", WHOLE, {"patch_size": 16}, f"{WHOLE} of .* has patch_size = 16 for a model that needs 14", '"patch_size": 14'),
    ("llava-next", WHOLE, {}, f"{WHOLE} of .* lacks patch_size", '"patch_size": 14'),
    ("llava-onevision", WHOLE, {"num_image_tokens": 729}, f"{WHOLE} of .* has num_image_tokens = 729 for a model that needs 81", "81"),
    ("qwen2.5-vl", PIXELS, {"merge_size": 1}, f"{PIXELS} of .* has merge_size = 1 for a model that needs 2", '"merge_size": 2'),
    ("internvl-llama", WHOLE, {"image_seq_length": 256}, f"{WHOLE} of .* has image_seq_length = 256 for a model that needs 64", "64"),
    ("gemma3", PIXELS, {"do_pan_and_scan": True}, f"{PIXELS} of .* has do_pan_and_scan = True for a model that needs False", "false"),
    ("gemma3", WHOLE, {"image_seq_length": 256}, f"{WHOLE} of .* has image_seq_length = 256 for a model that needs 64", "64"),
    ("llava-1.5", WORDS, {"pad_token": None}, f"{WORDS} of .* has no pad_token", '"pad_token": "</s>"'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "keys", "message", "hint"), FAULTS)
@pytest.mark.parametrize("load", [load_model, read_checkpoint])
def test_the_file_and_the_key_are_named(broken, load, name, file, keys, message, hint):
    with pytest.raises(ModelError, match=message) as caught:
        load(broken(name, file, **keys))
    assert hint in caught.value.hint


CONFIG = "config.json"
WRONG = [
    ("llava-1.5", CONFIG, {"image_token_index": 3}, f"{CONFIG} of .* says that 3 is the image placeholder, but the tokenizer's '<image>'"),
    ("llava-1.5", CONFIG, {"text_config": 3}, f"{CONFIG} of .* does not load: Validation error for field 'text_config'"),
    ("gemma3", CONFIG, {"dtype": "x"}, f"{CONFIG} of .* does not load: module 'torch' has no attribute"),
    ("gemma3", PIXELS, {"size": "x"}, f"{PIXELS} of .* does not load: ValueError: Could not convert size"),
    ("llava-1.5", PIXELS, {"rescale_factor": "x"}, "fails on a plain picture .*UFuncTypeError"),
    ("llava-1.5", WORDS, {"pad_token": 3}, f"{WORDS} of .* does not load: TypeError: Special token pad_token"),
    ("llava-1.5", WORDS, {"padding_side": "x"}, f"{WORDS} of .* does not load: ValueError: Padding side"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "keys", "message"), WRONG)
def test_a_value_of_another_kind_is_named_and_no_error_is_the_library_s_own(broken, name, file, keys, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_checkpoint(broken(name, file, **keys))
    assert not isinstance(caught.value, ImageSkipped)


@pytest.mark.parametrize("file", [CONFIG, PIXELS, WHOLE, WORDS, "tokenizer.json"])
@pytest.mark.parametrize(("content", "said"), [("{", "is not JSON"), ("[]", "is not a JSON object")])
def test_a_file_that_was_cut_off_is_named(broken, file, content, said):
    directory = broken("llava-1.5", WORDS, pad_token="</s>")
    (Path(directory) / file).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=f"{file} {said}"):
        read_checkpoint(directory)


def test_no_weights_are_read_before_the_probe(broken, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", lambda *a, **k: pytest.fail("weights were read"))
    with pytest.raises(ModelError, match="lacks patch_size"):
        load_model(broken("llava-1.5", WHOLE, patch_size=None))


def test_a_tokenizer_that_does_not_name_a_token(broken, checkpoint):
    words = json.loads((checkpoint("internvl-llama") / WORDS).read_text(encoding="utf-8"))
    assert words["video_token"] == "<video>"
    with pytest.raises(ModelError, match=f"{WORDS} of .* does not name video_token") as caught:
        load_model(broken("internvl-llama", WORDS, video_token=None))
    assert "extra_special_tokens" in caught.value.hint


def test_a_template_with_another_placeholder(checkpoint, tmp_path):
    directory = tmp_path / "old"
    shutil.copytree(checkpoint("internvl-llama"), directory)
    template = directory / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("<IMG_CONTEXT>", "<image>"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"the chat template of .* writes <image>, but the processor expands '<IMG_CONTEXT>'") as caught:
        load_model(str(directory))
    assert "chat_template.jinja" in caught.value.hint


def test_a_processor_that_fails_for_an_unknown_reason(checkpoint, monkeypatch):
    monkeypatch.setattr("transformers.LlavaProcessor.__call__", lambda *a, **k: 1 / 0)
    with pytest.raises(ModelError, match=r"the processor of .* fails on a plain picture of 320×240 pixels: .*ZeroDivisionError") as caught:
        load_model(str(checkpoint("llava-1.5")))
    assert PIXELS in caught.value.hint


@pytest.mark.parametrize(
    ("name", "prompt", "marker"), [("llava-1.5", "<image>\nDescribe.", "<image>"), ("qwen2-vl", "<|image_pad|>?", "<|image_pad|>")]
)
def test_a_placeholder_in_the_prompt_is_the_prompts_fault(checkpoint, name, prompt, marker):
    _, family, config, processor = read_checkpoint(str(checkpoint(name)))
    with pytest.raises(ModelError, match="holds the image placeholder") as caught:
        family.prepare(processor, config, [[Image.new("RGB", (64, 64))]], [prompt])
    assert marker in caught.value.message and "take it out" in caught.value.hint
    assert not isinstance(caught.value, ImageSkipped)


def test_a_picture_that_a_sound_processor_refuses_is_the_pictures_fault(checkpoint):
    _, family, config, processor = read_checkpoint(str(checkpoint("qwen2-vl")))
    with pytest.raises(ImageSkipped, match="the processor refuses 3000×8 pixels"):
        family.prepare(processor, config, [[Image.new("RGB", (3000, 8))]], ["What?"])
