"""LLaVA-1.5: one square grid over the centre of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import ModelFamily, Size
from biaskit.grid import Box, PatchIndex, Plane, Tokens, join, raster

if TYPE_CHECKING:
    from torch import Tensor


@families.register("llava")
class Llava(ModelFamily):
    """LLaVA-1.5 (CLIP tower, one view): the image's shorter side is scaled to the tower's size and the centre cropped."""

    title = "LLaVA-1.5"
    processor = "LlavaProcessor"
    image_processor = "CLIPImageProcessor"

    def check(self, config: Any) -> None:
        """Refuse towers with a grid that varies (Pixtral)."""
        if config.vision_config.model_type not in ("clip_vision_model", "siglip_vision_model"):
            raise ModelError(
                f"LLaVA with a {config.vision_config.model_type} tower is not supported", "use a checkpoint with a CLIP or SigLIP tower"
            )

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """One raster per image; with the `full` feature selection of a CLIP tower the CLS token comes first."""
        side = _side(config)
        cls = config.vision_feature_select_strategy == "full" and config.vision_config.model_type == "clip_vision_model"
        pixels = inputs["pixel_values"]
        result = []
        for image in range(len(pixels)):
            box = None if sizes is None else centre_crop(sizes[image])
            grid = raster(Plane("image", side, side, box))
            result.append(join([raster(Plane("cls", 1, 1, None)), grid]) if cls else grid)
        return result

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """One patch a token; the CLS token of the `full` feature selection has none."""
        found = []
        for tokens in self.tokens(config, inputs, None):
            side = _side(config)
            first = len(tokens) - side * side
            found.append(PatchIndex(np.concatenate([np.full(first, -1), np.arange(side * side)])[:, None], (side * side,)))
        return found

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """The grid never changes, so nothing is resampled."""
        side = _side(config)
        return {"image": (side, side), "cls": (1, 1)}

    def default_layers(self, config: Any) -> tuple[int, ...]:
        """K = 2 for understanding and K = 5 for localisation (D2Pruner, implementation details)."""
        return tuple(layer for layer in (1, 4) if layer < config.text_config.num_hidden_layers)


def _side(config: Any) -> int:
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def centre_crop(size: Size) -> Box:
    """Return the square about the centre that is left after the shorter side was scaled and the longer one cropped."""
    rows, cols = size
    side = min(rows, cols)
    x, y = (cols - side) / 2 / cols, (rows - side) / 2 / rows
    return (x, y, 1 - x, 1 - y)
