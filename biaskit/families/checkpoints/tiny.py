"""Random checkpoints of the real classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image

from biaskit.families import ModelFamily, families
from biaskit.families.checkpoints.processors import build_processor
from biaskit.families.checkpoints.tiny_parts import (
    CHATML,
    INTERN_CHAT,
    LLAVA_CHAT,
    OMNI,
    OMNI_NAMES,
    QWEN_CHAT,
    QWEN_IDS,
    VIT,
    Parts,
    byte_tokenizer,
    rope,
    special_id,
    text_sizes,
)
from biaskit.families.checkpoints.tiny_tiles import TILES
from biaskit.files import staged, write_file

_PINPOINTS = [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]]


def _clip(side: int) -> Any:
    return hf.CLIPVisionConfig(**VIT, num_hidden_layers=3, image_size=side, patch_size=14, projection_dim=32)


_LLAVA_SETTINGS = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
    "chat_template": LLAVA_CHAT,
}


def _square(side: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _llava(layers: int) -> Parts:
    ids = {"image_token_id": special_id("<image>"), "image_token_index": special_id("<image>")}
    tower = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
    config = hf.LlavaConfig(vision_config=_clip(336), text_config=hf.LlamaConfig(**text_sizes(layers)), **ids, **tower)
    return config, hf.CLIPImageProcessorPil(**_square(336)), byte_tokenizer(image_token="<image>"), dict(_LLAVA_SETTINGS)


def _llava_next(layers: int) -> Parts:
    tower = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default", "image_grid_pinpoints": _PINPOINTS}
    text = hf.LlamaConfig(**text_sizes(layers))
    config = hf.LlavaNextConfig(vision_config=_clip(112), text_config=text, image_token_index=special_id("<image>"), **tower)
    pixels = hf.LlavaNextImageProcessorPil(**_square(112), image_grid_pinpoints=_PINPOINTS)
    return config, pixels, byte_tokenizer(image_token="<image>"), dict(_LLAVA_SETTINGS)


def _llava_next_video(layers: int) -> Parts:
    ids = {"image_token_index": special_id("<image>"), "video_token_index": special_id("<video>")}
    tower = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default", "image_grid_pinpoints": _PINPOINTS}
    config = hf.LlavaNextVideoConfig(vision_config=_clip(112), text_config=hf.LlamaConfig(**text_sizes(layers)), **ids, **tower)
    pixels = hf.LlavaNextImageProcessorPil(**_square(112), image_grid_pinpoints=_PINPOINTS)
    return config, pixels, byte_tokenizer(image_token="<image>", video_token="<video>"), dict(_LLAVA_SETTINGS)


def _llava_onevision(layers: int) -> Parts:
    vision = hf.SiglipVisionConfig(**VIT, num_hidden_layers=2, image_size=126, patch_size=14)
    pinpoints = [[126 * rows, 126 * cols] for rows in range(1, 7) for cols in range(1, 7)]
    shared = {"vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}
    image, video = special_id("<image>"), special_id("<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=hf.Qwen2Config(**text_sizes(layers)),
        image_token_index=image,
        image_token_id=image,
        video_token_index=video,
        video_token_id=video,
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        **shared,
    )
    pixels = hf.LlavaOnevisionImageProcessorPil(size={"height": 126, "width": 126}, image_grid_pinpoints=pinpoints)
    settings = {**shared, "num_image_tokens": 81, "chat_template": LLAVA_CHAT}
    return config, pixels, byte_tokenizer(image_token="<image>", video_token="<video>"), settings


def _qwen(config: type, patch: int, tower: dict[str, Any], text: dict[str, Any]) -> Callable[[int], Parts]:
    def make(layers: int) -> Parts:
        vision = {"num_heads": 2, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2, **tower}
        whole = config(text_config=text_sizes(layers, **text), vision_config=vision, **QWEN_IDS)
        pixels = hf.Qwen2VLImageProcessorPil(
            patch_size=patch, merge_size=2, temporal_patch_size=2, min_pixels=56 * 56, max_pixels=28 * 28 * 400
        )
        return whole, pixels, byte_tokenizer(), {"chat_template": QWEN_CHAT}

    return make


_TOWER_25 = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "window_size": 112,
    "fullatt_block_indexes": [1],
}


def _omni(layers: int) -> Parts:
    image, video, audio = (special_id(f"<|{kind}|>", OMNI) for kind in ("IMAGE", "VIDEO", "AUDIO"))
    vision = {"num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, **_TOWER_25}
    hearing = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 8}
    config = hf.Qwen2_5OmniThinkerConfig(
        text_config=text_sizes(layers, **rope(), tie_word_embeddings=False),
        vision_config=vision,
        audio_config={**hearing, "max_source_positions": 16, "output_dim": 64},
        image_token_index=image,
        video_token_index=video,
        audio_token_index=audio,
        **{name: special_id(token, OMNI) for name, token in _OMNI_EDGES.items()},
        eos_token_id=2,
    )
    pixels = hf.Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2, min_pixels=56 * 56, max_pixels=28 * 28 * 400)
    chat = CHATML.replace("IMAGE", "<|vision_bos|><|IMAGE|><|vision_eos|>")
    settings = {"chat_template": chat, "feature_extractor": {"feature_extractor_type": "WhisperFeatureExtractor"}}
    return config, pixels, byte_tokenizer(OMNI, **OMNI_NAMES), settings


_OMNI_EDGES = {
    "vision_start_token_id": "<|vision_bos|>", "vision_end_token_id": "<|vision_eos|>",
    "audio_start_token_id": "<|audio_bos|>", "audio_end_token_id": "<|audio_eos|>",
}  # fmt: skip


_TOWER_3 = _TOWER_25 | {"depth": 4, "num_position_embeddings": 256, "deepstack_visual_indexes": [0, 1, 2]}


del _TOWER_3["window_size"], _TOWER_3["fullatt_block_indexes"]


_MOE = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}


_GLM_IDS = {
    "image_token_id": special_id("<|image_pad|>"), "video_token_id": special_id("<|video_pad|>"),
    "image_start_token_id": special_id("<|vision_start|>"), "image_end_token_id": special_id("<|vision_end|>"),
    "video_start_token_id": special_id("<img>"), "video_end_token_id": special_id("</img>"),
}  # fmt: skip


def _glm(config: type, pixels: type) -> Callable[[int], Parts]:
    def make(layers: int) -> Parts:
        vision = {
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64, "image_size": 112,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        }  # fmt: skip
        text = {"model_type": "glm4v_text", "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
        whole = config(text_config=text_sizes(layers, **text), vision_config=vision, **_GLM_IDS)
        processor = pixels(
            patch_size=14, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 28 * 28 * 400}
        )
        return whole, processor, byte_tokenizer(image_token="<|image_pad|>", video_token="<|video_pad|>"), {"chat_template": QWEN_CHAT}

    return make


def _internvl(text: Callable[..., Any]) -> Callable[[int], Parts]:
    def make(layers: int) -> Parts:
        vision = {**VIT, "num_hidden_layers": 2, "image_size": [224, 224], "patch_size": [14, 14]}
        ids = {"image_token_id": special_id("<IMG_CONTEXT>"), "image_seq_length": 64, "downsample_ratio": 0.5}
        config = hf.InternVLConfig(vision_config=vision, text_config=text(**text_sizes(layers)), **ids)
        pixels = hf.GotOcr2ImageProcessorPil(size={"height": 224, "width": 224}, crop_to_patches=True, min_patches=1, max_patches=12)
        tokens = byte_tokenizer(
            start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
        )
        return config, pixels, tokens, {"image_seq_length": 64, "chat_template": INTERN_CHAT}

    return make


_TINY: dict[str, Callable[[int], Parts]] = {
    "llava-1.5": _llava,
    "llava-next": _llava_next,
    "llava-onevision": _llava_onevision,
    "qwen2-vl": _qwen(hf.Qwen2VLConfig, 14, {"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}, rope()),
    "qwen2.5-vl": _qwen(hf.Qwen2_5_VLConfig, 14, _TOWER_25, rope()),
    "qwen2.5-omni": _omni,
    "qwen3-vl": _qwen(hf.Qwen3VLConfig, 16, _TOWER_3, {"head_dim": 16, **rope(mrope_interleaved=True)}),
    "internvl-llama": _internvl(hf.LlamaConfig),
    "internvl-qwen2": _internvl(hf.Qwen2Config),
    "internvl-qwen3": _internvl(partial(hf.Qwen3Config, head_dim=16)),
    "qwen3-vl-moe": _qwen(hf.Qwen3VLMoeConfig, 16, _TOWER_3, {"head_dim": 16, **_MOE, **rope(mrope_interleaved=True)}),
    "llava-next-video": _llava_next_video,
    "glm4v": _glm(hf.Glm4vConfig, hf.Glm4vImageProcessorPil),
    "glm46v": _glm(hf.Glm46VConfig, hf.Glm46VImageProcessorPil),
    **TILES,
}


TINY = tuple(_TINY)


def tiny_model(
    name: str, *, layers: int = 6, seed: int = 0, attention: str = "sdpa", dtype: torch.dtype = torch.float32
) -> tuple[Any, Any, ModelFamily]:
    """Build a random checkpoint of a real class: about 0.3 M parameters.

    Weights are scaled so that logits are of order one and attention is far from uniform, as in a trained model.

    Args:
        name: one of `TINY`.
        layers: decoder layers. seed: of the weights. attention: implementation. dtype: of the weights.

    Returns:
        (model, processor, family).

    Example:
        >>> model, processor, family = tiny_model("qwen2.5-vl")
        >>> type(model).__name__, family.title
        ('Qwen2_5_VLForConditionalGeneration', 'Qwen2.5-VL')
    """
    config, image_processor, tokenizer, settings = _TINY[name](layers)
    family = families.get(config.model_type)
    experts = {"experts_implementation": "eager"} if hasattr(config.get_text_config(), "num_experts") else {}  # the others know no float64
    model = hf.AutoModelForImageTextToText.from_config(config, attn_implementation=attention, **experts)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim >= 2:
                fan_in = weight.shape[-1] if "embed" in parameter_name else weight.shape[1:].numel()
                weight.copy_(noise * 1.5 / math.sqrt(fan_in))
            else:
                plain = parameter_name.endswith("bias") or not weight.any()  # Gemma's norms multiply by 1 + weight
                weight.copy_(noise * 0.1 + (0 if plain else 1))
    model.generation_config.eos_token_id = None
    return model.to(dtype).eval(), build_processor(family, image_processor, tokenizer, settings), family


def tiny_inputs(family: ModelFamily, processor: Any, config: Any) -> dict[str, Any]:
    """A batch of two samples with different images and prompts; the first is left-padded.

    Example:
        >>> model, processor, family = tiny_model("llava-1.5")
        >>> sorted(tiny_inputs(family, processor, model.config))
        ['attention_mask', 'input_ids', 'pixel_values']
    """
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    pictures = [[Image.fromarray(pixels).resize(size)] for size in ((224, 224), (300, 150))]
    return family.prepare(processor, config, pictures, ["hi", "what is in this picture?"]).inputs


def save_tiny(name: str, directory: Path, **options: Any) -> Path:
    """Write a tiny checkpoint the way hub repositories look: config, safetensors, preprocessor, tokenizer, processor settings, template.

    Example:
        >>> from tempfile import mkdtemp
        >>> (save_tiny("llava-1.5", Path(mkdtemp()) / "tiny") / "config.json").is_file()
        True
    """
    import json

    model, processor, family = tiny_model(name, **options)
    settings = _TINY[name](1)[3]
    with staged(directory) as stage:
        model.save_pretrained(stage)
        processor.image_processor.save_pretrained(stage)
        processor.tokenizer.save_pretrained(stage)
    template = settings.pop("chat_template")
    write_file(directory / "chat_template.jinja", template)
    settings["processor_class"] = family.processor
    write_file(directory / "processor_config.json", json.dumps(settings, indent=2, sort_keys=True))
    return directory
