"""Which visual tokens a pruner kept, on the image: D2Pruner's Figure 2, on the true grid of the family."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import Image

from biaskit.errors import BiaskitError
from biaskit.figures.glyphs import show_all_text
from biaskit.figures.patches import BOX, TRUTH, Frame, draw_box, draw_picture, draw_view, frame_of, handles, tick_newlines
from biaskit.figures.style import FAINT, INK, ShownFigure, check_out, fit, house_style, write_figure
from biaskit.grid import Box, Layout
from biaskit.text import shortened

_WIDTH, _STRIP, _HEAD, _GAP = 3.3, 0.95, 0.70, 0.22  # inches: panel, row of further views, three lines of title, space between panels
_LEGEND = 0.36
_ACROSS = 3  # maximum number of panels side by side, so that their text is readable on a page


@dataclass(frozen=True, eq=False)
class Kept:
    """One panel: what a method kept of one sample.

    Attributes:
        title: the method. text: a further line, such as the model's answer; "" for none.
        indices: [n] into the N visual tokens of the layout.
        k: before which decoder layers tokens were dropped, as `2` or `8, 16`; "" if unknown.
        prior: what the attention was divided by; "" for nothing.
        box: the box that the model answered, (left, top, right, bottom) as fractions of the image; None for none.
    """

    title: str
    indices: NDArray[np.int64]
    text: str = ""
    k: str = ""
    prior: str = ""
    box: Box | None = None


def overlay(
    image: Image,
    layout: Layout,
    kept: Sequence[Kept],
    *,
    number: int = 0,
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
    model: str = "",
    truth: Box | None = None,
    ax: Axes | None = None,
    force: bool = False,
) -> Figure:
    """Draw the image, and beside it once per method: kept tokens outlined in their own colours, dropped ones grey with a dot.

    The plane with the most tokens is drawn large, further views of the image (LLaVA-NeXT's base, InternVL's thumbnail) small beneath it,
    newline tokens as ticks at the right edge. Parts that the model never sees (the margins of LLaVA-1.5's crop) are hatched, padding that
    tokens cover is drawn around the image, and a legend explains all of these.

    Args:
        image: the picture. layout: the visual tokens of its prompt. kept: one panel per method.
        number: which image of the prompt, from 0.
        out: file to write, .png, .pdf or .svg. title: a heading. model: its name, beneath the heading.
        truth: the right box, as in `Kept.box`. ax: axes to draw one method's largest plane on, with its title only; their figure is
            returned. force: overwrite `out`.

    Raises:
        BiaskitError: the prompt has no such image, the layout lacks the places of its tokens, several methods for `ax`, or `out` cannot
            be written.
    """
    path = None if out is None else Path(out)
    if path is not None:
        check_out(path, force)
    views = layout.views(number)
    if not views:
        raise BiaskitError(
            f"image {number} has no plane with a known place in the image", "lay it out with the image's size: family.prepare(...) does"
        )
    main, *further = views
    newline = next((i for i, plane in enumerate(layout.planes) if plane.image == number and plane.name == "newline"), None)
    with house_style():
        sheet = _Overlay(image, layout, tuple(kept), main, tuple(further), newline, truth)
        figure = sheet.draw(title, model) if ax is None else sheet.draw_on(ax, title)
        show_all_text(figure)
        if path is not None:
            write_figure(figure, path)
    return figure


@dataclass(frozen=True, eq=False)
class _Overlay:
    """What is drawn; the attributes are those of `overlay`, planes by their number."""

    image: Image
    layout: Layout
    kept: tuple[Kept, ...]
    main: int
    further: tuple[int, ...]
    newline: int | None
    truth: Box | None

    def draw(self, title: str | None, model: str) -> Figure:
        pixels = np.asarray(self.image.convert("RGB"))
        frame = frame_of(self.layout.planes[self.main], self.image.size)
        panels = 1 + len(self.kept)
        cols = -(-panels // -(-panels // _ACROSS))
        tall = _WIDTH * frame.height / frame.width
        block = _HEAD + tall + (_STRIP + 0.25 if self.further else 0) + _GAP
        top = 0.1 + 0.3 * bool(title) + 0.2 * bool(model)
        size = (cols * (_WIDTH + _GAP) + _GAP, -(-panels // cols) * block + top + _LEGEND)
        figure = ShownFigure(figsize=size, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        if title:
            figure.text(_GAP / size[0], 1 - 0.25 / size[1], _shortened(title, cols * 45), fontsize=11, fontweight="bold", va="center")
        if model:
            line = 1 - (0.18 + 0.3 * bool(title)) / size[1]
            figure.text(_GAP / size[0], line, _shortened(model, cols * 58), fontsize=7.5, va="center", color=FAINT)

        def axes(left: float, down: float, width: float, height: float) -> Axes:
            return figure.add_axes((left / size[0], 1 - (down + height) / size[1], width / size[0], height / size[1]))

        for place in range(panels):
            row, col = divmod(place, cols)
            left, down = _GAP + col * (_WIDTH + _GAP), top + row * block
            panel = self.kept[place - 1] if place else None
            lines = self._lines(panel, frame)
            for line, (text, points, style) in enumerate(zip(lines, (9, 7.5, 7.5), ("bold", "normal", "normal"), strict=False)):
                ink = FAINT if line else INK
                y = 1 - (down + 0.12 + 0.2 * line) / size[1]
                words = figure.text(left / size[0], y, text, fontsize=points, fontweight=style, va="center", color=ink)
                fit(words, _WIDTH, canvas, smallest=6)
            big = axes(left, down + _HEAD, _WIDTH, tall)
            if panel is None:
                draw_picture(big, pixels, frame)
                continue
            maps = self._panel(big, panel, pixels, frame)
            for position, view in enumerate(self.further):
                own = frame_of(self.layout.planes[view], self.image.size)
                wide = _STRIP * own.width / own.height
                small = axes(left + position * (wide + 0.1), down + _HEAD + tall + 0.22, wide, _STRIP)
                draw_view(small, pixels, self.layout.planes[view], maps[view], own)
                small.set_title(self.layout.planes[view].name, fontsize=6.5, loc="left", pad=2, color=FAINT)
        self._legend(figure, frame)
        return figure

    def draw_on(self, axes: Axes, title: str | None) -> Figure:
        """Draw the one panel on given axes."""
        if len(self.kept) != 1:
            raise BiaskitError(f"{len(self.kept)} methods on one ax", "give one")
        self._panel(axes, self.kept[0], np.asarray(self.image.convert("RGB")), frame_of(self.layout.planes[self.main], self.image.size))
        axes.set_title(_shortened(title or self.kept[0].title, 60), fontsize=8, loc="left")
        figure = axes.get_figure(root=True)
        assert figure is not None
        return figure

    def _panel(self, axes: Axes, panel: Kept, pixels: NDArray[np.uint8], frame: Frame) -> list[NDArray[np.bool_]]:
        """Draw the largest plane of one method; return which cells it kept, a map for each plane."""
        maps = self.layout.fold(_mask(len(self.layout), panel.indices))
        draw_view(axes, pixels, self.layout.planes[self.main], maps[self.main], frame)
        if self.newline is not None:
            tick_newlines(axes, self.layout.planes[self.main], maps[self.newline][:, 0], frame)
        for box, line_style in ((self.truth, TRUTH), (panel.box, BOX)):
            if box is not None:
                draw_box(axes, box, self.image.size, line_style)
        return maps

    def _lines(self, panel: Kept | None, frame: Frame) -> tuple[str, str, str]:
        """Up to three lines above a panel."""
        width, height = self.image.size
        if panel is None:
            seen = f"; the model sees {frame.seen[0]} × {frame.seen[1]} of them" if frame.margins else ""
            return "original", f"{width} × {height} pixels{seen}", ""
        words = [f"{len(panel.indices)} of {len(self.layout)} visual tokens"]
        words += [f"K = {panel.k}"] * bool(panel.k) + ["a prior" if panel.prior == "prior" else f"prior {panel.prior}"] * bool(panel.prior)
        return _shortened(panel.title, 45), _shortened(" · ".join(words), 60), f"“{_shortened(panel.text, 56)}”" if panel.text else ""

    def _legend(self, figure: Figure, frame: Frame) -> None:
        newlines = self.newline is not None and any(
            bool(np.isin(np.flatnonzero(self.layout.plane == self.newline), panel.indices).any()) for panel in self.kept
        )
        shown = {"unseen": bool(frame.margins), "padding": frame.padded, "newline": newlines}
        shown |= {"box": any(panel.box is not None for panel in self.kept), "truth": self.truth is not None}
        place: Any = {
            "loc": "lower left",
            "bbox_to_anchor": (_GAP / figure.get_figwidth(), 0.06 / figure.get_figheight()),
            "borderaxespad": 0.0,
        }
        entries = handles(shown)
        per_line = len(entries) if figure.get_figwidth() > 1.3 * len(entries) + 0.4 else -(-len(entries) // 2)
        figure.legend(handles=entries, ncols=per_line, frameon=False, fontsize=7, handlelength=1.6, columnspacing=1.4, **place)


def _mask(n: int, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(n, dtype=bool)
    mask[np.asarray(indices)] = True
    return mask


def _shortened(text: str, limit: int) -> str:
    """One line of printable characters."""
    flat = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return shortened(flat, limit)
