"""Gemma 3: the image is one square of fixed size, its patches averaged in blocks; image tokens attend to one another in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR, ModelFamily, Size
from biaskit.families.checkpoints.tower import tower_at
from biaskit.families.frame import frame
from biaskit.grid import PatchIndex, Plane, Tokens, merged_patches, raster

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower


@families.register("gemma3")
class Gemma3(ModelFamily):
    """Gemma 3 from 4B on (SigLIP tower). Five of six layers have a sliding window over positions, which kept tokens keep."""

    title = "Gemma 3"
    processor = "Gemma3Processor"
    image_processor = "Gemma3ImageProcessor"
    fixed_tokens = True
    bidirectional_images = True

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """One raster per image."""
        side = _side(config)
        return [raster(Plane("image", side, side, None))] * len(inputs["pixel_values"])

    def framed(self, config: Any, image_processor: Any, tokens: list[Tokens], sizes: Sequence[Size]) -> list[Tokens]:
        """The processor resizes every image to a square.

        Raises:
            ModelError: pan and scan is on: crops follow an image in the prompt, as images of their own.
        """
        if getattr(image_processor, "do_pan_and_scan", False):
            raise ModelError(
                "the image processor cuts crops out of long images (do_pan_and_scan), which the layout does not know",
                f"set do_pan_and_scan to false in {PREPROCESSOR}, as it comes",
            )
        boxes = [frame(image_processor, size).box for size in sizes]
        return [replace(mine, planes=(replace(mine.planes[0], box=box),)) for mine, box in zip(tokens, boxes, strict=True)]

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a fixed number of placeholders for each image, and must not add crops of it."""
        pixels = config.vision_config.image_size
        return {
            (PREPROCESSOR, "do_pan_and_scan"): False,
            (PROCESSOR, "image_seq_length"): config.mm_tokens_per_image,
            (PREPROCESSOR, "size"): {"height": pixels, "width": pixels},
        }

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """Square blocks of patches are averaged."""
        side, block = _side(config), _block(config)
        return [PatchIndex(merged_patches(side, side, block), ((side * block) ** 2,))] * len(inputs["pixel_values"])

    def tower(self, model: PreTrainedModel) -> Tower:
        """Patches are normed, those of a block averaged, normed again, and multiplied."""
        base: Any = model.base_model
        projector = base.multi_modal_projector
        tower = getattr(base.vision_tower, "vision_model", base.vision_tower)  # older releases wrap it

        def project(rows: Tensor) -> Tensor:
            averaged = tower.post_layernorm(rows).mean(1)
            found: Tensor = projector.mm_soft_emb_norm(averaged) @ projector.mm_input_projection_weight
            return found

        return tower_at(base.vision_tower, project, _block(model.config) ** 2)

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """The grid never changes, so nothing is resampled."""
        return {"image": (_side(config), _side(config))}

    def token_pixels(self, config: Any) -> float:
        """Blocks of patches are averaged."""
        return float(config.vision_config.image_size / _side(config))


def _side(config: Any) -> int:
    side: float = config.mm_tokens_per_image**0.5
    return round(side)


def _block(config: Any) -> int:
    """How many patches lie along the side of a visual token."""
    return int(config.vision_config.image_size // config.vision_config.patch_size // _side(config))
