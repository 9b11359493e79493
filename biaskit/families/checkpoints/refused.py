"""Checkpoints that are refused: adapters, quantised weights without their library, architectures that cannot be measured."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from biaskit.errors import ModelError
from biaskit.families import ModelFamily
from biaskit.families.checkpoints.catalog import Place, needs_code
from biaskit.families.checkpoints.part import family_of, supported_types

_LINEAR = (
    "its layers are mostly linear attention: there is no attention row to read, and their state still contains dropped tokens",
    "use a model whose layers all have softmax attention, such as Qwen3-VL",
)
_LIST = "use a supported family (biaskit models list)"
_TWO_WAYS = (
    "its whole prompt, text too, attends in both directions, but pruned layers mask text causally: results would not be exact",
    _LIST,
)
_SHARED = (
    "its layers can reuse keys and values of earlier ones, which would have to be pruned with them, and no family covers it",
    _LIST,
)
_JUDGE = (
    "its head says yes or no to a policy instead of writing an answer",
    "use a Gemma 3 checkpoint, whose tower and language model are of the same kind",
)
_OMNI = (
    "its thinker, the part that sees and writes, is of Qwen3-VL-MoE's kind, beside parts for hearing and speech; no family covers it yet",
    "use a Qwen3-VL checkpoint of the same kind, such as qwen3-vl-30b-a3b, or a Qwen2.5-Omni checkpoint",
)

UNFIT = {
    "qwen3_5": _LINEAR,
    "qwen3_5_moe": _LINEAR,
    "minicpmv4_6": _LINEAR,
    "minicpmv4_7": _LINEAR,
    "gemma3n": _SHARED,
    "gemma4": _SHARED,
    "gemma4_unified": _SHARED,
    "shieldgemma2": _JUDGE,
    "qwen3_omni_moe": _OMNI,
    "qwen3_omni_moe_thinker": _OMNI,
    "paligemma": _TWO_WAYS,
    "mllama": (
        "it reads images by cross attention: there are no visual tokens in the sequence",
        _LIST,
    ),
}
"""Model types that no family covers: (reason, what to do)."""

_QUANTISED = {
    "bitsandbytes": ("bitsandbytes", ("bitsandbytes",)),
    "awq": ("AWQ", ("gptqmodel", "awq")),
    "gptq": ("GPTQ", ("gptqmodel",)),
    "compressed-tensors": ("compressed-tensors", ("compressed_tensors",)),
    "fp8": ("FP8", ()),
}


def find_family(place: Place, settings: dict[str, Any]) -> ModelFamily:
    """Return the family of a checkpoint from its config.json.

    Raises:
        ModelError: it needs remote code, or its class is not supported.
    """
    model_type = str(settings.get("model_type", "?"))
    family = family_of(model_type)
    if family is not None and "auto_map" not in settings and not _foreign(settings):
        return family
    if "auto_map" in settings or _foreign(settings):
        raise needs_code(place.target)
    if model_type in UNFIT:
        reason, hint = UNFIT[model_type]
        raise ModelError(f"{place.target} is a {model_type!r} model: {reason}", hint)
    raise ModelError(
        f"{place.target} is a {model_type!r} model, which no family covers", f"supported model types: {', '.join(supported_types())}"
    )


def _foreign(settings: dict[str, Any]) -> bool:
    """True if a config was written by the original LLaVA code, which shares model types with the stock classes."""
    names = settings.get("architectures")
    return isinstance(names, list) and any("ForCausalLM" in str(name) and "Llava" in str(name) for name in names)


def check_adapter(directory: Path) -> None:
    """Refuse the directory of an adapter, and a checkpoint with an adapter beside it.

    Raises:
        ModelError: with the way to merge it.
    """
    path = directory / "adapter_config.json"
    if not path.is_file():
        return
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") or "its base model"
    except (ValueError, AttributeError):
        base = "its base model"
    merge = (
        f"model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained({base!r}), {str(directory)!r}).merge_and_unload(); "
        "model.save_pretrained(OUT), and copy the base model's processor files there"
    )
    if (directory / "config.json").is_file():
        raise ModelError(
            f"{directory} has an adapter (adapter_config.json) beside a full checkpoint, and which of the two is meant is not clear",
            f"move adapter_* away if it is merged already; else merge it first: {merge}",
        )
    raise ModelError(f"{directory} is an adapter of {base}, not a checkpoint", f"merge it first: {merge}")


def quantisation(settings: dict[str, Any], target: str, device: str) -> str:
    """Return how a checkpoint's weights are quantised, as text to show; "" if they are not.

    Args:
        settings: its config.json. device: where it will run.

    Raises:
        ModelError: the stock library cannot run such weights here.
    """
    found = settings.get("quantization_config") or (settings.get("text_config") or {}).get("quantization_config")
    if not found:
        return ""
    method = str(found.get("quant_method") or ("bitsandbytes" if found.get("load_in_4bit") or found.get("load_in_8bit") else "unknown"))
    title, packages = _QUANTISED.get(method, (method, ()))
    bits = found.get("bits") or {True: 4}.get(found.get("load_in_4bit")) or {True: 8}.get(found.get("load_in_8bit"))
    name = f"{title} ({bits} bit)" if bits else title
    original = "use the original checkpoint in bfloat16"
    if device == "cpu":
        raise ModelError(f"the weights of {target} are quantised with {name}, which runs on a GPU", f"{original}, or a GPU")
    if packages and not any(find_spec(package) for package in packages):
        raise ModelError(f"the weights of {target} are quantised with {name}", f"install {' or '.join(packages)}, or {original}")
    return name
