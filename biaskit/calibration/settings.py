"""All settings that the result of a calibration depends on: compared when a state is resumed, and recorded in the prior."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from biaskit.calibration.options import Options
from biaskit.errors import CalibrationError, PriorError
from biaskit.families.checkpoints.decoder import decoder_config
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.processor_settings import processor_settings
from biaskit.files import VERSION
from biaskit.images import ImageSource
from biaskit.prior.revision import read_settings
from biaskit.prior.value import Prior
from biaskit.text import differences

_IN_THE_MAPS = ("layers", "per_head", "groups", "n_images")
"""Settings that are not in a prior's metadata, because its tensors or counts show them."""


def all_settings(loaded: Loaded, source: ImageSource, options: Options, *, samples: int, layers: Sequence[int]) -> dict[str, Any]:
    """Return the settings as JSON values. Equal settings give equal bytes with the same library versions."""
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
    """Return the settings as metadata of a prior: flat strings, with JSON for values that are not text.

    >>> provenance({"model": "org/name", "seed": 0, "layers": [1, 4]})
    {'model': 'org/name', 'seed': '0'}
    """
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items() if name not in _IN_THE_MAPS}


_OTHER_PLACE = "choose another --out, or overwrite it with --force"


def finished_prior(out: Path, model: str, settings: Mapping[str, Any] | None = None, *, exact: bool = True) -> Prior:
    """Return the prior on disk if a calibration of this model, and with these settings, wrote it.

    Raises:
        CalibrationError: it did not; the message says what differs.
    """
    try:
        prior = Prior.load(out)
    except PriorError as error:
        raise CalibrationError(f"{out} exists, and is not a prior: {error.message}", _OTHER_PLACE) from None
    if prior.meta.get("model") != model:
        raise CalibrationError(f"{out} exists, and is of {prior.meta.get('model') or 'an unnamed model'}, not {model}", _OTHER_PLACE)
    if differing := [] if settings is None else changed(prior, settings, exact=exact):
        raise CalibrationError(f"{out} exists, of a calibration with other settings: {'; '.join(differing)}", _OTHER_PLACE)
    return prior


def changed(prior: Prior, settings: Mapping[str, Any], *, exact: bool = True) -> list[str]:
    """Return the differences between a prior's settings and others; [] if these would make the same bytes.

    Args:
        exact: False if `n_images` is the size of the source, in which some images may have been unusable.
    """
    old: dict[str, Any] = {**prior.meta, "processor": read_settings(prior.meta.get("processor", ""))}
    new = {**provenance(settings), "processor": settings["processor"]}
    found = differences({name: old.get(name) for name in new}, new)
    found += differences({"layers": list(prior.layers)}, {"layers": list(settings["layers"])})
    wanted, made = int(settings["n_images"]), prior.n_images
    tried = made if exact else made + int(old.get("n_skipped", "0"))
    if not made <= wanted <= tried:
        found.append(f"n_images was {made}, is {wanted}")
    heads = any(stats.head_mean is not None for stats in prior.planes.values())
    found += differences({"per_head": heads}, {"per_head": settings["per_head"]})
    groups = {len(stats.group_mean) for stats in prior.planes.values() if stats.group_mean is not None}
    if groups and groups != {min(settings["groups"], wanted)}:
        found.append(f"groups was {max(groups)}, is {settings['groups']}")
    return found
