"""LLaVA-1.5: one square grid over the centre of the image, or over the image padded to a square, as the image processor has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import ModelFamily, Size
from biaskit.families.conversations import converse
from biaskit.families.frame import frame, llava_settings, square_by, unpadded
from biaskit.grid import Layout, PatchIndex, Plane, Tokens, join, raster
from biaskit.prior.padding import picture_mask
from biaskit.tasks.conventions import BoxConvention

if TYPE_CHECKING:
    from torch import Tensor


@families.register("llava")
class Llava(ModelFamily):
    """LLaVA-1.5 and other LLaVA of one view: a CLIP or SigLIP tower sees what the image processor makes of the image."""

    title = "LLaVA-1.5"
    processor = "LlavaProcessor"
    image_processor = "CLIPImageProcessor"
    # trained on boxes in fractions of the square that its picture was padded to (haotian-liu/LLaVA issue 606); the stock processor crops
    # instead, so fractions of the square it saw are fractions of the crop
    box_convention = BoxConvention("part")
    options = frozenset({"image_mode", "conversation"})
    fixed_tokens = True

    def check(self, config: Any) -> None:
        """Refuse towers whose grid varies with the image (Pixtral), and a feature selection that drops a patch."""
        tower = config.vision_config.model_type
        if tower not in ("clip_vision_model", "siglip_vision_model"):
            raise ModelError(f"LLaVA with a {tower} tower is not supported", "use a checkpoint with a CLIP or SigLIP tower")
        if tower == "siglip_vision_model" and config.vision_feature_select_strategy != "full":
            raise ModelError(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}, but a SigLIP tower has no CLS token to drop",
                'write "full" into config.json and processor_config.json if the checkpoint was trained so',
            )

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """One raster per image; with the `full` feature selection of a CLIP tower the CLS token comes first."""
        side = _side(config)
        cls = config.vision_feature_select_strategy == "full" and config.vision_config.model_type == "clip_vision_model"
        grid = raster(Plane("image", side, side, None))
        whole = join([raster(Plane("cls", 1, 1, None)), grid]) if cls else grid
        return [whole] * len(inputs["pixel_values"])

    def framed(self, config: Any, image_processor: Any, tokens: list[Tokens], sizes: Sequence[Size]) -> list[Tokens]:
        """The box of each plane: the complete patches of the image after the processor's padding, resizing and crop."""
        read = _side(config) * config.vision_config.patch_size
        boxes = [frame(image_processor, size).part(read, read) for size in sizes]
        return [
            replace(mine, planes=tuple(plane if plane.name == "cls" else replace(plane, box=box) for plane in mine.planes))
            for mine, box in zip(tokens, boxes, strict=True)
        ]

    def shown(self, config: Any, inputs: Mapping[str, Tensor], layouts: Sequence[Layout]) -> list[NDArray[np.bool_]]:
        """Tokens of which at least half shows the picture, if pictures are padded to squares as in the original code."""
        pictures = iter(inputs["pixel_values"])
        found = []
        for layout in layouts:
            masks: dict[int, NDArray[np.bool_]] = {}
            for plane in layout.planes:
                if plane.image not in masks:
                    rows, cols = unpadded(next(pictures))
                    masks[plane.image] = picture_mask(cols, rows, grid=_side(config))
            alone = np.ones((1, 1), bool)
            found.append(layout.unfold([alone if plane.name == "cls" else masks[plane.image] for plane in layout.planes]))
        return found

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor computes the number of patches from settings of its own."""
        return llava_settings(config)

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """`image_mode` pads to a square or crops; `conversation` sets the chat template, such as that of LLaVA-1.5's evaluation."""
        if (mode := choices.get("image_mode")) is not None:
            processor.image_processor = square_by(processor.image_processor, str(mode))
        if (name := choices.get("conversation")) is not None:
            converse(processor, str(name))

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
