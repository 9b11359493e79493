"""The slow way to prune: no cache, no batch, no padding, no hooks; everything is computed anew and rows are dropped by hand.

Also the small pruners that the engine's tests use, so that they do not depend on any method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.pruners.readings import ATTENTION, Reading
from biaskit.select.keep import Keep


@dataclass(frozen=True)
class At:
    """A stage that keeps `budget` tokens, or a share of N."""

    layer: int
    budget: int | None = None
    share: float = 0.3

    def tokens(self, n):
        return min(n, self.budget) if self.budget is not None else max(1, int(n * self.share))


@dataclass(frozen=True)
class Top:
    """The n tokens that the last prompt token attends to most."""

    layer: int = 2
    budget: int | None = 5
    share: float = 0.3
    positions: str = "original"
    prior: ClassVar[str] = "optional"
    needs: ClassVar[frozenset[Reading]] = frozenset({ATTENTION})

    @property
    def debiases(self):
        return self.prior != "unused"

    def check_prior(self, prior):
        if prior is not None and self.debiases:
            for stage in self.stages():
                prior.layer(stage.layer - 1)

    def stages(self):
        return (At(self.layer, self.budget, self.share),)

    def fit_prior(self, prior, layout, layer):
        return prior.for_layout(layout, layer)

    def select(self, signals, budget):
        score = signals[ATTENTION] if signals.a_bias is None else signals[ATTENTION] / signals.a_bias
        return Keep(score.argsort(descending=True, stable=True)[:budget].sort().values)


@dataclass(frozen=True)
class Anywhere(Top):
    """n random tokens; works before the language model."""

    layer: int = 0
    prior: ClassVar[str] = "unused"
    needs: ClassVar[frozenset[Reading]] = frozenset()

    def select(self, signals, budget):
        return Keep(torch.randperm(len(signals), generator=signals.generator)[:budget].sort().values, {"drawn": float(budget)})


@dataclass(frozen=True)
class Ragged(Anywhere):
    """Random tokens, and a random number of them."""

    def select(self, signals, budget):
        n = int(torch.randint(1, budget + 1, (), generator=signals.generator))
        return super().select(signals, n)


@dataclass(frozen=True)
class Steps(Anywhere):
    """Random tokens in several stages: (layer, budget) each."""

    at: tuple[tuple[int, int], ...] = ((1, 6), (3, 3))

    def stages(self):
        return tuple(At(layer, budget) for layer, budget in self.at)


def picture(cols: int, rows: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (rows // 8 + 1, cols // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((cols, rows))


@cache
def model_of(name: str, attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> tuple[Any, Any, Any]:
    """The checkpoint of the tests: the same weights at any precision."""
    return tiny_model(name, attention=attention, dtype=dtype)


def cast(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}


def positions_left(inputs: dict[str, Any], samples: Any, config: Any) -> list[list[tuple[int, np.ndarray]]]:
    """Per sample and stage: (layer, positions of the prompt that are left), from the report of one-stage pruners."""
    left = []
    for ids, sample in zip(inputs["input_ids"].numpy(), samples, strict=True):
        visual = np.flatnonzero(ids == config.image_token_id)
        dropped = np.delete(visual, sample.indices.numpy())
        left.append([(sample.stages[-1][0], np.setdiff1d(np.arange(len(ids)), dropped))])
    return left


class _Stop(Exception):
    pass


def _entering(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the language model receives for a whole sequence."""
    got: dict[str, Any] = {}

    def stop(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        got.update(kwargs)
        raise _Stop

    handle = decoder(model).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.base_model(**inputs, use_cache=False)
    except _Stop:
        pass
    finally:
        handle.remove()
    return got


@torch.no_grad()
def reference_logits(
    model: Any,
    inputs: dict[str, Any],
    generated: torch.Tensor,
    left: list[list[tuple[int, np.ndarray]]],
    *,
    compact: bool = False,
    real: torch.Tensor | None = None,
    values: Any = None,
) -> torch.Tensor:
    """[B, T, vocabulary] logits before each of the T generated tokens [B, T], in float64.

    Args:
        model: a float64 model under sdpa. inputs: the processor's output, left-padded.
        left: per sample, per stage, (layer, positions of the prompt that are left from it on).
        compact: rows that are left are numbered anew, 0, 1, …
        values: per sample, layer → (positions, [n, d] what stands there from it on).
        real: [B, T] 1 for tokens, 0 for padding among the generated; logits of a sample are then right from its last padding on.
    """
    stack, steps = decoder(model), generated.shape[1]
    prompt = inputs["input_ids"].shape[1]
    whole = {**cast(inputs, torch.float64), "input_ids": torch.cat([inputs["input_ids"], generated], 1)}
    whole["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(generated) if real is None else real], 1)
    if "mm_token_type_ids" in whole:
        whole["mm_token_type_ids"] = torch.cat([whole["mm_token_type_ids"], torch.zeros_like(generated)], 1)
    got = _entering(model, whole)
    embeds, length = got["inputs_embeds"], prompt + steps
    position_ids = got.get("position_ids")
    if position_ids is None or position_ids.ndim == 2:
        position_ids = (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    elif len(position_ids) == 4:
        position_ids = position_ids[1:]
    rotary = [part.expand(len(embeds), -1, -1) for part in stack.rotary_emb(embeds, position_ids)]
    deep = torch.zeros(len(stack.layers), *embeds.shape, dtype=embeds.dtype)
    for layer, features in enumerate(got.get("deepstack_visual_embeds") or []):
        deep[layer][got["visual_pos_masks"]] = features
    logits = []
    for b, stages in enumerate(left):
        rows = whole["attention_mask"][b].nonzero()[:, 0]
        state, begins = embeds[b, rows], dict(stages)
        cos, sin = (part[b, rows] for part in rotary)
        for number, layer in enumerate(stack.layers):
            if number in begins:
                stay = np.isin(rows.numpy(), np.concatenate([begins[number], np.arange(prompt, length)]))
                rows, state = rows[stay], state[stay]
                cos, sin = (part[: len(rows)] if compact else part[stay] for part in (cos, sin))
            if values is not None and number in values[b]:
                where, contents = values[b][number]
                state = state.clone()
                state[np.searchsorted(rows.numpy(), where)] = contents
            causal = torch.ones(len(rows), len(rows), dtype=torch.bool).tril()[None, None]
            state = layer(state[None], attention_mask=causal, position_embeddings=(cos[None], sin[None]), position_ids=None)[0]
            state = state + deep[number, b, rows]
        last = stack.norm(state[-steps - 1 : -1])
        logits.append(model.lm_head(last))
    return torch.stack(logits)
