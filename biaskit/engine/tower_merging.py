"""Merge patches inside a stock vision tower (ToMe), block by block, without changing how many rows it computes.

A merged token of s patches is carried as s equal rows. Attention over s equal keys weights them as one key with log(s) added to its logit,
and the mean over all patches of two groups is their mean weighted by size: what stock blocks compute is ToMe with proportional attention,
exactly, under any attention implementation. The tower takes as long as before; the language model gets the shorter sequence.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from biaskit.engine.calls import Call, watch_calls
from biaskit.errors import ModelError
from biaskit.families.checkpoints.tower import Tower, norm_before_mlp
from biaskit.select.keep import budget
from biaskit.select.tome import Matching, bipartite_matching, merging_schedule


def check_merging(tower: Tower) -> None:
    """Refuse towers in which a patch is not a visual token.

    Raises:
        ModelError: several patches make a token, or a block without a norm between attention and MLP.
    """
    if tower.merged != 1:
        raise ModelError(
            f"tokens cannot be merged inside this vision tower: {tower.merged} of its patches make one visual token",
            "patches are tokens in llava (1.5, NeXT, OneVision); elsewhere use visionzip with attend='mean', which merges after the tower",
        )
    for block in tower.blocks[: tower.blocks_read]:
        norm_before_mlp(block)


@contextmanager
def merge_in_tower(tower: Tower, share: float) -> Iterator[list[Tensor]]:
    """Merge the patches of every tile, down to a share of them, while the tower runs inside the block, in the thread that opened it.

    Args:
        tower: of a stock model. share: of each tile's patches that remains, halves rounded up; blocks share the merges evenly.

    Yields:
        A list that is complete at the end: for each run of the tower [tiles, M] int64, the index of each patch's merged token in its tile.

    Raises:
        ModelError: a tower that cannot merge, or too few blocks: each merges at most half of the tokens.
    """
    check_merging(tower)
    mine, found, state = threading.get_ident(), list[Tensor](), _Tiles(tower, share)

    def norm_enters(layer: int, _module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if threading.get_ident() == mine:
            state.apply(layer, args[0] if args else kwargs["hidden_states"])
            if layer == tower.blocks_read - 1:
                found.append(state.groups())

    modules = {tower.attention[layer]: layer for layer in range(tower.blocks_read)}
    with ExitStack() as handles:
        for layer in range(tower.blocks_read):
            hook = partial(norm_enters, layer)
            handles.callback(norm_before_mlp(tower.blocks[layer]).register_forward_pre_hook(hook, with_kwargs=True).remove)
        handles.enter_context(watch_calls(tower.implementation, modules, state.match))
        yield found


class _Tiles:
    """The merges of one run of the tower: which merged token each row of each tile is in."""

    def __init__(self, tower: Tower, share: float) -> None:
        self.tower, self.share, self.matched = tower, share, -1
        self.home = self.member = torch.empty(0)
        self.schedule: list[int] = []

    def match(self, layer: int, call: Call) -> None:
        """Find the pairs of one block by its keys, [tiles, heads, T, head_dim]."""
        keys, cls = call.key.float().mean(1), int(self.tower.has_cls)
        if layer == 0:
            patches = keys.shape[1] - cls
            self.schedule = merging_schedule(patches, budget(patches, self.share), self.tower.blocks_read, protected=cls)
            self.home = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
            self.member = self.home
        homes, members = [], []
        for tile, home, member in zip(keys, self.home, self.member, strict=True):
            matching: Matching = bipartite_matching(tile[member], self.schedule[layer], protected=cls)
            homes.append(matching.home[home])
            members.append(member[matching.stands_for])
        self.home, self.member, self.matched = torch.stack(homes), torch.stack(members), layer

    def apply(self, layer: int, hidden: Tensor) -> None:
        """Set all rows of a merged token, [tiles, T, D], to their mean. In place, since the block adds to this tensor afterwards."""
        if self.matched != layer:
            raise ModelError(
                f"block {layer} of the vision tower did not call the attention function", "load the model with attention='sdpa'"
            )
        if not any(self.schedule[: layer + 1]):
            return
        wide = hidden.double() if hidden.dtype == torch.float64 else hidden.float()
        home = self.home.to(hidden.device)[..., None].expand_as(wide)
        size = self.member.shape[1]
        total = wide.new_zeros(len(wide), size, wide.shape[2]).scatter_add(1, home, wide)
        count = wide.new_zeros(total.shape).scatter_add(1, home, torch.ones_like(wide))
        hidden.copy_((total / count).gather(1, home))

    def groups(self) -> Tensor:
        """[tiles, M] the merged token of every patch, without the class token."""
        return self.home[:, int(self.tower.has_cls) :] - int(self.tower.has_cls)
