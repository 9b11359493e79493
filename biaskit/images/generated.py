"""Seeded synthetic pictures: a demonstration needs no data.

Their content has no preferred position: gradients point in any direction, ripples start anywhere, shapes are centred uniformly over the
picture and may be cut by its edge. A positional preference on their average is the model's own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from biaskit.images.base import sources
from biaskit.images.drawn import SIZES, DrawnSource


@sources.register("generated")
class GeneratedSource(DrawnSource):
    """`n` synthetic pictures. The same seed gives the same bytes, and picture i does not depend on the others.

    Raises:
        SourceError: n is below 1 or the seed is negative.
    """

    name = "generated"
    version = 1

    def identify(self, index: int) -> str:
        """Return seed and index."""
        return f"generated-{self.seed}-{range(self.n)[index]:06d}"

    def load(self, index: int) -> Image.Image:
        """Draw one picture: a background, then two to seven shapes. There is nothing to decode."""
        rng = np.random.default_rng([self.seed, range(self.n)[index]])
        cols, rows = SIZES[rng.integers(len(SIZES))]
        picture = Image.fromarray(_background(rng, rows, cols))
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.integers(2, 8)):
            _shape(draw, rng, rows, cols)
        return picture


def _background(rng: np.random.Generator, rows: int, cols: int) -> NDArray[np.uint8]:
    """Return a gradient or ripples between two colours, with some grain, uint8 [rows, cols, 3]."""
    y, x = np.mgrid[0:rows, 0:cols] / max(rows, cols)
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = rng.integers(3)
    if kind == 0:  # plain gradient
        blend = (along - along.min()) / np.ptp(along)
    elif kind == 1:  # straight ripples
        blend = 0.5 + 0.5 * np.sin(2 * math.pi * rng.uniform(2, 12) * along)
    else:  # round ripples
        centre = rng.uniform(0, 1, 2) * (rows, cols) / max(rows, cols)
        blend = 0.5 + 0.5 * np.sin(2 * math.pi * rng.uniform(2, 12) * np.hypot(y - centre[0], x - centre[1]))
    first, second = rng.uniform(0, 255, (2, 3))
    colours = first + blend[..., None] * (second - first) + rng.normal(0, 4, (rows, cols, 1))
    pixels: NDArray[np.uint8] = colours.clip(0, 255).astype(np.uint8)
    return pixels


def _shape(draw: ImageDraw.ImageDraw, rng: np.random.Generator, rows: int, cols: int) -> None:
    """Draw one coloured ellipse, rectangle, polygon or ring somewhere."""
    x, y = rng.uniform(0, cols), rng.uniform(0, rows)
    radius = min(rows, cols) * rng.uniform(0.04, 0.25)
    wide, high = radius * rng.uniform(0.6, 1.4, 2)
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    box = (x - wide, y - high, x + wide, y + high)
    kind = rng.integers(4)
    if kind == 0:
        draw.ellipse(box, fill=(red, green, blue))
    elif kind == 1:
        draw.rectangle(box, fill=(red, green, blue))
    elif kind == 2:
        corners = int(rng.integers(3, 7))
        angles = rng.uniform(0, 2 * math.pi) + 2 * math.pi * np.arange(corners) / corners
        draw.polygon([(float(x + wide * math.cos(a)), float(y + high * math.sin(a))) for a in angles], fill=(red, green, blue))
    else:
        draw.ellipse(box, outline=(red, green, blue), width=max(3, int(radius / 4)))
