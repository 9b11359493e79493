"""Seeded scenes: coloured shapes of two sizes on a plain background, with annotations.

No two things of a scene agree in size, colour and shape, so that every thing has a unique description; boxes do not overlap. Scene i of a
seed does not depend on any other scene, and its things can be computed without drawing it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from biaskit.errors import SourceError

VERSION = 1
"""Version, part of fingerprints: increase it when the pictures or their things change."""
EDGE = 168
"""Pixels along each side of a scene."""
PATCH = 14
"""Pixels along each side of a patch of the vision tower: 12 × 12 patches."""
PATCHES = EDGE // PATCH
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (214, 38, 38), "green": (38, 160, 60), "blue": (40, 80, 220), "yellow": (240, 220, 40),
    "orange": (245, 135, 25), "purple": (140, 50, 170), "white": (245, 245, 245), "black": (20, 20, 20),
}  # fmt: skip
COLOUR_NAMES = tuple(COLOURS)
SIZES = ("small", "large")
PLACEMENTS = ("uniform", "photo", "empty")
"""`uniform`: centres anywhere. `photo`: as in photographs, in the middle and below it, larger towards the bottom. `empty`: nothing."""
MOST_THINGS = 10

_SCALE = 2  # drawn this much larger, then averaged: smooth edges
_OWNED = PATCH  # a patch belongs to a thing that covers at least this many of its pixels

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels, x to the right, y down."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene. `size`, `colour`, `shape` index SIZES, COLOUR_NAMES, SHAPES; centre and radius are in pixels."""

    size: int
    colour: int
    shape: int
    x: float
    y: float
    radius: float

    @property
    def key(self) -> tuple[int, int, int]:
        """(size, colour, shape), unique in its scene."""
        return self.size, self.colour, self.shape

    @property
    def outline(self) -> list[tuple[float, float]]:
        """The corners of the filled polygon that is drawn, in pixels. A ring is cut open, so that one polygon has a hole."""
        return [(self.x + self.radius * x, self.y + self.radius * y) for x, y in _OUTLINES[SHAPES[self.shape]]]

    @property
    def box(self) -> Box:
        """The tight box around the outline."""
        xs, ys = zip(*self.outline, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn scene.

    Attributes:
        things: its objects.
        pixels: [168, 168, 3] uint8, RGB.
        owner: [12, 12] int8, index of the thing that covers most of each patch, −1 if none covers 14 of its pixels.
    """

    things: tuple[Thing, ...]
    pixels: NDArray[np.uint8]
    owner: NDArray[np.int8]


def _star() -> list[tuple[float, float]]:
    return [
        ((1 if k % 2 == 0 else 0.42) * math.sin(k * math.pi / 5), -(1 if k % 2 == 0 else 0.42) * math.cos(k * math.pi / 5))
        for k in range(10)
    ]


def _cross(arm: float) -> list[tuple[float, float]]:
    return [
        (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
        (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
    ]  # fmt: skip


def _circle(radius: float = 1.0, n: int = 40) -> list[tuple[float, float]]:
    return [(radius * math.cos(2 * math.pi * k / n), radius * math.sin(2 * math.pi * k / n)) for k in range(n)]


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _circle(),
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "star": _star(),
    "cross": _cross(0.36),
    "ring": [*_circle(), (1.0, 0.0), *_circle(0.58)[::-1], (0.58 * math.cos(-math.pi / 20), 0.58 * math.sin(-math.pi / 20))],
}


def _generator(seed: int, index: int, placement: str, part: int) -> np.random.Generator:
    """Return the generator of one part of one scene (0 the things, 1 the pixels).

    Raises:
        SourceError: a negative seed or index, an unknown placement.
    """
    if placement not in PLACEMENTS:
        raise SourceError(f"unknown placement {placement!r}", f"use {', '.join(PLACEMENTS)}")
    if seed < 0 or index < 0:
        raise SourceError(f"scene {index} of seed {seed} does not exist", "give a seed and an index of 0 or more")
    return np.random.default_rng([VERSION, seed, PLACEMENTS.index(placement), index, part])


def things_of(seed: int, index: int, placement: str = "uniform") -> tuple[Thing, ...]:
    """Return the 4 to 10 things of a scene (none when `empty`) without drawing it.

    Raises:
        SourceError: a negative seed or index, an unknown placement.
    """
    rng = _generator(seed, index, placement, 0)
    if placement == "empty":
        return ()
    wanted = int(rng.integers(4, MOST_THINGS + 1))
    things: list[Thing] = []
    keys: set[tuple[int, int, int]] = set()
    while len(things) < wanted:
        thing = _throw(rng, placement)
        near = (max(abs(thing.x - one.x), abs(thing.y - one.y)) - thing.radius - one.radius for one in things)
        if thing.key not in keys and all(gap >= 2 for gap in near):
            things.append(thing)
            keys.add(thing.key)
        elif rng.random() < 0.02:  # a crowded scene ends with fewer
            wanted -= wanted > 4
    return tuple(things)


def _throw(rng: np.random.Generator, placement: str) -> Thing:
    """Draw one thing at random, wholly inside the picture."""
    if placement == "photo":
        across, down = float(rng.beta(2.2, 2.2)), float(rng.beta(3.5, 1.8))
        large = rng.random() < 0.1 + 0.6 * down
    else:
        across, down = float(rng.random()), float(rng.random())
        large = rng.random() < 0.42
    radius = float(rng.uniform(19, 27) if large else rng.uniform(9.5, 14))
    span = EDGE - 2 * radius - 2
    colour, shape = int(rng.integers(len(COLOURS))), int(rng.integers(len(SHAPES)))
    return Thing(int(large), colour, shape, radius + 1 + across * span, radius + 1 + down * span, radius)


def draw_scene(seed: int, index: int, placement: str = "uniform") -> Scene:
    """Draw a scene. The same arguments give the same pixels.

    Raises:
        SourceError: a negative seed or index, an unknown placement.
    """
    things = things_of(seed, index, placement)
    rng = _generator(seed, index, placement, 1)
    picture = Image.fromarray(_background(rng)).resize((EDGE * _SCALE, EDGE * _SCALE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    _clutter(draw, rng)
    mask = Image.new("L", (EDGE, EDGE), 0)
    stencil = ImageDraw.Draw(mask)
    for number, thing in enumerate(things, 1):
        colour = np.array(COLOURS[COLOUR_NAMES[thing.colour]]) + rng.normal(0, 9, 3)
        red, green, blue = (int(value) for value in colour.clip(0, 255))
        draw.polygon([(x * _SCALE, y * _SCALE) for x, y in thing.outline], fill=(red, green, blue))
        stencil.polygon(thing.outline, fill=number)
    smooth = np.asarray(picture.reduce(_SCALE), np.float32)
    grain = rng.standard_normal(smooth.shape, np.float32) * np.float32(rng.uniform(0, 8))
    return Scene(things, (smooth + grain).clip(0, 255).astype(np.uint8), _owner(np.asarray(mask), len(things)))


def _background(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a pale gradient with ripples between two colours of medium brightness, uint8 [168, 168, 3]."""
    ends = rng.uniform(80, 185, (2, 3))
    ends = ends.mean(1, keepdims=True) + (ends - ends.mean(1, keepdims=True)) * 0.45
    angle = rng.uniform(0, 2 * math.pi)
    across = np.arange(EDGE, dtype=np.float32) / EDGE - 0.5
    along = across[None] * math.cos(angle) + across[:, None] * math.sin(angle)
    other = across[None] * math.sin(angle) + across[:, None] * math.cos(angle)
    blend = (0.5 + along).clip(0, 1)[..., None]
    ripple = rng.uniform(0, 9) * np.sin(rng.uniform(4, 25) * other)[..., None]
    pixels: NDArray[np.uint8] = (ends[0] + (ends[1] - ends[0]) * blend + ripple).clip(0, 255).astype(np.uint8)
    return pixels


def _clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw up to eight grey strokes and specks that no question is about."""
    edge = EDGE * _SCALE
    for _ in range(int(rng.integers(0, 9))):
        red, green, blue = (int(value) for value in (rng.uniform(60, 200) + rng.normal(0, 14, 3)).clip(0, 255))
        x, y = rng.uniform(0, edge, 2)
        if rng.random() < 0.5:
            right, down = rng.normal(0, 70, 2)
            draw.line([x, y, x + right, y + down], fill=(red, green, blue), width=int(rng.integers(1, 4)))
        else:
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=(red, green, blue))


def _owner(mask: NDArray[np.uint8], n: int) -> NDArray[np.int8]:
    """Return which thing covers most of each patch; `mask` holds 1-based numbers, 0 for none."""
    if n == 0:
        return np.full((PATCHES, PATCHES), -1, np.int8)
    covered = mask[..., None] == np.arange(1, n + 1, dtype=np.uint8)
    counts = covered.reshape(PATCHES, PATCH, PATCHES, PATCH, n).sum((1, 3))
    return np.where(counts.max(-1) >= _OWNED, counts.argmax(-1), -1).astype(np.int8)
