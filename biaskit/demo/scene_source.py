"""The scenes as an image source: drawn when asked for, so calibration needs no file."""

from __future__ import annotations

import io

from PIL import Image

from biaskit.demo.scenes import VERSION, Thing, draw_scene, things_of
from biaskit.errors import SourceError
from biaskit.images.base import ImageSource


class SceneSource(ImageSource):
    """`n` scenes. The same seed gives the same bytes, and scene i does not depend on the others.

    Args:
        n: how many. seed: of all of them. placement: one of `scenes.PLACEMENTS`.

    Raises:
        SourceError: n is below 1, the seed is negative, or the placement is unknown.
    """

    name = "scenes"

    def __init__(self, n: int, seed: int = 0, placement: str = "uniform") -> None:
        if n < 1:
            raise SourceError(f"cannot draw {n} scenes", "ask for at least 1")
        things_of(seed, 0, placement)  # refuses what no scene has
        self.n, self.seed, self.placement = n, seed, placement

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.n

    def identify(self, index: int) -> str:
        """Return placement, seed and index."""
        return f"scene-{self.placement}-{self.seed}-{range(self.n)[index]:06d}"

    def extent(self, index: int) -> str:
        """Return the version of the drawing code: all pixels follow from it, placement, seed and index."""
        del index
        return f"v{VERSION}"

    def open(self, index: int) -> bytes:
        """Return the scene as a PNG file."""
        buffer = io.BytesIO()
        self.load(index).save(buffer, "PNG")
        return buffer.getvalue()

    def load(self, index: int) -> Image.Image:
        """Draw one scene. There is nothing to decode."""
        return Image.fromarray(draw_scene(self.seed, range(self.n)[index], self.placement).pixels)

    def things(self, index: int) -> tuple[Thing, ...]:
        """Return what is in one scene, without drawing it."""
        return things_of(self.seed, range(self.n)[index], self.placement)
