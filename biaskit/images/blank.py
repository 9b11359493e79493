"""Pictures without content: grey, noise, plain colours, and one picture of a source's mean colour. What a model prefers on them is its own.

They have the sizes of everyday photographs in turn, so that models with dynamic grids see all shapes.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from biaskit.errors import SourceError
from biaskit.images.base import ImageSource
from biaskit.images.generated import SIZES

KINDS = ("grey", "noise", "colours")

_VERSION = 1  # goes into the fingerprint: raise it when the pictures change


class BlankSource(ImageSource):
    """`n` pictures without content. The same seed gives the same bytes, and picture i does not depend on the others.

    Args:
        kind: `grey` (all of the middle grey), `noise` (every pixel a random colour), `colours` (each of one random colour).
        n: how many. seed: of noise and colours.
        colour: red, green, blue 0 … 255 instead of the grey.

    Raises:
        SourceError: n is below 1, the seed is negative, or the kind is unknown.
    """

    def __init__(self, kind: str, n: int, seed: int = 0, colour: tuple[int, int, int] = (128, 128, 128)) -> None:
        if kind not in KINDS:
            raise SourceError(f"no blank pictures of kind {kind!r}", f"choose {', '.join(KINDS)}")
        if n < 1:
            raise SourceError(f"cannot draw {n} blank pictures", "ask for at least 1")
        if seed < 0:
            raise SourceError(f"seed {seed} is negative", "give a seed of 0 or more")
        self.name, self.kind, self.n, self.seed, self.colour = kind, kind, n, seed, colour

    def __len__(self) -> int:
        """Return the number of pictures."""
        return self.n

    def identify(self, index: int) -> str:
        """Return kind, colour or seed, and index."""
        what = "-".join(map(str, self.colour)) if self.kind == "grey" else str(self.seed)
        return f"{self.kind}-{what}-{range(self.n)[index]:06d}"

    def extent(self, index: int) -> str:
        """Return the version of the drawing code: all pixels follow from it and the name."""
        del index
        return f"v{_VERSION}"

    def open(self, index: int) -> bytes:
        """Return the picture as a PNG file."""
        buffer = io.BytesIO()
        self.load(index).save(buffer, "PNG")
        return buffer.getvalue()

    def load(self, index: int) -> Image.Image:
        """Draw one picture. There is nothing to decode."""
        size = SIZES[range(self.n)[index] % len(SIZES)]
        rng = np.random.default_rng([self.seed, index])
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
