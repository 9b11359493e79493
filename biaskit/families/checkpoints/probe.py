"""Try a checkpoint's processor on one made-up picture, so that its faults are not blamed on the user's pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from biaskit.errors import BiaskitError, ModelError
from biaskit.families.base import PREPROCESSOR, PROCESSOR, TOKENIZER, ModelFamily, Prepared, chat_text

_SIZE = (320, 240)


def probe(family: ModelFamily, processor: Any, config: Any, target: str) -> Prepared:
    """Prepare one picture and prompt, and check that placeholders, visual tokens and the tower's input size agree.

    Args:
        target: the checkpoint's name, for messages.

    Raises:
        ModelError: they do not. The message names the file and the key if these are known, else it quotes the processor's error.
    """
    from PIL import Image

    if getattr(processor.tokenizer, "pad_token", None) is None:
        raise _broken(target, TOKENIZER, "has no pad_token", f'add it, such as "pad_token": "{processor.tokenizer.eos_token}"')
    _check_template(processor, target)
    try:
        prepared = family.prepare(processor, config, [[Image.linear_gradient("L").convert("RGB").resize(_SIZE)]], ["Where?"])
    except Exception as error:  # settings of a wrong kind raise whatever they lead to
        why = error.message if isinstance(error, BiaskitError) else f"{type(error).__name__}: {error}"
        raise _explained(family, processor, config, target, why) or ModelError(
            f"the processor of {target} fails on a plain picture of {_SIZE[0]}×{_SIZE[1]} pixels: {why}",
            f"compare {PREPROCESSOR}, {PROCESSOR}, {TOKENIZER} and config.json with those of the original checkpoint",
        ) from error
    if not len(prepared.layouts[0]):
        raise _broken(target, "the chat template", "leaves the picture out", "take the original checkpoint's chat_template.jinja")
    return prepared


def _check_template(processor: Any, target: str) -> None:
    """The chat template must write the placeholder that the processor expands."""
    marker = getattr(processor, "image_token", None)
    if not isinstance(marker, str) or not marker:
        return
    text = chat_text(processor, "Where?")
    if text.count(marker) != 1:
        others = sorted({word for word in re.findall(r"<[^<>\s]*(?:image|img|IMG)[^<>\s]*>", text) if word != marker})
        seen = f"writes {', '.join(others)}" if others else f"writes {text.count(marker)} placeholders for one picture"
        raise ModelError(
            f"the chat template of {target} {seen}, but the processor expands {marker!r}",
            f"replace it by {marker!r} in chat_template.jinja (or .json), or take the current file of the original checkpoint",
        )


def _explained(family: ModelFamily, processor: Any, config: Any, target: str, why: str) -> ModelError | None:
    """Compare the processor's settings with what the config asks for; the first that differs is named, or one that the error names."""
    own, asked = getattr(processor, "image_token_id", None), config.image_token_id
    if own is not None and asked not in (own, getattr(processor.tokenizer, "image_token_id", None)):  # Gemma 3 has tokens of two kinds
        said = f"says that {asked!r} is the image placeholder, but the tokenizer's {processor.image_token!r} is {own}"
        return _broken(target, "config.json", said, f"write {own} into it, or take the original checkpoint's tokenizer files")
    parts: Mapping[str, Any] = {PROCESSOR: processor, PREPROCESSOR: processor.image_processor}
    for (file, key), wanted in family.processor_settings(config).items():
        found = getattr(parts[file], key, None)
        if not _same(found, wanted):
            said = "lacks" if found is None else f"has {key} = {found!r} for"
            name = f"{key}, which the model needs" if found is None else f"a model that needs {wanted!r}"
            return _broken(target, file, f"{said} {name}", f'write "{key}": {json.dumps(wanted)} into it')
    named = [key for key in re.findall(r"`(\w+)`", why) if hasattr(processor.image_processor, key)]
    if named:
        values = ", ".join(f"{key} = {getattr(processor.image_processor, key, None)!r}" for key in named)
        return _broken(target, PREPROCESSOR, f"does not fit together ({values}): {why}", "compare it with the original checkpoint's")
    return None


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return all((found.get(key) if isinstance(found, dict) else getattr(found, key, None)) == value for key, value in wanted.items())
    return bool(found == wanted) or (wanted is False and found is None)


def _broken(target: str, file: str, what: str, hint: str) -> ModelError:
    return ModelError(f"{file} of {target} {what}", hint)
