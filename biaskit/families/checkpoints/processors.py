"""Load processors with or without torchvision.

With torchvision the stock `AutoProcessor` does everything. Without it the stock classes of several families refuse to load, because
of a video processor that images do not need; then the same classes are put together from their parts with the PIL image processor, without
a video processor and without Qwen2.5-Omni's audio feature extractor.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from biaskit.errors import ModelError
from biaskit.families.base import PREPROCESSOR, PROCESSOR, TOKENIZER, ModelFamily
from biaskit.families.checkpoints.hub import json_object


@cache
def images_only(processor_class: type) -> type:
    """Return a subclass of a stock processor class that accepts None for its parts for video and audio, and can be pickled."""

    def accept(self: Any, argument_name: str, argument: Any) -> type:
        return type(argument)

    def reduce(self: Any) -> tuple[Any, ...]:
        return _rebuild, (processor_class, self.__dict__)

    members = {"check_argument_for_proper_class": accept, "__reduce__": reduce, "__module__": processor_class.__module__}
    return type(processor_class.__name__, (processor_class,), members)


def _rebuild(processor_class: type, state: dict[str, Any]) -> Any:
    made: Any = object.__new__(images_only(processor_class))
    made.__dict__.update(state)
    return made


def build_processor(family: ModelFamily, image_processor: Any, tokenizer: Any, settings: dict[str, Any]) -> Any:
    """Put a family's processor together from an image processor, a tokenizer and the checkpoint's processor settings."""
    import transformers

    stock = getattr(transformers, family.processor)
    accepted = inspect.signature(stock.__init__).parameters
    parts = {"image_processor": image_processor, "tokenizer": tokenizer}
    parts |= {name: None for name in ("video_processor", "feature_extractor") if name in accepted}
    extra = {name: value for name, value in settings.items() if name in accepted and name not in parts}
    made = images_only(stock)(**parts, **extra)
    if hasattr(stock, "replace_multimodal_special_tokens"):  # Omni's, up to transformers 5.17 at least, asks for it with images alone, too
        made.video_processor = SimpleNamespace(merge_size=image_processor.merge_size)
    return made


def _image_processor(family: ModelFamily, target: str, where: dict[str, str]) -> Any:
    """Load the image processor that the checkpoint names, on PIL.

    Raises:
        ModelError: it names one that this installation does not have.
    """
    import transformers

    settings, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(target, **where)
    named = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or family.image_processor)
    kind = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    kind = _RENAMED.get(kind, kind)
    stock = getattr(transformers, kind + "Pil", None)
    if stock is None:
        raise ModelError(
            f'preprocessor_config.json of {target}: image_processor_type is "{named}", which does not run without torchvision here',
            f"the family's own is {family.image_processor}; install torchvision, or fix the key",
        )
    return stock.from_pretrained(target, **where)


_RENAMED = {"Qwen2_5_VLImageProcessor": "Qwen2VLImageProcessor"}
"""Image processors that the stock library has merged with another."""


def load_processor(family: ModelFamily, target: str, revision: str | None = None) -> Any:
    """Load the processor of a checkpoint directory or hub repository.

    Raises:
        ModelError: a file of the processor is missing or broken.
    """
    import transformers

    where = {} if revision is None else {"revision": revision}
    for name in (PREPROCESSOR, PROCESSOR, TOKENIZER, "tokenizer.json"):
        if (path := Path(target) / name).is_file():
            json_object(path)
    part = "the processor"
    try:
        if find_spec("torchvision") is not None:
            return transformers.AutoProcessor.from_pretrained(target, **where)
        stock, part = getattr(transformers, family.processor), PROCESSOR
        settings, _ = stock.get_processor_dict(target, **where)
        part = PREPROCESSOR
        image_processor = _image_processor(family, target, where)
        part = TOKENIZER
        tokenizer = transformers.AutoTokenizer.from_pretrained(target, **where)
    except ModelError:
        raise
    except Exception as error:  # a wrong value in a file raises whatever it leads to
        if isinstance(error, ImportError) and "orchvision" in str(error):
            raise ModelError(f"{family.processor} does not run without torchvision", "pip install 'biaskit[torchvision]'") from error
        raise _broken(target, error, part) from error
    if len(tokenizer) < 2:  # the stock loader makes an empty one where the files are missing
        raise ModelError(f"{target} has no tokenizer", "add its tokenizer.json and tokenizer_config.json")
    settings.setdefault("chat_template", getattr(tokenizer, "chat_template", None))
    try:
        return build_processor(family, image_processor, tokenizer, settings)
    except Exception as error:
        raise _broken(target, error, f"{PROCESSOR} or {TOKENIZER}") from error


def _broken(target: str, error: Exception, part: str) -> ModelError:
    """Explain why a stock processor does not load. A special token that the tokenizer lacks shows as a missing attribute only."""
    missing = re.search(r"has no attribute '?(\w+?_token)(_id)?\b", str(error))
    if isinstance(error, AttributeError) and missing:
        return ModelError(
            f"tokenizer_config.json of {target} does not name {missing[1]}, which the processor needs",
            f'add "{missing[1]}" to extra_special_tokens there (the current file of the original checkpoint has it)',
        )
    network = "" if Path(target).is_dir() else " (or the network)"
    return ModelError(
        f"{part} of {target} does not load: {type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}",
        f"check its preprocessor, tokenizer and chat-template files{network}",
    )
