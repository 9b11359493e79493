"""The scenes as an image source, drawn on demand, so that calibration needs no files."""

from __future__ import annotations

from PIL import Image

from biaskit.images.base import ImageSource, SourceRequest, sources
from biaskit.images.drawn import DrawnSource
from biaskit.images.scenes.draw import VERSION, Thing, draw_scene, things_of


@sources.register("scenes", "scenes-photo", "scenes-empty")
class SceneSource(DrawnSource):
    """`n` scenes. The same seed gives the same bytes, and scene i does not depend on the others.

    Args:
        n: how many. seed: of all of them. placement: one of `scenes.PLACEMENTS`.

    Raises:
        SourceError: n is below 1, the seed is negative, or the placement is unknown.
    """

    name = "scenes"
    version = VERSION

    def __init__(self, n: int, seed: int = 0, placement: str = "uniform") -> None:
        super().__init__(n, seed)
        things_of(seed, 0, placement)  # raises for an invalid seed or placement
        self.placement = placement

    @classmethod
    def named(cls, asked: SourceRequest) -> ImageSource:
        """Open the scenes with the placement in the name."""
        return cls(asked.count, asked.seed, asked.name.removeprefix("scenes").removeprefix("-") or "uniform")

    def identify(self, index: int) -> str:
        """Return placement, seed and index."""
        return f"scene-{self.placement}-{self.seed}-{range(self.n)[index]:06d}"

    def load(self, index: int) -> Image.Image:
        """Draw one scene. There is nothing to decode."""
        return Image.fromarray(draw_scene(self.seed, range(self.n)[index], self.placement).pixels)

    def things(self, index: int) -> tuple[Thing, ...]:
        """Return what is in one scene, without drawing it."""
        return things_of(self.seed, range(self.n)[index], self.placement)
