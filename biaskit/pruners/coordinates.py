"""IVC-Prune's coordinate tokens and random others: a control that uses positions only, not the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from biaskit.errors import BiaskitError
from biaskit.pruners import pruners
from biaskit.pruners.base import Pruner, param
from biaskit.pruners.readings import Reading
from biaskit.pruners.signals import Signals
from biaskit.select import random_select
from biaskit.select.coordinates import coordinate_tokens
from biaskit.select.keep import Keep

_ROTATIONS = Reading("rotations")


@pruners.register("coordinates")
@dataclass(frozen=True)
class Coordinates(Pruner):
    """The tokens that rotary embedding rotates least or by a right angle, and random ones: a control for position alone."""

    name: ClassVar[str] = "coordinates"
    title: ClassVar[str] = "Coordinate tokens"
    paper: ClassVar[str] = "IVC-Prune: Revealing the Implicit Visual Coordinates in LVLMs for Vision Token Pruning"
    year: ClassVar[int | None] = 2026
    arxiv: ClassVar[str] = "2602.03060"
    needs: ClassVar[frozenset[Reading]] = frozenset({_ROTATIONS})
    deviations: ClassVar[tuple[str, ...]] = (
        "the other kept tokens are random: a positional control, not IVC-Prune, which chooses them by value vectors",
        "the share of coordinate tokens falls with the budget, to at most half of the kept tokens; published budgets are fixed",
        "coordinate tokens are chosen over the whole prompt; for InternVL the paper chooses them tile by tile",
    )

    share: float = param(0.1, "ρ: share of all visual tokens chosen by cosine, and the same by sine; at most n / 4N")

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.check_range("share", 0, 1)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Take the coordinate tokens, then draw the rest.

        Raises:
            BiaskitError: the signals have no generator.
        """
        if signals.generator is None:
            raise BiaskitError("coordinates needs a generator, so that results can be repeated", "pass a seeded torch.Generator in Signals")
        n = len(signals)
        found = coordinate_tokens(signals[_ROTATIONS], math.floor(min(self.share, budget / (4 * n)) * n + 0.5)).cpu()
        others = torch.ones(n, dtype=torch.bool)
        others[found] = False
        rest = others.nonzero().flatten()
        drawn = rest[random_select(len(rest), budget - len(found), signals.generator)]
        return Keep(torch.cat([found, drawn]), {"coordinates": float(len(found))})
