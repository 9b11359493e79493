"""A picture with the cells of one plane on it: kept, dropped, never seen by the model, padding, and boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from biaskit.figures.style import INK
from biaskit.grid import Box, Plane

Pixels = NDArray[np.uint8]

VEIL, VEIL_OPAQUE = (
    0.58,
    0.84,
)  # a dropped cell's grey, and its opacity: darker than white and lighter than black, so never like a kept cell
DOT = "0.12"  # on each dropped cell, so that kept cells of a grey image do not look dropped
PADDING = 0.88
EDGE = "#ffd23f"
HATCH, UNSEEN = "////", 0.93
BOX, TRUTH = ("#e6007e", "-"), ("#00e0a4", (0, (4, 2)))
_FINE = 8  # pixels per cell needed to draw straight borders


@dataclass(frozen=True)
class Frame:
    """The region that a view shows, in pixels of the picture.

    Attributes:
        left, top, right, bottom: the picture, and the padding around it that tokens cover.
        box: what the plane covers. size: (width, height) of the picture.
    """

    left: float
    top: float
    right: float
    bottom: float
    box: Box
    size: tuple[int, int]

    @property
    def width(self) -> float:
        """Of the whole view."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Of the whole view."""
        return self.bottom - self.top

    @property
    def padded(self) -> bool:
        """Whether tokens cover padding."""
        return self.width > self.size[0] or self.height > self.size[1]

    @property
    def seen(self) -> tuple[int, int]:
        """(width, height) of the part of the picture that the plane covers."""
        left, top, right, bottom = self.box
        return round(min(right, self.size[0]) - max(left, 0)), round(min(bottom, self.size[1]) - max(top, 0))

    @property
    def margins(self) -> list[tuple[float, float, float, float]]:
        """(left, top, width, height) of the parts of the picture that no token covers; strips narrower than 1 % of it are ignored."""
        width, height = self.size
        left, top, right, bottom = (min(max(value, 0), size) for value, size in zip(self.box, (width, height, width, height), strict=True))
        found = [(0.0, 0.0, left, height), (right, 0.0, width - right, height), (left, 0.0, right - left, top)]
        found.append((left, bottom, right - left, height - bottom))
        return [part for part in found if part[2] > 0.01 * width and part[3] > 0.01 * height]


def frame_of(plane: Plane, size: tuple[int, int]) -> Frame:
    """Return the region that a view of a plane shows of a picture of (width, height); includes padding of more than half a cell.

    Example:
        >>> frame_of(Plane("image", 4, 4, (0.0, -0.5, 1.0, 1.5)), (40, 20)).height
        40.0
    """
    assert plane.box is not None
    width, height = size
    left, top, right, bottom = (value * side for value, side in zip(plane.box, (width, height, width, height), strict=True))
    half = (right - left) / plane.cols / 2, (bottom - top) / plane.rows / 2
    return Frame(
        left if left < -half[0] else 0.0,
        top if top < -half[1] else 0.0,
        right if right > width + half[0] else float(width),
        bottom if bottom > height + half[1] else float(height),
        (left, top, right, bottom),
        size,
    )


def draw_picture(axes: Axes, pixels: Pixels, frame: Frame) -> None:
    """Draw the picture alone."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="antialiased")
    _bounds(axes, frame)


def draw_view(axes: Axes, pixels: Pixels, plane: Plane, kept: NDArray[np.bool_], frame: Frame) -> None:
    """Draw the picture with the cells of one plane.

    Args:
        pixels: [height, width, 3]. kept: [rows, cols]. frame: from `frame_of`.
    """
    height, width = pixels.shape[:2]
    ys, xs = (edges * side for edges, side in zip(plane.edges(), (height, width), strict=True))
    fine = max(1, math.ceil(_FINE / min(np.diff(xs).min(), np.diff(ys).min())))
    down = frame.top + (np.arange(round(frame.height * fine)) + 0.5) / fine
    across = frame.left + (np.arange(round(frame.width * fine)) + 0.5) / fine
    shown = np.full((len(down), len(across), 3), PADDING)
    inside = ((down >= 0) & (down < height))[:, None] & ((across >= 0) & (across < width))[None]
    rows, cols = (np.clip(at.astype(int), 0, side - 1) for at, side in ((down, height), (across, width)))
    shown[inside] = (pixels[rows[:, None], cols[None]] / 255)[inside]
    row, col = np.searchsorted(ys, down, side="right") - 1, np.searchsorted(xs, across, side="right") - 1
    covered = ((row >= 0) & (row < plane.rows))[:, None] & ((col >= 0) & (col < plane.cols))[None]
    keeps = kept[np.clip(row, 0, plane.rows - 1)[:, None], np.clip(col, 0, plane.cols - 1)[None]]
    dropped = covered & ~keeps
    grey = shown[dropped] @ (0.299, 0.587, 0.114)
    shown[dropped] = (VEIL_OPAQUE * VEIL + (1 - VEIL_OPAQUE) * grey)[:, None]
    axes.imshow(shown, extent=(frame.left, frame.right, frame.bottom, frame.top), interpolation="antialiased")
    for left, top, wide, high in frame.margins:
        axes.add_patch(Rectangle((left, top), wide, high, facecolor=(UNSEEN,) * 3, edgecolor="0.45", hatch=HATCH, linewidth=0))
    _bounds(axes, frame)
    points = 72 * axes.get_window_extent().width / axes.get_figure(root=True).get_dpi() / frame.width  # type: ignore[union-attr]
    cell = points * min(np.diff(xs).min(), np.diff(ys).min())
    at = np.argwhere(~kept)
    middle = (ys[1:] + ys[:-1]) / 2, (xs[1:] + xs[:-1]) / 2
    axes.plot(middle[1][at[:, 1]], middle[0][at[:, 0]], "o", color=DOT, markersize=max(0.16 * cell, 0.3), markeredgewidth=0, gid="dropped")
    lines, thin = _borders(kept, xs, ys), min(max(0.08 * cell, 0.25), 0.8)
    for width_of_line, colour in ((2 * thin, INK), (thin, EDGE)):
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width_of_line, capstyle="projecting"))


def _bounds(axes: Axes, frame: Frame) -> None:
    axes.set(xlim=(frame.left, frame.right), ylim=(frame.bottom, frame.top), xticks=[], yticks=[])


def _borders(kept: NDArray[np.bool_], xs: NDArray[np.float64], ys: NDArray[np.float64]) -> list[Any]:
    """Lines between kept and dropped cells, and about kept cells at the edge, in pixels."""
    padded = np.pad(kept, 1)
    rows, cols = np.nonzero((padded[1:] != padded[:-1])[:, 1:-1])
    level = [[(xs[c], ys[r]), (xs[c + 1], ys[r])] for r, c in zip(rows, cols, strict=True)]
    rows, cols = np.nonzero((padded[:, 1:] != padded[:, :-1])[1:-1])
    return level + [[(xs[c], ys[r]), (xs[c], ys[r + 1])] for r, c in zip(rows, cols, strict=True)]


def tick_newlines(axes: Axes, plane: Plane, kept: NDArray[np.bool_], frame: Frame) -> None:
    """Mark the rows whose newline token was kept, at the right edge. kept: [rows]."""
    at = plane.centres()[0][np.flatnonzero(kept)] * frame.size[1]
    right = np.full(len(at), frame.right + 0.012 * frame.width)
    axes.plot(right, at, ">", color=EDGE, markeredgecolor=INK, markeredgewidth=0.3, markersize=3, clip_on=False)


def draw_box(axes: Axes, box: Box, size: tuple[int, int], style: tuple[str, Any]) -> None:
    """Outline a box, (left, top, right, bottom) as fractions of a picture of (width, height)."""
    left, top, right, bottom = (value * side for value, side in zip(box, (*size, *size), strict=True))
    drawn = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=style[0], linestyle=style[1], linewidth=1.8)
    drawn.set_path_effects([Stroke(linewidth=3.2, foreground="white"), Normal()])
    axes.add_patch(drawn)


def handles(shown: Mapping[str, bool]) -> list[Artist]:
    """Return the entries of a legend: always kept and dropped, and those of unseen, padding, newline, box and truth that are shown."""
    line: Any = Line2D
    found: dict[str, Artist] = {
        "kept": Patch(facecolor="white", edgecolor=EDGE, linewidth=1.6, label="kept, in its own colours"),
        "dropped": Patch(facecolor=str(VEIL), edgecolor=DOT, hatch="..", linewidth=0, label="dropped"),
        "unseen": Patch(facecolor=str(UNSEEN), edgecolor="0.45", hatch=HATCH, linewidth=0, label="never seen by the model"),
        "padding": Patch(facecolor=str(PADDING), edgecolor="none", label="padding"),
        "newline": line([], [], linestyle="", marker=">", color=EDGE, markeredgecolor=INK, label="kept newline token"),
        "box": line([], [], color=BOX[0], linestyle=BOX[1], linewidth=1.8, label="box the model answers"),
        "truth": line([], [], color=TRUTH[0], linestyle=TRUTH[1], linewidth=1.8, label="right box"),
    }
    return [artist for name, artist in found.items() if shown.get(name, name in ("kept", "dropped"))]
