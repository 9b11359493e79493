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
    """The un-padded canvas of one image: rows × cols visual tokens that cover `box` of it."""

    rows: int
    cols: int
    box: Box


def canvas(size: tuple[int, int], pinpoints: Sequence[Sequence[int]], image_size: int, patches: int) -> Canvas:
    """Work out the canvas of an image.

    The image is scaled to fit the best of the `pinpoints` resolutions, padded to it, cut into tiles of `image_size` pixels with
    `patches` × `patches` visual tokens each, and the tokens of the padding are cut off again. The model's own functions choose the
    resolution and cut, so the count cannot drift from the model's.

    Args:
        size: (rows, cols) of the image in pixels.
        pinpoints: the resolutions the checkpoint knows, (rows, cols) in pixels.
        image_size: side of a tile in pixels.
        patches: visual tokens along the side of a tile.

    Raises:
        ImageSkipped: the image is so thin that nothing is left of it.
    """
    kept, tile_rows, tile_cols = _unpadded(size, pinpoints, image_size, patches)
    top, left = divmod(int(kept[0, 0]), tile_cols * patches)
    height, width = tile_rows * image_size, tile_cols * image_size
    scale = min(width / size[1], height / size[0])
    resized = (min(math.ceil(size[0] * scale), height), min(math.ceil(size[1] * scale), width))
    pad = ((height - resized[0]) // 2, (width - resized[1]) // 2)
    unit = image_size / patches

    def fraction(cell: int, axis: int) -> float:
        return float((cell * unit - pad[axis]) / resized[axis])

    rows, cols = kept.shape
    return Canvas(rows, cols, (fraction(left, 1), fraction(top, 0), fraction(left + cols, 1), fraction(top + rows, 0)))


def _unpadded(
    size: tuple[int, int], pinpoints: Sequence[Sequence[int]], image_size: int, patches: int
) -> tuple[NDArray[np.int64], int, int]:
    """Return the cells of the whole canvas, counted row by row, that are left without the padding: [rows, cols]; and the tiles' grid."""
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
        shape: (rows, cols) of the canvas's tokens. Where that is less than the canvas has patches, each token was interpolated, and has the
            two by two patches that it was interpolated from.
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
    """The two cells of `source` that each of `target` cells lies between, in bilinear interpolation with `align_corners=False`."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int64)
    return low, np.minimum(low + 1, source - 1)


def anyres_tokens(base: Plane, picture: Canvas) -> Tokens:
    """Order the visual tokens: the base raster, then each canvas row followed by its newline token."""
    cell = np.arange(picture.rows * (picture.cols + 1), dtype=np.int64)
    row, col = np.divmod(cell, picture.cols + 1)
    newline = col == picture.cols
    planes = (Plane("canvas", picture.rows, picture.cols, picture.box), Plane("newline", picture.rows, 1, None))
    body = Tokens(planes, newline.astype(np.int64), row, np.where(newline, 0, col))
    return join([raster(base), body])
