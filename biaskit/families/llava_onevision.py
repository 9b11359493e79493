"""LLaVA-OneVision: LLaVA-NeXT's any-resolution canvas, shrunk when it grows past a limit; several images get one view each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biaskit.families import families
from biaskit.families.anyres import Canvas, anyres_patches, anyres_tokens, canvas, view
from biaskit.families.base import PREPROCESSOR, PROCESSOR, ModelFamily, Size
from biaskit.families.frame import padded_square
from biaskit.grid import PatchIndex, Plane, Tokens, join, raster

if TYPE_CHECKING:
    from torch import Tensor


@families.register("llava_onevision")
class LlavaOnevision(ModelFamily):
    """LLaVA-OneVision (SigLIP tower, no CLS token)."""

    title = "LLaVA-OneVision"
    processor = "LlavaOnevisionProcessor"
    image_processor = "LlavaOnevisionImageProcessor"

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Read the sizes from `image_sizes`; each of several images in a prompt is padded to a square: one view, one newline token."""
        vision = config.vision_config
        side, covered = view(vision.image_size, vision.patch_size)
        base = Plane("base", side, side, covered)
        result = []
        for size, single in zip(inputs["image_sizes"].tolist(), _alone(inputs), strict=True):
            if single:
                picture = canvas(tuple(size), config.image_grid_pinpoints, vision.image_size, vision.patch_size)
                result.append(anyres_tokens(base, _shrunk(picture, side, config.vision_aspect_ratio)))
            else:
                left, top, right, bottom = padded_square(tuple(size))
                box = (left, top, left + (right - left) * covered[2], top + (bottom - top) * covered[3])
                result.append(join([raster(Plane("base", side, side, box)), raster(Plane("newline", 1, 1, None))]))
        return result

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor computes the number of patches from settings of its own."""
        vision = config.vision_config
        return {
            (PROCESSOR, "num_image_tokens"): (vision.image_size // vision.patch_size) ** 2,
            (PROCESSOR, "vision_feature_select_strategy"): config.vision_feature_select_strategy,
            (PROCESSOR, "vision_aspect_ratio"): config.vision_aspect_ratio,
            (PREPROCESSOR, "image_grid_pinpoints"): config.image_grid_pinpoints,
            (PREPROCESSOR, "size"): {"height": vision.image_size, "width": vision.image_size},
        }

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """As LLaVA-NeXT; tokens of a canvas that was shrunk have the patches they were interpolated from."""
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        base = np.append(np.arange(side**2), -1)[:, None]
        result = []
        for size, single in zip(inputs["image_sizes"].tolist(), _alone(inputs), strict=True):
            if not single:
                result.append(PatchIndex(base, (side**2,)))
                continue
            grid = (tuple(size), config.image_grid_pinpoints, vision.image_size)
            picture = _shrunk(canvas(*grid, vision.patch_size), side, config.vision_aspect_ratio)
            result.append(anyres_patches(*grid, side, (picture.rows, picture.cols)))
        return result

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """Base as it is; canvas two tiles high and wide."""
        side = config.vision_config.image_size // config.vision_config.patch_size
        return {"base": (side, side), "canvas": (2 * side, 2 * side), "newline": (2 * side, 1)}


def _alone(inputs: Mapping[str, Tensor]) -> list[bool]:
    """Return whether each image is the only one of its prompt: [images]."""
    counts = inputs["batch_num_images"].tolist() if "batch_num_images" in inputs else [1] * len(inputs["image_sizes"])
    return [count == 1 for count in counts for _ in range(count)]


def _shrunk(picture: Canvas, side: int, aspect_ratio: str) -> Canvas:
    """Apply the `anyres_max_M` limit: a canvas of more than 1.1² · M tiles is interpolated down to about M tiles."""
    limit = int(aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(picture.rows * picture.cols / (limit * side**2))
    if ratio <= 1.1:
        return picture
    return picture.shrunk(int(picture.rows // ratio), int(picture.cols // ratio))
