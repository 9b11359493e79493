"""Shared by methods that read the vision tower and drop tokens before the language model: tiles, patch features, merged tokens."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biaskit.pruners.base import Positions, Pruner, param
from biaskit.pruners.readings import EMBEDS, Heads, Reading, What
from biaskit.pruners.signals import Signals
from biaskit.select import Merge, largest_remainder
from biaskit.select.keep import Keep

FEATURES = Reading("hidden", "tower", layer=-2)
"""[P, D] output of the tower's second to last block, of which LLaVA's projector makes visual tokens."""

BY_TILE = "tiles share the budget by their sizes, newlines are dropped first; the released code gives all the same and drops all newlines"
"""A deviation that methods of the tower share."""

Attend = Literal["cls", "mean"]


def tower_row(attend: Attend, layer: int = -2, *, what: What = "attention", heads: Heads = "mean") -> Reading:
    """Return the reading of a row of the tower: the class token's, or the mean over all rows of a tile.

    Example:
        >>> str(tower_row("cls"))
        'attention[tower, layer=-2, queries=cls]'
    """
    return Reading(what, "tower", layer=layer, queries=attend, heads=heads)


def tile_of(signals: Signals) -> Tensor:
    """Return the tile of the tower behind each visual token: [N] int64 on the host, −1 for tokens without a patch (newlines)."""
    assert signals.patch_index is not None
    first = torch.from_numpy(signals.patch_index.index.max(1, initial=-1))
    ends = torch.tensor(signals.patch_index.tiles).cumsum(0)
    return torch.where(first < 0, -1, torch.searchsorted(ends, first, right=True))


@dataclass(frozen=True)
class TowerPruner(Pruner):
    """Base class of methods that choose among the tokens of a tile by readings of the vision tower, before the language model.

    Tiles share a budget by their numbers of tokens (largest remainder); tokens without a patch (newlines) are dropped first.
    """

    acts: ClassVar[str] = "between vision tower and language model"
    families: ClassVar[str] = "towers with a class token (LLaVA-1.5, LLaVA-NeXT, InternVL); with attend=mean every family"
    needs: ClassVar[frozenset[Reading]] = frozenset({tower_row("cls")})

    layer: int = param(0, "K: tokens are dropped before this decoder layer; 0 is before the language model")
    positions: Positions = param("compact", "position ids of the kept tokens: compact (renumbered, as published for LLaVA) or original")
    attend: Attend = param(
        "cls", "rows of the tower that are read: cls (the class token's), or mean (all of a tile, for towers without one)"
    )
    pool: Literal["tile", "prompt"] = param("tile", "tokens that compete: those of a tile, or all of the prompt")

    def readings(self) -> frozenset[Reading]:
        """Return `needs` with the tower's rows as `attend` says."""
        return frozenset(replace(one, queries=self.attend) if one.at == "tower" and one.rows else one for one in super().readings())

    def row_of(self, layer: int = -2, *, what: What = "attention", heads: Heads = "mean") -> Reading:
        """Return the reading of the tower's row that `attend` says."""
        return tower_row(self.attend, layer, what=what, heads=heads)

    def choose(self, signals: Signals, budget: int) -> Keep:
        """Choose within every group of competing tokens."""
        chosen = [self.choose_tile(signals, tokens, n) for tokens, n in self.groups(signals, budget) if n]
        return _joined(chosen, signals)

    def groups(self, signals: Signals, budget: int) -> list[tuple[Tensor, int]]:
        """Return the competing tokens, [m] indices on the host, and how many of them are kept; newlines last."""
        tile = tile_of(signals)
        if self.pool == "prompt":
            tile = tile.clamp(max=0)
        parts = [torch.nonzero(tile == number)[:, 0] for number in range(int(tile.max()) + 1)]
        sizes = list(map(len, parts))
        rest = budget - sum(shares := largest_remainder(sizes, min(budget, sum(sizes))))
        newlines = torch.nonzero(tile < 0)[:, 0]
        return [*zip(parts, shares, strict=True), (newlines, rest)] if rest else list(zip(parts, shares, strict=True))

    @abstractmethod
    def choose_tile(self, signals: Signals, tokens: Tensor, n: int) -> Keep:
        """Choose n of the `tokens` [m] of one group: 1 ≤ n ≤ m. Indices are into all N tokens of the sample."""


def merged(signals: Signals, tokens: Tensor, merge: Merge) -> Keep:
    """Project the merged patch features of [m] tokens; tokens that nothing was merged into keep the model's own embedding."""
    assert signals.project is not None
    places = tokens[merge.indices.cpu()]
    features, values = signals.patch_rows(FEATURES, tokens), signals.at(EMBEDS, places)
    changed = merge.merged
    if len(changed):
        rows = Merge(merge.indices[changed], merge.weights[changed])(features.flatten(1)).unflatten(1, features.shape[1:])
        values[changed] = signals.project(rows.to(features.dtype)).to(values.dtype)
    return Keep(places, {"merged": float(len(changed))}, values)


def _joined(chosen: list[Keep], signals: Signals) -> Keep:
    """Join the answers of groups. If one has `values`, those of the others are the model's own embeddings."""
    indices = torch.cat([keep.indices.cpu() for keep in chosen])
    info = {name: sum(keep.info.get(name, 0.0) for keep in chosen) for name in sorted({name for keep in chosen for name in keep.info})}
    if all(keep.values is None for keep in chosen):
        return Keep(indices, info)
    values = [signals.at(EMBEDS, keep.indices) if keep.values is None else keep.values for keep in chosen]
    return Keep(indices, info, torch.cat(values))
