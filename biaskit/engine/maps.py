"""Means over rows of attention maps at many layers, of a run without pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import upload
from biaskit.engine.attention import prefill
from biaskit.engine.calls import Call, Stop, watch_calls
from biaskit.engine.memory import Prompt
from biaskit.engine.recorder import chosen_rows, mean_of_rows
from biaskit.families.checkpoints.decoder import check_layers, decoder
from biaskit.pruners.readings import Reading


@torch.inference_mode()
def attention_maps(model: PreTrainedModel, inputs: Mapping[str, Tensor], readings: Sequence[Reading], layers: Sequence[int]) -> Tensor:
    """Run the model up to the last wanted layer and return, at each, what the readings ask for: [L, B, readings, S] float32.

    Args:
        model: a stock model. inputs: the processor's whole output, on the model's device.
        readings: of the decoder's attention, of several queries and with heads joined; their `layer` is not looked at.
        layers: 0-based decoder layers.

    Raises:
        ModelError: a layer the model does not have, or a sample without such queries.

    Example:
        >>> from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
        >>> model, processor, family = tiny_model("llava-1.5")
        >>> visual = Reading("attention", queries="visual", heads="max")
        >>> attention_maps(model, tiny_inputs(family, processor, model.config), [visual], [0, 1]).shape[:3]
        torch.Size([2, 2, 1])
    """
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    padding = np.ones(ids.shape, bool) if mask is None else mask.cpu().numpy().astype(bool)
    prompt = Prompt(len(ids), ids.shape[1], ids.shape[1], True, [], None, padding=padding)
    prompt.visual = (ids == model.config.image_token_id).cpu().numpy()
    chosen = {reading: chosen_rows(prompt, None, reading.queries, None) for reading in readings}
    found: dict[int, Tensor] = {}

    def keep(layer: int, call: Call) -> None:
        parts = []
        for reading in readings:
            rows = np.flatnonzero(chosen[reading].any(0))
            device = call.query.device
            parts.append(mean_of_rows(call, reading, upload(rows, device), upload(chosen[reading][:, rows], device)))
        found[layer] = torch.stack(parts, dim=1)
        if layer == max(layers):
            raise Stop

    stack = decoder(model)
    modules = {stack.layers[layer].self_attn: layer for layer in check_layers(layers, len(stack.layers))}
    with watch_calls(stack.config._attn_implementation, modules, keep), suppress(Stop):
        prefill(model, inputs)
    device = found[max(layers)].device
    return torch.stack([found[layer].to(device) for layer in layers])
