"""The measures of a decision that validation writes into a record's `selection`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from biaskit.grid import Layout
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import cells, relative_attention
from biaskit.select.keep import Keep
from biaskit.select.kept.features import Reference, hopkins, importance_retention
from biaskit.select.kept.places import box_weights, coverage, spacing

Features = Literal["embeds", "hidden"]


@dataclass(frozen=True)
class Analysis:
    """Measures a kept set. Call it with the pruner's signals and Keep.

    Importance is the last prompt token's attention at layer K − 1, raw and, with a prior, debiased: the same for every method at that K.
    Diversity is measured on the projector's output, which does not depend on K, or on the hidden states before layer K (at K = 0 the same).

    Attributes:
        features: `embeds` or `hidden`. reference, draws, seed: of the Hopkins statistic.
    """

    features: Features = "embeds"
    reference: Reference = "box"
    draws: int = 20
    seed: int = 0

    @property
    def needs(self) -> frozenset[Reading]:
        """The readings to record; before the language model (K = 0) only the projector's output exists."""
        return frozenset({ATTENTION, EMBEDS, HIDDEN if self.features == "hidden" else EMBEDS})

    def settings(self) -> dict[str, Any]:
        """Return the settings that the measures depend on, for the manifest."""
        return {
            "importance": "attention of the last prompt token at layer K - 1",
            "features": self.features,
            "hopkins_reference": self.reference,
            "hopkins_draws": self.draws,
            "seed": self.seed,
        }

    def __call__(self, signals: Signals, keep: Keep | Tensor) -> dict[str, float]:
        """Return the measures that are defined, all finite.

        `share_kept`, `spacing`, `importance` (with attention), `importance_debiased` (with a prior too), `hopkins`, `hopkins_sd` and
        `nearest_feature`. For a method with several stages, the signals are those of its last stage.

        Args:
            signals: of one sample. keep: the pruner's answer, or its [n] indices.

        Raises:
            BiaskitError: invalid kept indices.
        """
        kept = keep.indices if isinstance(keep, Keep) else keep
        found = {"share_kept": len(kept) / len(signals), "spacing": spacing(cells(signals.layout), kept)}
        found |= self._importance(signals, kept) | self._diversity(signals, kept)
        return _finite(found)

    def _importance(self, signals: Signals, kept: Tensor) -> dict[str, float]:
        if ATTENTION not in signals or not bool((signals[ATTENTION] > 0).any()):
            return {}
        attention = signals[ATTENTION]
        found = {"importance": importance_retention(attention, kept)}
        if signals.a_bias is not None:
            found["importance_debiased"] = importance_retention(relative_attention(attention, signals.a_bias), kept)
        return found

    def _diversity(self, signals: Signals, kept: Tensor) -> dict[str, float]:
        wanted = HIDDEN if self.features == "hidden" and HIDDEN in signals else EMBEDS
        if wanted not in signals:
            return {}
        found = hopkins(signals[wanted], kept, reference=self.reference, draws=self.draws, seed=self.seed)
        return {"hopkins": found.value, "hopkins_sd": found.sd, "nearest_feature": found.nearest}


def region_coverage(layout: Layout, region: tuple[float, float, float, float] | None, kept: Tensor, image: int = 0) -> dict[str, float]:
    """Return `coverage` of the part of the image that a question is about; {} if there is none, or no visual token shows it.

    Args:
        layout: from `family.prepare`, which knows the image's size (the engine does not, if LLaVA-1.5 crops).
        region: (top, left, bottom, right), fractions of the image's rows and cols, from the task. kept: [n] indices. image: its number.

    Raises:
        BiaskitError: a region without area, or a layout whose planes have no boxes.
    """
    if region is None:
        return {}
    top, left, bottom, right = region
    return _finite({"coverage": coverage(box_weights(layout, (left, top, right, bottom), image), kept)})


def _finite(found: Mapping[str, float]) -> dict[str, float]:
    """Leave out undefined values, and round the others."""
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}
