"""Record attention averaged over several query rows of the prompt, such as the question's, up to the last wanted layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import upload
from biaskit.engine.calls import Call, Stop, watch_calls
from biaskit.engine.recorder import mean_of_rows
from biaskit.families.checkpoints.decoder import check_layers, decoder
from biaskit.pruners.readings import Reading


@contextmanager
def record_rows(
    model: PreTrainedModel, layers: Sequence[int], chosen: NDArray[np.bool_], *, per_head: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Record the mean over chosen rows of each sample's attention map inside the block, and end the pass at the last wanted layer.

    Args:
        model: a stock model, under sdpa, flash or eager attention. layers: 0-based decoder layers.
        chosen: [B, S] which rows of the padded prompts; see `biaskit.engine.recorder.query_rows`.
        per_head: keep the heads apart; otherwise their mean.

    Yields:
        A dict that fills with layer → [B, S] (or [B, heads, S]), softmax over all keys, float32 on the layer's device.

    Raises:
        ModelError: a layer the model does not have, or an attention mask that cannot be read.

    Example:
        >>> import torch
        >>> from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model
        >>> model, processor, family = tiny_model("llava-1.5")
        >>> inputs = tiny_inputs(family, processor, model.config)
        >>> last_two = np.zeros(inputs["input_ids"].shape, bool)
        >>> last_two[:, -2:] = True
        >>> with torch.inference_mode(), record_rows(model, [1], last_two) as found:
        ...     _ = model.base_model(**inputs)
        >>> bool((found[1].sum(-1) - 1).abs().max() < 1e-5)
        True
    """
    found: dict[int, Tensor] = {}
    final = max(layers, default=-1)
    reading = Reading("attention", queries="question", heads="each" if per_head else "mean")
    numbers = np.flatnonzero(chosen.any(0))

    def keep(layer: int, call: Call) -> None:
        device = call.query.device
        found[layer] = mean_of_rows(call, reading, upload(numbers, device), upload(chosen[:, numbers], device))
        if layer == final:
            raise Stop

    stack = decoder(model)
    modules = {stack.layers[layer].self_attn: layer for layer in check_layers(layers, len(stack.layers))}
    with watch_calls(stack.config._attn_implementation, modules, keep), suppress(Stop):
        yield found
