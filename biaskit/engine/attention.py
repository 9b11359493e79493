"""Record the last prompt token's attention row without eager attention and without an N × N map.

Calls of the attention function that the model already uses are intercepted inside a `with` block. At the chosen layers the interceptor
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


def attention_row(
    query: Tensor, key: Tensor, mask: Any = None, *, rows: Tensor | None = None, scaling: float | None = None, softcap: float | None = None
) -> Tensor:
    """One softmax row per sample and head, in float32 (float64 for float64 inputs).

    Args:
        query: [B, heads, S, head_dim]. key: [B, key heads, keys, head_dim]; grouped queries are handled.
        mask: as passed to the attention function: None, 4-D bool or additive, or 2-D padding.
        rows: [B] which query row of each sample; the last one by default.
        scaling: factor on the logits; 1/√head_dim by default. softcap: tanh soft cap of the logits.

    Returns:
        [B, heads, keys], softmax over all keys.

    Example:
        >>> query, key = torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 4)
        >>> attention_row(query, key)[0, 0].mul(3).tolist()
        [1.0, 1.0, 1.0]
    """
    index = None if rows is None else rows[:, None]
    return logit_rows(Call(query, key, mask, scaling=scaling, softcap=softcap), index)[:, :, 0].softmax(-1)


def logit_rows(call: Call, rows: Tensor | None = None) -> Tensor:
    """The logits of some queries: [B, heads, q, keys], −inf where a key is masked. Attention is their softmax.

    Args:
        call: the arguments of the attention function.
        rows: which queries: [q], the same ones of every sample, or [B, q]; the last one by default.
    """
    query, key = call.query, call.key
    batch, heads, length, width = query.shape
    if key.shape[2] > length > 1:  # a static cache is longer than the prompt
        key = key[:, :, :length]
    chosen = _rows_of(query, rows)
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    grouped = chosen.reshape(batch, key.shape[1], -1, width)
    return _masked(call, _scaled(call, _products(grouped, key, dtype)).reshape(batch, heads, chosen.shape[2], -1), rows)


def _rows_of(x: Tensor, rows: Tensor | None) -> Tensor:
    """Some rows of [B, …, S, width]: the last, [q] of every sample, or [B, q]."""
    if rows is None:
        return x[:, :, -1:]
    if rows.ndim == 1:
        return x[:, :, rows.to(x.device)]
    return x[torch.arange(len(rows), device=x.device)[:, None], :, rows.to(x.device)].transpose(1, 2)


def _scaled(call: Call, products: Tensor) -> Tensor:
    logits = products * (call.scaling if call.scaling is not None else call.query.shape[-1] ** -0.5)
    return logits if call.softcap is None else torch.tanh(logits / call.softcap) * call.softcap


def _masked(call: Call, logits: Tensor, rows: Tensor | None) -> Tensor:
    """Put −inf where the queries may not attend to a key, and add the values of an additive mask elsewhere."""
    mask, (batch, _, _, keys) = call.mask, logits.shape
    if mask is not None and not isinstance(mask, Tensor):
        raise unreadable(mask)
    if mask is not None and mask.ndim == 4:
        mine = _rows_of(mask[..., :keys].expand(batch, -1, -1, -1), rows).to(logits.device)
        if mine.dtype == torch.bool:
            return logits.masked_fill(~mine, float("-inf"))
        return (logits + mine.to(logits.dtype)).masked_fill(mine < torch.finfo(mine.dtype).min / 2, float("-inf"))
    if rows is not None and call.causal:
        later = torch.arange(keys, device=rows.device) > rows[..., None]
        logits = logits.masked_fill((later[None] if rows.ndim == 1 else later)[:, None].to(logits.device), float("-inf"))
    return logits if mask is None else logits.masked_fill(~mask[:, None, None, :keys].to(logits.device, torch.bool), float("-inf"))


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
        index = None if rows is None else rows.to(call.query.device)
        row = attention_row(call.query, call.key, call.mask, rows=index, scaling=call.scaling, softcap=call.softcap)
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
    """Run the prompt through the base model with the position ids of `generate()`: counted from each sample's first valid token.

    Without them the stock models count padding as well. In exact arithmetic this would not change rotary attention; with float32 angles it
    does. Models with M-RoPE compute their positions from the attention mask themselves.
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
