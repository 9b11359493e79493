"""Images cut into tiles, tokens tile by tile, a thumbnail of the whole image last: what InternVL, Aya Vision and Idefics 3 share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biaskit.errors import ModelError
from biaskit.families.base import ModelFamily, Size
from biaskit.grid import PatchIndex, Plane, Tokens, join, join_patches, merged_patches, raster

if TYPE_CHECKING:
    from torch import Tensor


class TileFamily(ModelFamily):
    """A family that cuts images into square tiles, and makes a visual token of each square block of a tile's patches (pixel shuffle).

    A subclass gives the size of a block and, if the tokens of an image's views are adjacent in the prompt, the number of views.
    """

    @abstractmethod
    def block(self, config: Any) -> int:
        """Return how many patches lie along the side of a visual token."""

    def side(self, config: Any) -> int:
        """Return how many visual tokens lie along the side of a tile."""
        return self.tile_pixels(config) // _length(config.vision_config.patch_size) // self.block(config)

    def tile_pixels(self, config: Any) -> int:
        """Return the pixels along the side of a tile."""
        return _length(config.vision_config.image_size)

    def views(self, config: Any, input_ids: Tensor) -> list[int]:
        """Return how many views (tiles and thumbnail) each image of a batch has. Here a mark in the prompt precedes every view.

        Raises:
            ModelError: a view has other than side² tokens.
        """
        length = self.side(config) ** 2
        return [len(found) for ids in input_ids.cpu().numpy() for found in marked_runs(ids, config.image_token_id, length)]

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Count each image's tiles in the prompt; their grid follows from the image's size or, if unknown, from the thumbnail.

        Raises:
            ModelError: the prompt has placeholders for another number of views than the images have.
        """
        counts = self.views(config, inputs["input_ids"])
        if sum(counts) != len(inputs["pixel_values"]):
            raise ModelError(
                f"the placeholders are those of {sum(counts)} views, but the images have {len(inputs['pixel_values'])}",
                "pass the processor's whole output, and images and prompts of the same batch",
            )
        return tile_tokens(counts, self.side(config), inputs["pixel_values"], sizes)

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """Set the most tiles of an image, which stock processors call patches."""
        if (most := choices.get("max_tiles")) is not None:
            if int(most) < processor.image_processor.min_patches:
                raise ModelError(f"--max-tiles {most} is less than min_patches, {processor.image_processor.min_patches}", "give more tiles")
            processor.image_processor.max_patches = int(most)

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """The pixel shuffle joins square blocks of patches."""
        side, block = self.side(config), self.block(config)
        one = PatchIndex(merged_patches(side, side, block), (side * side * block * block,))
        return [join_patches([one] * count) for count in self.views(config, inputs["input_ids"])]

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """Canvas of two tiles by two; the thumbnail as it is."""
        side = self.side(config)
        return {"canvas": (2 * side, 2 * side), "thumbnail": (side, side)}

    def token_pixels(self, config: Any) -> float:
        """The pixel shuffle joins patches."""
        return self.tile_pixels(config) / self.side(config)


def _length(size: Any) -> int:
    """Return the side of a square, which a config gives as one number or as a pair."""
    return int(size[0] if isinstance(size, list | tuple) else size)


def runs(ids: np.ndarray, token: int) -> list[tuple[int, int]]:
    """Return (start, end) of every contiguous run of a token in a sequence.

    Example:
        >>> runs(np.array([7, 9, 9, 7, 9]), 9)
        [(1, 3), (4, 5)]
    """
    visual = np.concatenate([[False], ids == token, [False]])
    edges = np.flatnonzero(np.diff(visual.astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def marked_runs(ids: np.ndarray, token: int, length: int) -> list[list[tuple[int, int]]]:
    """Return the runs of each image of a sequence, where every view is one run, and the last view of an image has a mark before it.

    The sequence ends with the last view of an image, so the token before its last run is the mark of last views.

    Args:
        ids: [S]. token: the image placeholder. length: visual tokens of a view.

    Raises:
        ModelError: a run has another length.

    Example:
        >>> marked_runs(np.array([1, 9, 9, 2, 9, 9, 1, 9, 9, 2, 9, 9]), 9, 2)
        [[(1, 3), (4, 6)], [(7, 9), (10, 12)]]
    """
    found = runs(ids, token)
    if any(end - start != length for start, end in found):
        sizes = sorted({end - start for start, end in found})
        raise ModelError(f"views of {sizes} visual tokens instead of {length} each", "pass the processor's output unchanged")
    images: list[list[tuple[int, int]]] = [[]]
    for start, end in found:
        images[-1].append((start, end))
        if ids[start - 1] == ids[found[-1][0] - 1]:
            images.append([])
    return images[:-1]


def tile_tokens(counts: Sequence[int], side: int, views: Tensor, sizes: Sequence[tuple[int, int]] | None) -> list[Tokens]:
    """Return the tokens of images whose grid of tiles follows from their shapes.

    Args:
        counts: views of each image, the one of the whole image included.
        side: visual tokens along the side of a view.
        views: [views, 3, pixels, pixels] of all images; the grid is found from these if `sizes` is None.
        sizes: (rows, cols) in pixels of the images, or None.

    Raises:
        ModelError: an image has one tile and a view of the whole.
    """
    result = []
    first = 0
    for image, count in enumerate(counts):
        tiles = count - 1 if count > 1 else 1
        if count == 2:
            raise ModelError("an image has one tile and a thumbnail", "the stock processor never makes this; pass its output unchanged")
        if tiles == 1:
            rows, cols = 1, 1
        elif sizes is not None:
            rows, cols = arrangement(tiles, sizes[image][1] / sizes[image][0])
        else:
            rows, cols = _arrangement_seen(_pooled(views[first : first + count]))
        canvas = tiled(rows, cols, side)
        result.append(join([canvas, raster(Plane("thumbnail", side, side))]) if count > 1 else canvas)
        first += count
    return result


def _grids(tiles: int) -> list[tuple[int, int]]:
    return [(tiles // cols, cols) for cols in range(1, tiles + 1) if tiles % cols == 0]


def arrangement(tiles: int, aspect: float) -> tuple[int, int]:
    """Return (rows, cols) of the tiles: the grid of that many tiles whose shape is nearest to the image's (`aspect` = width / height).

    Example:
        >>> arrangement(6, 1.5), arrangement(6, 0.2)
        ((2, 3), (6, 1))
    """
    return min(_grids(tiles), key=lambda grid: (abs(aspect - grid[1] / grid[0]), grid[0]))


_CELLS = 28
"""Side in pixels of the pictures that are compared."""


def _pooled(views: Tensor) -> np.ndarray:
    """Average each view down to 28 × 28 on its device: [views, 3, pixels, pixels] → [views, 3, 28, 28] float32 on the host."""
    step = max(1, views.shape[-1] // _CELLS)
    side = views.shape[-1] // step
    blocks = views[..., : side * step, : side * step].float().unflatten(-1, (side, step)).unflatten(-3, (side, step))
    found: np.ndarray = blocks.mean((-3, -1)).cpu().numpy()
    return found


def _arrangement_seen(views: np.ndarray) -> tuple[int, int]:
    """Find the (rows, cols) of the tiles: lay them out in every possible grid and compare the picture with the thumbnail.

    Args:
        views: [tiles + 1, 3, pixels, pixels], the thumbnail last.
    """
    *tiles, thumbnail = views
    cells = min(_CELLS, thumbnail.shape[-1])

    def shrink(picture: np.ndarray, rows: int, cols: int) -> np.ndarray:
        height, width = picture.shape[-2] // rows * rows, picture.shape[-1] // cols * cols
        blocks = picture[:, :height, :width].reshape(len(picture), rows, height // rows, cols, width // cols)
        mean: np.ndarray = blocks.mean((2, 4))
        return mean

    def misfit(grid: tuple[int, int]) -> float:
        rows, cols = grid
        laid = np.concatenate([np.concatenate(tiles[r * cols : (r + 1) * cols], axis=-1) for r in range(rows)], axis=-2)
        return float(np.square(shrink(laid, cells, cells) - shrink(thumbnail, cells, cells)).mean())

    return min(_grids(len(tiles)), key=misfit)


def tiled(rows: int, cols: int, side: int) -> Tokens:
    """Tokens of rows × cols tiles, tile by tile, on one canvas.

    Example:
        >>> tokens = tiled(1, 2, 2)
        >>> tokens.row.tolist(), tokens.col.tolist()
        ([0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 2, 3, 2, 3])
    """
    index = np.arange(rows * cols * side * side, dtype=np.int64)
    tile, inside = np.divmod(index, side * side)
    tile_row, tile_col = np.divmod(tile, cols)
    row, col = np.divmod(inside, side)
    plane = Plane("canvas", rows * side, cols * side)
    return Tokens((plane,), np.zeros_like(index), tile_row * side + row, tile_col * side + col)
