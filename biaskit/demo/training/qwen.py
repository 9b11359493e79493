"""The embedded model on the stock Qwen2.5-VL class: no absolute position embedding anywhere, M-RoPE in the decoder.

The tower encodes only the relative positions of patches (2-D rotary embedding): the place of something in the image is unknown to it unless
the content shows it, and all patches of a plain image look the same. It learns boxes relative to the patch. Where a patch lies, visual
tokens learn in the decoder, from their rotary distance to the text before the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from biaskit.images.scenes.draw import EDGE, PATCH, PATCHES
from biaskit.images.scenes.vocabulary import ID, VISUAL, WORDS, chat_template, make_tokenizer

SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
START, END, IMAGE, VIDEO = range(len(WORDS), len(WORDS) + len(SPECIAL))
"""Ids of the four, after the words that both models share."""
THETA = 10000.0
SECTIONS = (1, 2, 2, 3, 4, 4)
"""Of the 16 rotary frequencies, highest first: how many rotate with the frame, the row, the column, and once more with each of them.

In one round (4, 6, 6) the columns would have the lowest frequencies only, which rotate by 0.04 over all 12 columns: no layer could
distinguish columns. A small base (10) instead makes columns distinguishable, but leaves no low frequency.
"""


class Qwen(Architecture):
    """Qwen2.5-VL's tower with patches of 14 that are not merged (144 visual tokens), its merger as projector, a Qwen2 with M-RoPE.

    Every layer of the tower attends to the whole image, as CLIP's do; the stock model does so in one layer of eight and uses windows else.
    """

    name = "qwen"
    model_type = "qwen2_5_vl"
    words = (*WORDS, *SPECIAL)
    prefix = (ID["<s>"], ID["user:"], START, *[IMAGE] * VISUAL, END)
    template = chat_template("<|vision_start|><|image_pad|><|vision_end|>")
    relative = True
    reads_at = 4
    blocks = "blocks"
    described: ClassVar[Mapping[str, str]] = {
        "class": "Qwen2_5_VLForConditionalGeneration",
        "tower": "Qwen2.5-VL's: 2-D rotary embedding, no merging, full attention; any shape of about 168 × 168 pixels (trained on squares)",
        "decoder": f"Qwen2 with M-RoPE (sections {', '.join(map(str, SECTIONS))}; base {THETA:g})",
        "image": "<|vision_start|><|image_pad|><|vision_end|>",
        "boxes": ", as seen from the patch: the tower has no absolute positions",
        "reader": f"the thing's box, size, colour and shape in their states at the input of layer {reads_at}, so that the\n"
        "  layers before it learn where in the image they are",
    }  # fmt: skip

    def make_config(self, layers: int = LAYERS) -> Any:
        """Return the Qwen2_5_VLConfig; the tower's gated inner width has as many weights as CLIP's."""
        from transformers import Qwen2_5_VLConfig

        vision = {
            "hidden_size": VISION_HIDDEN, "intermediate_size": 2 * VISION_HIDDEN, "depth": VISION_LAYERS, "num_heads": VISION_HEADS,
            "patch_size": PATCH, "spatial_merge_size": 1, "temporal_patch_size": 1, "window_size": EDGE, "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": list(range(VISION_LAYERS)),
        }  # fmt: skip
        text = {
            "vocab_size": len(self.words), "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": layers,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
            "bos_token_id": ID["<s>"], "eos_token_id": ID["</s>"], "pad_token_id": ID["<pad>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": THETA, "mrope_section": list(SECTIONS)},
        }  # fmt: skip
        return Qwen2_5_VLConfig(
            vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START,
            vision_end_token_id=END, tie_word_embeddings=False,
        )  # fmt: skip

    def processor_files(self) -> tuple[Any, Mapping[str, Mapping[str, Any]]]:
        """Return the Qwen2-VL image processor (any shape, about 144 visual tokens), the video processor's and the processor's settings."""
        from transformers import Qwen2VLImageProcessorPil

        shared = {
            "patch_size": PATCH, "merge_size": 1, "temporal_patch_size": 1, "image_mean": [MEAN] * 3, "image_std": [STD] * 3,
            "size": {"shortest_edge": EDGE * EDGE, "longest_edge": EDGE * EDGE},
        }  # fmt: skip
        files: dict[str, dict[str, Any]] = {
            "processor_config.json": {"processor_class": "Qwen2_5_VLProcessor"},
            "video_preprocessor_config.json": {
                **shared, "processor_class": "Qwen2_5_VLProcessor", "video_processor_type": "Qwen2VLVideoProcessor"
            },
        }  # fmt: skip
        return Qwen2VLImageProcessorPil(**shared), files

    def make_tokenizer(self) -> Any:
        """Return the tokenizer with `<|image_pad|>` as placeholder."""
        return make_tokenizer(SPECIAL, image_token=SPECIAL[2], video_token=SPECIAL[3])

    def tower(self, model: Any) -> nn.Module:
        """Return the tower; its merger is the projector."""
        found: nn.Module = model.model.visual
        return found

    def projector(self, model: Any) -> nn.Module:
        """Return the merger: RMSNorm and two layers."""
        found: nn.Module = model.model.visual.merger
        return found

    def see(self, tower: Any, values: Tensor) -> Tensor:
        """The states before the merger: the stock tower's mathematics (a test compares them) for images of one size at once.

        The stock forward attends image by image in a loop, and its backward pass is half as fast on a CPU.
        """
        batch = len(values)
        patches = values.view(batch, 3, PATCHES, PATCH, PATCHES, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(batch, VISUAL, -1)
        states = functional.linear(patches, tower.patch_embed.proj.weight.flatten(1)).float()
        cos, sin = (part.to(values.device) for part in _turns())
        for block in tower.blocks:
            parts = block.attn.qkv(_norm(states, block.norm1)).view(batch, VISUAL, 3, VISION_HEADS, -1).permute(2, 0, 3, 1, 4).contiguous()
            turned, (value,) = torch.split(parts, [2, 1])
            one, two = turned.chunk(2, -1)
            query, key = (turned * cos.to(turned.dtype) + torch.cat([-two, one], -1) * sin.to(turned.dtype)).unbind()
            weights = (query * query.shape[-1] ** -0.5 @ key.mT).softmax(-1).to(value.dtype)
            states = states + block.attn.proj((weights @ value).transpose(1, 2).flatten(2))
            states = states + block.mlp(_norm(states, block.norm2))
        return states

    def positions(self, length: int) -> Tensor:
        """[3, 1, length]: frame, row and column; text has all three equal, and continues after the image's largest."""
        first = self.visual_start
        place = torch.arange(PATCHES)
        rows, cols = (side.flatten() + first for side in torch.meshgrid(place, place, indexing="ij"))
        image = torch.stack([torch.full((VISUAL,), first), rows, cols])
        after = torch.arange(length - first - VISUAL) + first + PATCHES
        return torch.cat([torch.arange(first).expand(3, -1), image, after.expand(3, -1)], 1)[:, None]


def _turns() -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the tower's rotary embedding, [144, width of a head]: half of the frequencies rotate with the row."""
    quarter = VISION_HIDDEN // VISION_HEADS // 4
    frequency = 10000.0 ** -(torch.arange(quarter) / quarter)
    place = torch.arange(VISUAL)
    angle = torch.cat([(place // PATCHES)[:, None] * frequency, (place % PATCHES)[:, None] * frequency], -1)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def _norm(states: Tensor, norm: Any) -> Tensor:
    return functional.rms_norm(states, (states.shape[-1],), norm.weight, norm.variance_epsilon)
