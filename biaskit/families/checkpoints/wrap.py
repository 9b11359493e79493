"""A checkpoint in memory, made from what a caller has: a name, a path, or a stock model with its processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from biaskit.errors import BiaskitError, ModelError
from biaskit.families import families
from biaskit.families.checkpoints.fingerprint import model_fingerprint
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.families.checkpoints.part import check_whole
from biaskit.registry import did_you_mean, named_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    AnyModel: TypeAlias = Loaded | PreTrainedModel | tuple[PreTrainedModel, Any] | str | os.PathLike[str]
    """A loaded checkpoint, a stock model and its processor, or a name for `load_model`."""


@named_arguments
def wrap_model(model: PreTrainedModel, processor: Any, *, name: str | None = None, revision: str | None = None) -> Loaded:
    """Return a stock model and its processor as a loaded checkpoint. Neither is changed.

    Args:
        model: a model of a supported class, in eval mode. processor: what `AutoProcessor` gave for the checkpoint.
        name: what priors and results call it; by default the name it was loaded by.
        revision: tells it from others of that name; by default a hash of every weight, which takes about a second per gigabyte.

    Raises:
        ModelError: the model's class is not supported or it is in training mode, or `processor` is not a processor of images and text.

    >>> from biaskit.testing import tiny_model
    >>> model, processor, _ = tiny_model("llava-1.5")
    >>> wrap_model(model, processor, name="tiny", revision="1")
    Loaded('tiny', revision '1': LlavaForConditionalGeneration, float32 on cpu)
    """
    config = getattr(model, "config", None)
    model_type = str(getattr(config, "model_type", ""))
    if not model_type or not hasattr(model, "get_decoder"):
        raise ModelError(f"{type(model).__name__} is not a model that biaskit can run", "give a stock model of transformers, or a name")
    check_whole(model)
    if model_type not in families:
        raise ModelError(f"no family covers a {model_type!r} model", did_you_mean(model_type, families.names()))
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"a {type(processor).__name__} is not a processor of images and text",
            "give what AutoProcessor.from_pretrained(…) returns for the same checkpoint",
        )
    if model.training:
        raise ModelError("the model is in training mode, in which dropout changes attention", "call model.eval() first")
    family = families.get(model_type)
    family.check(config)
    given = str(getattr(config, "_name_or_path", "") or "")
    called = name or (Path(given).resolve().name if Path(given).is_dir() and given else given) or type(model).__name__
    return Loaded(model, processor, family, called, revision or model_fingerprint(model))


def as_loaded(model: AnyModel) -> Loaded:
    """Return the checkpoint that a caller means.

    Raises:
        ModelError: as `load_model` and `wrap_model`; a stock model that comes without its processor.
    """
    if isinstance(model, Loaded):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(model)
    if isinstance(model, tuple | list) and len(model) == 2:
        return wrap_model(model[0], model[1])
    if hasattr(model, "get_decoder"):
        raise ModelError(
            f"the {type(model).__name__} comes without its processor",
            "give both, as (model, processor), or load the checkpoint with biaskit.load_model(…)",
        )
    raise BiaskitError(
        f"{type(model).__name__} {model!r:.60} is not a model",
        "give a name, a directory, (model, processor) or biaskit.load_model's result",
    )
