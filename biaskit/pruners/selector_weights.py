"""Weights of a trained VisionSelector scorer: two linear maps in a safetensors file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from biaskit.errors import BiaskitError

_PARTS = ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")


@dataclass(frozen=True, eq=False)
class Selector:
    """A scorer's linear maps.

    Attributes:
        query, key: weight [h, d] and bias [h].
    """

    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]


def read_selector(path: str | os.PathLike[str]) -> Selector:
    """Read `q_proj` and `k_proj`, weight and bias, from a safetensors file.

    As published they are either the whole file, or part of a model's checkpoint under `visual.importance_scorer.`; wrappers' prefixes
    (`module.`, `_orig_mod.`) do not matter. Nothing else is read into memory.

    Raises:
        BiaskitError: the file is missing or unreadable, or does not hold exactly one scorer of matching shapes.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    hint = "give the safetensors file of a VisionSelector scorer: q_proj and k_proj, weight and bias"
    try:
        with safe_open(path, framework="pt") as file:
            found = {part: [key for key in file.keys() if _is(part, key)] for part in _PARTS}  # noqa: SIM118  (no mapping)
            tensors = {part: [file.get_tensor(key) for key in keys[:1]] for part, keys in found.items() if len(keys) == 1}
    except (OSError, SafetensorError) as error:
        raise BiaskitError(f"cannot read selector weights {path}: {error}", hint) from None
    for part, keys in found.items():
        if len(keys) != 1:
            raise BiaskitError(f"{path} has {len(keys)} tensors {part} of a scorer, not one", hint)
    query_weight, query_bias, key_weight, key_bias = (tensors[part][0] for part in _PARTS)
    hidden = len(query_bias)
    if query_weight.ndim != 2 or key_weight.shape != query_weight.shape or not hidden == len(key_bias) == len(query_weight):
        raise BiaskitError(
            f"{path}: q_proj {list(query_weight.shape)} and k_proj {list(key_weight.shape)} do not match, or the biases do not", hint
        )
    return Selector((query_weight, query_bias), (key_weight, key_bias))


def _is(part: str, key: str) -> bool:
    """Whether tensor `key` is this part of a scorer, and not of some attention layer of a whole checkpoint."""
    rest = key.removesuffix(part)
    for wrapper in ("module.", "_orig_mod."):
        rest = rest.replace(wrapper, "")
    return key.endswith(part) and (not rest or rest.endswith("importance_scorer."))
