"""A slow reference for pruning: no cache, no batch, no padding, no hooks; every pass is computed in full and rows are dropped directly.

Pruned `generate()` must equal it. Our tests compare with it in float64 on tiny models, `biaskit models check` on a user's checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from biaskit.device import cast_inputs
from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.checkpoints.decoder import decoder, layer_kind, rotary, window_of

Kept = Sequence[tuple[int, NDArray[np.int64]]]
"""For one sample, per stage: (layer, ascending positions of the prompt that are kept from this layer on)."""


class _Stop(Exception):
    """Ends the forward pass where the language model begins."""


def entering(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the keyword arguments that the base model passes to its language model: embeddings with the images inserted, positions."""
    received: dict[str, Any] = {}

    def stop(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        received.update(kwargs)
        raise _Stop

    handle = decoder(model).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.base_model(**inputs, use_cache=False)
    except _Stop:
        pass
    finally:
        handle.remove()
    return received


def _mask(rows: Tensor, image: Tensor | None, window: int | None, implementation: str, like: Tensor) -> Tensor | None:
    """The mask of one unpadded sequence, as the attention implementation takes it: `rows` [M] places, `image` [M] numbers, −1 for text."""
    if "flash" in implementation:
        return None
    allowed = rows[None] <= rows[:, None]
    if image is not None:
        allowed = allowed | ((image[None] == image[:, None]) & (image >= 0))
    if window is not None:
        allowed = allowed & (rows[:, None] - rows[None] < window)
    allowed = allowed[None, None].to(like.device)
    if implementation == "eager":
        return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, torch.finfo(like.dtype).min)
    return allowed


@torch.no_grad()
def reference_logits(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    generated: Tensor,
    kept: Sequence[Kept],
    *,
    compact: bool = False,
    real: Tensor | None = None,
    values: Sequence[Mapping[int, tuple[NDArray[np.int64], Tensor]]] | None = None,
) -> Tensor:
    """Compute the logits before each generated token by the slow reference, in the model's dtype.

    Args:
        model: a stock model under sdpa, eager or flash attention.
        inputs: the processor's output for B samples, left-padded.
        generated: [B, T] tokens that were generated.
        kept: of each sample.
        compact: kept rows are renumbered 0, 1, …
        real: [B, T] 1 for tokens, 0 for padding among the generated; logits of a sample are then valid after its last padding.
        values: of each sample, layer → (positions [n], their new contents [n, d] from that layer on).

    Returns:
        [B, T, vocabulary].

    Raises:
        ModelError: the language model was not reached.
    """
    stack, steps, prompt = decoder(model), generated.shape[1], inputs["input_ids"].shape[1]
    received = entering(model, _lengthened(inputs, generated, real, model.dtype))
    if "inputs_embeds" not in received:
        raise ModelError(
            f"{type(model).__name__} does not pass embeddings to its language model", "biaskit models list names what is supported"
        )
    embeds, valid = received["inputs_embeds"], _valid(inputs, generated, real)
    kinds = {layer_kind(stack, number) for number in range(len(stack.layers))}
    turns = {kind: _rotary(stack, kind, embeds, received.get("position_ids"), valid) for kind in kinds}
    images = _images(model, inputs["input_ids"], steps)
    added = _deepstack(received, embeds)
    head: Any = model.get_output_embeddings()
    logits = []
    for b, stages in enumerate(kept):
        rows = valid[b].nonzero()[:, 0]
        turned = {kind: [part[b, rows] for part in parts] for kind, parts in turns.items()}
        sample = _Sample(rows, embeds[b, rows], turned, {layer: x[b] for layer, x in added.items()}, None if images is None else images[b])
        begins, contents = dict(stages), {} if values is None else values[b]
        for number, layer in enumerate(stack.layers):
            if number in begins:
                sample.keep([*begins[number], *range(prompt, prompt + steps)], compact=compact)
            if number in contents:
                sample.replace(*contents[number])
            sample.run(number, layer, layer_kind(stack, number), window_of(stack, number), stack.config._attn_implementation)
        logits.append(head(stack.norm(sample.state[-steps - 1 : -1])))
    return torch.stack(logits)


@dataclass(eq=False)
class _Sample:
    """The state of one sample between layers.

    Attributes:
        rows: [M] ascending, the kept positions. state: [M, d] their hidden states.
        rotary: kind of layer → cos and sin, [M, head_dim]. added: layer → [S, d] that the model adds to the layer's output (DeepStack).
        images: [S] number of the image of a token where image tokens attend to one another in both directions; −1 for text.
    """

    rows: Tensor
    state: Tensor
    rotary: dict[str | None, list[Tensor]]
    added: Mapping[int, Tensor]
    images: Tensor | None

    def keep(self, places: Sequence[int], *, compact: bool) -> None:
        """Drop all rows but those of some positions; `compact` renumbers these."""
        kept_rows = torch.from_numpy(np.isin(self.rows.cpu().numpy(), places)).to(self.rows.device)
        self.rows, self.state = self.rows[kept_rows], self.state[kept_rows]
        for kind, parts in self.rotary.items():
            self.rotary[kind] = [part[: len(self.rows)] if compact else part[kept_rows] for part in parts]

    def replace(self, places: NDArray[np.int64], contents: Tensor) -> None:
        """Replace the rows of some positions [n] by `contents` [n, d]."""
        index = torch.from_numpy(np.searchsorted(self.rows.cpu().numpy(), places)).to(self.state.device)
        self.state = self.state.index_copy(0, index, contents.to(self.state))

    def run(self, number: int, layer: Any, kind: str | None, window: int | None, implementation: str) -> None:
        """Run one layer on all rows."""
        cos, sin = self.rotary[kind]
        mask = _mask(self.rows, None if self.images is None else self.images[self.rows], window, implementation, self.state)
        out = layer(self.state[None], attention_mask=mask, position_embeddings=(cos[None], sin[None]), position_ids=None)
        self.state = (out if isinstance(out, Tensor) else out[0])[0]
        if number in self.added:
            self.state = self.state + self.added[number][self.rows]


def _images(model: PreTrainedModel, ids: Tensor, steps: int) -> list[Tensor] | None:
    """Number the images of each sample's prompt, one run of placeholders each: [S + steps]; None where attention is causal."""
    name = model.config.model_type
    if name not in families or not families.get(name).bidirectional_images:
        return None
    found = []
    for row in ids.tolist():
        numbers, image, before = [], -1, False
        for token in row:
            here = token == model.config.image_token_id
            image += here and not before
            numbers.append(image if here else -1)
            before = here
        found.append(torch.tensor([*numbers, *[-1] * steps], device=ids.device))
    return found


def _rotary(stack: Any, kind: str | None, embeds: Tensor, position_ids: Tensor | None, valid: Tensor) -> list[Tensor]:
    """Cos and sin, [B, S, head_dim], for layers of a kind, at positions counted from each sample's first token, or at the model's own."""
    if position_ids is None or position_ids.ndim == 2:
        position_ids = (valid.cumsum(1) - 1).clamp(min=0)
    elif len(position_ids) == 4:
        position_ids = position_ids[1:]
    return [part.expand(len(embeds), -1, -1) for part in rotary(stack, kind, embeds, position_ids)]


def _deepstack(received: Mapping[str, Any], embeds: Tensor) -> dict[int, Tensor]:
    """What the model adds after its first layers: layer → [B, S, d]; nothing for most models."""
    added = {}
    for layer, features in enumerate(received.get("deepstack_visual_embeds") or []):
        added[layer] = torch.zeros_like(embeds)
        added[layer][received["visual_pos_masks"]] = features.to(embeds)
    return added


def _valid(inputs: Mapping[str, Tensor], generated: Tensor, real: Tensor | None) -> Tensor:
    return torch.cat([inputs["attention_mask"], torch.ones_like(generated) if real is None else real], 1)


def _lengthened(inputs: Mapping[str, Tensor], generated: Tensor, real: Tensor | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """The inputs with the generated tokens behind the prompt."""
    whole = cast_inputs(inputs, dtype)
    whole["input_ids"] = torch.cat([inputs["input_ids"], generated], 1)
    whole["attention_mask"] = _valid(inputs, generated, real)
    for kind in ("mm_token_type_ids", "token_type_ids"):
        if kind in whole:
            whole[kind] = torch.cat([whole[kind], torch.zeros_like(generated)], 1)
    return whole
