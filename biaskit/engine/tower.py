"""Record readings of the vision tower while it encodes images; see `recorder` for those of the decoder.

A tower's batch consists of tiles (LLaVA, InternVL), or is one sequence of the patches of all images (Qwen-VL), with attention inside images
or windows. Either way the recorded readings have one row per patch, in the order of the tower's sequence, without CLS tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from biaskit.engine.calls import Call, watch_calls
from biaskit.engine.recorder import join_heads, mean_of_rows
from biaskit.errors import ModelError
from biaskit.families import Prepared
from biaskit.families.checkpoints.flops import TowerDims, tower_cost, tower_rows_cost
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tower import Tower, tower_dims
from biaskit.pruners.readings import Reading


def tower_readings(needs: Iterable[Reading]) -> frozenset[Reading]:
    """Return the readings of the vision tower among `needs`, without those of merging, which changes what the tower computes.

    Example:
        >>> found = tower_readings({Reading("attention"), Reading("hidden", "tower", layer=-2)})
        >>> [str(reading) for reading in found]
        ['hidden[tower, layer=-2]']
    """
    return frozenset(reading for reading in needs if reading.at == "tower" and reading.what != "groups")


def tower_flops(dims: TowerDims, tiles: Sequence[int], needs: Iterable[Reading]) -> tuple[int, int]:
    """Return the multiply-adds of encoding tiles with these numbers of patches, and those that readings add, by `flops.TOWER`.

    Readings of one block with the same queries share one product of queries and keys.
    """
    read = {(one.layer % dims.blocks, one.queries) for one in tower_readings(needs) if one.what in ("attention", "logits")}
    return tower_cost(dims, tiles), tower_rows_cost(dims, tiles, [1 if queries == "cls" else None for _, queries in read])


def tower_sizes(loaded: Loaded) -> TowerDims | None:
    """Return the sizes of a checkpoint's vision tower; None where it is not known."""
    try:
        return tower_dims(loaded.family.tower(loaded.model))
    except ModelError:
        return None


def patches_of_tiles(loaded: Loaded, prepared: Prepared) -> tuple[tuple[int, ...], ...] | None:
    """Return how many patches each tile of each sample has; None where the family does not say."""
    try:
        found = loaded.family.patch_index(loaded.model.config, prepared.inputs, prepared.layouts)
    except ModelError:
        return None
    return tuple(index.tiles for index in found)


def check_tower(tower: Tower, readings: Iterable[Reading]) -> None:
    """Refuse readings that a tower does not have.

    Raises:
        ModelError: a block that it does not have, or queries='cls' without a CLS token.
    """
    depth = len(tower.blocks)
    for reading in readings:
        if not -depth <= reading.layer < depth:
            raise ModelError(f"{reading}: the vision tower has blocks 0 … {depth - 1}", f"choose a layer from {-depth} to {depth - 1}")
        if reading.queries == "cls" and not tower.has_cls:
            raise ModelError(
                f"{reading}: the vision tower of this model has no CLS token",
                "those of llava, llava-next (CLIP) and internvl have one; elsewhere read the mean of all rows: queries='mean', "
                "a pruner's attend='mean'",
            )


@contextmanager
def record_tower(tower: Tower, readings: frozenset[Reading]) -> Iterator[dict[Reading, Tensor]]:
    """Record readings while the tower runs inside the block, in the thread that opened it.

    Yields:
        A dict that is complete at the end of the block: [P, …] or [heads, P, …] for the P patches of all tiles.

    Raises:
        ModelError: a reading that the tower does not have.
    """
    check_tower(tower, readings)
    depth, parts = len(tower.blocks), {reading: list[Tensor]() for reading in readings}
    calls: dict[int, list[Reading]] = {}
    found: dict[Reading, Tensor] = {}

    def called(layer: int, call: Call) -> None:
        for reading in calls[layer]:
            for piece in _pieces(call):
                parts[reading].append(_of_patches(reading, piece, tower.has_cls))

    mine = threading.get_ident()  # other threads may run the same tower meanwhile

    def ran(reading: Reading, _block: Any, _args: Any, output: Any) -> None:
        if threading.get_ident() != mine:
            return
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        parts[reading].append(hidden[:, int(tower.has_cls) :].flatten(0, 1) if hidden.ndim == 3 else hidden)

    with ExitStack() as handles:
        for reading in readings:
            layer = reading.layer % depth
            if reading.what == "hidden":
                handles.callback(tower.blocks[layer].register_forward_hook(partial(ran, reading)).remove)
            else:
                calls.setdefault(layer, []).append(reading)
        if calls:
            handles.enter_context(watch_calls(tower.implementation, {tower.attention[layer]: layer for layer in calls}, called))
        yield found
        found.update({reading: torch.cat(pieces, reading.axis) for reading, pieces in parts.items() if pieces})


def _pieces(call: Call) -> Iterator[Call]:
    """Split a call into its packed sequences."""
    if call.lengths is None:
        yield call
        return
    edges: list[int] = call.lengths.tolist()
    for start, end in pairwise(edges):
        query, key = call.query[:, :, start:end], call.key[:, :, start:end]
        yield Call(query, key, None, causal=call.causal, scaling=call.scaling, softcap=call.softcap)


def _of_patches(reading: Reading, call: Call, has_cls: bool) -> Tensor:
    """The reading of one call, for every patch of its tiles."""
    first = int(has_cls)
    if reading.what == "keys":
        keys = join_heads(call.key[:, :, first:].float(), reading.heads)
        return keys.flatten(0, 1) if reading.heads != "each" else keys.transpose(0, 1).flatten(1, 2)
    count = 1 if reading.queries == "cls" else call.query.shape[2]
    rows = mean_of_rows(call, reading, torch.arange(count, device=call.query.device))[..., first:]
    return rows.flatten() if reading.heads != "each" else rows.transpose(0, 1).flatten(1)
