"""Decoding: plain greedy, ignoring the checkpoint's own generation config, unless settings are given by name.

A checkpoint's config is made for conversation. Qwen2.5-VL ships repetition_penalty 1.05, which is applied under greedy decoding too and
lowers the logits of digits in the prompt or an earlier coordinate; others sample, use beam search, or switch the cache off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from biaskit.errors import BiaskitError

_ALWAYS: dict[str, Any] = {"do_sample": False, "num_beams": 1, "use_cache": True, "repetition_penalty": 1.0}
_NEUTRAL: dict[str, Any] = {
    **_ALWAYS,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "early_stopping": False,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "return_dict_in_generate": False,
}
_VOCABULARY = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens")
_LENGTH = ("max_length", "max_new_tokens")
_OURS = {
    "max_new_tokens": "it is the task's, or --max-new-tokens",
    "max_length": "give --max-new-tokens",
    "num_return_sequences": "one answer is read per question",
    "return_dict_in_generate": "the tokens alone are read",
    "use_cache": "without a cache, every token would be a prefill with a decision of its own",
    "prefill_chunk_size": "the decision needs the whole prompt",
}


def greedy_settings(model: PreTrainedModel, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return arguments of `generate()` that override the checkpoint's own generation config, except for its token ids.

    Args:
        model: whose `generate()` is called. overrides: wanted settings, by name.

    Example:
        >>> from types import SimpleNamespace
        >>> own = GenerationConfig(repetition_penalty=1.05, top_k=1, do_sample=True, eos_token_id=2)
        >>> found = greedy_settings(SimpleNamespace(generation_config=own), {"no_repeat_ngram_size": 3})
        >>> found["repetition_penalty"], found["do_sample"], found["top_k"], "eos_token_id" in found, found["no_repeat_ngram_size"]
        (1.0, False, 50, False, 3)
    """
    aside = {name: _neutral(name) for name in _set_by(model)}
    return {**aside, **_ALWAYS, **(overrides or {})}


def generation_in_force(model: PreTrainedModel, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decoding depends on, by name: the checkpoint's token ids, and `settings` without those that are None."""
    own = {name: value for name, value in _own(model).items() if _is_vocabulary(name)}
    return {name: value for name, value in sorted({**own, **settings}.items()) if value is not None and name not in _LENGTH}


def put_aside(model: PreTrainedModel, settings: Mapping[str, Any]) -> str | None:
    """Return a message about settings of the checkpoint's own generation config that are not used; None if all are."""
    own = {name: value for name, value in _set_by(model).items() if settings.get(name, value) != value}
    if not own:
        return None
    names = ", ".join(f"{name}={value}" for name, value in own.items())
    return f"the checkpoint's own {names} is not used: answers are decoded greedily (--generation KEY=VALUE, generation={{…}} set it)"


def check_generation(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a user's settings, after checking their names.

    Raises:
        BiaskitError: `generate()` has no such setting, or another option sets it.

    Example:
        >>> check_generation({"repetition_penalty": 1.05})
        {'repetition_penalty': 1.05}
    """
    known = GenerationConfig()
    for name in overrides or {}:
        if name.startswith("_") or not hasattr(known, name) or callable(getattr(known, name)):
            raise BiaskitError(
                f"generate() has no setting {name!r}", "name one of transformers' GenerationConfig, such as repetition_penalty"
            )
        if name in _OURS:
            raise BiaskitError(f"the setting {name} cannot be chosen", _OURS[name])
    return dict(overrides or {})


def _own(model: PreTrainedModel) -> dict[str, Any]:
    """The entries of the checkpoint's generation config that the stock `generate()` knows."""
    if model.generation_config is None:
        return {}
    known = GenerationConfig()
    return {
        name: value
        for name, value in model.generation_config.to_dict().items()
        if value is not None and not name.startswith("_") and name != "transformers_version" and hasattr(known, name)
    }


def _set_by(model: PreTrainedModel) -> dict[str, Any]:
    """Those of them that change decoding."""
    return {
        name: value for name, value in _own(model).items() if not _is_vocabulary(name) and name not in _LENGTH and value != _neutral(name)
    }


def _is_vocabulary(name: str) -> bool:
    return name.endswith("_token_id") or name in _VOCABULARY


def _neutral(name: str) -> Any:
    return _NEUTRAL.get(name, getattr(GenerationConfig(), name, None))
