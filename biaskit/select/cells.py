"""Positions of tokens as (plane, row, col), and their neighbours. Neighbours by flattened index would wrap around rows and mix tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.grid import Layout

_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def cells(grid: Layout | tuple[int, int], *, newline_column: bool = True) -> Tensor:
    """Return (plane, row, col) of every visual token: [N, 3] int64.

    Args:
        grid: (rows, cols) of one plane in raster order, or a layout.
        newline_column: count a row's newline token as one more column of its image's canvas; otherwise newlines are a separate plane.

    Example:
        >>> cells((2, 2)).tolist()
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]
    """
    if not isinstance(grid, Layout):
        rows, cols = grid
        raster = torch.arange(rows * cols)
        return torch.stack([torch.zeros_like(raster), raster // max(cols, 1), raster % max(cols, 1)], 1)
    plane, row, col = (torch.tensor(part, dtype=torch.int64) for part in (grid.plane, grid.row, grid.col))
    if newline_column:
        canvas = {p.image: index for index, p in enumerate(grid.planes) if p.name == "canvas"}
        for index, p in enumerate(grid.planes):
            home = canvas.get(p.image)
            if p.name == "newline" and home is not None and grid.planes[home].rows == p.rows:
                mine = plane == index
                col, plane = col.masked_fill(mine, grid.planes[home].cols), plane.masked_fill(mine, home)
    return torch.stack([plane, row, col], 1)


def check_cells(where: Tensor, n_tokens: int) -> None:
    """Raise BiaskitError if `where` is not [N, 3] whole numbers from 0."""
    if where.shape != (n_tokens, 3) or where.is_floating_point():
        raise BiaskitError(
            f"cells have shape {list(where.shape)}, not [{n_tokens}, 3]", "pass every token's (plane, row, col), as cells() makes"
        )
    if n_tokens and int(where.min()) < 0:
        raise BiaskitError("a cell has a negative plane, row or column", "count planes, rows and columns from 0")


def neighbours(where: Tensor) -> Tensor:
    """Return each token's eight neighbours in its plane (D2Pruner, eq. 6): [N, 8] int64 indices, −1 for a missing neighbour.

    Column k and column 7 − k are opposite directions.

    Args:
        where: [N, 3] int64 (plane, row, col), as `cells` makes. Any order of tokens; planes need not be full.

    Raises:
        BiaskitError: not [N, 3], negative, or two tokens in one cell.

    Example:
        >>> neighbours(cells((1, 3))).tolist()
        [[-1, -1, -1, -1, 1, -1, -1, -1], [-1, -1, -1, 0, 2, -1, -1, -1], [-1, -1, -1, 1, -1, -1, -1, -1]]
    """
    check_cells(where, len(where))
    if not len(where):
        return where.new_zeros((0, 8))
    plane, row, col = where.unbind(1)
    n_planes = int(plane.max()) + 1
    rows = torch.zeros(n_planes, dtype=torch.int64, device=where.device).scatter_reduce(0, plane, row + 1, "amax")
    cols = torch.zeros_like(rows).scatter_reduce(0, plane, col + 1, "amax")
    sizes = (rows + 2) * (cols + 2)  # with a border of empty cells around every plane, so that every neighbour is inside the table
    width = cols[plane] + 2
    place = (sizes.cumsum(0) - sizes)[plane] + (row + 1) * width + col + 1
    table = torch.full((int(sizes.sum()),), -1, dtype=torch.int64, device=where.device)
    table[place] = torch.arange(len(where), device=where.device)
    if int((table >= 0).sum()) != len(where):
        raise BiaskitError("two visual tokens share one cell", "give every token its own (plane, row, col)")
    return torch.stack([table[place + down * width + right] for down, right in _DIRECTIONS], 1)
