"""InternVL in the Hugging Face format: tiles in row-major order, tokens tile by tile, a thumbnail of the whole image last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR, ModelFamily, Size
from biaskit.families.tiles import arrangement, runs, tile_tokens
from biaskit.grid import PatchIndex, Tokens, join_patches, merged_patches
from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["InternVL", "arrangement"]


@families.register("internvl")
class InternVL(ModelFamily):
    """InternVL2.5 and InternVL3 (Llama or Qwen2 text model). The tiles form one canvas; token order is tile by tile, not canvas rows."""

    title = "InternVL"
    processor = "InternVLProcessor"
    image_processor = "GotOcr2ImageProcessor"
    wording = Wording(
        region="Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
        region_source="OpenGVLab/InternVL, eval/refcoco/evaluate_grounding.py",
        short="{} Answer the question using a single word or phrase.",
        short_source="OpenGVLab/InternVL, eval/vqa/evaluate_vqa.py",
        yes_no="{}\nAnswer the question using a single word or phrase. ",
        yes_no_source="OpenGVLab/InternVL, eval/pope/evaluate_pope.py: the lines of LLaVA's llava_pope_test.jsonl, and a blank",
    )
    box_convention = BoxConvention("thousand", "<box>[[{0}, {1}, {2}, {3}]]</box>")
    options = frozenset({"max_tiles"})

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Count each image's tiles in the prompt; their arrangement follows from its size or, without it, from the thumbnail."""
        side = _side(config)
        counts = _views(config, inputs["input_ids"].cpu().numpy(), side * side)
        if sum(counts) != len(inputs["pixel_values"]):
            raise ModelError(
                f"the placeholders are those of {sum(counts)} views, but the images have {len(inputs['pixel_values'])}",
                "pass the processor's whole output, and images and prompts of the same batch",
            )
        return tile_tokens(counts, side, inputs["pixel_values"], sizes)

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a fixed number of placeholders for each tile."""
        pixels = round(_side(config) * self.token_pixels(config))
        return {(PROCESSOR, "image_seq_length"): _side(config) ** 2, (PREPROCESSOR, "size"): {"height": pixels, "width": pixels}}

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """The stock processor calls tiles patches."""
        if (most := choices.get("max_tiles")) is not None:
            if int(most) < processor.image_processor.min_patches:
                raise ModelError(f"--max-tiles {most} is less than min_patches, {processor.image_processor.min_patches}", "give more tiles")
            processor.image_processor.max_patches = int(most)

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """The pixel shuffle joins blocks of patches: two by two at a ratio of a half."""
        side, block = _side(config), round(1 / config.downsample_ratio)
        one = merged_patches(side, side, block)
        count = side * side * block * block
        views = _views(config, inputs["input_ids"].cpu().numpy(), side * side)
        return [join_patches([PatchIndex(one, (count,))] * number) for number in views]

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """Canvas of two tiles by two; the thumbnail as it is."""
        side = _side(config)
        return {"canvas": (2 * side, 2 * side), "thumbnail": (side, side)}

    def token_pixels(self, config: Any) -> float:
        """The pixel shuffle joins 2 × 2 patches."""
        image = config.vision_config.image_size
        return float((image[0] if isinstance(image, list | tuple) else image) / _side(config))


def _side(config: Any) -> int:
    """Visual tokens along the side of a tile, after the pixel shuffle."""
    image, patch = config.vision_config.image_size, config.vision_config.patch_size
    size = image[0] if isinstance(image, list | tuple) else image
    step = patch[0] if isinstance(patch, list | tuple) else patch
    return int(size // step * config.downsample_ratio)


def _views(config: Any, input_ids: np.ndarray, per_view: int) -> list[int]:
    """Number of views (tiles and thumbnail) of each image. Start and end tokens part the images, so each contiguous run is one image."""
    counts = [end - start for ids in input_ids for start, end in runs(ids, config.image_token_id)]
    if any(count % per_view for count in counts):
        raise ModelError(f"an image has {counts} visual tokens, not a multiple of {per_view}", "pass the processor's output unchanged")
    return [count // per_view for count in counts]
