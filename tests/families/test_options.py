"""Resolution, tiles, padding and conversation are settings of the processor, and are refused by name where there are none."""

from __future__ import annotations

import pytest
from geometry import gradient
from PIL import Image

from biaskit.errors import ModelError
from biaskit.families.checkpoints.load import load_model, read_checkpoint


def visual(loaded, size=(640, 480)):
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[Image.new("RGB", size)]], ["What?"])
    return len(prepared.layouts[0])


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_pixels(checkpoint, name):
    model = str(checkpoint(name))
    stock, small, large = (load_model(model, **options) for options in ({}, {"max_pixels": 28 * 28 * 30}, {"min_pixels": 28 * 28 * 380}))
    assert visual(small) <= 30 < visual(stock) and visual(large, (64, 48)) > 250 > visual(stock, (64, 48))
    assert (stock.options, small.options) == ({}, {"max_pixels": 28 * 28 * 30})
    assert small.processor.image_processor.to_dict()["size"]["longest_edge"] == 28 * 28 * 30
    assert small.processor.image_processor.to_dict()["size"]["shortest_edge"] == 56 * 56
    with pytest.raises(ModelError, match="at least 9999999 and at most"):
        load_model(model, min_pixels=9_999_999)


def test_tiles(checkpoint):
    model = str(checkpoint("internvl-llama"))
    assert visual(load_model(model)) == 13 * 64
    few = load_model(model, max_tiles=6)
    assert visual(few) == 7 * 64 and few.processor.image_processor.to_dict()["max_patches"] == 6
    with pytest.raises(ModelError, match="--max-tiles 0 is less than 1"):
        load_model(model, max_tiles=0)


def test_the_real_internvl_at_six_tiles(dwarf):
    """What its authors' code for grounding and POPE uses."""
    _, family, config, processor = read_checkpoint(str(dwarf("InternVL2_5-8B-MPO-hf")), choices={"max_tiles": 6})
    prepared = family.prepare(processor, config, [[Image.new("RGB", (640, 480))]], ["What?"])
    assert len(prepared.layouts[0]) == 1792


def test_padding_of_the_papers(checkpoint):
    """The mean colour about the image, as the original code has it; the layout says which cells are padding."""
    model = str(checkpoint("llava-1.5"))
    loaded = load_model(model, image_mode="pad")
    settings = loaded.processor.image_processor.to_dict()
    assert settings["image_processor_type"].startswith("LlavaImageProcessor") and settings["do_pad"] is True
    stock = load_model(model).processor.image_processor
    assert all(settings[key] == stock.to_dict()[key] for key in ("image_mean", "image_std", "resample", "rescale_factor"))
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[gradient(640, 480)]], ["What?"])
    (plane,) = prepared.layouts[0].planes
    ys, xs = plane.centres()
    valid = ((ys > 0) & (ys < 1))[:, None] & ((xs > 0) & (xs < 1))[None]
    assert (plane.rows, plane.cols, int(valid.sum())) == (24, 24, 18 * 24)
    pixels = prepared.inputs["pixel_values"][0]
    assert float(pixels[:, :40].abs().max()) < 0.02, "the mean colour, which normalises to zero"
    assert load_model(model, image_mode="crop").processor.image_processor.to_dict()["do_pad"] is False
    with pytest.raises(ModelError, match="unknown image mode 'stretch'"):
        load_model(model, image_mode="stretch")


def test_the_conversation_of_the_papers(checkpoint):
    loaded = load_model(str(checkpoint("llava-1.5")), conversation="vicuna_v1")
    text = loaded.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}], add_generation_prompt=True
    )
    assert text == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers "
        "to the user's questions. USER: <image>\nWhat is this? ASSISTANT:"
    )
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go"}]
    assert loaded.processor.apply_chat_template(turns).endswith(" USER: Hi ASSISTANT: Yes?</s>USER: Go ")
    with pytest.raises(ModelError, match="unknown conversation 'chatml'"):
        load_model(str(checkpoint("llava-1.5")), conversation="chatml")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("llava-1.5", "max_tiles", 6),
        ("llava-next", "max_pixels", 99999),
        ("qwen2-vl", "max_tiles", 6),
        ("internvl-llama", "image_mode", "pad"),
        ("qwen3-vl", "conversation", "vicuna_v1"),
    ],
)
def test_an_option_that_a_family_does_not_have(checkpoint, name, option, value):
    with pytest.raises(ModelError, match=f"has no --{option.replace('_', '-')}"):
        load_model(str(checkpoint(name)), **{option: value})
    with pytest.raises(ModelError, match=f"has no --{option.replace('_', '-')}"):
        read_checkpoint(str(checkpoint(name)), choices={option: value})
