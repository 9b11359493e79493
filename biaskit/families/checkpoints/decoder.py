"""The decoder of a stock model, and its layers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from biaskit.errors import ModelError
from biaskit.prior.layers import Layers, read_layers


def decoder(model: PreTrainedModel) -> Any:
    """Return the language model (a module) that holds the decoder layers.

    Raises:
        ModelError: the model has no decoder with `layers` whose attention can be read.
    """
    found: Any = model.get_decoder()
    if not isinstance(getattr(found, "layers", None), nn.ModuleList) or not hasattr(found.layers[0], "self_attn"):
        raise ModelError(f"{type(model).__name__} has no decoder layers with self-attention", "biaskit models list names what is supported")
    return found


def decoder_config(model: PreTrainedModel) -> Any:
    """Return the language model's config."""
    return decoder(model).config


def layer_kind(stack: Any, layer: int) -> str | None:
    """Return the kind of attention of a decoder layer, by the config's name for it; None where all are of one kind."""
    kinds = getattr(stack.config, "layer_types", None)
    return None if not kinds else str(kinds[layer])


def window_of(stack: Any, layer: int) -> int | None:
    """Return how many positions a decoder layer's sliding window holds, a query's own included; None where it has none."""
    window, kind = getattr(stack.config, "sliding_window", None), layer_kind(stack, layer)
    return None if window is None or kind == "full_attention" else int(window)


def rotary(stack: Any, kind: str | None, like: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    """Return a language model's rotary embeddings (cos, sin), [B, rows, head_dim] each, of positions, for layers of a kind."""
    by_kind = "layer_type" in inspect.signature(stack.rotary_emb.forward).parameters
    found: tuple[Tensor, ...] = stack.rotary_emb(like, positions, kind) if by_kind else stack.rotary_emb(like, positions)
    return found


def chosen_layers(wanted: Layers | None, default: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the wanted decoder layers of a model with `depth` layers, ascending and without repeats; None means the default ones.

    Raises:
        BiaskitError: `wanted` does not name layers. ModelError: the model has no such layer.

    >>> chosen_layers("0-2", (1,), 4), chosen_layers("all", (1,), 4), chosen_layers(None, (1,), 4)
    ((0, 1, 2), (0, 1, 2, 3), (1,))
    """
    chosen = read_layers(wanted)
    return check_layers(default if chosen is None else range(depth) if isinstance(chosen, str) else chosen, depth)


def check_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the wanted layers, ascending and without repeats.

    Raises:
        ModelError: none is wanted, or one is outside 0 … depth − 1.
    """
    wanted = tuple(sorted(set(layers)))
    if not wanted or wanted[0] < 0 or wanted[-1] >= depth:
        raise ModelError(f"layers {list(layers)}, but the model has layers 0 … {depth - 1}", "choose layers it has, or --layers all")
    return wanted
