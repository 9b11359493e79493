"""Sources whose pictures are drawn on demand, without files."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import ClassVar

from PIL import Image

from biaskit.errors import SourceError
from biaskit.images.base import ImageSource, SourceRequest

SIZES = ((640, 480), (480, 640), (640, 427), (427, 640), (512, 512), (336, 336), (640, 360), (375, 500), (800, 600), (600, 800))
"""(width, height) in pixels: the shapes of everyday photographs, landscape and portrait in equal numbers."""


class DrawnSource(ImageSource):
    """`n` drawn pictures. The same seed gives the same bytes, and picture i does not depend on the others.

    Attributes:
        version: of the drawing code, part of the fingerprint: increase it when the pictures change.

    Raises:
        SourceError: n is below 1 or the seed is negative.
    """

    version: ClassVar[int]

    @classmethod
    def named(cls, asked: SourceRequest) -> ImageSource:
        """Open the source with the requested number of pictures."""
        return cls(asked.count, asked.seed)

    def __init__(self, n: int, seed: int = 0) -> None:
        if n < 1:
            raise SourceError(f"cannot draw {n} pictures of {self.name}", "ask for at least 1")
        if seed < 0:
            raise SourceError(f"seed {seed} is negative", "give a seed of 0 or more")
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        """Return the number of pictures."""
        return self.n

    def extent(self, index: int) -> str:
        """Return the version of the drawing code, which together with the name determines all pixels."""
        del index
        return f"v{self.version}"

    def open(self, index: int) -> bytes:
        """Return the picture as a PNG file."""
        buffer = io.BytesIO()
        self.load(index).save(buffer, "PNG")
        return buffer.getvalue()

    @abstractmethod
    def load(self, index: int) -> Image.Image:
        """Draw one picture. There is nothing to decode."""
