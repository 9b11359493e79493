"""Aya Vision: InternVL's tiles with a mark before each, and a thumbnail of the whole image last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR
from biaskit.families.checkpoints.tower import tower_at
from biaskit.families.tiles import TileFamily

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower


@families.register("aya_vision")
class AyaVision(TileFamily):
    """Aya Vision (SigLIP tower, Cohere text model)."""

    title = "Aya Vision"
    processor = "AyaVisionProcessor"
    image_processor = "GotOcr2ImageProcessor"
    options = frozenset({"max_tiles"})

    def block(self, config: Any) -> int:
        """The downsample factor."""
        return int(config.downsample_factor)

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a fixed number of placeholders for each tile."""
        pixels = self.tile_pixels(config)
        return {(PROCESSOR, "img_size"): pixels, (PREPROCESSOR, "size"): {"height": pixels, "width": pixels}}

    def tower(self, model: PreTrainedModel) -> Tower:
        """The projector does the pixel shuffle itself, so `downsample_factor`² patches go into it per token."""
        base: Any = model.base_model
        return tower_at(base.vision_tower, lambda rows: base.multi_modal_projector(rows).flatten(0, 2), model.config.downsample_factor**2)
