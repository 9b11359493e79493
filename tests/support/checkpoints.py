"""Checkpoints of tests: tiny ones of every family, and those whose real small files there may be."""

from __future__ import annotations

from functools import cache
from typing import Any

DWARFS = {
    "llava-1.5-7b-hf": "llava",
    "llava-v1.6-vicuna-7b-hf": "next-vicuna",
    "llava-v1.6-mistral-7b-hf": "next-mistral",
    "llava-onevision-qwen2-7b-ov-hf": "ov",
    "Qwen2-VL-7B-Instruct": "qwen2",
    "Qwen2.5-VL-7B-Instruct": "qwen25-7b",
    "Qwen2.5-VL-3B-Instruct": "qwen25-3b",
    "Qwen3-VL-8B-Instruct": "qwen3",
    "InternVL2_5-8B-MPO-hf": "ivl25-8b",
    "InternVL2_5-2B-MPO-hf": "ivl25-2b",
    "InternVL3-8B-hf": "ivl3",
}
"""Checkpoint → its name in the builder of the real checkpoints' folder."""


@cache
def built(name: str, **options: Any) -> tuple[Any, Any, Any]:
    from biaskit.families.checkpoints.tiny import tiny_model

    return tiny_model(name, **options)
