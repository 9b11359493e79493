"""Positions of the kept tokens: their spacing on the grid, and how much of an object's box they cover."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.grid import Box, Layout
from biaskit.select.cells import check_cells
from biaskit.select.kept.indices import check_kept

_BLOCK = 2048


def spacing(where: Tensor, kept: Tensor) -> float:
    """Mean Euclidean distance of a kept token to the nearest other one of its plane, in cells of that plane.

    Distances between planes are not defined (a base and a canvas show the same place at two scales): a token without another kept one in
    its plane is left out.

    Args:
        where: [N, 3] (plane, row, col) of all tokens, as `select.cells` makes.
        kept: [n] indices.

    Returns:
        At least 1; NaN if no plane has two kept tokens.

    Raises:
        BiaskitError: not [N, 3], or invalid kept indices.

    Example:
        >>> import torch
        >>> from biaskit.select import cells
        >>> spacing(cells((4, 4)), torch.tensor([0, 3]))
        3.0
    """
    check_cells(where, len(where))
    mine = where.cpu()[check_kept(kept, len(where)).cpu()]
    found = []
    for plane in mine[:, 0].unique():
        at = mine[mine[:, 0] == plane, 1:].double()
        if len(at) > 1:
            found += [_nearest(at[start : start + _BLOCK], at, start) for start in range(0, len(at), _BLOCK)]
    return float(torch.cat(found).mean()) if found else float("nan")


def _nearest(some: Tensor, everyone: Tensor, start: int) -> Tensor:
    """Distance of rows `start` … of [n, 2] to the nearest other row."""
    distance = torch.cdist(some, everyone, compute_mode="donot_use_mm_for_euclid_dist")
    distance.diagonal(start).fill_(torch.inf)
    return distance.amin(1)


def box_weights(layout: Layout, box: Box, image: int = 0) -> NDArray[np.float64]:
    """Share of each visual token's cell that lies inside an object's box: [N] in 0 … 1.

    Every plane that shows a part of the image counts: a base and a canvas each have tokens of the object.

    Args:
        layout: of the sample, from `family.prepare`, which knows the image's size.
        box: (left, top, right, bottom) as fractions of the image's width and height; parts outside the image are cut off.
        image: which image of the prompt.

    Raises:
        BiaskitError: a box without area, or no plane with a known box in that image.

    Example:
        >>> import numpy as np
        >>> from biaskit.grid import Plane, raster
        >>> grid = raster(Plane("image", 2, 2))
        >>> layout = Layout(np.arange(4), grid.planes, grid.plane, grid.row, grid.col)
        >>> box_weights(layout, (0.0, 0.0, 0.5, 1.0)).tolist()
        [1.0, 0.0, 1.0, 0.0]
    """
    left, top, right, bottom = (min(max(float(side), 0.0), 1.0) for side in box)
    if not (left < right and top < bottom):
        raise BiaskitError(f"the box {tuple(box)} has no area", "give (left, top, right, bottom) as fractions of the image, 0 … 1")
    weights = np.zeros(len(layout))
    placed = False
    for index, plane in enumerate(layout.planes):
        if plane.image != image or plane.box is None:
            continue
        placed = True
        mine = layout.plane == index
        rows, cols = plane.edges()
        across, down = _inside(cols, left, right), _inside(rows, top, bottom)
        weights[mine] = down[layout.row[mine]] * across[layout.col[mine]]
    if not placed:
        raise BiaskitError(
            f"no plane says which part of image {image} it covers", "take the layout of family.prepare, or pass the images' sizes"
        )
    return weights


def _inside(edges: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """[cells] share of each cell that lies in start … stop; `edges` [cells + 1] are the cells' borders."""
    share: NDArray[np.float64] = np.clip((np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)) / (edges[1:] - edges[:-1]), 0, 1)
    return share


def box_tokens(layout: Layout, box: Box, image: int = 0, least: float = 0.0) -> NDArray[np.int64]:
    """Return the tokens of an object's box, [b] ascending: those whose cell lies inside it by more than the share `least`.

    Raises:
        BiaskitError: as `box_weights`.

    Example:
        >>> import numpy as np
        >>> from biaskit.grid import Plane, raster
        >>> grid = raster(Plane("image", 2, 2))
        >>> layout = Layout(np.arange(4), grid.planes, grid.plane, grid.row, grid.col)
        >>> box_tokens(layout, (0.0, 0.0, 0.5, 1.0)).tolist()
        [0, 2]
    """
    return np.flatnonzero(box_weights(layout, box, image) > least).astype(np.int64)


def coverage(weights: NDArray[np.float64], kept: Tensor) -> float:
    """Share of a box's visual tokens that are kept; cells on its border count by the part that lies inside. 0 … 1.

    Args:
        weights: [N], of `box_weights`.
        kept: [n] indices.

    Returns:
        NaN if no visual token shows the box (cropped away).

    Raises:
        BiaskitError: invalid kept indices.

    Example:
        >>> import numpy as np, torch
        >>> coverage(np.array([1.0, 0.5, 0.5, 0.0]), torch.tensor([0, 3]))
        0.5
    """
    chosen = check_kept(kept, len(weights)).cpu().numpy()
    total = float(weights.sum())
    return min(float(weights[chosen].sum()) / total, 1.0) if total > 0 else float("nan")
