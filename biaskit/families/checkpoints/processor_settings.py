"""The settings of a processor that change a model's input, flat, so that two processors can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

_NAMES_ONLY = ("image_processor_type", "processor_class", "auto_map", "transformers_version", "_name_or_path")
"""Parts of the serialised form that name classes and versions; a run records those elsewhere."""

_LEFT_OUT = ("tokenizer", "video_processor", "feature_extractor", "chat_template")

_SAMPLE = "Where is the Dog?  Is it 12.5 px left of <b>ÉTÉ</b> e\u0301\n\n 狗在哪里 🙂 don't"
"""Letters of both cases, digits, runs of blanks, other scripts, a combining accent."""
_digests: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()


def processor_settings(processor: Any) -> dict[str, Any]:
    """Return the settings of a processor and its image processor as plain JSON values: dotted name → value.

    The chat template goes in as its hash, the tokenizer as that of its vocabulary and of how it cuts a sample. What videos and sounds are
    processed with is left out.

    >>> from biaskit.testing import tiny_model
    >>> settings = processor_settings(tiny_model("llava-1.5")[1])
    >>> settings["image_processor.size.shortest_edge"], settings["patch_size"]
    (336, 14)
    """
    held = processor.to_dict() if hasattr(processor, "to_dict") else {}
    held = {name: value for name, value in held.items() if name not in _LEFT_OUT}
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is not None:
        held["image_processor"] = image_processor.to_dict()
    template = json.dumps(getattr(processor, "chat_template", None), sort_keys=True)
    settings = {**_flat(held), "chat_template": f"sha256:{hashlib.sha256(template.encode()).hexdigest()}"}
    tokenizer = getattr(processor, "tokenizer", None)
    if hasattr(tokenizer, "get_vocab"):
        settings["tokenizer"] = _tokenizer_digest(tokenizer)
    plain: dict[str, Any] = json.loads(json.dumps(settings, sort_keys=True, default=str))
    return plain


def _tokenizer_digest(tokenizer: Any) -> str:
    """Hash what a tokenizer does, not how a release writes it to disk; computed once for each size of the vocabulary."""
    size = len(tokenizer)
    if tokenizer not in _digests or _digests[tokenizer][0] != size:
        seen = [sorted(tokenizer.get_vocab().items()), tokenizer.encode(_SAMPLE)]
        _digests[tokenizer] = size, hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    return f"sha256:{_digests[tokenizer][1]}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in _NAMES_ONLY or value is None:
            continue
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
