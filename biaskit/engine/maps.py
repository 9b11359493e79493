"""Attention maps averaged over query rows at many layers, without pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import upload
from biaskit.engine.attention import prefill
from biaskit.engine.calls import Call, Stop, watch_calls
from biaskit.engine.recorder import mean_of_rows
from biaskit.families.checkpoints.decoder import check_layers, decoder
from biaskit.pruners.readings import Reading


@torch.inference_mode()
def attention_maps(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], rows: Mapping[Reading, NDArray[np.bool_]], layers: Sequence[int]
) -> Tensor:
    """Run the model up to the last wanted layer and return each reading at each layer: [L, B, readings, S] float32.

    Args:
        model: a stock model. inputs: the processor's whole output, on the model's device.
        rows: reading → [B, S] bool, its queries; heads are joined as the reading says, its `layer` is ignored.
        layers: 0-based decoder layers.

    Raises:
        ModelError: a layer the model does not have.

    Example:
        >>> from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
        >>> model, processor, family = tiny_model("llava-1.5")
        >>> inputs = tiny_inputs(family, processor, model.config)
        >>> all_rows = {Reading("attention", queries="mean", heads="max"): inputs["attention_mask"].numpy().astype(bool)}
        >>> attention_maps(model, inputs, all_rows, [0, 1]).shape[:3]
        torch.Size([2, 2, 1])
    """
    found: dict[int, Tensor] = {}

    def keep(layer: int, call: Call) -> None:
        parts, device = [], call.query.device
        for reading, chosen in rows.items():
            some = np.flatnonzero(chosen.any(0))
            parts.append(mean_of_rows(call, reading, upload(some, device), upload(chosen[:, some], device)))
        found[layer] = torch.stack(parts, dim=1)
        if layer == max(layers):
            raise Stop

    stack = decoder(model)
    modules = {stack.layers[layer].self_attn: layer for layer in check_layers(layers, len(stack.layers))}
    with watch_calls(stack.config._attn_implementation, modules, keep), suppress(Stop):
        prefill(model, inputs)
    device = found[max(layers)].device
    return torch.stack([found[layer].to(device) for layer in layers])
