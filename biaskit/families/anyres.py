"""The any-resolution grid of LLaVA-NeXT and LLaVA-OneVision: a base view, then tiles merged into one canvas, a newline after each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biaskit.errors import ImageSkipped
from biaskit.grid import Box, Plane, Tokens, join, raster


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
    import torch
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    tile_rows, tile_cols = get_anyres_image_grid_shape(tuple(size), [list(p) for p in pinpoints], image_size)
    full_cols = tile_cols * patches
    index = torch.arange(tile_rows * patches * full_cols).view(1, tile_rows * patches, full_cols)
    kept = unpad_image(index, tuple(size))[0]
    if not kept.numel():
        raise ImageSkipped(f"{size[1]}×{size[0]} pixels leave no visual token of the canvas", "give images that are less thin")
    top, left = divmod(int(kept[0, 0]), full_cols)
    height, width = tile_rows * image_size, tile_cols * image_size
    scale = min(width / size[1], height / size[0])
    resized = (min(math.ceil(size[0] * scale), height), min(math.ceil(size[1] * scale), width))
    pad = ((height - resized[0]) // 2, (width - resized[1]) // 2)
    unit = image_size / patches

    def fraction(cell: int, axis: int) -> float:
        return float((cell * unit - pad[axis]) / resized[axis])

    rows, cols = kept.shape
    return Canvas(rows, cols, (fraction(left, 1), fraction(top, 0), fraction(left + cols, 1), fraction(top + rows, 0)))


def anyres_tokens(base: Plane, picture: Canvas) -> Tokens:
    """Order the visual tokens: the base raster, then each canvas row followed by its newline token."""
    cell = np.arange(picture.rows * (picture.cols + 1), dtype=np.int64)
    row, col = np.divmod(cell, picture.cols + 1)
    newline = col == picture.cols
    planes = (Plane("canvas", picture.rows, picture.cols, picture.box), Plane("newline", picture.rows, 1, None))
    body = Tokens(planes, newline.astype(np.int64), row, np.where(newline, 0, col))
    return join([raster(base), body])
