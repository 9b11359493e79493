"""Idefics 3 and SmolVLM: marked tiles row by row, a line break after each row, a thumbnail of the whole image last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biaskit.errors import ModelError
from biaskit.families import families
from biaskit.families.base import PREPROCESSOR, PROCESSOR, Size
from biaskit.families.checkpoints.tower import tower_at
from biaskit.families.tiles import TileFamily, marked_runs, tiled
from biaskit.grid import Plane, Tokens, join, raster

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower


@families.register("idefics3")
class Idefics3(TileFamily):
    """The image is stretched to whole tiles; several patches are joined to a visual token."""

    title = "Idefics 3"
    processor = "Idefics3Processor"
    image_processor = "Idefics3ImageProcessor"

    def block(self, config: Any) -> int:
        """The scale factor."""
        return int(config.scale_factor)

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Read the tiles' arrangement from the prompt, which breaks the line after each row of tiles."""
        side = self.side(config)
        found = []
        for ids in inputs["input_ids"].cpu().numpy():
            for views in marked_runs(ids, config.image_token_id, side * side):
                thumbnail = raster(Plane("thumbnail", side, side))
                rows, cols = _arrangement(ids, views)
                found.append(join([tiled(rows, cols, side), thumbnail]) if rows else thumbnail)
        return found

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor writes a fixed number of placeholders for each tile."""
        return {
            (PROCESSOR, "image_seq_len"): self.side(config) ** 2,
            (PREPROCESSOR, "max_image_size"): {"longest_edge": self.tile_pixels(config)},
        }

    def tower(self, model: PreTrainedModel) -> Tower:
        """The encoder's output is normalised, and the connector shuffles and projects it."""
        base: Any = model.base_model

        def project(rows: Tensor) -> Tensor:
            found: Tensor = base.connector(base.vision_model.post_layernorm(rows)).flatten(0, 1)
            return found

        return tower_at(base.vision_model, project, self.block(model.config) ** 2)

    def resized(self, config: Any, layout: Any) -> Size:
        """The tiles' pixels; those of the one view where the image is not cut."""
        plane = next((plane for plane in layout.planes if plane.image == 0 and plane.name == "canvas"), layout.planes[0])
        step = self.token_pixels(config)
        return round(plane.rows * step), round(plane.cols * step)


@families.register("smolvlm")
class SmolVLM(Idefics3):
    """SmolVLM and SmolVLM 2, on still images. Its stock processor is for videos; Idefics 3's writes the same text for images."""

    title = "SmolVLM"
    image_processor = "SmolVLMImageProcessor"


def _arrangement(ids: np.ndarray, views: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return (rows, cols) of the tiles, (0, 0) for none. The thumbnail is followed by the token that separates tiles of a row.

    Raises:
        ModelError: rows of different lengths.
    """
    tiles, (_, last) = views[:-1], views[-1]
    ends = [index for index, (_, end) in enumerate(tiles) if ids[end] != ids[last]]
    lengths = np.diff([-1, *ends])
    if len(tiles) and (not ends or ends[-1] != len(tiles) - 1 or len(set(lengths.tolist())) != 1):
        raise ModelError(f"rows of {lengths.tolist()} tiles", "pass the processor's output unchanged")
    return (len(ends), int(lengths[0])) if len(tiles) else (0, 0)
