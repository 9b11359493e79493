"""Which visual tokens a pruner kept, on the image: D2Pruner's Figure 2, on the true grid of the family."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import Image

from biaskit.errors import BiaskitError
from biaskit.figures.glyphs import show_all_text
from biaskit.figures.style import FAINT, INK, STYLE, check_out, write_figure
from biaskit.grid import Layout, Plane

_DROPPED = (0.06, 0.07, 0.10, 0.78)
_EDGE = "#ffd23f"
_WIDTH, _STRIP, _HEAD, _GAP = 3.3, 0.95, 0.50, 0.22  # inches: panel, row of further views, two lines of title, space between panels


@dataclass(frozen=True, eq=False)
class Kept:
    """One panel: what a method kept of one sample.

    Attributes:
        title: the method. text: a second line, such as the model's answer; "" for none.
        indices: [n] into the N visual tokens of the layout.
    """

    title: str
    indices: NDArray[np.int64]
    text: str = ""


def overlay(
    image: Image,
    layout: Layout,
    kept: Sequence[Kept],
    *,
    number: int = 0,
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
    force: bool = False,
) -> Figure:
    """Draw the image once per method, what was dropped darkened and each kept token outlined where its patch lies.

    The plane with the most tokens is drawn large, further views of the image (LLaVA-NeXT's base, InternVL's thumbnail) small beneath it,
    newline tokens as ticks at the right edge. What no token covers (LLaVA-1.5's crop) is paler still.

    Args:
        image: the picture. layout: the visual tokens of its prompt. kept: one panel per method.
        number: which image of the prompt, from 0.
        out: file to write, .png, .pdf or .svg. title: a heading. force: overwrite `out`.

    Raises:
        BiaskitError: the prompt has no such image, the layout does not say where its tokens lie, or `out` cannot be written.
    """
    path = None if out is None else Path(out)
    if path is not None:
        check_out(path, force)
    views = [i for i, plane in enumerate(layout.planes) if plane.image == number and plane.box is not None]
    if not views:
        raise BiaskitError(
            f"image {number} has no plane with a known place in the image", "lay it out with the image's size: family.prepare(...) does"
        )
    main = max(views, key=lambda i: layout.planes[i].rows * layout.planes[i].cols)
    further = [i for i in views if i != main]
    newline = next((i for i, plane in enumerate(layout.planes) if plane.image == number and plane.name == "newline"), None)
    with rc_context(STYLE):  # type: ignore[arg-type, unused-ignore]
        figure = _draw(image, layout, kept, main, further, newline, title)
        show_all_text(figure)
        if path is not None:
            write_figure(figure, path)
    return figure


def _draw(
    image: Image, layout: Layout, kept: Sequence[Kept], main: int, further: Sequence[int], newline: int | None, title: str | None
) -> Figure:
    cols = min(len(kept), 4)
    rows = -(-len(kept) // cols)
    tall = _WIDTH * image.height / image.width
    block = _HEAD + tall + (_STRIP + 0.25 if further else 0) + _GAP
    top = 0.4 if title else 0.1
    size = (cols * (_WIDTH + _GAP) + _GAP, rows * block + top)
    figure = Figure(figsize=size, facecolor="white")
    if title:
        figure.text(_GAP / size[0], 1 - 0.25 / size[1], title, fontsize=11, fontweight="bold", va="center")

    def axes(left: float, down: float, width: float, height: float) -> Axes:
        return figure.add_axes((left / size[0], 1 - (down + height) / size[1], width / size[0], height / size[1]))

    pixels = np.asarray(image)
    for place, panel in enumerate(kept):
        row, col = divmod(place, cols)
        left, down = _GAP + col * (_WIDTH + _GAP), top + row * block
        maps = layout.fold(_mask(len(layout), panel.indices))
        big = axes(left, down + _HEAD, _WIDTH, tall)
        _view(big, pixels, layout.planes[main], maps[main])
        if newline is not None:
            _ticks(big, layout.planes[main], maps[newline][:, 0], pixels.shape)
        figure.text(left / size[0], 1 - (down + 0.14) / size[1], panel.title, fontsize=9, fontweight="bold", va="center", color=INK)
        count = f"{len(panel.indices)} of {len(layout)} visual tokens" + (f" · {_shortened(panel.text)}" if panel.text else "")
        figure.text(left / size[0], 1 - (down + 0.34) / size[1], count, fontsize=7.5, va="center", color=FAINT)
        for position, view in enumerate(further):
            wide = _STRIP * image.width / image.height
            at = left + position * (wide + 0.1)
            small = axes(at, down + _HEAD + tall + 0.22, wide, _STRIP)
            _view(small, pixels, layout.planes[view], maps[view])
            small.set_title(layout.planes[view].name, fontsize=6.5, loc="left", pad=2, color=FAINT)
    return figure


def _mask(n: int, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(n, dtype=bool)
    mask[np.asarray(indices)] = True
    return mask


def _shortened(text: str, limit: int = 28) -> str:
    flat = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split())).replace("$", r"\$")
    return f"“{flat if len(flat) <= limit else flat[: limit - 1] + '…'}”"


def _view(axes: Axes, pixels: NDArray[Any], plane: Plane, kept: NDArray[np.bool_]) -> None:
    """Draw the image with the cells of one plane: dropped ones darkened, kept ones outlined."""
    height, width = pixels.shape[:2]
    assert plane.box is not None
    left, top, right, bottom = plane.box
    extent = (left * width, right * width, bottom * height, top * height)
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="antialiased")
    pale = np.ones((*pixels.shape[:2], 4))
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    pale[..., 3] = 0.65 * ~(((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))[None])
    axes.imshow(pale, extent=(0, width, height, 0), interpolation="nearest")
    shade = np.zeros((*kept.shape, 4))
    shade[~kept] = _DROPPED
    axes.imshow(shade, extent=extent, interpolation="nearest")
    step = ((extent[1] - extent[0]) / plane.cols, (extent[2] - extent[3]) / plane.rows)
    thin = 0.8 if plane.rows * plane.cols <= 1600 else 0.4
    axes.add_collection(LineCollection(_borders(kept, step, (extent[0], extent[3])), colors=_EDGE, linewidths=thin))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def _borders(kept: NDArray[np.bool_], step: tuple[float, float], origin: tuple[float, float]) -> list[Any]:
    """Lines between kept and dropped cells, and about kept cells at the edge, in pixels."""
    padded = np.pad(kept, 1)
    rows, cols = np.nonzero(padded[1:] != padded[:-1])
    level = [[(c - 1, r), (c, r)] for r, c in zip(rows, cols, strict=True)]
    rows, cols = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = [[(c, r - 1), (c, r)] for r, c in zip(rows, cols, strict=True)]
    return [[(origin[0] + x * step[0], origin[1] + y * step[1]) for x, y in line] for line in level + upright]


def _ticks(axes: Axes, plane: Plane, kept: NDArray[np.bool_], shape: tuple[int, ...]) -> None:
    """Mark the rows whose newline token was kept, at the right edge."""
    assert plane.box is not None
    height, width = shape[:2]
    top, bottom = plane.box[1] * height, plane.box[3] * height
    at = top + (np.flatnonzero(kept) + 0.5) * (bottom - top) / len(kept)
    axes.plot(np.full(len(at), width * 1.012), at, ">", color=_EDGE, markeredgecolor=INK, markeredgewidth=0.3, markersize=3, clip_on=False)
