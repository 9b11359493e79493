"""InternVL in the Hugging Face format: tiles in row-major order, tokens tile by tile, a thumbnail of the whole image last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR, ModelFamily, Size
from biaskit.grid import PatchIndex, Plane, Tokens, join, join_patches, merged_patches, raster
from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from torch import Tensor


@families.register("internvl")
class InternVL(ModelFamily):
    """InternVL2.5 and InternVL3 (Llama or Qwen2 text model). The tiles form one canvas; token order is tile by tile, not canvas rows."""

    title = "InternVL"
    processor = "InternVLProcessor"
    image_processor = "GotOcr2ImageProcessor"
    wording = Wording(
        region="Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
        short="{} Answer the question using a single word or phrase.",
    )  # OpenGVLab/InternVL, eval/refcoco/evaluate_grounding.py and eval/vqa, where a blank stands before the sentence
    box_convention = BoxConvention("thousand", "<box>[[{0}, {1}, {2}, {3}]]</box>")
    options = frozenset({"max_tiles"})

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Count each image's tiles in the prompt; their arrangement follows from its size or, without it, from the thumbnail."""
        side = _side(config)
        result = []
        first = 0
        counts = _views(config, inputs["input_ids"].cpu().numpy(), side * side)
        if sum(counts) != len(inputs["pixel_values"]):
            raise ModelError(
                f"the placeholders are those of {sum(counts)} views, but the images have {len(inputs['pixel_values'])}",
                "pass the processor's whole output, and images and prompts of the same batch",
            )
        for image, views in enumerate(counts):
            tiles = views - 1 if views > 1 else 1
            if views == 2:
                raise ModelError(
                    "an image has one tile and a thumbnail", "InternVL's processor never makes this; pass its output unchanged"
                )
            if tiles == 1:
                rows, cols = 1, 1
            elif sizes is not None:
                rows, cols = arrangement(tiles, sizes[image][1] / sizes[image][0])
            else:
                rows, cols = _arrangement_seen(_pooled(inputs["pixel_values"][first : first + views]))
            canvas = _tiled(rows, cols, side)
            result.append(join([canvas, raster(Plane("thumbnail", side, side))]) if views > 1 else canvas)
            first += views
        return result

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
    counts = []
    for ids in input_ids:
        visual = np.concatenate([[False], ids == config.image_token_id, [False]])
        edges = np.flatnonzero(np.diff(visual.astype(np.int8)))
        counts.extend((edges[1::2] - edges[::2]).tolist())
    if any(count % per_view for count in counts):
        raise ModelError(f"an image has {counts} visual tokens, not a multiple of {per_view}", "pass the processor's output unchanged")
    return [count // per_view for count in counts]


def _grids(tiles: int) -> list[tuple[int, int]]:
    return [(tiles // cols, cols) for cols in range(1, tiles + 1) if tiles % cols == 0]


def arrangement(tiles: int, aspect: float) -> tuple[int, int]:
    """Return (rows, cols) of the tiles: the grid of that many tiles whose shape is nearest to the image's (`aspect` = width / height)."""
    return min(_grids(tiles), key=lambda grid: (abs(aspect - grid[1] / grid[0]), grid[0]))


_CELLS = 28
"""Side of the pictures that are compared."""


def _pooled(views: Tensor) -> np.ndarray:
    """Average each view down to 28 × 28 where it lies: [views, 3, pixels, pixels] → [views, 3, 28, 28] float32 on the host."""
    step = max(1, views.shape[-1] // _CELLS)
    side = views.shape[-1] // step
    blocks = views[..., : side * step, : side * step].float().unflatten(-1, (side, step)).unflatten(-3, (side, step))
    found: np.ndarray = blocks.mean((-3, -1)).cpu().numpy()
    return found


def _arrangement_seen(views: np.ndarray) -> tuple[int, int]:
    """Find the arrangement by laying the tiles out in every possible way and comparing the picture with the thumbnail.

    Args:
        views: [tiles + 1, 3, pixels, pixels], the thumbnail last.
    """
    *tiles, thumbnail = views
    cells = min(_CELLS, thumbnail.shape[-1])

    def shrink(picture: np.ndarray, rows: int, cols: int) -> np.ndarray:
        height, width = picture.shape[-2] // rows * rows, picture.shape[-1] // cols * cols
        blocks = picture[:, :height, :width].reshape(len(picture), rows, height // rows, cols, width // cols)
        mean: np.ndarray = blocks.mean((2, 4))
        return mean

    def misfit(grid: tuple[int, int]) -> float:
        rows, cols = grid
        laid = np.concatenate([np.concatenate(tiles[r * cols : (r + 1) * cols], axis=-1) for r in range(rows)], axis=-2)
        return float(np.square(shrink(laid, cells, cells) - shrink(thumbnail, cells, cells)).mean())

    return min(_grids(len(tiles)), key=misfit)


def _tiled(rows: int, cols: int, side: int) -> Tokens:
    """Tokens of rows × cols tiles, tile by tile, on one canvas."""
    index = np.arange(rows * cols * side * side, dtype=np.int64)
    tile, inside = np.divmod(index, side * side)
    tile_row, tile_col = np.divmod(tile, cols)
    row, col = np.divmod(inside, side)
    plane = Plane("canvas", rows * side, cols * side)
    return Tokens((plane,), np.zeros_like(index), tile_row * side + row, tile_col * side + col)
