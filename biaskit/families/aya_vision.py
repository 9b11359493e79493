"""Aya Vision: InternVL's tiles with a mark before each, and a view of the whole image last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR, ModelFamily, Size
from biaskit.families.checkpoints.tower import tower_at
from biaskit.families.tiles import marked_runs, tile_tokens
from biaskit.grid import PatchIndex, Tokens, join_patches, merged_patches

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower


@families.register("aya_vision")
class AyaVision(ModelFamily):
    """Aya Vision (SigLIP tower, Cohere text model)."""

    title = "Aya Vision"
    processor = "AyaVisionProcessor"
    image_processor = "GotOcr2ImageProcessor"
    options = frozenset({"max_tiles"})

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Count each image's tiles in the prompt; their arrangement follows from its size or, without it, from the whole view."""
        side = _side(config)
        samples = inputs["input_ids"].cpu().numpy()
        counts = [len(views) for ids in samples for views in marked_runs(ids, config.image_token_id, side * side)]
        return tile_tokens(counts, side, inputs["pixel_values"], sizes)

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a fixed number of placeholders for each tile."""
        pixels = config.vision_config.image_size
        return {(PROCESSOR, "img_size"): pixels, (PREPROCESSOR, "size"): {"height": pixels, "width": pixels}}

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """The stock processor calls tiles patches."""
        if (most := choices.get("max_tiles")) is not None:
            processor.image_processor.max_patches = int(most)

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """The pixel shuffle joins square blocks of patches."""
        side, block = _side(config), int(config.downsample_factor)
        one = PatchIndex(merged_patches(side, side, block), (side * side * block * block,))
        samples = inputs["input_ids"].cpu().numpy()
        images = [views for ids in samples for views in marked_runs(ids, config.image_token_id, side * side)]
        return [join_patches([one] * len(views)) for views in images]

    def tower(self, model: PreTrainedModel) -> Tower:
        """The projector shuffles the patches of a square by itself: a token's own patches are one."""
        base: Any = model.base_model
        return tower_at(base.vision_tower, lambda rows: base.multi_modal_projector(rows).flatten(0, 2), model.config.downsample_factor**2)

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """Canvas of two tiles by two; the view of the whole image as it is."""
        side = _side(config)
        return {"canvas": (2 * side, 2 * side), "thumbnail": (side, side)}

    def token_pixels(self, config: Any) -> float:
        """The pixel shuffle joins patches."""
        return float(config.vision_config.image_size / _side(config))


def _side(config: Any) -> int:
    """Visual tokens along the side of a tile, after the pixel shuffle."""
    return int(config.vision_config.image_size // config.vision_config.patch_size // config.downsample_factor)
