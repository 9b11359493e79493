"""The baseline that prunes nothing: the image is scaled down until it gives few enough visual tokens (VTC-Bench, arXiv 2510.07143)."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image, Resampling
from PIL.Image import new as new_image

from biaskit.errors import BiaskitError, ImageSkipped
from biaskit.families.base import ModelFamily

SHORTEST = 16
"""Pixels that the shorter side of a picture keeps at least."""


class Downscaler:
    """Finds sizes by the processor's own rounding, each once.

    Args:
        family, processor, config: of a checkpoint.

    Example:
        >>> from biaskit.families.checkpoints.tiny import tiny_model
        >>> model, processor, family = tiny_model("qwen2.5-vl")
        >>> scaler = Downscaler(family, processor, model.config)
        >>> small = scaler.scaled(new_image("RGB", (224, 168)), 20)
        >>> scaler.tokens((224, 168)), small.size, scaler.tokens(small.size)
        (48, (153, 115), 20)
    """

    def __init__(self, family: ModelFamily, processor: Any, config: Any) -> None:
        self.family, self.processor, self.config = family, processor, config
        self.counts: dict[tuple[int, int], int] = {}
        self.sizes: dict[tuple[tuple[int, int], int], tuple[int, int]] = {}

    def tokens(self, size: tuple[int, int]) -> int:
        """Return how many visual tokens a picture of (width, height) pixels becomes; 2³¹ where the processor refuses it."""
        if size not in self.counts:
            try:
                made = self.family.prepare(self.processor, self.config, [[new_image("RGB", size)]], ["."])
                self.counts[size] = len(made.layouts[0])
            except ImageSkipped:
                self.counts[size] = 2**31
        return self.counts[size]

    def scaled(self, image: Image, n: int) -> Image:
        """Return the image (bicubic) at the largest size of its shape that the processor turns into at most n visual tokens.

        It is found by bisection of the longer side; an image that has few enough tokens is returned as it is.

        Raises:
            BiaskitError: every size has more tokens; the message says how many the smallest has.
        """
        size = self.sizes.get((image.size, n))
        if size is None:
            size = self.sizes[image.size, n] = self._size(image.size, n)
        return image if size == image.size else image.resize(size, Resampling.BICUBIC)

    def _size(self, size: tuple[int, int], n: int) -> tuple[int, int]:
        longer = max(size)

        def at(side: int) -> tuple[int, int]:
            width, height = (max(1, round(length * side / longer)) for length in size)
            return width, height

        if self.tokens(size) <= n:
            return size
        least = -(-SHORTEST * longer // min(size))  # below it the shape changes by rounding
        low = high = longer
        while low > least and self.tokens(at(low)) > n:  # down by tenths: smaller pictures may be scaled up again
            low, high = max(least, min(low - 1, low * 10 // 11)), low
        if self.tokens(at(low)) > n:
            raise BiaskitError(
                f"no size of a {size[0]}×{size[1]} picture has {n} visual tokens or fewer: the processor scales small ones up",
                "ask for more, or take pool, which averages the grid",
            )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.tokens(at(middle)) <= n else (low, middle)
        return at(low)
