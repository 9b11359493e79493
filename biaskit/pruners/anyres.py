"""Shared by any-resolution methods: the small view, the tiles of the large one, and which tile covers which part of the small one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from biaskit.pruners.signals import Signals
from biaskit.pruners.towers import tile_of

WHOLE = ("base", "thumbnail")
"""Planes that show the whole image, small, beside a canvas of tiles."""


@dataclass(frozen=True, eq=False)
class Views:
    """One image of a prompt.

    Attributes:
        whole: [M] tokens of the small view, in raster order; without tiles all tokens of the image.
        tiles: the tokens of each tile of the large view; empty for an image without tiles.
        regions: [M] the tile that covers each cell of the small view.
        grid: (rows, cols) of the small view. canvas: (rows, cols) of the large one without newlines.
        spot: [N] place of every token on the canvas in raster order, −1 elsewhere.
    """

    whole: Tensor
    tiles: tuple[Tensor, ...]
    regions: Tensor
    grid: tuple[int, int]
    canvas: tuple[int, int]
    spot: Tensor

    @property
    def n_tokens(self) -> int:
        """Tokens of the image, newlines left out."""
        return len(self.whole) + sum(map(len, self.tiles))


def views_of(signals: Signals) -> tuple[list[Views], Tensor]:
    """Return the images of a prompt, and the tokens that belong to no view: newlines, [k] indices."""
    layout, tile = signals.layout, tile_of(signals)
    plane = torch.from_numpy(layout.plane)
    found, used = [], torch.zeros(len(layout), dtype=torch.bool)
    for image in dict.fromkeys(p.image for p in layout.planes):
        planes = {p.name: index for index, p in enumerate(layout.planes) if p.image == image}
        small = next((planes[name] for name in WHOLE if name in planes), None)
        large = planes.get("canvas")
        views = _tiled(signals, tile, plane, small, large) if small is not None and large is not None else None
        if views is None:
            names = set(planes.values()) - {planes.get("newline", -1)}
            mine = torch.nonzero(torch.isin(plane, torch.tensor(sorted(names))) & (tile >= 0))[:, 0]
            spot = torch.full((len(layout),), -1)
            views = Views(mine, (), torch.zeros(len(mine), dtype=torch.int64), (len(mine), 1), (0, 0), spot)
        used[torch.cat([views.whole, *views.tiles])] = True
        found.append(views)
    return found, torch.nonzero(~used)[:, 0]


def _tiled(signals: Signals, tile: Tensor, plane: Tensor, small: int, large: int) -> Views:
    layout = signals.layout
    row, col = torch.from_numpy(np.array(layout.row)), torch.from_numpy(np.array(layout.col))
    rows, cols = layout.planes[large].rows, layout.planes[large].cols
    m, k = layout.planes[small].rows, layout.planes[small].cols
    canvas = (plane == large) & (tile >= 0)
    spot = torch.where(canvas, row * cols + col, -1)
    numbers = tile[canvas].unique()
    tiles = tuple(torch.nonzero(canvas & (tile == number))[:, 0] for number in numbers)
    covering = torch.zeros(rows * cols, dtype=torch.int64)
    covering[spot[canvas]] = torch.searchsorted(numbers, tile[canvas])
    whole = torch.nonzero((plane == small) & (tile >= 0))[:, 0]
    down = ((row[whole] * 2 + 1) * rows // (2 * m)).clamp(max=rows - 1)
    across = ((col[whole] * 2 + 1) * cols // (2 * k)).clamp(max=cols - 1)
    return Views(whole, tiles, covering[down * cols + across], (m, k), (rows, cols), spot)
