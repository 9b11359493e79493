"""The pooling baseline: the grid is averaged down to n cells before the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from biaskit.pruners import pruners
from biaskit.pruners.base import Pruner, param
from biaskit.pruners.readings import EMBEDS, Reading
from biaskit.pruners.signals import Signals
from biaskit.select import Merge, cells, uniform_select
from biaskit.select.keep import Keep


@pruners.register("pool")
@dataclass(frozen=True)
class Pool(Pruner):
    """Evenly spaced tokens on the grid, each the mean of the projector's outputs of all tokens that are nearest to it."""

    name: ClassVar[str] = "pool"
    title: ClassVar[str] = "Pooling"
    paper: ClassVar[str] = "no paper: a baseline; arXiv 2510.07143 shows how hard such ones are to beat"
    acts: ClassVar[str] = "between projector and language model"
    needs: ClassVar[frozenset[Reading]] = frozenset({EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = ()

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Average each token into the nearest kept token."""
        features = signals[EMBEDS]
        merge = pooling(cells(signals.layout, newline_column=False), budget)
        return Keep(merge.indices, {"merged": float(len(merge))}, merge.into(features))


def pooling(where: Tensor, n: int) -> Merge:
    """Return the merge of [N, 3] cells into n evenly spaced ones: plain means of what is nearest, within a plane.

    A plane too small for a share of n is averaged into the nearest kept token of the sequence. A tie
    goes to the later place: where n divides the grid evenly, its blocks are averaged.

    Example:
        >>> from biaskit.select import cells
        >>> pooling(cells((2, 4)), 2).weights.tolist()
        [[0.25, 0.25, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.25, 0.0, 0.0, 0.25, 0.25]]
    """
    places = uniform_select(len(where), n, where=where)
    plane, spot = where[:, 0], where[:, 1:].double()
    apart = torch.cdist(spot, spot[places])
    foreign = plane[:, None] != plane[places]
    along = (torch.arange(len(where))[:, None] - places).abs().double()
    distance = torch.where(foreign.all(1, keepdim=True), along, torch.where(foreign, torch.inf, apart))
    home = len(places) - 1 - distance.flip(1).argmin(1)
    home[places] = torch.arange(len(places))
    weights = torch.zeros(len(places), len(where))
    weights[home, torch.arange(len(where))] = 1 / torch.bincount(home, minlength=len(places))[home].float()
    return Merge(places, weights)
