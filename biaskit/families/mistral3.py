"""Mistral 3 (Mistral Small 3.1 and 3.2) with its Pixtral tower: one grid of the image's own shape, a break token after each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from biaskit.families import families
from biaskit.families.base import PROCESSOR, ModelFamily, Size
from biaskit.families.checkpoints.tower import tower_at
from biaskit.grid import PatchIndex, Plane, Tokens, merged_patches, raster

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower


@families.register("mistral3")
class Mistral3(ModelFamily):
    """The image is scaled to whole merged patches; break tokens are text to the model, and are never dropped."""

    title = "Mistral 3"
    processor = "PixtralProcessor"
    image_processor = "PixtralImageProcessor"

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Read the pixels of each image as resized from `image_sizes`."""
        return [raster(Plane("image", rows, cols)) for rows, cols in self._grids(config, inputs)]

    def _grids(self, config: Any, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        step = round(self.token_pixels(config))
        return [(rows // step, cols // step) for rows, cols in inputs["image_sizes"].tolist()]

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a placeholder for each merged patch."""
        return {
            (PROCESSOR, "patch_size"): config.vision_config.patch_size,
            (PROCESSOR, "spatial_merge_size"): config.spatial_merge_size,
        }

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """The projector joins square blocks; the tower's sequence has the patches row by row, image after image."""
        block = int(config.spatial_merge_size)
        return [PatchIndex(merged_patches(rows, cols, block), (rows * cols * block * block,)) for rows, cols in self._grids(config, inputs)]

    def tower(self, model: PreTrainedModel) -> Tower:
        """The projector norms patches, merges a block of them channel by channel, and goes through two layers."""
        base: Any = model.base_model
        projector = base.multi_modal_projector

        def project(rows: Tensor) -> Tensor:
            joined = projector.patch_merger.merging_layer(projector.norm(rows).transpose(1, 2).flatten(1))
            found: Tensor = projector.linear_2(projector.act(projector.linear_1(joined)))
            return found

        return tower_at(base.vision_tower, project, int(model.config.spatial_merge_size) ** 2)

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """32 × 32, between the grids of small and large images."""
        return {"image": (32, 32)}

    def token_pixels(self, config: Any) -> float:
        """Blocks of patches are merged."""
        return float(config.vision_config.patch_size * config.spatial_merge_size)
