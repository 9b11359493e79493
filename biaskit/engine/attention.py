"""Record the last prompt token's attention row without eager attention and without an N × N map.

The calls of the attention function that the model already uses are watched for the time of a `with` block. At the chosen layers the watch
sees queries and keys as the kernel does, after rotary embedding, query and key norms and cache update, and one row of softmax is computed
in float32. No per-family code, no copied forward; afterwards the registry of attention functions is as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.engine.calls import Call, Stop, unreadable, watch_calls
from biaskit.families.checkpoints.decoder import check_layers, decoder


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
        raise unreadable(mask)
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
    return logit_row(Call(query, key, mask, scaling=scaling, softcap=softcap), rows).softmax(-1)


def logit_row(call: Call, rows: Tensor | None = None) -> Tensor:
    """What `attention_row` takes the softmax of: [B, heads, keys], −inf (or the mask's own lowest number) where a key is hidden."""
    query, key = call.query, call.key
    batch, heads, length, width = query.shape
    key_heads = key.shape[1]
    if key.shape[2] > length > 1:  # a static cache is longer than the prompt
        key = key[:, :, :length]
    last = query[:, :, -1] if rows is None else query[torch.arange(batch, device=query.device), :, rows]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    grouped = last.reshape(batch, key_heads, heads // key_heads, width)
    logits = _scaled(call, _products(grouped, key, dtype))
    allowed = _allowed(call.mask, rows, key.shape[2], batch)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf")) if allowed.dtype == torch.bool else logits + allowed.to(dtype)
    return logits.reshape(batch, heads, -1)


def logit_rows(call: Call, rows: Tensor) -> Tensor:
    """The logits of several queries: [B, heads, q, keys], −inf where a key is hidden.

    Args:
        call: what the attention function was given. rows: [q] which queries, the same ones of every sample.
    """
    query, key = call.query, call.key
    batch, heads, length, width = query.shape
    key_heads = key.shape[1]
    if key.shape[2] > length > 1:
        key = key[:, :, :length]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    grouped = query[:, :, rows].reshape(batch, key_heads, heads // key_heads * len(rows), width)
    logits = _scaled(call, _products(grouped, key, dtype)).reshape(batch, heads, len(rows), -1)
    hidden = _hidden(call, rows, key.shape[2])
    return logits if hidden is None else logits.masked_fill(hidden, float("-inf"))


def _scaled(call: Call, products: Tensor) -> Tensor:
    logits = products * (call.scaling if call.scaling is not None else call.query.shape[-1] ** -0.5)
    return logits if call.softcap is None else torch.tanh(logits / call.softcap) * call.softcap


def _hidden(call: Call, rows: Tensor, length: int) -> Tensor | None:
    """Which keys the queries may not see: [B or 1, 1, q, keys] bool, or None."""
    mask = call.mask
    if isinstance(mask, Tensor) and mask.ndim == 4:
        mine = mask[:, :, rows.to(mask.device), :length]
        return ~mine if mine.dtype == torch.bool else mine < torch.finfo(mine.dtype).min / 2
    if mask is not None and not isinstance(mask, Tensor):
        raise unreadable(mask)
    later = torch.arange(length, device=rows.device) > rows[:, None] if call.causal else None
    if mask is None:
        return None if later is None else later[None, None]
    padding = ~mask[:, None, None, :length].to(torch.bool)
    return padding if later is None else padding | later


def _products(query: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Query keyᵀ, [B, heads, rows, keys], for [B, heads, rows, width] and [B, heads, keys, width].

    A GPU takes half precision as it is, with float32 sums: products of bfloat16 are exact there, and the keys are read once, not converted.
    """
    if query.is_cuda and query.dtype == key.dtype and key.dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", enabled=False):
            found: Tensor = torch.bmm(query.detach().flatten(0, 1), key.detach().flatten(0, 1).mT, out_dtype=dtype)
            return found.view(*query.shape[:2], *found.shape[1:])
    return query.to(dtype) @ key.to(dtype).mT


@contextmanager
def record_attention(
    model: PreTrainedModel, layers: Sequence[int], *, per_head: bool = False, rows: Tensor | None = None, stop: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Record the attention row of the last prompt token while the model runs inside the block, in the thread that opened it.

    Args:
        model: a stock model, under sdpa, flash or eager attention.
        layers: 0-based decoder layers.
        per_head: keep the heads apart; otherwise their mean.
        rows: [B] position of each sample's last prompt token; the last position by default, which is right for left padding.
        stop: end the forward pass at the last wanted layer; execution goes on after the block.

    Yields:
        A dict that fills with layer → [B, S] (or [B, heads, S]) rows, softmax over all keys, float32 on the layer's device.

    Raises:
        ModelError: a layer the model does not have, or an attention mask that cannot be read.

    Example:
        >>> from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
        >>> model, processor, family = tiny_model("llava-1.5")
        >>> inputs = tiny_inputs(family, processor, model.config)
        >>> with torch.inference_mode(), record_attention(model, [1]) as found:
        ...     _ = model(**inputs)
        >>> bool((found[1].sum(-1) - 1).abs().max() < 1e-5)
        True
    """
    found: dict[int, Tensor] = {}
    final = max(layers, default=-1)

    def keep(layer: int, call: Call) -> None:
        at = None if rows is None else rows.to(call.query.device)
        row = attention_row(call.query, call.key, call.mask, rows=at, scaling=call.scaling, softcap=call.softcap)
        found[layer] = row if per_head else row.mean(1)
        if stop and layer == final:
            raise Stop

    stack = decoder(model)
    modules = {stack.layers[layer].self_attn: layer for layer in check_layers(layers, len(stack.layers))}
    with watch_calls(stack.config._attn_implementation, modules, keep), suppress(Stop):
        yield found


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
