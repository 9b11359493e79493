"""Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni and Qwen3-VL: one grid of the image's own shape, after the 2 × 2 merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, ModelFamily, Size
from biaskit.families.checkpoints.tower import tower_at
from biaskit.families.frame import bound_pixels
from biaskit.grid import PatchIndex, Plane, Tokens, join, join_patches, merged_patches, raster
from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower


class QwenVL(ModelFamily):
    """The image is scaled to a multiple of the merged patch, keeping its aspect ratio; tokens are in row-major order in the decoder."""

    image_processor = "Qwen2VLImageProcessor"
    options = frozenset({"min_pixels", "max_pixels"})

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Read `image_grid_thw` (frames, patch rows, patch cols)."""
        merge = config.vision_config.spatial_merge_size
        return [
            join([raster(Plane("image", rows // merge, cols // merge)) for _ in range(frames)])
            for frames, rows, cols in inputs["image_grid_thw"].tolist()
        ]

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor cuts the image into the tower's patches."""
        vision = config.vision_config
        return {(PREPROCESSOR, "patch_size"): vision.patch_size, (PREPROCESSOR, "merge_size"): vision.spatial_merge_size}

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """Blocks of 2 × 2 patches are merged; the patches of a block are consecutive in the tower's sequence."""
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

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """The stock processor calls the bounds of an image's pixels its shortest and longest edge."""
        bound_pixels(processor.image_processor, choices)

    def token_pixels(self, config: Any) -> float:
        """Patches are merged 2 × 2."""
        return float(config.vision_config.patch_size * config.vision_config.spatial_merge_size)


@families.register("qwen2_vl")
class Qwen2VL(QwenVL):
    """Qwen2-VL."""

    title = "Qwen2-VL"
    processor = "Qwen2VLProcessor"
    # its report (arXiv 2409.12191, section 2.2) has markers around the phrase; with them its figures on RefCOCO are not reached
    wording = Wording(region_source="QwenLM/Qwen3-VL issue 536: LLaVA's words, without the markers <|object_ref_start|>")
    box_convention = BoxConvention("thousand", "<|box_start|>({0},{1}),({2},{3})<|box_end|>")


@families.register("qwen2_5_vl")
class Qwen2_5VL(QwenVL):  # noqa: N801 - the model's own name
    """Qwen2.5-VL."""

    title = "Qwen2.5-VL"
    processor = "Qwen2_5_VLProcessor"
    wording = Wording(
        region="Locate {} in this image and output the bbox coordinates in JSON format.",
        region_source="of its own RefCOCO figures: QwenLM/Qwen3-VL issue 991",
    )
    box_convention = BoxConvention("pixels")  # of the resized image: QwenLM/Qwen3-VL issue 830

    def _order(self, config: Any, index: NDArray[np.int64], cols: int) -> NDArray[np.int64]:
        """Blocks are sorted by windows, row by row, and by rows within a window."""
        vision = config.vision_config
        side = vision.window_size // vision.spatial_merge_size // vision.patch_size
        row, col = np.divmod(np.arange(len(index)), cols)
        return np.argsort(index[np.lexsort((col, row, col // side, row // side))].ravel())


@families.register("qwen2_5_omni_thinker")
class Qwen2_5Omni(Qwen2_5VL):  # noqa: N801 - the model's own name
    """The thinker of Qwen2.5-Omni, the part that sees and writes: Qwen2.5-VL's tower and language model. No audio, no video."""

    title = "Qwen2.5-Omni"
    processor = "Qwen2_5OmniProcessor"
    within: ClassVar[Mapping[str, str]] = {"qwen2_5_omni": "thinker_config"}
    wording = Wording(
        region=Qwen2_5VL.wording.region,
        region_source="Qwen2.5-VL's, whose tower it has; none of its own are known: QwenLM/Qwen2.5-Omni issue 392 asks for them",
    )
    # boxes as Qwen2.5-VL's: modelscope/ms-swift trains it on absolute coordinates (norm_bbox = "none"); issue 392 has no answer

    def check(self, config: Any) -> None:
        """The thinker counts an image's positions from the token before it, which its config must name."""
        if getattr(config, "vision_start_token_id", None) is None:
            raise ModelError(
                "config.json has no vision_start_token_id, from which the thinker of Qwen2.5-Omni counts the positions of an image",
                'write the id of <|vision_bos|> into it, for the published checkpoints "vision_start_token_id": 151652',
            )


@families.register("qwen3_vl")
class Qwen3VL(QwenVL):
    """Qwen3-VL."""

    title = "Qwen3-VL"
    processor = "Qwen3VLProcessor"
    wording = Wording(
        region='Locate every object that matches the description "{}" in the image. Report bbox coordinates in JSON format.',
        region_source="of its own RefCOCO figures: QwenLM/Qwen3-VL issue 1721",
    )
    box_convention = BoxConvention("thousand")  # again: QwenLM/Qwen3-VL issues 1485 and 1741


@families.register("qwen3_vl_moe")
class Qwen3VLMoe(Qwen3VL):
    """Qwen3-VL with a mixture of experts."""

    title = "Qwen3-VL-MoE"


@families.register("glm4v")
class Glm4V(QwenVL):
    """GLM-4.1V, whose grid is Qwen-VL's."""

    title = "GLM-4.1V"
    processor = "Glm4vProcessor"
    image_processor = "Glm4vImageProcessor"

    def tower(self, model: PreTrainedModel) -> Tower:
        """A convolution joins the patches of a block before the merger."""
        visual: Any = model.base_model.visual
        side = int(visual.spatial_merge_size)

        def project(rows: Tensor) -> Tensor:
            joined = visual.downsample(visual.post_layernorm(rows).unflatten(1, (side, side)).permute(0, 3, 1, 2))
            found: Tensor = visual.merger(joined.flatten(1))
            return found

        return tower_at(visual, project, side * side)


@families.register("glm46v")
class Glm46V(Glm4V):
    """GLM-4.6V, whose grid is Qwen-VL's."""

    title = "GLM-4.6V"
    processor = "Glm46VProcessor"
    image_processor = "Glm46VImageProcessor"
