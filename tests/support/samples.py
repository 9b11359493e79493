"""Signals of made-up samples, complete and reproducible, for tests of pruners."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biaskit.calibration.deletions import Deletions
from biaskit.grid import Layout, Plane, Tokens, join, raster
from biaskit.pruners.readings import ATTENTION, EMBEDS, HIDDEN, KEYS, NAMES, TEXT_HIDDEN, TEXT_KEYS
from biaskit.pruners.schedule import Schedule
from biaskit.pruners.signals import Signals


def layout(*parts: Tokens, first: int = 5, between: int = 0) -> Layout:
    """Tokens of several images, one after another with `between` text tokens in between."""
    body = join(parts)
    positions = first + np.arange(len(body)) + between * np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    return Layout(positions, body.planes, body.plane, body.row, body.col)


def signals(where: Layout | tuple[int, int] = (6, 6), seed: int = 0, layer: int = 2, **replaced: Any) -> Signals:
    if not isinstance(where, Layout):
        where = layout(raster(Plane("image", *where)))
    n, random = len(where), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    found = Signals(
        layout=where,
        layer=layer,
        readings={
            ATTENTION: torch.rand(n, generator=random) / n,
            HIDDEN: normal(n, 12) + 2 * normal(1, 12),
            TEXT_HIDDEN: normal(9, 12),
            KEYS: normal(2, n, 4),
            TEXT_KEYS: normal(2, 9, 4),
            EMBEDS: normal(n, 10) + normal(1, 10),
        },
        text_positions=torch.tensor([0, 1, 2, 3, 4, *(int(where.positions[-1]) + i for i in range(1, 5))]),
        final_norm=lambda hidden: hidden * 2,
        a_bias=torch.rand(n, generator=random) + 0.2,
        generator=torch.Generator().manual_seed(7),
    )
    return changed(found, **replaced)


def changed(seen: Signals, **replaced: Any) -> Signals:
    """The same signals with other readings, by name (None: without it), or other attributes."""
    named = {name: reading for reading, name in NAMES.items() if name in replaced}
    readings = {**seen.readings, **{reading: replaced.pop(name) for name, reading in named.items()}}
    return dataclasses.replace(seen, readings={key: value for key, value in readings.items() if value is not None}, **replaced)


def two_images() -> Layout:
    return layout(raster(Plane("image", 4, 4)), raster(Plane("image", 2, 4, image=1)), between=3)


def with_newlines() -> Layout:
    row, col = np.divmod(np.arange(12), 4)
    canvas = Tokens((Plane("canvas", 3, 3), Plane("newline", 3, 1, None)), (col == 3).astype(np.int64), row, np.where(col == 3, 0, col))
    return layout(raster(Plane("base", 2, 2)), canvas)


def schedule_of(model_type: str, depth: int, *, n_tokens: int = 576, seed: int = 0) -> Schedule:
    """A schedule of FitPrune of random maps, as a calibration of a model would give it."""
    deletions, random = Deletions(depth), np.random.default_rng(seed)
    place = layout(raster(Plane("image", 1, n_tokens)))
    peaked = 1 + 3 * np.arange(depth)[:, None, None]  # so that every layer finds something to delete
    for slot in range(3):
        deletions.add(slot, place, random.random((depth, 2, n_tokens)) ** peaked)
    parts = [deletions.mean(part) for part in ("share", "entering", "squares")]
    return Schedule(*parts, {"model_type": model_type, "hidden_size": "64", "intermediate_size": "128", "n_images": "3"})
