"""What a pruner may see of one sample, `Signals`, and what it answers, `Keep`; and the one rule that turns a share into a whole number.

A pruner names what it reads in `needs`; the engine records that and leaves the rest None. Names in `needs`: `attention`, `hidden`,
`text_hidden`, `keys`, `embeds`, `final_norm`. Layout, layer, the prior and the generator are always there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Generator, Tensor

from biaskit.errors import BiaskitError
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


@dataclass(frozen=True, eq=False)
class Keep:
    """Which visual tokens stay.

    Attributes:
        indices: [n] int64, ascending, into the N visual tokens of the sample; on any device.
        info: what the method wants to report about this decision, such as the density of its graph.
    """

    indices: Tensor
    info: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return n, the number of tokens kept."""
        return len(self.indices)


def budget(n_tokens: int, retention: float) -> int:
    """Return how many of `n_tokens` visual tokens to keep: retention × N, halves up, at least 1, at most N; 0 of 0.

    `retention` is taken as the decimal number it prints as: 0.29 of 50 is 14.5 and gives 15, although the product in binary is below 14.5.

    Raises:
        BiaskitError: retention is not in (0, 1].
    """
    if not 0 < retention <= 1:
        raise BiaskitError(f"retention is {retention}, not in 0 < r ≤ 1", "it is the share of visual tokens kept: 0.1 keeps a tenth")
    return min(max(math.floor(round(retention * n_tokens, 9) + 0.5), 1), n_tokens)
