"""Figures. `heatmap` draws the positional bias of any prior as D2Pruner's Figure 1 does, on one scale for all panels.

Figures are built on `matplotlib.figure.Figure`, not pyplot: no window, no global state, and rcParams only inside the call.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from biaskit.figures.layout import COMPACT, FULL, FULL_PANELS, LEFT, Page, Rect, Sizes, Slot, page, slot
from biaskit.figures.panels import Panel, caption, colour_limit, colour_ticks, multiple, panels, profile_reach, profile_ticks
from biaskit.figures.style import FAINT, INK, check_out, house_style, write_figure
from biaskit.prior.bias.report import BiasReport
from biaskit.prior.layers import Layers, read_layers
from biaskit.prior.store import load_prior
from biaskit.prior.value import Prior
from biaskit.registry import named_arguments

AnyPrior = Prior | str | os.PathLike[str]
_MORE, _LESS = "#c2545a", "#3f6ea3"


@named_arguments
def heatmap(
    priors: AnyPrior | Sequence[AnyPrior],
    *,
    layers: Layers | None = None,
    planes: str | Sequence[str] | None = None,
    labels: str | Sequence[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
    force: bool = False,
    reports: Sequence[BiasReport] | None = None,
) -> Figure:
    """Draw bias maps, one panel per prior and layer.

    Colours are attention relative to uniform: the map over its mean over all visual tokens of the layer, on one logarithmic scale centred
    on 1 for all panels. Profiles are means over cols and rows of the main plane, in the same units, from 1.

    Args:
        priors: one prior, or several side by side; each a `Prior`, or what `load_prior` finds.
        layers: 0-based decoder layers (1, (1, 4), "0-7"), by default all of every prior. More than six panels shrink to a grid without
            profiles.
        planes: a plane to show or several, by default all. The first of image, canvas, base among them is the main one.
        labels: names to use instead of the models', one per prior.
        out: file to write, .png, .pdf or .svg; the same input gives the same bytes.
        title: a heading.
        force: overwrite `out`.
        reports: what `biaskit.prior.bias.report.report` gave for the priors, where it is at hand; else it is computed.

    Raises:
        BiaskitError: no prior, no panel, labels that do not match, an unknown suffix, a file that exists or cannot be written.
        PriorError: a prior lacks a layer or plane that was asked for.

    >>> from biaskit.prior.value import PlaneStats
    >>> values = np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 4, 4)
    >>> figure = heatmap(Prior({"image": PlaneStats(values)}, (1,), np.ones(1, dtype=np.float32), {}))
    >>> type(figure).__name__
    'Figure'
    """
    group = [load_prior(one) for one in (priors if isinstance(priors, Sequence) and not isinstance(priors, str) else [priors])]
    if out is not None:
        check_out(Path(out), force)
    chosen = read_layers(layers)
    names, titles = ([one] if isinstance(one, str) else one for one in (planes, labels))
    found = panels(group, None if isinstance(chosen, str) else chosen, names, titles, reports)
    with house_style():
        figure = _draw(found, _columns(len(found), len(group)), title)
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _columns(count: int, groups: int) -> int:
    """Panels per line: priors beneath each other where each has two or three layers, else a block that is wider than high."""
    if count > FULL_PANELS:
        return min(8, math.ceil(math.sqrt(count * 1.6)))
    if groups > 1 and count % groups == 0 and 1 < count // groups <= 3:
        return count // groups
    return 2 if count == 4 else min(3, count)


def _sizes(found: Sequence[Panel]) -> Sizes:
    """Lengths for that many panels, with room above the maps for the lines that will stand there."""
    if len(found) <= FULL_PANELS:
        return FULL if any(len(panel.maps) > 1 for panel in found) else replace(FULL, head=FULL.head - 0.18)
    return replace(COMPACT, head=COMPACT.head + 0.13) if len({panel.name for panel in found}) > 1 else COMPACT


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A figure that is drawn on in inches from its top left corner."""

    figure: Figure
    canvas: FigureCanvasAgg
    page: Page

    def axes(self, rect: Rect, corner: tuple[float, float] = (0.0, 0.0)) -> Axes:
        """Axes at a rectangle, relative to a corner."""
        width, height = self.page.width, self.page.height
        left, bottom = rect[0] + corner[0], height - rect[1] - corner[1] - rect[3]
        return self.figure.add_axes((left / width, bottom / height, rect[2] / width, rect[3] / height))

    def text(self, x: float, y: float, text: str, size: float, width: float = math.inf, **style: Any) -> None:
        """Text with its baseline at (x, y), shortened with … to a width."""
        label = self.figure.text(x / self.page.width, 1 - y / self.page.height, text, fontsize=size, parse_math=False, **style)
        renderer = self.canvas.get_renderer()

        def too_wide() -> bool:
            return label.get_window_extent(renderer).width / self.figure.dpi > width

        if not too_wide():
            return
        fits, cut = 0, len(text)  # the longest prefix that fits lies in between
        while cut - fits > 1:
            middle = (fits + cut) // 2
            label.set_text(text[:middle].rstrip() + "…")
            fits, cut = (fits, middle) if too_wide() else (middle, cut)
        label.set_text(text[:fits].rstrip() + "…")


def _draw(found: Sequence[Panel], columns: int, title: str | None) -> Figure:
    sizes = _sizes(found)
    slots = [slot({p: (m.shape[0], m.shape[1]) for p, m in panel.maps.items()}, panel.main, sizes) for panel in found]
    notes = [] if sizes.profile else list(dict.fromkeys(f"{panel.name} · {caption(panel.prior)}" for panel in found))
    place = page(slots, columns, sizes, 0.34 if title else 0.0, 0.18 * len(notes) + 0.08 * bool(notes))
    figure = Figure(figsize=(place.width, place.height))
    sheet = _Sheet(figure, FigureCanvasAgg(figure), place)
    limit = colour_limit([values for panel in found for values in panel.maps.values()])
    norm, colours = Normalize(-limit, limit), _colours()
    reach = profile_reach(found, limit)
    for panel, where, corner in zip(found, slots, place.corners, strict=True):
        for name, rect in where.maps.items():
            axes = sheet.axes(rect, corner)
            axes.imshow(panel.maps[name], norm=norm, cmap=colours, aspect="auto", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        _words(sheet, where, corner, panel, sizes)
        if where.row_profile is not None and where.col_profile is not None:
            rows, cols = panel.profiles()
            _profile(sheet.axes(where.row_profile, corner), rows, reach, upright=True)
            _profile(sheet.axes(where.col_profile, corner), cols, reach, upright=False)
    _colour_bar(sheet, found, norm, colours)
    for line, note in enumerate(notes):
        sheet.text(LEFT, place.height - 0.12 - 0.18 * (len(notes) - line - 0.8), note, 7, place.width - LEFT - 0.1, color=FAINT)
    if title:
        sheet.text(LEFT, 0.34, title, 11, place.width - LEFT - 0.1, weight="bold")
    return figure


def _colours() -> Colormap:
    """Blue to red through near-white, safe for colour-blind readers; darker still beyond the limits."""
    colours: Colormap = sns.color_palette("vlag", as_cmap=True)
    return colours.with_extremes(over="#5a0f16", under="#0b2a52")


def _profile(axes: Axes, values: Any, reach: tuple[float, float], upright: bool) -> None:
    """Bars from uniform, one per row (upright) or col, along the side of the map they belong to."""
    edges, size = np.arange(len(values) + 1), len(values)
    for part, colour in ((np.maximum(values, 1), _MORE), (np.minimum(values, 1), _LESS)):
        axes.stairs(part, edges, baseline=1, fill=True, color=colour, orientation="horizontal" if upright else "vertical", linewidth=0)
    ticks = profile_ticks(reach)
    text = [multiple(tick) for tick in ticks]
    if upright:
        axes.axvline(1, color=INK, linewidth=0.7)
        axes.set(xlim=reach, ylim=(size, 0), yticks=[])
        axes.set_xticks(ticks, text, fontsize=6)
    else:
        axes.axhline(1, color=INK, linewidth=0.7)
        axes.set(ylim=reach, xlim=(0, size), xticks=[])
        axes.set_yticks(ticks, text, fontsize=6)
    axes.tick_params(length=2, pad=1.5)
    sns.despine(ax=axes, left=upright, bottom=not upright)


def _words(sheet: _Sheet, where: Slot, corner: tuple[float, float], panel: Panel, sizes: Sizes) -> None:
    """Title, names of the planes where there are several, and caption."""
    x, top = corner
    if not sizes.profile:
        lines = [panel.layer_text, panel.verdict] if sizes.head == COMPACT.head else [panel.name, panel.layer_text, panel.verdict]
        for index, line in enumerate(lines):
            sheet.text(x, top + 0.19 + 0.13 * index, line, 6.5, where.width + 0.1, weight="normal" if index else "bold")
        return
    sheet.text(x, top + 0.26, panel.name, 9.5, where.width, weight="bold")
    sheet.text(x, top + 0.44, " · ".join(part for part in (panel.layer_text, panel.verdict) if part), 8.5, where.width)
    sheet.text(x, top + where.height - sizes.foot + 0.2, caption(panel.prior), 6.5, where.width, color=FAINT)
    if len(where.maps) == 1:
        return
    for name, (left, above, width, _) in where.maps.items():
        rows, cols = panel.maps[name].shape
        attached = name == "newline" and name != panel.main
        text, at, align = (name, left + width, "right") if attached else (f"{name} {rows}×{cols}", left, "left")
        sheet.text(x + at, top + above - 0.05, text, 6, color=FAINT, ha=align)


def _colour_bar(sheet: _Sheet, found: Sequence[Panel], norm: Normalize, colours: Colormap) -> None:
    limit = float(norm.vmax or 0)
    low = min(float(m.min()) for panel in found for m in panel.maps.values()) < -limit
    high = max(float(m.max()) for panel in found for m in panel.maps.values()) > limit
    extend = "both" if low and high else "min" if low else "max" if high else "neither"
    bar = sheet.figure.colorbar(ScalarMappable(norm, colours), cax=sheet.axes(sheet.page.colour_bar), extend=extend, extendfrac=0.04)
    ticks = colour_ticks(limit, fine=sheet.page.colour_bar[3] > 2)
    bar.set_ticks([math.log2(tick) for tick in ticks], labels=[f"{multiple(tick)} ×" for tick in ticks])
    bar.ax.tick_params(length=2.5, labelsize=7)
    bar.set_label("attention relative to uniform", fontsize=7.5)
