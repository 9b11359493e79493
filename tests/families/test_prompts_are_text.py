"""A special token inside somebody's question is refused by name, and never taken for a picture or the end of the turn."""

from __future__ import annotations

import pytest
from PIL import Image

from biaskit.errors import ModelError


@pytest.mark.parametrize("token", ["<image>", "<video>", "<|im_end|>", "<|image_pad|>", "<IMG_CONTEXT>", "</s>"])
def test_special_tokens_are_refused_by_name(tiny, token):
    model, processor, family = tiny
    picture = Image.new("RGB", (56, 56))
    with pytest.raises(ModelError, match=r"the prompt 'what does .* mean\?' holds the (image placeholder|special token) '") as caught:
        family.prepare(processor, model.config, [[picture]], [f"what does {token} mean?"])
    assert token in caught.value.message


def test_published_questions_and_plain_text_pass(tiny):
    model, processor, family = tiny
    picture = Image.new("RGB", (56, 56))
    for text in (family.wording.ask_region("the dog"), family.wording.ask_short("a < b > c?"), "<b>bold</b> <|x|>", "< image >"):
        assert len(family.prepare(processor, model.config, [[picture]], [text])) == 1


def test_half_a_character_is_refused_as_the_prompt_s_fault(tiny):
    model, processor, family = tiny
    with pytest.raises(ModelError, match=r"the prompt 'a\\ud800' has half a surrogate pair"):
        family.prepare(processor, model.config, [[Image.new("RGB", (56, 56))]], ["a\ud800"])
