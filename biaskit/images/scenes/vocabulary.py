"""The words of the embedded model, its tokenizer, its chat template, and boxes as words."""

from __future__ import annotations

import re
from typing import Any

from biaskit.images.scenes.draw import COLOUR_NAMES, EDGE, PATCHES, SHAPES, SIZES, Box

BINS = 48
"""Location words along each side of a scene: 3.5 pixels each."""
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_FUNCTION = (
    "user:", "assistant:", "where", "is", "the", "there", "a", "what", "colour", "shape", "object", "yes", "no",
    "please", "describe", "provided", "image", "?", ".", ",",
)  # fmt: skip
LOCATIONS = tuple(f"<loc{place:02d}>" for place in range(BINS))
WORDS = (*SPECIAL, *_FUNCTION, *SIZES, *COLOUR_NAMES, *SHAPES, *LOCATIONS)
ID = {word: number for number, word in enumerate(WORDS)}
FIRST_LOCATION = ID[LOCATIONS[0]]
VISUAL = PATCHES * PATCHES


def chat_template(image: str) -> str:
    """Return the chat template with this text for an image."""
    return (
        "{% for m in messages %}{% if m['role'] == 'user' %}<s>user: {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }} {% endif %}{% endfor %}"
        "{% else %}assistant: {% for c in m['content'] %}{{ c['text'] }}{% endfor %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )


def make_tokenizer(more: tuple[str, ...] = (), **named: str) -> Any:
    """Return the stock fast tokenizer: lower case, one id per word, `?`, `.` and `,` apart, anything else `<unk>`.

    Args:
        more: special tokens beside `SPECIAL`; their ids follow those of `WORDS`. named: extra special tokens by the role they have.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate((*WORDS, *more))}, unk_token=SPECIAL[3]))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[?.,]"), "isolated")])
    core.add_special_tokens([*SPECIAL, *more])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, padding_side="left",
        **dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL[:4], strict=True)),
        model_input_names=["input_ids", "attention_mask"], extra_special_tokens=named,
    )  # fmt: skip


def ids_of(text: str) -> list[int]:
    """Return the ids of words with blanks between them (the tokenizer's answer for texts that the scenes ask or answer).

    Raises:
        KeyError: a word the model does not know.
    """
    return [ID[word] for word in text.split()]


def box_text(box: Box) -> str:
    """Return a box as four location words: x1 y1 x2 y2.

    >>> box_text((0.0, 42.0, 84.0, 168.0))
    '<loc00> <loc12> <loc24> <loc47>'
    """
    return " ".join(LOCATIONS[min(BINS - 1, max(0, int(value / EDGE * BINS)))] for value in box)


def read_box(text: str) -> Box | None:
    """Return the box (pixels of a 168 × 168 scene, centres of the bins) at the start of an answer, None if there is none.

    >>> read_box("<loc00><loc12><loc24><loc47>")
    (1.75, 43.75, 85.75, 166.25)
    """
    found = re.match(r"\s*" + r"\s*".join([r"<loc(\d\d)>"] * 4), text)
    if found is None or any(int(number) >= BINS for number in found.groups()):
        return None
    x1, y1, x2, y2 = ((int(number) + 0.5) * EDGE / BINS for number in found.groups())
    return x1, y1, x2, y2
