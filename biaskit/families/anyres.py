"""The any-resolution grid of LLaVA-NeXT and LLaVA-OneVision: a base view, then tiles merged into one canvas, a newline after each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import ImageSkipped
from biaskit.grid import Box, PatchIndex, Plane, Tokens, join, raster


@dataclass(frozen=True)
class Canvas:
    """The canvas of one image without padding: rows × cols visual tokens that cover `box` of it; `ys` and `xs` are uneven token centres."""

    rows: int
    cols: int
    box: Box
    ys: tuple[float, ...] | None = None
    xs: tuple[float, ...] | None = None

    def shrunk(self, rows: int, cols: int) -> Canvas:
        """Return the canvas after its tokens were interpolated to rows × cols (bilinear, `align_corners=False`)."""
        return Canvas(rows, cols, self.box, _thinned(self.ys, rows), _thinned(self.xs, cols))


def _thinned(centres: tuple[float, ...] | None, cells: int) -> tuple[float, ...] | None:
    if centres is None:
        return None
    at = (np.arange(cells) + 0.5) * len(centres) / cells - 0.5
    return tuple(np.interp(at, np.arange(len(centres)), centres).tolist())


def view(image_size: int, patch: int) -> tuple[int, Box]:
    """Return the visual tokens along the side of a square view, and the part of it they cover: an incomplete last patch is not read.

    Example:
        >>> view(336, 14), view(384, 14)
        ((24, (0.0, 0.0, 1.0, 1.0)), (27, (0.0, 0.0, 0.984375, 0.984375)))
    """
    side = image_size // patch
    read = side * patch / image_size
    return side, (0.0, 0.0, read, read)


def canvas(size: tuple[int, int], pinpoints: Sequence[Sequence[int]], image_size: int, patch: int) -> Canvas:
    """Work out the canvas of an image.

    The image is scaled to fit the best of the `pinpoints` resolutions, padded to it, cut into tiles of `image_size` pixels with a visual
    token for each whole patch, and the tokens of the padding are cut off again. Transformers' own functions choose the resolution and cut,
    so the count agrees with the model's.

    Args:
        size: (rows, cols) of the image in pixels.
        pinpoints: the resolutions the checkpoint knows, (rows, cols) in pixels.
        image_size: side of a tile in pixels.
        patch: side of a patch in pixels.

    Raises:
        ImageSkipped: the image is so thin that it gives no visual token.
    """
    patches = image_size // patch
    kept, tile_rows, tile_cols = _unpadded(size, pinpoints, image_size, patches)
    top, left = divmod(int(kept[0, 0]), tile_cols * patches)
    height, width = tile_rows * image_size, tile_cols * image_size
    scale = min(width / size[1], height / size[0])
    resized = (min(math.ceil(size[0] * scale), height), min(math.ceil(size[1] * scale), width))
    pad = ((height - resized[0]) // 2, (width - resized[1]) // 2)
    rows, cols = kept.shape

    def fractions(first: int, cells: int, axis: int) -> NDArray[np.float64]:
        """The first and last pixels that each cell reads, as fractions of the image: [2, cells]."""
        tile, inside = np.divmod(first + np.arange(cells), patches)
        start = tile * image_size + inside * patch
        found: NDArray[np.float64] = (np.stack([start, start + patch]) - pad[axis]) / resized[axis]
        return found

    across, down = fractions(left, cols, 1), fractions(top, rows, 0)
    box = (float(across[0, 0]), float(down[0, 0]), float(across[1, -1]), float(down[1, -1]))
    if patches * patch == image_size:
        return Canvas(rows, cols, box)
    return Canvas(rows, cols, box, tuple(down.mean(0).tolist()), tuple(across.mean(0).tolist()))


def _unpadded(
    size: tuple[int, int], pinpoints: Sequence[Sequence[int]], image_size: int, patches: int
) -> tuple[NDArray[np.int64], int, int]:
    """Return the row-major indices of the canvas cells that are not padding, [rows, cols], and the rows and cols of the grid of tiles."""
    import torch
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    tile_rows, tile_cols = get_anyres_image_grid_shape(tuple(size), [list(p) for p in pinpoints], image_size)
    index = torch.arange(tile_rows * patches * tile_cols * patches).view(1, tile_rows * patches, tile_cols * patches)
    kept = unpad_image(index, tuple(size))[0]
    if not kept.numel():
        raise ImageSkipped(f"{size[1]}×{size[0]} pixels leave no visual token of the canvas", "give images that are less thin")
    return kept.numpy(), int(tile_rows), int(tile_cols)


def anyres_patches(
    size: tuple[int, int], pinpoints: Sequence[Sequence[int]], image_size: int, patches: int, shape: tuple[int, int]
) -> PatchIndex:
    """Return the patches behind the tokens of `anyres_tokens`.

    Args:
        size, pinpoints, image_size, patches: as `canvas`.
        shape: (rows, cols) of the canvas's tokens. If smaller than its grid of patches, the tokens were interpolated, and each lists the
            2 × 2 patches that it was interpolated from.
    """
    kept, tile_rows, tile_cols = _unpadded(size, pinpoints, image_size, patches)
    row, col = np.divmod(kept, tile_cols * patches)
    tile = row // patches * tile_cols + col // patches
    patch = (1 + tile) * patches**2 + row % patches * patches + col % patches
    if shape == kept.shape:
        behind = patch[:, :, None]
    else:
        (up, down), (left, right) = (_neighbours(source, target) for source, target in zip(kept.shape, shape, strict=True))
        behind = np.stack([patch[np.ix_(rows, cols)] for rows in (up, down) for cols in (left, right)], axis=-1)
    body = np.pad(behind, ((0, 0), (0, 1), (0, 0)), constant_values=-1)  # the newline token of each row
    base = np.full((patches**2, body.shape[-1]), -1)
    base[:, 0] = np.arange(patches**2)
    index = np.concatenate([base, body.reshape(-1, body.shape[-1])])
    return PatchIndex(index, (patches**2,) * (1 + tile_rows * tile_cols))


def _neighbours(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `target` cells, the two of `source` that bilinear interpolation with `align_corners=False` averages: two of [target]."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int64)
    return low, np.minimum(low + 1, source - 1)


def anyres_tokens(base: Plane, picture: Canvas) -> Tokens:
    """Order the visual tokens: the base raster, then each canvas row followed by its newline token."""
    cell = np.arange(picture.rows * (picture.cols + 1), dtype=np.int64)
    row, col = np.divmod(cell, picture.cols + 1)
    newline = col == picture.cols
    planes = (Plane("canvas", picture.rows, picture.cols, picture.box, 0, picture.ys, picture.xs), Plane("newline", picture.rows, 1, None))
    body = Tokens(planes, newline.astype(np.int64), row, np.where(newline, 0, col))
    return join([raster(base), body])
