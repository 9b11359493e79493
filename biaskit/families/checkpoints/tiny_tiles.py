"""Random checkpoints of the families that mark tiles or views in the prompt."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import transformers as hf

from biaskit.families.checkpoints.tiny_parts import CHATML, VIT, Parts, available, byte_tokenizer, special_id, text_sizes

_MARKS = [
    *("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    *(f"<row_{row}_col_{col}>" for row in range(1, 5) for col in range(1, 5)),
]


def _idefics3(config: type, image_processor: str) -> Callable[[int], Parts]:
    def make(layers: int) -> Parts:
        vision = {**VIT, "num_hidden_layers": 2, "image_size": 112, "patch_size": 14}
        text = hf.LlamaConfig(**text_sizes(layers))
        whole = config(text_config=text, vision_config=vision, image_token_id=special_id("<image>"), scale_factor=2, pad_token_id=0)
        pixels = getattr(hf, f"{image_processor}Pil")(size={"longest_edge": 224}, max_image_size={"longest_edge": 112})
        chat = CHATML.replace("IMAGE", "<image>")
        return whole, pixels, byte_tokenizer(_MARKS, image_token="<image>"), {"image_seq_len": 16, "chat_template": chat}

    return make


_TILES = ["TILE", "TILE_GLOBAL"]


def _aya_vision(layers: int) -> Parts:
    vision = hf.SiglipVisionConfig(**VIT, num_hidden_layers=2, image_size=112, patch_size=14, vision_use_head=False)
    text = hf.Cohere2Config(**text_sizes(layers), logit_scale=1.0, sliding_window=16384)
    image = special_id("<IMG_CONTEXT>")
    config = hf.AyaVisionConfig(vision_config=vision, text_config=text, image_token_index=image, downsample_factor=2)
    pixels = hf.GotOcr2ImageProcessorPil(size={"height": 112, "width": 112}, crop_to_patches=True, min_patches=1, max_patches=12)
    settings = {
        "patch_size": 14, "img_size": 112, "downsample_factor": 2, "img_patch_token": "<IMG_CONTEXT>", "start_of_img_token": "<img>",
        "end_of_img_token": "</img>", "chat_template": CHATML.replace("IMAGE", "<image>"),
    }  # fmt: skip
    return config, pixels, byte_tokenizer(_TILES), settings


_SOFT = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]


def _gemma3(layers: int) -> Parts:
    vision = hf.SiglipVisionConfig(**VIT, num_hidden_layers=2, image_size=224, patch_size=14, vision_use_head=False)
    kinds = {"sliding_window": 192, "layer_types": ["full_attention" if k % 3 == 2 else "sliding_attention" for k in range(layers)]}
    text = hf.Gemma3TextConfig(**text_sizes(layers), head_dim=16, query_pre_attn_scalar=16, **kinds)
    ids = {f"{name}_token_index": special_id(token, _SOFT) for name, token in zip(("boi", "eoi", "image"), _SOFT, strict=True)}
    config = hf.Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=64, **ids)
    tokens = byte_tokenizer(_SOFT, boi_token=_SOFT[0], eoi_token=_SOFT[1], image_token=_SOFT[2])
    settings = {"image_seq_length": 64, "chat_template": CHATML.replace("IMAGE", _SOFT[0])}
    return config, hf.Gemma3ImageProcessorPil(size={"height": 224, "width": 224}), tokens, settings


_BREAKS = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]


def _mistral3(layers: int) -> Parts:
    vision = hf.PixtralVisionConfig(**VIT, num_hidden_layers=2, image_size=560, patch_size=14, head_dim=16)
    text = hf.MistralConfig(**text_sizes(layers), head_dim=16, sliding_window=None)
    image = special_id("[IMG]", _BREAKS)
    config = hf.Mistral3Config(vision_config=vision, text_config=text, image_token_index=image, tie_word_embeddings=False)
    pixels = hf.PixtralImageProcessorPil(size={"longest_edge": 560}, patch_size={"height": 14, "width": 14})
    settings = {"patch_size": 14, "spatial_merge_size": 2, "chat_template": CHATML.replace("IMAGE", "[IMG]")}
    return config, pixels, byte_tokenizer(_BREAKS), settings


TILES: dict[str, Callable[[int], Parts]] = {"aya-vision": _aya_vision}
"""Name → parts. Where the stock library's image processor does not run, a family has no tiny checkpoint."""

if find_spec("torchvision") is not None:  # Pixtral's processor does not exist without it
    TILES["mistral3"] = _mistral3
if available("Gemma3ImageProcessor"):
    TILES["gemma3"] = _gemma3
if available("Idefics3ImageProcessor"):
    TILES |= {
        "idefics3": _idefics3(hf.Idefics3Config, "Idefics3ImageProcessor"),
        "smolvlm": _idefics3(hf.SmolVLMConfig, "SmolVLMImageProcessor"),
    }
