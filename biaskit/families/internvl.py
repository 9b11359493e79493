"""InternVL in the Hugging Face format: tiles in row-major order, tokens tile by tile, a thumbnail of the whole image last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR
from biaskit.families.tiles import TileFamily, arrangement, runs
from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["InternVL", "arrangement"]


@families.register("internvl")
class InternVL(TileFamily):
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

    def block(self, config: Any) -> int:
        """Two by two at a ratio of a half."""
        return round(1 / float(config.downsample_ratio))

    def views(self, config: Any, input_ids: Tensor) -> list[int]:
        """Start and end tokens separate images, and the views of an image are adjacent: each contiguous run is an image."""
        per_view = self.side(config) ** 2
        counts = [end - start for ids in input_ids.cpu().numpy() for start, end in runs(ids, config.image_token_id)]
        if any(count % per_view for count in counts):
            raise ModelError(f"an image has {counts} visual tokens, not a multiple of {per_view}", "pass the processor's output unchanged")
        return [count // per_view for count in counts]

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a fixed number of placeholders for each tile."""
        pixels = self.tile_pixels(config)
        return {(PROCESSOR, "image_seq_length"): self.side(config) ** 2, (PREPROCESSOR, "size"): {"height": pixels, "width": pixels}}
