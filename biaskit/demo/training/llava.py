"""The embedded model on the stock LLaVA class: absolute position embeddings in the tower, one-dimensional rotary ones in the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from biaskit.demo.training.architecture import (
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    MEAN,
    STD,
    VISION_HEADS,
    VISION_HIDDEN,
    VISION_LAYERS,
    Architecture,
)
from biaskit.images.scenes.draw import EDGE, PATCH
from biaskit.images.scenes.vocabulary import ID, VISUAL, WORDS, chat_template, make_tokenizer

IMAGE = "<image>"


class Llava(Architecture):
    """CLIP 168/14 (144 visual tokens), a two-layer projector, a Llama."""

    name = "llava"
    model_type = "llava"
    words = WORDS
    prefix = (ID["<s>"], ID["user:"], *[ID[IMAGE]] * VISUAL)
    template = chat_template(f"{IMAGE} ")
    relative = False
    reads_at = 0
    blocks = "layers"
    described: ClassVar[Mapping[str, str]] = {
        "class": "LlavaForConditionalGeneration", "tower": "CLIP, 168 × 168 pixels", "decoder": "Llama", "image": IMAGE,
        "boxes": "", "reader": "the thing's box in them",
    }  # fmt: skip

    def make_config(self, layers: int = LAYERS) -> Any:
        """Return the LlavaConfig."""
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

        vision = CLIPVisionConfig(
            hidden_size=VISION_HIDDEN, intermediate_size=3 * VISION_HIDDEN, num_hidden_layers=VISION_LAYERS,
            num_attention_heads=VISION_HEADS, image_size=EDGE, patch_size=PATCH, projection_dim=VISION_HIDDEN,
        )  # fmt: skip
        text = LlamaConfig(
            vocab_size=len(WORDS), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=HEADS,
            num_key_value_heads=HEADS, max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=ID["<s>"],
            eos_token_id=ID["</s>"], pad_token_id=ID["<pad>"], rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )  # fmt: skip
        return LlavaConfig(
            vision_config=vision, text_config=text, image_token_id=ID[IMAGE], image_token_index=ID[IMAGE], projector_hidden_act="gelu",
            vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=VISUAL,
        )  # fmt: skip

    def processor_files(self) -> tuple[Any, Mapping[str, Mapping[str, Any]]]:
        """Return the CLIP image processor and the processor's settings."""
        from transformers import CLIPImageProcessorPil

        images = CLIPImageProcessorPil(
            size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE}, image_mean=[MEAN] * 3, image_std=[STD] * 3
        )
        settings = {
            "patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": IMAGE,
            "processor_class": "LlavaProcessor",
        }  # fmt: skip
        return images, {"processor_config.json": settings}

    def make_tokenizer(self) -> Any:
        """Return the tokenizer with `<image>` as placeholder."""
        return make_tokenizer(image_token=IMAGE)

    def tower(self, model: Any) -> nn.Module:
        """Return the CLIP tower."""
        found: nn.Module = model.model.vision_tower
        return found

    def projector(self, model: Any) -> nn.Module:
        """Return the two-layer projector."""
        found: nn.Module = model.model.multi_modal_projector
        return found

    def see(self, tower: Any, values: Tensor) -> Tensor:
        """The last layer's states without the CLS token."""
        seen: Tensor = tower(pixel_values=values).last_hidden_state[:, 1:]
        return seen

    def positions(self, length: int) -> Tensor:
        """[1, length]: one after the other."""
        return torch.arange(length)[None]
