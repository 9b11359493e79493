"""Where each visual token sits: planes, layouts, folding a row of attention onto planes.

A *plane* is one rectangular grid of visual tokens (LLaVA-1.5 has one, LLaVA-NeXT three: base, canvas, newline column). A *layout* says
for every visual token of one sample its position in the sequence and its (plane, row, col). Neighbourhoods and resampling stay inside a
plane: flattened indices would wrap around row ends and mix tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Array = NDArray[Any]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Plane:
    """One grid of visual tokens.

    Attributes:
        name: what the grid is: `image`, `base`, `canvas`, `thumbnail` or `newline`. Planes of one name share a prior.
        rows, cols: its size in visual tokens.
        box: the part of the image it covers, (left, top, right, bottom) as fractions of the image's width and height; a grid that
            reaches into padding goes below 0 or above 1. None where it covers no part of the image (newline), or where the inputs
            do not determine it (LLaVA-1.5's crop without the image's size).
        image: which image of the prompt, from 0.
        ys, xs: centres of the rows and of the cols, as fractions of the image, if they are not evenly spaced in the box: tiles whose last
            pixels do not fill a whole patch leave gaps.

    Example:
        >>> Plane("image", 24, 24).rows
        24
    """

    name: str
    rows: int
    cols: int
    box: Box | None = WHOLE
    image: int = 0
    ys: tuple[float, ...] | None = None
    xs: tuple[float, ...] | None = None

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the centres of the rows and of the cols, [rows] and [cols], as fractions of the image.

        Raises:
            ValueError: the plane covers no known part of the image.

        Example:
            >>> Plane("image", 1, 2).centres()
            (array([0.5]), array([0.25, 0.75]))
        """
        if self.box is None:
            raise ValueError(f"plane {self.name!r} covers no known part of the image")
        left, top, right, bottom = self.box
        return _centres(self.ys, self.rows, top, bottom), _centres(self.xs, self.cols, left, right)

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the borders of the rows and of the cols, [rows + 1] and [cols + 1]: halfway between centres, and the box's at the ends.

        Raises:
            ValueError: as `centres`.
        """
        ys, xs = self.centres()
        assert self.box is not None
        left, top, right, bottom = self.box
        return _edges(ys, top, bottom), _edges(xs, left, right)


def _centres(given: tuple[float, ...] | None, cells: int, low: float, high: float) -> NDArray[np.float64]:
    return np.array(given) if given is not None else low + (high - low) * (np.arange(cells) + 0.5) / cells


def _edges(centres: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return np.concatenate([[low], (centres[1:] + centres[:-1]) / 2, [high]])


@dataclass(frozen=True, eq=False)
class Layout:
    """The visual tokens of one sample.

    Attributes:
        positions: [N] int64, places in the (padded) input sequence, ascending.
        planes: the grids, in order of their first token.
        plane, row, col: [N] int64, where token i sits. Every cell of every plane holds exactly one token.
        number: [N] int64, the index of each among all visual tokens of the prompt, if some were dropped and cells may be empty; see `part`.

    Raises:
        ValueError: lengths differ, positions do not ascend, or a cell is empty or filled twice.

    >>> tokens = raster(Plane("image", 2, 2))
    >>> layout = Layout(np.arange(4), tokens.planes, tokens.plane, tokens.row, tokens.col)
    >>> layout.fold(np.array([1, 2, 3, 4]))[0]
    array([[1, 2],
           [3, 4]])
    >>> layout, layout.part(np.array([0, 3])), layout.unfold([np.array([[1, 2], [3, 4]])])
    (Layout(4 visual tokens: image 2×2), Layout(2 of 4 visual tokens: image 2×2), array([1, 2, 3, 4]))
    """

    positions: NDArray[np.int64]
    planes: tuple[Plane, ...]
    plane: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    number: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.positions)
        if not n == len(self.plane) == len(self.row) == len(self.col):
            raise ValueError(f"{n} positions, but {len(self.plane)} planes, {len(self.row)} rows and {len(self.col)} cols")
        if n and np.any(np.diff(self.positions) <= 0):
            raise ValueError("positions must ascend")
        sizes = np.array([p.rows * p.cols for p in self.planes], dtype=np.int64)
        widths = np.array([p.cols for p in self.planes], dtype=np.int64)
        if n and (self.plane.min() < 0 or self.plane.max() >= len(sizes)):
            raise ValueError("a token names a plane that does not exist")
        if np.any(self.col < 0) or np.any(self.row < 0) or (n and np.any(self.col >= widths[self.plane])):
            raise ValueError("a token lies outside its plane")
        starts = np.concatenate([[0], np.cumsum(sizes)])
        cells = starts[self.plane] + self.row * widths[self.plane] + self.col
        missing, outside = n != starts[-1] and self.number is None, n and cells.max() >= starts[-1]
        if missing or outside or np.bincount(cells).max(initial=0) > 1:
            raise ValueError(
                f"{n} visual tokens do not fill the {starts[-1]} cells of {[(p.name, p.rows, p.cols) for p in self.planes]} once each"
            )

    def __repr__(self) -> str:
        """One line: N, and the planes."""
        planes = ", ".join(f"{plane.name} {plane.rows}×{plane.cols}" for plane in self.planes)
        some = f" of {self.whole}" if self.number is not None else ""
        return f"Layout({len(self)}{some} visual tokens{': ' + planes if planes else ''})"

    def __len__(self) -> int:
        """Return N, the number of visual tokens."""
        return len(self.positions)

    def part(self, indices: NDArray[np.int64]) -> Layout:
        """Return the layout of some of the tokens: [n] ascending indices into the N. The planes keep their sizes."""
        number = indices if self.number is None else self.number[indices]
        return Layout(self.positions[indices], self.planes, self.plane[indices], self.row[indices], self.col[indices], number)

    @property
    def whole(self) -> int:
        """How many visual tokens the prompt has, dropped ones included."""
        return sum(plane.rows * plane.cols for plane in self.planes)

    def views(self, image: int = 0) -> list[int]:
        """Return the numbers of an image's planes whose place in it is known, those with the most cells first."""
        found = [number for number, plane in enumerate(self.planes) if plane.image == image and plane.box is not None]
        return sorted(found, key=lambda number: -self.planes[number].rows * self.planes[number].cols)

    def of_whole(self, values: Array) -> Array:
        """Select the layout's tokens from values [..., whole] of all visual tokens of the prompt, in their order: [..., N]."""
        return values if self.number is None else values[..., self.number]

    def fold(self, values: Array) -> list[Array]:
        """Lay values [..., N], one per visual token, onto the planes: one array [..., rows, cols] per plane, in order.

        Cells without a token (where some were dropped) hold 0.
        """
        maps = []
        for index, plane in enumerate(self.planes):
            mine = self.plane == index
            folded = np.zeros((*values.shape[:-1], plane.rows, plane.cols), dtype=values.dtype)
            folded[..., self.row[mine], self.col[mine]] = values[..., mine]
            maps.append(folded)
        return maps

    def unfold(self, maps: Sequence[Array]) -> Array:
        """Read maps [..., rows, cols], one per plane, back in token order: [..., N]. The inverse of `fold`."""
        values = np.empty((*maps[0].shape[:-2], len(self)), dtype=np.result_type(*maps))
        for index, folded in enumerate(maps):
            mine = self.plane == index
            values[..., mine] = folded[..., self.row[mine], self.col[mine]]
        return values


@dataclass(frozen=True, eq=False)
class Tokens:
    """The visual tokens of one image in the order of the sequence, before their positions are known.

    Attributes:
        planes: the image's grids. plane, row, col: [n] int64 as in `Layout`, plane counted within this image.
    """

    planes: tuple[Plane, ...]
    plane: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of visual tokens."""
        return len(self.plane)


def raster(plane: Plane, index: int = 0) -> Tokens:
    """All cells of one plane in row-major order, as plane number `index`.

    >>> raster(Plane("image", 2, 3)).col
    array([0, 1, 2, 0, 1, 2])
    """
    row, col = np.divmod(np.arange(plane.rows * plane.cols, dtype=np.int64), plane.cols)
    return Tokens((plane,), np.full(len(row), index, dtype=np.int64), row, col)


def join(parts: Sequence[Tokens]) -> Tokens:
    """Concatenate several runs of tokens; their planes are numbered consecutively.

    >>> both = join([raster(Plane("base", 1, 2)), raster(Plane("canvas", 2, 2))])
    >>> len(both), both.plane.tolist()
    (6, [0, 0, 1, 1, 1, 1])
    """
    planes: list[Plane] = []
    numbers = []
    for part in parts:
        numbers.append(part.plane + len(planes))
        planes.extend(part.planes)
    empty = np.zeros(0, dtype=np.int64)
    columns = (numbers, (part.row for part in parts), (part.col for part in parts))
    return Tokens(tuple(planes), *(np.concatenate([empty, *column]) for column in columns))


@dataclass(frozen=True, eq=False)
class PatchIndex:
    """Which patches of the vision tower each visual token is made of, for one image or all images of a sample.

    Patches are numbered tile by tile, row by row within a tile: tile · M + patch if all tiles have M.

    Attributes:
        index: [n, m] int64, the patches of each of n visual tokens; −1 where there are fewer than m (none for a newline token).
        tiles: patches of each tile, in the order in which the tower sees them.
        order: [P] int64, the place of each patch in the tower's sequence; None: in the order of their numbers.

    Example:
        >>> base = PatchIndex(np.arange(4)[:, None], (4,))
        >>> merged = PatchIndex(np.array([[0, 1, 2, 3], [-1, -1, -1, -1]]), (4,))  # one token of four patches, and a newline
        >>> both = join_patches([base, merged])
        >>> both.index.tolist()
        [[0, -1, -1, -1], [1, -1, -1, -1], [2, -1, -1, -1], [3, -1, -1, -1], [4, 5, 6, 7], [-1, -1, -1, -1]]
        >>> both.tiles, both.part(np.array([4])).index.tolist()
        ((4, 4), [[4, 5, 6, 7]])
    """

    index: NDArray[np.int64]
    tiles: tuple[int, ...]
    order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return P, the number of patches."""
        return sum(self.tiles)

    def part(self, indices: NDArray[np.int64]) -> PatchIndex:
        """Return the patches of some of the tokens: [k] indices into the n."""
        return PatchIndex(self.index[indices], self.tiles, self.order)


def merged_patches(rows: int, cols: int, block: int) -> NDArray[np.int64]:
    """Return the patches that are merged into each of rows × cols tokens, blocks of block × block: [rows · cols, block²].

    Example:
        >>> merged_patches(1, 2, 2).tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    patch = np.arange(rows * block * cols * block, dtype=np.int64).reshape(rows, block, cols, block)
    return patch.transpose(0, 2, 1, 3).reshape(rows * cols, block**2)


def join_patches(parts: Sequence[PatchIndex]) -> PatchIndex:
    """Concatenate the images of a sample; their patches are numbered consecutively."""
    width = max((part.index.shape[1] for part in parts), default=1)
    starts = np.cumsum([0, *map(len, parts)])
    index = [np.full((0, width), -1, dtype=np.int64)]
    for part, start in zip(parts, starts, strict=False):
        moved = np.where(part.index < 0, -1, part.index + start)
        index.append(np.pad(moved, ((0, 0), (0, width - moved.shape[1])), constant_values=-1))
    order = None
    if any(part.order is not None for part in parts):
        orders = [np.arange(len(part)) if part.order is None else part.order for part in parts]
        order = np.concatenate([each + start for each, start in zip(orders, starts, strict=False)])
    return PatchIndex(np.concatenate(index), tuple(size for part in parts for size in part.tiles), order)


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes; 0 if a box has no positive width and height.

    >>> overlap((0, 0, 1, 1), (0.5, 0, 1, 1)), overlap((0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1))
    (0.5, 0.0)
    """
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    inside = wide * high
    return inside / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - inside)
