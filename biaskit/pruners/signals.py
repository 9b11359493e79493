"""What a method may see of one sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from biaskit.grid import Layout

NEEDS = frozenset({"attention", "hidden", "text_hidden", "keys", "embeds", "final_norm"})
"""Everything a pruner may ask the engine to record."""


@dataclass(frozen=True, eq=False)
class Signals:
    """One sample with N visual and t text tokens at decoder layer K. Tensors are on the model's device; None = not asked for.

    `hidden`, `text_hidden` and `embeds` are in the model's dtype, for they are large, and `biaskit.select` multiplies half precision as it
    is, without rounding; arithmetic of your own wants their `.float()`. Everything else is float32.

    Attributes:
        layout: where each visual token sits.
        layer: K: tokens are dropped before decoder layer K, so attention, keys and hidden states are those of layer K − 1. At K = 0, before
            the language model, only `embeds` exists.
        attention: [N] last prompt token → visual tokens, softmax over ALL keys, mean over heads.
        hidden: [N, d] visual rows of the output of layer K − 1, which is the input of layer K.
        text_hidden: [t, d] the same hidden state at all other valid positions (no padding).
        text_positions: [t] their places in the sequence, ascending, counted like `layout.positions`.
        keys: [key heads, N, head_dim] keys of layer K − 1 as cached, after rotary embedding.
        text_keys: [key heads, t, head_dim] the same at `text_positions`.
        embeds: [N, d] projector output: the visual rows of the input embeddings.
        final_norm: the language model's last norm, [..., d] → [..., d].
        a_bias: [N] the prior on this sample's grid, attention × N, if the user gave a prior.
        generator: random numbers of this decision, seeded by the engine.
    """

    layout: Layout
    layer: int
    attention: Tensor | None = None
    hidden: Tensor | None = None
    text_hidden: Tensor | None = None
    text_positions: Tensor | None = None
    keys: Tensor | None = None
    text_keys: Tensor | None = None
    embeds: Tensor | None = None
    final_norm: Callable[[Tensor], Tensor] | None = None
    a_bias: Tensor | None = None
    generator: Generator | None = None

    def __len__(self) -> int:
        """Return N, the number of visual tokens."""
        return len(self.layout)
