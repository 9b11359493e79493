"""Checks for what pruning cannot do correctly: each refuses with an error instead of giving wrong results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from biaskit.errors import ModelError
from biaskit.families.checkpoints.decoder import decoder


def check_stages(model: PreTrainedModel, layers: Sequence[int]) -> tuple[int, ...]:
    """Return the decoder layers at which stages begin.

    Raises:
        ModelError: none, not ascending, or one that the model does not have.
    """
    depth = len(decoder(model).layers)
    for layer in layers:
        if not 0 <= layer < depth:
            raise ModelError(f"pruning at layer {layer}, but the model has layers 0 … {depth - 1}", f"choose a layer from 0 to {depth - 1}")
    if not layers or any(later <= earlier for earlier, later in pairwise(layers)):
        raise ModelError(
            f"pruning stages at layers {list(layers)} do not ascend", "each stage must begin at a later layer than the one before it"
        )
    return tuple(layers)


def check_chunks(model: PreTrainedModel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse chunked prefill of prompts with images: the decision needs the whole prompt, and would be made on the first chunk.

    Args:
        model: whose `generate()` is called. args, kwargs: its arguments; they override the checkpoint's own generation config.

    Raises:
        ModelError: `prefill_chunk_size` is in force, and smaller than a prompt with images.
    """
    config = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
    size = getattr(config, "prefill_chunk_size", None) or getattr(model.generation_config, "prefill_chunk_size", None)
    size = kwargs.get("prefill_chunk_size", size)
    ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
    if size is None or ids is None or ids.shape[1] <= size or not bool((ids == model.config.image_token_id).any()):
        return
    raise ModelError(
        f"prefill_chunk_size={size} splits a prompt of {ids.shape[1]} tokens, and pruning needs the whole prompt to decide",
        "pass prefill_chunk_size=None to generate(): this overrides the checkpoint's own generation config as well",
    )


def check_eager(stack: Any) -> None:
    """Refuse ways to run the language model in which hooks are not called exactly once whenever a layer runs.

    Raises:
        ModelError: gradient checkpointing is active, or the model is being compiled.
    """
    if torch.compiler.is_compiling():
        raise ModelError("the model is compiled while it is pruned", "call the stock model: pruning is not supported under torch.compile")
    if stack.training and any(getattr(layer, "gradient_checkpointing", False) for layer in stack.layers):
        raise ModelError(
            "gradient checkpointing runs the layers a second time, after the pruned pass is over, and generates without a cache",
            "model.gradient_checkpointing_disable(), or model.eval()",
        )


def check_window(stack: Any, first: int, length: int) -> None:
    """Refuse sliding windows shorter than the sequence so far: the window would be measured in the pruned sequence.

    Args:
        stack: the language model. first: the first pruned layer. length: tokens of the whole prompt and what follows it.

    Raises:
        ModelError: a pruned layer attends to fewer than `length` tokens.
    """
    config = stack.config
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    slides = any(kind != "full_attention" for kind in kinds[first:]) if kinds else window is not None
    if slides and (window is None or window < length):
        raise ModelError(
            f"the model's attention window of {window} tokens is shorter than the sequence of {length}",
            "dropping tokens would change what the window covers; use a shorter prompt or a model without sliding windows",
        )


def check_padding(valid: NDArray[np.bool_]) -> None:
    """Refuse right padding: [B, S] bool must end in True.

    Raises:
        ModelError: the last position of a sample is padding.
    """
    if not valid[:, -1].all():
        raise ModelError("the prompts are padded on the right", "pad on the left (padding_side='left'), as generate() requires")


def check_no_images(model: PreTrainedModel, inputs: Mapping[str, Any], fresh: int) -> None:
    """Refuse images in tokens that follow a prefill: they would silently not be pruned.

    Raises:
        ModelError: `input_ids` of the pass hold image placeholders.
    """
    ids = inputs.get("input_ids")
    if fresh > 1 and ids is not None and bool((ids == model.config.image_token_id).any()):
        raise ModelError(
            "a later turn has an image and continues a key-value cache",
            "start without past_key_values: images are pruned in the first prefill only",
        )


def check_continues(new: tuple[int, int], seen: tuple[int, int], *, cached: int, expected: int, fits: bool) -> None:
    """Refuse tokens that do not continue where a pruned cache ends.

    Args:
        new: (rows, tokens) of the pass. seen: (rows, tokens) of the prompt and what followed.
        cached: rows in layer 0's cache. expected: rows it should have. fits: True if masks and position ids belong to these tokens.

    Raises:
        ModelError: other rows or lengths, or the tokens' positions cannot be known.
    """
    if new[0] != seen[0] or cached != expected or not fits:
        raise ModelError(
            f"{new[0]} × {new[1]} new tokens do not follow the {seen[0]} × {seen[1]} that this cache has seen "
            f"({cached} are cached at layer 0)",
            "a pruned cache can be extended, not cropped (assisted decoding); after pruning at layer 0 continue by generate() without "
            "past_key_values, or pass one token at a time with position_ids",
        )


def multi_axis(model: PreTrainedModel) -> bool:
    """True if position ids have several axes (M-RoPE: time, row, col), for which renumbering without gaps is not defined."""
    config = decoder(model).config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return "mrope_section" in rope
