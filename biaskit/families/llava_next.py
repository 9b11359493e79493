"""LLaVA-NeXT (LLaVA-1.6): a base view of the whole image, then an any-resolution canvas with newline tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from biaskit.families import families
from biaskit.families.anyres import anyres_patches, anyres_tokens, canvas, view
from biaskit.families.base import PREPROCESSOR, ModelFamily, Size
from biaskit.families.conversations import converse
from biaskit.families.frame import llava_settings
from biaskit.grid import PatchIndex, Plane, Tokens

if TYPE_CHECKING:
    from torch import Tensor


@families.register("llava_next")
class LlavaNext(ModelFamily):
    """LLaVA-NeXT: N = side² + rows · (cols + 1); 640×480 gives 576 + 36 · 49 = 2,340."""

    title = "LLaVA-NeXT"
    processor = "LlavaNextProcessor"
    image_processor = "LlavaNextImageProcessor"
    options = frozenset({"conversation"})

    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Read the sizes from the processor's `image_sizes` (rows, cols in pixels)."""
        tile, patch = config.vision_config.image_size, config.vision_config.patch_size
        side, covered = view(tile, patch)
        base = Plane("base", side, side, covered)
        sizes = [tuple(size) for size in inputs["image_sizes"].tolist()]
        found = {size: anyres_tokens(base, canvas(size, config.image_grid_pinpoints, tile, patch)) for size in set(sizes)}
        return [found[size] for size in sizes]

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """The processor computes the number of patches from settings of its own."""
        return llava_settings(config) | {(PREPROCESSOR, "image_grid_pinpoints"): config.image_grid_pinpoints}

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """`conversation` sets the chat template: the vicuna checkpoints were evaluated with vicuna's system prompt."""
        if (name := choices.get("conversation")) is not None:
            converse(processor, str(name))

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """The base view's tile first, then those of the canvas, row by row; newline tokens have no patch."""
        pinpoints, tile, patch = config.image_grid_pinpoints, config.vision_config.image_size, config.vision_config.patch_size
        found = {}
        for size in {tuple(size) for size in inputs["image_sizes"].tolist()}:
            picture = canvas(size, pinpoints, tile, patch)
            found[size] = anyres_patches(size, pinpoints, tile, tile // patch, (picture.rows, picture.cols))
        return [found[tuple(size)] for size in inputs["image_sizes"].tolist()]

    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """Base as it is; canvas two tiles high and wide (672 × 672 in the papers)."""
        side = config.vision_config.image_size // config.vision_config.patch_size
        return {"base": (side, side), "canvas": (2 * side, 2 * side), "newline": (2 * side, 1)}


@families.register("llava_next_video")
class LlavaNextVideo(LlavaNext):
    """LLaVA-NeXT-Video, on still images."""

    title = "LLaVA-NeXT-Video"
    processor = "LlavaNextVideoProcessor"
