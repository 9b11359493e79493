"""Pictures without content: grey, noise, plain colours, and a source's mean colour. A positional preference on them is the model's own.

They have the sizes of everyday photographs in turn, so that models with dynamic grids see all shapes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from biaskit.errors import SourceError
from biaskit.images.base import ImageSource, SourceRequest, sources
from biaskit.images.drawn import SIZES, DrawnSource

KINDS = ("grey", "noise", "colours")


@sources.register("grey", "noise", "colours")
class BlankSource(DrawnSource):
    """`n` pictures without content. The same seed gives the same bytes, and picture i does not depend on the others.

    Args:
        kind: `grey` (all of the middle grey), `noise` (every pixel a random colour), `colours` (each of one random colour).
        n: how many. seed: of noise and colours.
        colour: red, green, blue 0 … 255 instead of the grey.

    Raises:
        SourceError: n is below 1, the seed is negative, or the kind is unknown.
    """

    version = 1

    def __init__(self, kind: str, n: int, seed: int = 0, colour: tuple[int, int, int] = (128, 128, 128)) -> None:
        if kind not in KINDS:
            raise SourceError(f"no blank pictures of kind {kind!r}", f"choose {', '.join(KINDS)}")
        self.name, self.kind, self.colour = kind, kind, colour
        super().__init__(n, seed)

    @classmethod
    def named(cls, asked: SourceRequest) -> ImageSource:
        """Draw the kind that was named."""
        return cls(asked.name, asked.count, asked.seed)

    def identify(self, index: int) -> str:
        """Return kind, colour or seed, and index."""
        what = "-".join(map(str, self.colour)) if self.kind == "grey" else str(self.seed)
        return f"{self.kind}-{what}-{range(self.n)[index]:06d}"

    def load(self, index: int) -> Image.Image:
        """Draw one picture. There is nothing to decode."""
        number = range(self.n)[index]
        size = SIZES[number % len(SIZES)]
        rng = np.random.default_rng([self.seed, number])
        if self.kind == "noise":
            return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        red, green, blue = self.colour if self.kind == "grey" else (int(value) for value in rng.integers(0, 256, 3))
        return Image.new("RGB", size, (red, green, blue))


def mean_colour(source: ImageSource, most: int = 100) -> tuple[int, int, int]:
    """Return the mean red, green and blue over the first `most` images of a source, every image with the same weight.

    Raises:
        SourceError, ImageSkipped: an image cannot be read.
    """
    means = [np.asarray(source.load(index), dtype=np.float64).mean(axis=(0, 1)) for index in range(min(most, len(source)))]
    red, green, blue = np.mean(means, axis=0).round().astype(int).tolist()
    return red, green, blue
