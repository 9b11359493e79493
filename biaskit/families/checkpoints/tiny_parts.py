"""Parts of random checkpoints: a tokenizer of bytes, chat templates, small text models and towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = [
    *("<pad>", "<s>", "</s>", "<unk>", "<image>", "<video>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>"),
]


_PARTS = "{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}"


LLAVA_CHAT = (
    "{% for m in messages %}{{ m['role'].upper() }}: " + _PARTS.replace("IMAGE", "<image>\n") + " {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n" + _PARTS + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


QWEN_CHAT = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")


INTERN_CHAT = CHATML.replace("IMAGE", "<IMG_CONTEXT>\n")


CHAT = {"llava": LLAVA_CHAT, "qwen": QWEN_CHAT, "internvl": INTERN_CHAT}
"""Chat templates that stand in for those of the checkpoints."""


def special_id(token: str, further: Sequence[str] = ()) -> int:
    """Return a special token's id in `byte_tokenizer`."""
    return SPECIAL.index(token) if token in SPECIAL else len(SPECIAL) + 256 + list(further).index(token)


def byte_tokenizer(further: Sequence[str] = (), **named: str) -> Any:
    """Return a fast tokenizer of bytes and of special tokens: those of every family, and `further` ones, which come last.

    `named` become its extra special tokens.

    Example:
        >>> byte_tokenizer().decode(byte_tokenizer()("a cat").input_ids)
        'a cat'
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIAL, *alphabet, *further])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([*SPECIAL, *further])
    extra = {"extra_special_tokens": named} if named else {}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", padding_side="left",
        model_input_names=["input_ids", "attention_mask"], **extra,
    )  # fmt: skip


def text_sizes(layers: int, **more: Any) -> dict[str, Any]:
    """Return the settings of a small language model."""
    return {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 16384, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **more,
    }  # fmt: skip


VIT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


QWEN_IDS = {
    "image_token_id": special_id("<|image_pad|>"), "video_token_id": special_id("<|video_pad|>"),
    "vision_start_token_id": special_id("<|vision_start|>"), "vision_end_token_id": special_id("<|vision_end|>"),
}  # fmt: skip


OMNI = [f"<|{name}|>" for name in ("IMAGE", "VIDEO", "AUDIO", "vision_bos", "vision_eos", "audio_bos", "audio_eos")]
"""The special tokens of Qwen2.5-Omni."""

OMNI_NAMES = {f"{token.strip('<|>').lower()}_token": token for token in OMNI}
"""Their names in its tokenizer."""


def rope(**more: Any) -> dict[str, Any]:
    """Return the rotary settings of a language model with positions of three axes."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], **more}}


Parts = tuple[Any, Any, Any, dict[str, Any]]
"""(config, image processor, tokenizer, processor settings)."""


def available(image_processor: str) -> bool:
    """True if the installed transformers has an image processor that runs without torchvision."""
    try:
        getattr(hf, f"{image_processor}Pil")()
    except (ImportError, AttributeError):
        return False
    return True
