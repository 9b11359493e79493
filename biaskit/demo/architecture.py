"""The embedded model's stock classes: configuration, processor, and how both are written to a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from biaskit.demo.scenes import EDGE, PATCH
from biaskit.demo.vocabulary import ID, TEMPLATE, VISUAL, WORDS, make_tokenizer

LAYERS = 9
HIDDEN = 160
HEADS = 5
INNER = 432
VISION_HIDDEN = 128
MEAN, STD = 0.5, 0.25
"""Pixels are scaled to 0 … 1, then (value − MEAN) / STD."""


def make_config(layers: int = LAYERS) -> Any:
    """Return the LlavaConfig: CLIP 168/14 (144 visual tokens), a two-layer projector, a Llama of `layers` layers."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=VISION_HIDDEN, intermediate_size=3 * VISION_HIDDEN, num_hidden_layers=4, num_attention_heads=4, image_size=EDGE,
        patch_size=PATCH, projection_dim=VISION_HIDDEN,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=ID["<s>"], eos_token_id=ID["</s>"],
        pad_token_id=ID["<pad>"], rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=ID["<image>"], image_token_index=ID["<image>"], projector_hidden_act="gelu",
        vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=VISUAL,
    )  # fmt: skip


def save_processor(directory: Path) -> None:
    """Write image processor, tokenizer, processor settings and chat template the way hub repositories look."""
    from transformers import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE}, image_mean=[MEAN] * 3, image_std=[STD] * 3
    )
    directory.mkdir(parents=True, exist_ok=True)
    images.save_pretrained(directory)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(directory)
    settings = {
        "patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>",
        "processor_class": "LlavaProcessor",
    }  # fmt: skip
    (directory / "processor_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
