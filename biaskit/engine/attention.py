"""Record the last prompt token's attention row without eager attention and without an N × N map.

The registry entry of the attention implementation that the model already uses is wrapped for the time of a `with` block. At the chosen
layers the wrapper sees queries and keys as the kernel does, after rotary embedding, query and key norms and cache update, and computes one
row of softmax in float32. No per-family code, no forward copied, nothing left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.errors import ModelError
from biaskit.families.checkpoints.decoder import check_layers, decoder


class _Stop(Exception):
    """Ends the forward pass after the last wanted layer."""


def _allowed(mask: Any, rows: Tensor | None, length: int, batch: int) -> Tensor | None:
    """[B, 1, 1, keys] mask row of each sample's query row, bool (True = may attend) or additive; None = every key.

    Masks come as None (causal), bool or float [B or 1, 1, queries, keys] (sdpa, eager), or [B, keys] padding (flash).
    `rows` is None for the last row.
    """
    if mask is None and rows is None:
        return None
    if mask is None or (isinstance(mask, Tensor) and mask.ndim == 2):
        ahead = None if rows is None else torch.arange(length, device=rows.device)[None] <= rows[:, None]
        if mask is not None:
            mask = mask[:, :length].to(torch.bool)
            ahead = mask if ahead is None else ahead & mask.to(ahead.device)
        return None if ahead is None else ahead[:, None, None, :]
    if not isinstance(mask, Tensor):
        raise ModelError(f"attention masks of type {type(mask).__name__} cannot be read", "load the model with sdpa or flash_attention_2")
    mask = mask.expand(batch, *mask.shape[1:])[:, 0, :, :length]
    row: Tensor = mask[:, -1] if rows is None else mask[torch.arange(batch, device=mask.device), rows.to(mask.device)]
    return row[:, None, None, :]


def attention_row(
    query: Tensor, key: Tensor, mask: Any = None, *, rows: Tensor | None = None, scaling: float | None = None, softcap: float | None = None
) -> Tensor:
    """One softmax row per sample and head, in float32 (float64 for float64 inputs).

    Args:
        query: [B, heads, S, head_dim]. key: [B, key heads, keys, head_dim]; grouped queries are handled.
        mask: what the attention function was given: None, 4-D bool or additive, or 2-D padding.
        rows: [B] which query row of each sample; the last one by default.
        scaling: factor on the logits; 1/√head_dim by default. softcap: tanh soft cap of the logits.

    Returns:
        [B, heads, keys], softmax over all keys.
    """
    batch, heads, length, width = query.shape
    key_heads = key.shape[1]
    if key.shape[2] > length > 1:  # a static cache is longer than the prompt
        key = key[:, :, :length]
    last = query[:, :, -1] if rows is None else query[torch.arange(batch, device=query.device), :, rows]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    grouped = last.reshape(batch, key_heads, heads // key_heads, width)
    logits = _products(grouped, key, dtype) * (scaling if scaling is not None else width**-0.5)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    allowed = _allowed(mask, rows, key.shape[2], batch)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf")) if allowed.dtype == torch.bool else logits + allowed.to(dtype)
    return logits.softmax(-1).reshape(batch, heads, -1)


def _products(query: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Query keyᵀ, [B, heads, rows, keys], for [B, heads, rows, width] and [B, heads, keys, width].

    A GPU takes half precision as it is, with float32 sums: products of bfloat16 are exact there, and the keys are read once, not converted.
    """
    if query.is_cuda and query.dtype == key.dtype and key.dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", enabled=False):
            found: Tensor = torch.bmm(query.detach().flatten(0, 1), key.detach().flatten(0, 1).mT, out_dtype=dtype)
            return found.view(*query.shape[:2], *found.shape[1:])
    return query.to(dtype) @ key.to(dtype).mT


Seen = Callable[[int, Tensor, Tensor | None], None]
"""What a watcher is told: layer, row [B, heads, S], keys [B, key heads, S, head_dim] (None under eager attention without a cache)."""


@contextmanager
def record_attention(
    model: PreTrainedModel, layers: Sequence[int], *, per_head: bool = False, rows: Tensor | None = None, stop: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Record the attention row of the last prompt token while the model runs inside the block.

    Args:
        model: a stock model, under sdpa, flash or eager attention.
        layers: 0-based decoder layers.
        per_head: keep the heads apart; otherwise their mean.
        rows: [B] position of each sample's last prompt token; the last position by default, which is right for left padding.
        stop: end the forward pass at the last wanted layer; the block is left at once, without an exception.

    Yields:
        A dict that fills with layer → [B, S] (or [B, heads, S]) rows, softmax over all keys, float32 on the layer's device.

    Raises:
        ModelError: a layer the model does not have, or an attention mask that cannot be read.
    """
    found: dict[int, Tensor] = {}
    final = max(layers, default=-1)

    def keep(layer: int, row: Tensor, _keys: Tensor | None) -> None:
        found[layer] = row if per_head else row.mean(1)
        if stop and layer == final:
            raise _Stop

    with watch_attention(model, layers, keep, rows=rows), suppress(_Stop):
        yield found


def watch_attention(
    model: PreTrainedModel, layers: Sequence[int], seen: Seen, *, rows: Tensor | None = None, when: Callable[[], bool] = lambda: True
) -> AbstractContextManager[None]:
    """Tell `seen` the attention row and the keys of the wanted layers, each time one of them runs inside the block.

    Args:
        model: a stock model. layers: 0-based decoder layers.
        seen: called before the layer's attention is computed (after it, under eager attention); it may raise to end the forward pass.
        rows: [B] whose row; that of the last query by default.
        when: nothing is computed while it returns False (decode steps, say).

    Raises:
        ModelError: a layer the model does not have, or, while the model runs, an attention mask that cannot be read.
    """
    stack = decoder(model)
    modules = {stack.layers[layer].self_attn: layer for layer in check_layers(layers, len(stack.layers))}
    name: str = stack.config._attn_implementation
    if name == "eager":  # not in the registry: the weights are the module's second output
        return _watch_modules(modules, rows, seen, when)
    return _watch_registry(name, modules, rows, seen, when)


@contextmanager
def _watch_modules(modules: Mapping[nn.Module, int], rows: Tensor | None, seen: Seen, when: Callable[[], bool]) -> Iterator[None]:
    def weights(module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not when():
            return
        full: Tensor = output[1]
        at = torch.full((len(full),), full.shape[2] - 1) if rows is None else rows
        cache = kwargs.get("past_key_values")
        keys = None if cache is None else cache.layers[modules[module]].keys[:, :, : full.shape[2]]
        seen(modules[module], full[torch.arange(len(full), device=full.device), :, at.to(full.device)].float(), keys)

    with ExitStack() as held:
        for module in modules:
            held.callback(module.register_forward_hook(weights, with_kwargs=True).remove)
        yield


@contextmanager
def _watch_registry(
    name: str, modules: Mapping[nn.Module, int], rows: Tensor | None, seen: Seen, when: Callable[[], bool]
) -> Iterator[None]:
    original = ALL_ATTENTION_FUNCTIONS[name]

    def wrapped(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        if module in modules and when():
            if kwargs.get("s_aux") is not None:
                raise ModelError("this model uses learned attention sinks, which the recorder does not know", "use a supported family")
            at = None if rows is None else rows.to(query.device)
            row = attention_row(query, key, attention_mask, rows=at, scaling=kwargs.get("scaling"), softcap=kwargs.get("softcap"))
            seen(modules[module], row, key[:, :, : query.shape[2]])
        return original(module, query, key, value, attention_mask, *args, **kwargs)

    local = ALL_ATTENTION_FUNCTIONS._local_mapping.get(name)
    ALL_ATTENTION_FUNCTIONS[name] = wrapped
    try:
        yield
    finally:
        if local is None:
            del ALL_ATTENTION_FUNCTIONS[name]
        else:
            ALL_ATTENTION_FUNCTIONS[name] = local


def last_rows(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """[B] position of each sample's last prompt token, or None if it is the last position of every row."""
    mask = inputs.get("attention_mask")
    if mask is None or bool(mask[:, -1].all()):
        return None
    length = mask.shape[1]
    return length - 1 - mask.flip(1).argmax(1)


def prefill(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> None:
    """Run the prompt through the base model with the position ids `generate()` gives it: counted from each sample's first real token.

    Without them the stock models count the padding too. In exact arithmetic rotary attention would not care; float32 angles do. Models with
    M-RoPE work their positions out of the attention mask by themselves.
    """
    given = dict(inputs)
    mask = given.get("attention_mask")
    if mask is not None and "position_ids" not in given and not hasattr(model.base_model, "get_rope_index"):
        given["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
    model.base_model(**given, use_cache=False)


@torch.inference_mode()
def attention_rows(model: PreTrainedModel, inputs: Mapping[str, Tensor], layers: Sequence[int], *, per_head: bool = False) -> Tensor:
    """Run the model up to the last wanted layer and return its attention rows.

    Args:
        model: a stock model. inputs: the processor's whole output, on the model's device.
        layers: 0-based decoder layers. per_head: keep the heads apart.

    Returns:
        [layers, B, S], or [layers, B, heads, S] with `per_head`; float32.
    """
    with record_attention(model, layers, per_head=per_head, rows=last_rows(inputs), stop=True) as found:
        prefill(model, inputs)
    device = found[max(layers)].device
    return torch.stack([found[layer].to(device) for layer in sorted(set(layers))])
