"""Everything the result of a calibration depends on: what its state must share to go on, and what its prior says of where it is from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

from biaskit.calibration.options import Options
from biaskit.families.checkpoints.decoder import decoder_config
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.processor_settings import processor_settings
from biaskit.files import VERSION
from biaskit.images import ImageSource

_IN_THE_MAPS = ("layers", "per_head", "groups", "n_images")
"""Settings that a prior shows by its tensors, or counts itself."""


def all_settings(loaded: Loaded, source: ImageSource, options: Options, *, samples: int, layers: Sequence[int]) -> dict[str, Any]:
    """Return the settings as JSON values. Two calibrations that share them give the same bytes on the same stack."""
    processor = loaded.processor
    template = json.dumps(getattr(processor, "chat_template", None), sort_keys=True)
    return {
        "version": VERSION,
        "model": loaded.name,
        "revision": loaded.revision,
        "model_type": loaded.model.config.model_type,
        "prompt": list(options.prompts),
        "wording": loaded.wording.templates(),
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "image_processor": type(processor.image_processor).__name__,
        "processor": processor_settings(processor),
        "source": source.name,
        "source_fingerprint": source.fingerprint(),
        "n_images": samples,
        "seed": options.seed,
        "layers": list(layers),
        "per_head": options.per_head,
        "rows": options.rows,
        "groups": options.groups,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "attention": decoder_config(loaded.model)._attn_implementation,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def provenance(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings as a prior's metadata has them: flat strings, whatever is not text as JSON.

    >>> provenance({"model": "org/name", "seed": 0, "layers": [1, 4]})
    {'model': 'org/name', 'seed': '0'}
    """
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items() if name not in _IN_THE_MAPS}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say of every setting that differs what it was and what it is; of a mapping only its parts that differ.

    >>> differences({"seed": 0, "processor": {"size": 336, "pad": True}}, {"seed": 0, "processor": {"size": 224, "pad": True}})
    ['processor size was 336, is 224']
    """
    found: list[str] = []
    for name in dict.fromkeys((*old, *new)):
        mine, theirs = old.get(name), new.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += [f"{name} {part}" for part in differences(mine, theirs)]
        elif mine != theirs:
            found.append(f"{name} was {_short(mine)}, is {_short(theirs)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
