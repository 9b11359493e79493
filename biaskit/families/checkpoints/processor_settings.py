"""The settings of a processor that change a model's input, flat, so that two processors can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_NAMES_ONLY = ("image_processor_type", "processor_class", "auto_map", "transformers_version", "_name_or_path")
"""Parts of the serialised form that name classes and versions; a run records those elsewhere."""


def processor_settings(processor: Any) -> dict[str, Any]:
    """Return the settings of a processor and its image processor as plain JSON values: dotted name → value.

    The chat template goes in as its hash. The tokenizer and the video processor are left out.

    >>> from biaskit.testing import tiny_model
    >>> settings = processor_settings(tiny_model("llava-1.5")[1])
    >>> settings["image_processor.size.shortest_edge"], settings["patch_size"]
    (336, 14)
    """
    held = processor.to_dict() if hasattr(processor, "to_dict") else {}
    held = {name: value for name, value in held.items() if name not in ("tokenizer", "video_processor", "chat_template")}
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is not None:
        held["image_processor"] = image_processor.to_dict()
    template = json.dumps(getattr(processor, "chat_template", None), sort_keys=True)
    settings = {**_flat(held), "chat_template": f"sha256:{hashlib.sha256(template.encode()).hexdigest()}"}
    plain: dict[str, Any] = json.loads(json.dumps(settings, sort_keys=True, default=str))
    return plain


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in _NAMES_ONLY or value is None:
            continue
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
