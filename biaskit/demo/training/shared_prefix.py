"""Many questions about one image in one forward pass: they share the image's prefix and do not see each other.

Runs on the weights of a stock model, with the stock model's mathematics (a test compares them), but every question is a slot of fixed
length that attends to the prefix and, causally, to itself; its positions continue those of the prefix. What differs between stock classes
(projector, position ids, biases) comes from the architecture and the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from biaskit.demo.training.architectures import architecture_of
from biaskit.images.scenes.vocabulary import VISUAL

Rows = tuple[Tensor, Tensor, Tensor]
"""(image, slot, position in the slot) of some tokens: three [r] int64."""
Keep = tuple[int, Tensor]
"""(layer, kept): from this layer on, the visual tokens that are False in `kept` [B, 144] are dropped."""


@dataclass
class Recorded:
    """What a pass recorded.

    Attributes:
        attention: layer → [r, heads, 144] attention on the visual tokens.
        visual: [B, 144, hidden] float32 states of the visual tokens at the input of one layer.
    """

    attention: dict[int, Tensor] = field(default_factory=dict)
    visual: Tensor | None = None


class SharedPrefix:
    """The forward pass of a stock model's projector and language model over shared prefixes.

    Args:
        model: the stock model. slot: tokens per question. device: where it is.
        dtype: of the matrix products; the residual stream stays float32.
    """

    def __init__(self, model: Any, slot: int, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> None:
        self.model, self.architecture = model, architecture_of(model)
        self.text = model.model.language_model
        self.head = model.lm_head
        self.slot, self.dtype = slot, dtype
        self.prefix = torch.tensor(self.architecture.prefix, device=device)
        first = self.architecture.visual_start
        self.visual = slice(first, first + VISUAL)
        self.positions = self.architecture.positions(len(self.prefix) + slot).to(device)
        config = self.text.config
        self.heads, self.width, self.epsilon = (
            config.num_attention_heads,
            config.hidden_size // config.num_attention_heads,
            config.rms_norm_eps,
        )
        minus = torch.full((len(self.prefix), len(self.prefix)), float("-inf"), device=device)
        self.before = minus.triu(1).to(dtype)
        self.inside = minus[:slot, :slot].triu(1).to(dtype)

    def project(self, features: Tensor) -> Tensor:
        """[..., 128] of the vision tower → [..., hidden] visual tokens."""
        return self.architecture.project(self.model, features)

    def __call__(
        self,
        features: Tensor,
        ids: Tensor,
        watch: Mapping[int, int] | None = None,
        rows: Rows | None = None,
        keep: Keep | None = None,
        states_at: int | None = None,
    ) -> tuple[Tensor, Recorded]:
        """Run B images with n questions each.

        Args:
            features: [B, 144, 128] of the vision tower. ids: [B, n, slot] question and answer tokens.
            watch: layer → number of its first heads whose attention is recorded. rows: the tokens whose attention is recorded.
            keep: which visual tokens the later layers see; all by default.
            states_at: layer at whose input the states of the visual tokens are recorded.

        Returns:
            [B, n, slot, hidden] float32 final hidden states (normed), and what was recorded.
        """
        batch, n, slot = ids.shape
        embed = self.text.embed_tokens
        start = embed(self.prefix).expand(batch, -1, -1)
        visual = self.project(features)
        states = torch.cat([start[:, : self.visual.start], visual.float(), start[:, self.visual.stop :], embed(ids).flatten(1, 2)], 1)
        prefix, after = torch.split(self.positions, [len(self.prefix), slot], -1)
        cos, sin = (part[0].to(self.dtype) for part in self.text.rotary_emb(states, torch.cat([prefix, *[after] * n], -1)))
        sin = torch.cat([-sin[:, : self.width // 2], sin[:, self.width // 2 :]], -1)
        recorded = Recorded()
        for index, layer in enumerate(self.text.layers):
            if index == states_at:
                recorded.visual = states[:, self.visual].float()
            wanted = (watch or {}).get(index, 0)
            hidden = None if keep is None or index < keep[0] else self._hidden(keep[1])
            states, attention = self._layer(layer, states, cos, sin, index == len(self.text.layers) - 1, wanted, rows, hidden)
            if attention is not None:
                recorded.attention[index] = attention
        return self._norm(states, self.text.norm).view(batch, n, slot, -1), recorded

    def _hidden(self, kept: Tensor) -> Tensor:
        """[B, 144] bool → the mask added to the logits of the prefix's columns, [B, 1, 1, prefix]."""
        columns = torch.zeros(len(kept), len(self.prefix), dtype=self.dtype, device=kept.device)
        columns[:, self.visual].masked_fill_(~kept, float("-inf"))
        return columns[:, None, None]

    def _norm(self, states: Tensor, norm: Any) -> Tensor:
        return functional.rms_norm(states, (states.shape[-1],), norm.weight, self.epsilon)

    def _layer(
        self, layer: Any, states: Tensor, cos: Tensor, sin: Tensor, last: bool, wanted: int, rows: Rows | None, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """One decoder layer; of the last one only the slots are needed."""
        attend, mlp = layer.self_attn, layer.mlp
        batch, length, _ = states.shape
        normed = self._norm(states, layer.input_layernorm).to(self.dtype)
        weight = torch.cat([attend.q_proj.weight * self.width**-0.5, attend.k_proj.weight, attend.v_proj.weight]).to(self.dtype)
        parts = normed @ weight.T
        if attend.q_proj.bias is not None:
            parts = parts + torch.cat([attend.q_proj.bias * self.width**-0.5, attend.k_proj.bias, attend.v_proj.bias]).to(self.dtype)
        parts = parts.view(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).contiguous()
        turned, (value,) = torch.split(parts, [2, 1])
        query, key = _rotate(turned, cos, sin).unbind()
        mixed, attention = self._attention(query, key, value, last, wanted, rows, hidden)
        states = states[:, len(self.prefix) :] if last else states
        mixed = mixed.transpose(1, 2).flatten(2)
        states = states + mixed @ attend.o_proj.weight.to(self.dtype).T
        normed = self._norm(states, layer.post_attention_layernorm).to(self.dtype)
        both = normed @ torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).to(self.dtype).T
        gate, up = both.chunk(2, -1)
        return states + (functional.silu(gate) * up) @ mlp.down_proj.weight.to(self.dtype).T, attention

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, last: bool, wanted: int, rows: Rows | None, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, heads, length, width] each → mixed values, and the recorded attention."""
        split = len(self.prefix)
        batch, heads, length, width = query.shape
        slots = (batch, heads, (length - split) // self.slot, self.slot)
        # split, not slices: their backward passes would each fill and add a tensor of full length
        (first, mine), (key, my_key), (value, my_value) = (torch.split(part, [split, length - split], 2) for part in (query, key, value))
        far = mine @ key.mT
        far = far if hidden is None else far + hidden
        near = mine.reshape(*slots, width) @ my_key.reshape(*slots, width).mT + self.inside
        weights = torch.cat([far, near.flatten(2, 3)], -1).softmax(-1)
        distant, inner = torch.split(weights, [split, self.slot], -1)
        mixed = distant @ value + (inner.reshape(*slots, self.slot) @ my_value.reshape(*slots, width)).flatten(2, 3)
        attention = None
        if wanted and rows is not None:
            image, question, place = rows
            at = question * self.slot + place
            attention = distant[image, :wanted, at][..., self.visual].float()
        if last:
            return mixed, attention
        before = self.before if hidden is None else self.before + hidden
        return torch.cat([(first @ key.mT + before).softmax(-1) @ value, mixed], 2), attention

    @torch.inference_mode()
    def answer(self, features: Tensor, ids: Tensor, lengths: Tensor, n_new: int, keep: Keep | None = None) -> Tensor:
        """Answer greedily: `ids` [B, n, slot] hold prompts of `lengths` [B, n] tokens → [B, n, n_new] answers.

        Tokens beyond the end of a slot are undefined.
        """
        ids, end = ids.clone(), ids.shape[-1] - 1
        found = []
        for step in range(n_new):
            states, _ = self(features, ids, keep=keep)
            at = (lengths + step - 1).clamp(max=end)[..., None, None].expand(-1, -1, 1, states.shape[-1])
            best = self.head(states.gather(2, at)[:, :, 0]).argmax(-1)
            found.append(best)
            if step + 1 < n_new:
                ids.scatter_(2, (lengths + step).clamp(max=end)[..., None], best[..., None])
        return torch.stack(found, -1)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, in the half-split form of the stock models; the first half of `sin` is negated."""
    one, two = states.chunk(2, -1)
    return states * cos + torch.cat([two, one], -1) * sin
