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
from biaskit.select import cells, uniform_select
from biaskit.select.keep import Keep


@pruners.register("pool")
@dataclass(frozen=True)
class Pool(Pruner):
    """Evenly spaced tokens on the grid, each the mean of the projector's outputs of all tokens that are nearest to it."""

    name: ClassVar[str] = "pool"
    title: ClassVar[str] = "Pooling"
    paper: ClassVar[str] = "baseline; arXiv 2510.07143 shows how hard such baselines are to beat"
    acts: ClassVar[str] = "between projector and language model"
    needs: ClassVar[frozenset[Reading]] = frozenset({EMBEDS})
    deviations: ClassVar[tuple[str, ...]] = ()

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Average each token into the nearest kept token."""
        features = signals[EMBEDS]
        places, nearest = nearest_places(cells(signals.layout, newline_column=False), budget)
        sizes, nearest = torch.bincount(nearest, minlength=len(places)).to(features.device), nearest.to(features.device)
        sums = features.new_zeros((len(places), features.shape[1]), dtype=torch.float32).index_add_(0, nearest, features.float())
        alone = features[places.to(features.device)]
        values = torch.where((sizes > 1)[:, None], (sums / sizes[:, None]).to(features.dtype), alone)
        return Keep(places, {"merged": float(len(places))}, values)


def nearest_places(where: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return n evenly spaced ones of [N, 3] cells, and for each cell the nearest of them within its plane: int64 [n], [N].

    A plane too small for a share of n goes to the nearest kept token of the sequence. A tie goes to the later
    place: if n divides the grid evenly, its blocks are averaged.

    Example:
        >>> from biaskit.select import cells
        >>> [part.tolist() for part in nearest_places(cells((2, 4)), 2)]
        [[5, 7], [0, 0, 1, 1, 0, 0, 1, 1]]
    """
    places = uniform_select(len(where), n, where=where)
    nearest = torch.empty(len(where), dtype=torch.int64)
    for plane in where[:, 0].unique():
        mine, kept = torch.nonzero(where[:, 0] == plane)[:, 0], torch.nonzero(where[places, 0] == plane)[:, 0]
        if len(kept):
            spot, other = where[mine, 1:].double(), where[places[kept], 1:].double()
            # squared distances without the cell's own length: whole numbers, so ties are exact
            distance = (other**2).sum(1) - 2 * (spot @ other.mT)
        else:
            kept = torch.arange(len(places))
            distance = (mine[:, None] - places).abs()
        nearest[mine] = kept[len(kept) - 1 - distance.flip(1).argmin(1)]
    nearest[places] = torch.arange(len(places))
    return places, nearest
