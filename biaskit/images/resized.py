"""The images of another source, resized: the same content on other grids of visual tokens."""

from __future__ import annotations

import io

from PIL import Image

from biaskit.errors import SourceError
from biaskit.images.base import ImageSource, View


class Resized(View):
    """A source whose images are all resized (bicubic) to rows × cols pixels, without keeping the aspect ratio.

    Raises:
        SourceError: a side below 16 pixels.
    """

    def __init__(self, source: ImageSource, rows: int, cols: int) -> None:
        if min(rows, cols) < 16:
            raise SourceError(f"images of {rows}×{cols} pixels", "choose at least 16 on each side")
        super().__init__(source, range(len(source)))
        self.rows, self.cols = rows, cols

    def extent(self, index: int) -> str:
        """Return the size after resizing, and the source's extent of the image."""
        return f"{self.rows}x{self.cols} of {super().extent(index)}"

    def load(self, index: int) -> Image.Image:
        """Return the image, resized."""
        return super().load(index).resize((self.cols, self.rows), Image.Resampling.BICUBIC)

    def open(self, index: int) -> bytes:
        """Return the resized image as a PNG file."""
        buffer = io.BytesIO()
        self.load(index).save(buffer, "PNG")
        return buffer.getvalue()
