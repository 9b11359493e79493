"""The visual tokens that show padding when a picture is padded to a square: a mask, independent of any prior (arXiv 2508.17807)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError

Rule = Literal["area", "box"]


def picture_mask(width: int, height: int, *, grid: int = 24, threshold: float = 0.5, rule: Rule = "area") -> NDArray[np.bool_]:
    """True where a patch shows the picture, for one centred in a square of its longer side: [grid, grid].

    A masked token's score is 0. A processor that crops or stretches instead of padding has no such tokens.

    Args:
        width, height: of the picture, in any unit. grid: patches along each side of the square.
        threshold: a patch is padding if more than this share of its area is.
        rule: `area`; or `box`, whole rows or columns as LLaVA removes padding: ⌊short · grid / long⌋ remain, plus one if the rest is odd.

    Raises:
        BiaskitError: sizes below 1, a threshold outside 0 … 1, or an unknown rule.

    Example:
        >>> picture_mask(4, 2, grid=4).astype(int).tolist()
        [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    """
    if min(width, height, grid) < 1:
        raise BiaskitError(f"a picture of {width} × {height} on {grid} × {grid} patches", "every size is at least 1")
    if not 0 <= threshold <= 1:
        raise BiaskitError(f"threshold is {threshold}, not between 0 and 1", "it is a share of a patch's area; the paper has 0.5 and 0.01")
    if rule not in ("area", "box"):
        raise BiaskitError(f"rule is {rule!r}", "choose area or box")
    short, long = min(width, height), max(width, height)
    shown = _shown(short, long, grid) >= 1 - threshold - 1e-9 if rule == "area" else _boxed(short, long, grid)
    mask = np.repeat(shown[:, None], grid, axis=1)
    return mask if width >= height else np.ascontiguousarray(mask.T)


def _shown(short: int, long: int, grid: int) -> NDArray[np.float64]:
    """Share of each of `grid` patches along the short side that shows the picture."""
    padding = grid * (long - short) / (2 * long)
    edges = np.arange(grid + 1, dtype=np.float64)
    covered: NDArray[np.float64] = np.minimum(edges[1:], grid - padding) - np.maximum(edges[:-1], padding)
    return covered.clip(0, 1)


def _boxed(short: int, long: int, grid: int) -> NDArray[np.bool_]:
    offset = (grid - short * grid // long) // 2
    place = np.arange(grid)
    shown: NDArray[np.bool_] = (place >= offset) & (place < grid - offset)
    return shown
