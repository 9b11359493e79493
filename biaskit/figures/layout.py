"""The layout of a heatmap figure, in inches: pure arithmetic, no matplotlib.

A panel is one prior at one layer: its planes as they lie in the image (small companion planes left of the main one, the newline column
attached to its right edge), the row profile right of that and the column profile beneath.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Rect = tuple[float, float, float, float]  # left, top, width, height in inches, from the top left corner

LEFT = 0.35  # margin: space for the column profile's tick labels
SHORTEST_BAR = 1.6  # the colour bar must be as long as its label
FULL_PANELS = 6  # beyond this many, panels shrink to a grid of titled maps


@dataclass(frozen=True)
class Sizes:
    """Lengths in inches."""

    side: float  # longer side of the main map
    companion: float  # longer side of a companion map, as a fraction of `side`
    profile: float  # depth of a profile, 0 for none
    gap: float
    head: float  # space above the maps: title and plane labels
    foot: float  # space beneath: ticks and caption
    between: float  # between panels
    newline: float  # minimum width of the newline column
    text: float  # minimum width of a panel: titles and captions must fit
    bar: float = 0.0  # space for a colour bar of the panel's own beneath it, 0 for none


FULL = Sizes(side=2.7, companion=0.42, profile=0.62, gap=0.1, head=0.74, foot=0.28, between=0.5, newline=0.075, text=2.6)
COMPACT = Sizes(side=1.25, companion=0.42, profile=0.0, gap=0.05, head=0.38, foot=0.0, between=0.2, newline=0.04, text=1.15)


@dataclass(frozen=True)
class Slot:
    """One panel's place.

    Attributes:
        width, height: of the whole panel, without the space between panels.
        maps: plane → rectangle, relative to the panel's top left corner.
        main: the plane that carries title and profiles.
        row_profile, col_profile: rectangles, None in a compact figure.
        colour_bar: the panel's own, None if all share one.
    """

    width: float
    height: float
    maps: Mapping[str, Rect]
    main: str
    row_profile: Rect | None
    col_profile: Rect | None
    colour_bar: Rect | None = None


def _fit(shape: tuple[int, int], side: float) -> tuple[float, float]:
    """Width and height of a grid of square cells whose longer side is `side`."""
    rows, cols = shape
    cell = side / max(rows, cols)
    return cols * cell, rows * cell


def slot(shapes: Mapping[str, tuple[int, int]], main: str, sizes: Sizes) -> Slot:
    """Lay out one panel.

    Args:
        shapes: plane → (rows, cols) of the planes to show.
        main: the plane in the middle.
        sizes: `FULL` or `COMPACT`.

    >>> slot({"image": (24, 24)}, "image", COMPACT).maps
    {'image': (0.0, 0.38, 1.25, 1.25)}
    """
    maps: dict[str, Rect] = {}
    width, height = _fit(shapes[main], sizes.side)
    left = 0.0
    top = sizes.head
    companions = [name for name in shapes if name not in (main, "newline")]
    if companions:
        # no taller than the main map: the column profile begins beneath it
        fitted = {name: _fit(shapes[name], min(sizes.side * sizes.companion, height)) for name in companions}
        column = max(w for w, _ in fitted.values())
        bottom = top
        for name, (w, h) in fitted.items():
            maps[name] = (column - w, bottom, w, h)
            bottom += h + sizes.gap + (0.2 if sizes.profile else 0.0)
        left = column + 2 * sizes.gap
    else:
        bottom = 0.0
    maps[main] = (left, top, width, height)
    right = left + width
    if "newline" in shapes and main != "newline":
        column = max(sizes.newline, width / shapes[main][1])
        maps["newline"] = (right + sizes.gap / 2, top, column, height)
        right += sizes.gap / 2 + column
    row_profile = col_profile = None
    low = top + height
    if sizes.profile:
        row_profile = (right + sizes.gap, top, sizes.profile, height)
        col_profile = (left, low + sizes.gap, width, sizes.profile)
        right += sizes.gap + sizes.profile
        low += sizes.gap + sizes.profile
    low = max(low, bottom)
    colour_bar = None
    if sizes.bar:
        full = sizes.profile > 0
        colour_bar = (left, low + sizes.gap, max(width, min(sizes.text, 1.6)), 0.09 if full else 0.06)
        right, low = max(right, left + colour_bar[2]), low + sizes.bar
    return Slot(max(right, sizes.text), low + sizes.foot, maps, main, row_profile, col_profile, colour_bar)


@dataclass(frozen=True)
class Page:
    """The whole figure: size, the panels' top left corners, and the rectangle of the shared colour bar."""

    width: float
    height: float
    corners: Sequence[tuple[float, float]]
    colour_bar: Rect | None


def page(slots: Sequence[Slot], columns: int, sizes: Sizes, title: float, footer: float) -> Page:
    """Put panels into rows of `columns`, with `title` inches above, `footer` beneath, and the shared colour bar at the right.

    Columns and rows are as wide and high as their largest panel.

    >>> place = page([slot({"image": (24, 24)}, "image", COMPACT)] * 3, 2, COMPACT, 0.0, 0.0)
    >>> len(place.corners)
    3
    """
    bar_gap, bar, bar_text = 0.35, 0.14, 0.8
    lines = [slots[i : i + columns] for i in range(0, len(slots), columns)]
    widths = [max(line[c].width for line in lines if c < len(line)) for c in range(min(columns, len(slots)))]
    heights = [max(s.height for s in line) for line in lines]
    corners = []
    for index, _ in enumerate(slots):
        r, c = divmod(index, columns)
        corners.append((LEFT + sum(widths[:c]) + c * sizes.between, 0.12 + title + sum(heights[:r]) + r * sizes.between * 0.5))
    right = LEFT + sum(widths) + (len(widths) - 1) * sizes.between
    content = sum(heights) + (len(heights) - 1) * sizes.between * 0.5
    height = 0.12 + title + content + footer + 0.12
    if sizes.bar:
        return Page(right + 0.2, height, corners, None)
    # the bar is beside the maps, not beside titles and captions
    top = 0.12 + title + sizes.head
    length = min(max(content - sizes.head - sizes.foot - sizes.profile - sizes.gap, SHORTEST_BAR), 4.5)
    return Page(right + bar_gap + bar + bar_text, max(height, top + length + 0.2), corners, (right + bar_gap, top, bar, length))
