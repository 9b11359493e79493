"""Build a checkpoint's architecture with random weights, directly on the device, and a processor to go with it. No hub, no files.

Shapes, dtypes and code paths are the real ones, so time and memory are those of the real checkpoint; answers are noise. The tokenizer is
one of bytes; ids of special tokens are its own. Priors are flat: the values of A_bias do not matter for the time they take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import transformers as hf

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.device import find_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.processors import build_processor
from biaskit.families.checkpoints.sizes import Sizes, Tower, shrunk, sizes
from biaskit.families.checkpoints.tiny_parts import CHAT, QWEN_IDS, Parts, byte_tokenizer, special_id


def random_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "sdpa",
    shrink: tuple[int, int] | None = None,
    seed: int = 0,
) -> Loaded:
    """Build a checkpoint's architecture with random weights.

    Args:
        name: short name or hub id of a checkpoint in the catalogue.
        device, attention: as `load_model`. dtype: `auto` is bfloat16 on a GPU, float32 on a CPU.
        shrink: (channels, layers) of a smaller language model of the same kind, or None for the full size.
        seed: of the weights.

    Raises:
        ModelError: unknown name, device or dtype, or not enough memory.
    """
    found = sizes(name) if shrink is None else shrunk(sizes(name), *shrink)
    where = find_device(device)
    wanted = ("float32" if where == "cpu" else "bfloat16") if dtype == "auto" else dtype
    kind = getattr(torch, wanted, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ModelError(f"unknown dtype {dtype!r}", "use auto, bfloat16, float16, float32")
    config, image_processor, tokenizer, settings = parts(found)
    family = families.get(found.model_type)
    try:
        with torch.device(where):
            model = hf.AutoModelForImageTextToText.from_config(config, attn_implementation=attention, dtype=kind)
        _fill(model.named_parameters(), where, seed)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{name} does not fit into the memory of {where}", "choose a smaller model, or --shrink 1024x16") from error
    model.generation_config.eos_token_id = None
    title = name if shrink is None else f"{name}-{shrink[0]}x{shrink[1]}"
    processor = build_processor(family, image_processor, tokenizer, settings)
    return Loaded(model.eval().requires_grad_(False), processor, family, title, "random-weights")


@torch.no_grad()
def _fill(named: Iterable[tuple[str, torch.Tensor]], device: str, seed: int) -> None:
    """Scale weights so that activations keep their size through the layers, which the stock initialisation does not ensure."""
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in named:
        if weight.ndim < 2:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            fan_in = weight.shape[-1] if "embed" in name else weight.shape[1:].numel()
            weight.normal_(0.0, 1 / math.sqrt(fan_in), generator=generator)


def parts(found: Sizes) -> Parts:
    """Return (config, image processor, tokenizer, processor settings) of an architecture."""
    return _BUILDERS[found.model_type](found)


def _text(found: Sizes) -> dict[str, Any]:
    dims = found.text
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": found.theta}
    if found.mrope is not None:
        rope["mrope_section"] = list(found.mrope)
        if found.model_type == "qwen3_vl":
            rope["mrope_interleaved"] = True
    return {
        "vocab_size": dims.vocab, "hidden_size": dims.hidden, "intermediate_size": dims.inner, "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.heads, "num_key_value_heads": dims.kv_heads, "head_dim": dims.head_dim, "rope_parameters": rope,
        "max_position_embeddings": 131072, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": found.tied,
    }  # fmt: skip


def _vit(tower: Tower) -> dict[str, Any]:
    return {
        "hidden_size": tower.hidden, "intermediate_size": tower.inner, "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
    }  # fmt: skip


def _decoder(found: Sizes) -> Any:
    return (hf.Qwen2Config if found.text_type == "qwen2" else hf.LlamaConfig)(**_text(found))


_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _llava(found: Sizes) -> Parts:
    tower, image = found.tower, special_id("<image>")
    vision = hf.CLIPVisionConfig(**_vit(tower), image_size=tower.image, patch_size=tower.patch, projection_dim=768)
    shared = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default", "image_token_index": image, "image_token_id": image}
    square = {"size": {"shortest_edge": tower.image}, "crop_size": {"height": tower.image, "width": tower.image}}
    settings = {
        "patch_size": tower.patch, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
        "chat_template": CHAT["llava"],
    }  # fmt: skip
    tokens = byte_tokenizer(image_token="<image>")
    if found.model_type == "llava":
        return (
            hf.LlavaConfig(vision_config=vision, text_config=_decoder(found), **shared),
            hf.CLIPImageProcessorPil(**square),
            tokens,
            settings,
        )
    config = hf.LlavaNextConfig(vision_config=vision, text_config=_decoder(found), image_grid_pinpoints=_PINPOINTS, **shared)
    return config, hf.LlavaNextImageProcessorPil(**square, image_grid_pinpoints=_PINPOINTS), tokens, settings


def _onevision(found: Sizes) -> Parts:
    tower = found.tower
    vision = hf.SiglipVisionConfig(**_vit(tower), image_size=tower.image, patch_size=tower.patch, vision_use_head=False)
    grid = [[tower.image * rows, tower.image * cols] for rows in range(1, 7) for cols in range(1, 7)]
    image, video = special_id("<image>"), special_id("<video>")
    shared = {"vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}
    both = {"vision_config": vision, "text_config": _decoder(found)}
    config = hf.LlavaOnevisionConfig(
        **both, image_token_index=image, image_token_id=image, video_token_index=video, video_token_id=video,
        image_grid_pinpoints=grid, vision_feature_layer=-1, **shared,
    )  # fmt: skip
    pixels = hf.LlavaOnevisionImageProcessorPil(size={"height": tower.image, "width": tower.image}, image_grid_pinpoints=grid)
    settings = {**shared, "num_image_tokens": (tower.image // tower.patch) ** 2, "chat_template": CHAT["llava"]}
    return config, pixels, byte_tokenizer(image_token="<image>", video_token="<video>"), settings


def _qwen(found: Sizes) -> Parts:
    tower, width = found.tower, found.text.hidden
    vision: dict[str, Any] = {
        "depth": tower.layers, "num_heads": tower.heads, "patch_size": tower.patch, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    last = tower.layers - 1
    if found.model_type == "qwen2_vl":
        vision |= {"embed_dim": tower.hidden, "hidden_size": width, "mlp_ratio": tower.inner // tower.hidden}
    else:
        vision |= {"hidden_size": tower.hidden, "intermediate_size": tower.inner, "out_hidden_size": width}
    if found.model_type == "qwen2_5_vl":
        vision |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31] if last >= 31 else [last]}
    if found.model_type == "qwen3_vl":
        vision |= {"num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24] if last >= 24 else [0, 1, 2]}
    kinds = {"qwen2_vl": hf.Qwen2VLConfig, "qwen2_5_vl": hf.Qwen2_5_VLConfig, "qwen3_vl": hf.Qwen3VLConfig}
    config = kinds[found.model_type](text_config=_text(found), vision_config=vision, tie_word_embeddings=found.tied, **QWEN_IDS)
    side = 2 * tower.patch
    pixels = hf.Qwen2VLImageProcessorPil(
        patch_size=tower.patch, merge_size=2, temporal_patch_size=2, min_pixels=4 * side * side, max_pixels=16384 * side * side
    )
    return config, pixels, byte_tokenizer(), {"chat_template": CHAT["qwen"]}


def _internvl(found: Sizes) -> Parts:
    tower = found.tower
    vision = {**_vit(tower), "image_size": [tower.image] * 2, "patch_size": [tower.patch] * 2}
    length = (tower.image // tower.patch // 2) ** 2
    both = {"vision_config": vision, "text_config": _decoder(found)}
    config = hf.InternVLConfig(
        **both, image_token_id=special_id("<IMG_CONTEXT>"), image_seq_length=length, downsample_ratio=0.5,
        tie_word_embeddings=found.tied,
    )  # fmt: skip
    pixels = hf.GotOcr2ImageProcessorPil(
        size={"height": tower.image, "width": tower.image}, crop_to_patches=True, min_patches=1, max_patches=12
    )
    tokens = byte_tokenizer(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")
    return config, pixels, tokens, {"image_seq_length": length, "chat_template": CHAT["internvl"]}


_BUILDERS: dict[str, Callable[[Sizes], Parts]] = {
    "llava": _llava, "llava_next": _llava, "llava_onevision": _onevision, "internvl": _internvl,
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _qwen),
}  # fmt: skip
