"""A model that is part of a larger one: the thinker of Qwen2.5-Omni, without the parts that speak. Families name it in `within`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from biaskit.errors import BiaskitError, ModelError
from biaskit.families import ModelFamily, families
from biaskit.families.checkpoints.catalog import Place
from biaskit.families.checkpoints.hub import hub_errors, of_revision


def family_of(model_type: str) -> ModelFamily | None:
    """Return the family of a model type, or of the part that a family reads of such a model; None if there is neither.

    >>> family_of("qwen2_5_omni") is family_of("qwen2_5_omni_thinker"), family_of("bert")
    (True, None)
    """
    if model_type in families:
        return families.get(model_type)
    return next((family for _, family in families if model_type in family.within), None)


def supported_types() -> list[str]:
    """Return every model type whose checkpoints load, sorted."""
    return sorted({*families.names(), *(whole for _, family in families for whole in family.within)})


def check_whole(model: Any) -> None:
    """Refuse a model in memory of which a family reads a part.

    Raises:
        ModelError: it is one; the hint names the part.
    """
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    found = None if kind in families else family_of(kind)
    if found is not None:
        part = found.within[kind].removesuffix("_config")
        raise ModelError(f"{type(model).__name__} has further parts beside its {part}, which is what sees", f"give model.{part}")


def read_config(family: ModelFamily, place: Place, revision: str | None, settings: Mapping[str, Any]) -> Any:
    """Return a checkpoint's config as the stock library reads it; of a larger model, that of the family's part.

    Args:
        settings: its config.json.

    Raises:
        ModelError: it does not load, does not have the part, or the larger model is quantised.
    """
    import transformers

    again = "download or save the checkpoint again"
    part = _part(family, settings)
    mine = settings.get(part) if part else {}
    if not isinstance(mine, dict) or (part and family_of(str(mine.get("model_type"))) is not family):
        raise ModelError(f"config.json of {place.target} has no {part} of a {family.title} model", again)
    if part and settings.get("quantization_config"):
        raise ModelError(
            f"the weights of {place.target} are quantised together with parts that are left out ({', '.join(_rest(family, settings))})",
            "use the original checkpoint in bfloat16",
        )
    try:
        with hub_errors(place):
            if part:  # read by itself: the stock library remarks on the values of the other parts
                return transformers.AutoConfig.for_model(**mine, name_or_path=place.target)
            return transformers.AutoConfig.from_pretrained(place.target, **of_revision(place, revision))
    except BiaskitError:
        raise
    except Exception as error:  # the stock library checks each field, with errors of its own kinds
        why = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise ModelError(f"config.json of {place.target} does not load: {why}", again) from error


def _part(family: ModelFamily, settings: Mapping[str, Any]) -> str:
    """Return the name of the family's part in a config.json, "" if the family is that of the whole model."""
    return family.within.get(str(settings.get("model_type")), "")


def _rest(family: ModelFamily, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts of a larger model that are left out."""
    own = _part(family, settings)
    parts = [name for name, value in settings.items() if own and isinstance(value, dict)]
    return [name.removesuffix("_config") for name in parts if name not in (own, "quantization_config")]


@contextmanager
def part_alone(family: ModelFamily, settings: Mapping[str, Any], config: Any) -> Iterator[dict[str, Any]]:
    """Give what the stock loader takes to read a part alone, nothing for a whole model; inside, nothing is logged about other parts.

    Args:
        settings: config.json. config: what `read_config` returned.
    """
    rest = _rest(family, settings)

    def of_weights(record: logging.LogRecord) -> bool:
        lines = record.getMessage().splitlines()
        unknown = [line.strip() for line in lines if "| UNEXPECTED" in line]
        others = any(f"| {kind}" in line for line in lines for kind in ("MISSING", "MISMATCH", "CONVERSION"))
        return not unknown or others or not all(line.startswith(tuple(f"{name}." for name in rest)) for line in unknown)

    def of_values(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Model config: ")  # of the larger model, which the tokenizer's loader reads again

    tells = {"modeling_utils": of_weights, "configuration_utils": of_values} if rest else {}
    try:
        for name, filtered in tells.items():
            logging.getLogger(f"transformers.{name}").addFilter(filtered)
        yield {"config": config} if _part(family, settings) else {}
    finally:
        for name, filtered in tells.items():
            logging.getLogger(f"transformers.{name}").removeFilter(filtered)


def end_answers(model: Any, tokenizer: Any, *, foreign: bool) -> None:
    """Give a model that was published as part of a larger one the token that ends its answers, without which they run to the limit.

    It is taken from the model's config or its text model's, else from the generation config, else from the tokenizer.

    Args:
        foreign: the generation config is that of the larger model, whose speech may end otherwise; else it goes first.
    """
    kinds = [model.config, model.config.get_text_config(), tokenizer]
    kinds.insert(2 if foreign else 0, model.generation_config)
    found = (getattr(kind, "eos_token_id", None) for kind in kinds)
    model.generation_config.eos_token_id = next((one for one in found if one is not None), None)
