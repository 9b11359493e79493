"""Small pruners that the engine's tests use, so that they depend on no method; checkpoints at any precision; what a report says was kept.

What pruned `generate()` is held against is `biaskit.engine.reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

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

    def remarks(self, prior):
        return ()

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


def by_hand(inputs: dict[str, Any], config: Any, decided: Any) -> tuple[list[list[tuple[int, np.ndarray]]], list[dict[int, Any]]]:
    """What `reference_logits` needs to do what was decided, from (signals, keep) of each stage, and in it of each sample.

    Per sample: [(layer, positions of the prompt that are left)], and layer → (positions, float64 contents) where there are new ones.
    """
    ids = inputs["input_ids"].numpy()
    left, values = [[] for _ in ids], [{} for _ in ids]
    for number, (signals, keep) in enumerate(decided):
        b = number % len(ids)
        kept = signals.layout.positions[keep.indices.numpy()]
        dropped = np.setdiff1d(np.flatnonzero(ids[b] == config.image_token_id), kept)
        left[b].append((signals.layer, np.setdiff1d(np.arange(ids.shape[1]), dropped)))
        if keep.values is not None:
            values[b][signals.layer] = kept, keep.values.double()
    return left, values


def positions_left(inputs: dict[str, Any], samples: Any, config: Any) -> list[list[tuple[int, np.ndarray]]]:
    """Per sample and stage: (layer, positions of the prompt that are left), from the report of one-stage pruners."""
    left = []
    for ids, sample in zip(inputs["input_ids"].numpy(), samples, strict=True):
        visual = np.flatnonzero(ids == config.image_token_id)
        dropped = np.delete(visual, sample.indices.numpy())
        left.append([(sample.stages[-1][0], np.setdiff1d(np.arange(len(ids)), dropped))])
    return left
