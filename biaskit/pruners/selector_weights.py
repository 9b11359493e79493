"""Weights of a trained VisionSelector scorer: two linear maps in a safetensors file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.files import existing

MAX_WEIGHTS = 64_000_000
"""Largest number of weights of a linear map. Published scorers have 3,584 × 3,584."""

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
    (`module.`, `_orig_mod.`) are ignored. Nothing else is read into memory.

    Raises:
        BiaskitError: the file is missing or unreadable, or does not hold exactly one scorer of matching shapes.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    hint = "give the safetensors file of a VisionSelector scorer: q_proj and k_proj, weight and bias"
    try:
        if existing(path) and not path.is_file():
            raise BiaskitError(f"cannot read selector weights {path}: it is not a regular file", hint)
        with safe_open(path, framework="pt") as file:
            found = {part: [key for key in file.keys() if _is(part, key)] for part in _PARTS}  # noqa: SIM118  (no mapping)
            _check_shapes(path, {part: file.get_slice(keys[0]).get_shape() for part, keys in found.items() if len(keys) == 1}, hint)
            tensors = {part: [file.get_tensor(key) for key in keys[:1]] for part, keys in found.items() if len(keys) == 1}
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError, KeyError) as error:
        raise BiaskitError(f"cannot read selector weights {path}: {str(error)[:300]}", hint) from None
    for part, keys in found.items():
        if len(keys) != 1:
            raise BiaskitError(f"{path} has {len(keys)} tensors {part} of a scorer, not one", hint)
    query_weight, query_bias, key_weight, key_bias = (tensors[part][0] for part in _PARTS)
    for part, (tensor,) in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            what = f"is {str(tensor.dtype).removeprefix('torch.')}" if not tensor.is_floating_point() else "has values that are not finite"
            raise BiaskitError(f"{path}: {part} {what}", hint)
    return Selector((query_weight, query_bias), (key_weight, key_bias))


def _check_shapes(path: Path, shapes: dict[str, list[int]], hint: str) -> None:
    """Refuse parts whose shapes do not match; only the file's header is read."""
    if len(shapes) < len(_PARTS):  # the caller reports missing or repeated parts
        return
    query, query_bias, key, key_bias = (list(shapes[part]) for part in _PARTS)
    if len(query) != 2 or 0 in query or key != query or not query_bias == key_bias == query[:1]:
        why = f"q_proj {query} and k_proj {key} do not match, or their biases {query_bias} and {key_bias} do not"
        raise BiaskitError(f"{path}: {why}", hint)
    if query[0] * query[1] > MAX_WEIGHTS:
        raise BiaskitError(f"{path}: q_proj {query} has over {MAX_WEIGHTS} weights", hint)


def _is(part: str, key: str) -> bool:
    """True if tensor `key` is this part of a scorer, and not an attention layer of a whole checkpoint."""
    rest = key.removesuffix(part)
    for wrapper in ("module.", "_orig_mod."):
        rest = rest.replace(wrapper, "")
    return key.endswith(part) and (not rest or rest.endswith("importance_scorer."))
