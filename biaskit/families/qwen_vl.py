"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: one grid of the image's own shape, after the 2 × 2 merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biaskit.families import families
from biaskit.families.base import ModelFamily, Size
from biaskit.grid import PatchIndex, Plane, Tokens, join, join_patches, merged_patches, raster

if TYPE_CHECKING:
    from torch import Tensor


class QwenVL(ModelFamily):
    """The image is scaled to a multiple of the merged patch, keeping its shape; the tower's window order is undone before the decoder."""

    image_processor = "Qwen2VLImageProcessor"

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Read `image_grid_thw` (frames, patch rows, patch cols)."""
        merge = config.vision_config.spatial_merge_size
        return [
            join([raster(Plane("image", rows // merge, cols // merge)) for _ in range(frames)])
            for frames, rows, cols in inputs["image_grid_thw"].tolist()
        ]

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """Blocks of patches are merged, two by two; the tower's sequence has the patches of a block side by side."""
        block = config.vision_config.spatial_merge_size
        found = []
        for frames, rows, cols in inputs["image_grid_thw"].tolist():
            index = merged_patches(rows // block, cols // block, block)
            frame = PatchIndex(index, (rows * cols,), self._order(config, index, cols // block))
            found.append(join_patches([frame] * frames))
        return found

    def _order(self, config: Any, index: NDArray[np.int64], cols: int) -> NDArray[np.int64]:
        """Where the tower's sequence has each patch of an image: [patches]; `index` [blocks, patches] in rows of `cols` blocks."""
        return np.argsort(index.ravel())

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """32 × 32, about the size of a COCO image's grid squared."""
        return {"image": (32, 32)}

    def token_pixels(self, config: Any) -> float:
        """Patches are merged 2 × 2."""
        return float(config.vision_config.patch_size * config.vision_config.spatial_merge_size)


@families.register("qwen2_vl")
class Qwen2VL(QwenVL):
    """Qwen2-VL."""

    title = "Qwen2-VL"
    processor = "Qwen2VLProcessor"


@families.register("qwen2_5_vl")
class Qwen2_5VL(QwenVL):  # noqa: N801 - the model's own name
    """Qwen2.5-VL."""

    title = "Qwen2.5-VL"
    processor = "Qwen2_5_VLProcessor"

    def _order(self, config: Any, index: NDArray[np.int64], cols: int) -> NDArray[np.int64]:
        """Blocks are sorted by windows, row by row, and by rows within a window."""
        vision = config.vision_config
        side = vision.window_size // vision.spatial_merge_size // vision.patch_size
        row, col = np.divmod(np.arange(len(index)), cols)
        return np.argsort(index[np.lexsort((col, row, col // side, row // side))].ravel())


@families.register("qwen3_vl")
class Qwen3VL(QwenVL):
    """Qwen3-VL."""

    title = "Qwen3-VL"
    processor = "Qwen3VLProcessor"
