"""Figures. `heatmap` draws the positional bias of a prior as in D2Pruner's Figure 1, each map on its own scale or all on one.

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

from biaskit.errors import BiaskitError
from biaskit.figures.colours import Scale, beyond, check_scale, colour_limit, colour_ticks, colours, multiple
from biaskit.figures.layout import COMPACT, FULL, FULL_PANELS, LEFT, Page, Rect, Sizes, Slot, page, slot
from biaskit.figures.panels import Panel, caption, cut_runs, panels, profile_reach, profile_ticks
from biaskit.figures.style import FAINT, INK, ShownFigure, check_out, fit, house_style, write_figure
from biaskit.prior.bias.report import BiasReport
from biaskit.prior.layers import Layers, read_layers
from biaskit.prior.store import load_prior
from biaskit.prior.value import Prior
from biaskit.registry import named_arguments

AnyPrior = Prior | str | os.PathLike[str]
UNIT = "attention relative to uniform"
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
    scale: Scale | None = None,
    cmap: str | Colormap | None = None,
    ax: Axes | None = None,
    force: bool = False,
    reports: Sequence[BiasReport] | None = None,
) -> Figure:
    """Draw bias maps, one panel per prior and layer.

    Colours are attention relative to uniform: the map over its mean over all visual tokens of the layer, on a logarithmic scale centred
    on 1. Profiles are means over cols and rows of the main plane, in the same units, from 1; a bar that is too high is cut off, marked with
    an arrow and its value.

    Args:
        priors: one prior, or several side by side; each a `Prior`, or a name or path for `load_prior`.
        layers: 0-based decoder layers (1, (1, 4), "0-7"), by default all of every prior. More than six panels shrink to a grid without
            profiles.
        planes: a plane to show or several, by default all. The first of image, canvas, base among them is the main one.
        labels: names to use instead of the models', one per prior.
        out: file to write, .png, .pdf or .svg; the same input gives the same bytes.
        title: a heading. force: overwrite `out`.
        scale: `panel` gives each map its own colours, profiles and colour bar, to show its pattern; `shared` gives all the same, to compare
            their strength. By default `panel` up to six panels, `shared` beyond. cmap: of matplotlib's.
        ax: axes to draw the main plane of one panel on, without profiles, with a colour bar beside it; their figure is returned.
        reports: the results of `biaskit.prior.bias.report.report` for the priors, if already computed.

    Raises:
        BiaskitError: no prior, no panel, several panels for `ax`, labels that do not match, an unknown scale, colour map or suffix, a file
            that exists or cannot be written.
        PriorError: a prior lacks a layer or plane that was asked for.

    >>> from biaskit.prior.value import PlaneStats
    >>> values = np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 4, 4)
    >>> figure = heatmap(Prior({"image": PlaneStats(values)}, (1,), np.ones(1, dtype=np.float32), {}))
    >>> figure._repr_png_()[1:4]  # what a notebook shows
    b'PNG'
    """
    group = [load_prior(one) for one in (priors if isinstance(priors, Sequence) and not isinstance(priors, str) else [priors])]
    if out is not None:
        check_out(Path(out), force)
    chosen = read_layers(layers)
    names, titles = ([one] if isinstance(one, str) else one for one in (planes, labels))
    found = panels(group, None if isinstance(chosen, str) else chosen, names, titles, reports)
    kind = check_scale(scale or ("panel" if len(found) <= FULL_PANELS else "shared"))
    shades = colours(cmap)
    with house_style():
        columns = _columns(len(found), len(group))
        figure = _draw(found, columns, title, kind, shades) if ax is None else _on_axes(ax, found, title, shades)
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _columns(count: int, groups: int) -> int:
    """Panels per line: priors beneath each other where each has two or three layers, otherwise a block that is wider than high."""
    if count > FULL_PANELS:
        return min(8, math.ceil(math.sqrt(count * 1.6)))
    if groups > 1 and count % groups == 0 and 1 < count // groups <= 3:
        return count // groups
    return 2 if count == 4 else min(3, count)


def _sizes(found: Sequence[Panel], scale: Scale) -> Sizes:
    """Lengths for that many panels, with space above the maps for the text lines, and beneath for their colour bars."""
    own = scale == "panel"
    if len(found) <= FULL_PANELS:
        sizes = replace(FULL, bar=0.5 if own else 0.0)
        return sizes if any(len(panel.maps) > 1 for panel in found) else replace(sizes, head=sizes.head - 0.18)
    sizes = replace(COMPACT, bar=0.26 if own else 0.0)
    return replace(sizes, head=sizes.head + 0.13) if len({panel.name for panel in found}) > 1 else sizes


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A figure with coordinates in inches from its top left corner."""

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
        fit(label, width, self.canvas)


def _draw(found: Sequence[Panel], columns: int, title: str | None, scale: Scale, shades: Colormap) -> Figure:
    sizes = _sizes(found, scale)
    slots = [slot({p: (m.shape[0], m.shape[1]) for p, m in panel.maps.items()}, panel.main, sizes) for panel in found]
    notes = [] if sizes.profile else list(dict.fromkeys(f"{panel.name} · {caption(panel.prior)}" for panel in found))
    notes += [f"colours: {UNIT}, each map on its own scale"] * (not sizes.profile and scale == "panel")
    place = page(slots, columns, sizes, 0.34 if title else 0.0, 0.18 * len(notes) + 0.08 * bool(notes))
    figure = ShownFigure(figsize=(place.width, place.height))
    sheet = _Sheet(figure, FigureCanvasAgg(figure), place)
    for panel, where, corner in zip(found, slots, place.corners, strict=True):
        group = [panel] if scale == "panel" else found
        norm = _norm(group)
        for name, rect in where.maps.items():
            axes = sheet.axes(rect, corner)
            axes.imshow(panel.maps[name], norm=norm, cmap=shades, aspect="auto", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        _words(sheet, where, corner, panel, sizes)
        if where.row_profile is not None and where.col_profile is not None:
            rows, cols = panel.profiles()
            _profile(sheet.axes(where.row_profile, corner), rows, profile_reach(group), upright=True)
            _profile(sheet.axes(where.col_profile, corner), cols, profile_reach(group), upright=False)
        if where.colour_bar is not None:
            _colour_bar(sheet.axes(where.colour_bar, corner), group, norm, shades, length=where.colour_bar[2], label=sizes.profile > 0)
    if place.colour_bar is not None:
        _colour_bar(sheet.axes(place.colour_bar), found, _norm(found), shades, length=place.colour_bar[3], upright=True)
    for line, note in enumerate(notes):
        sheet.text(LEFT, place.height - 0.12 - 0.18 * (len(notes) - line - 0.8), note, 7, place.width - LEFT - 0.1, color=FAINT)
    if title:
        sheet.text(LEFT, 0.34, title, 11, place.width - LEFT - 0.1, weight="bold")
    return figure


def _on_axes(axes: Axes, found: Sequence[Panel], title: str | None, shades: Colormap) -> Figure:
    """Draw the main plane of the one panel on given axes."""
    if len(found) != 1:
        raise BiaskitError(f"{len(found)} panels on one ax", "give one prior and one layer")
    (panel,) = found
    alone = replace(panel, maps={panel.main: panel.maps[panel.main]})
    norm = _norm([alone])
    axes.imshow(panel.maps[panel.main], norm=norm, cmap=shades, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title or f"{panel.name}, {panel.layer_text}", fontsize=8, parse_math=False)
    _colour_bar(axes.inset_axes((1.04, 0.0, 0.05, 1.0)), [alone], norm, shades, length=1.0, upright=True)
    return _figure_of(axes)


def _figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _norm(group: Sequence[Panel]) -> Normalize:
    limit = colour_limit([values for panel in group for values in panel.maps.values()])
    return Normalize(-limit, limit)


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
    for index, value in cut_runs(values, reach[1]):
        at = (reach[1], index + 0.5) if upright else (index + 0.5, reach[1])
        axes.plot(*at, ">" if upright else "^", color=_MORE, markeredgecolor=INK, markeredgewidth=0.4, markersize=3.5, clip_on=False)
        axes.annotate(
            multiple(round(value, 1)), at, (-4, 0) if upright else (0, -4), textcoords="offset points", fontsize=5.5, color="white",
            ha="right" if upright else "center", va="center" if upright else "top", rotation=0 if upright else 90,
        )  # fmt: skip


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


def _colour_bar(
    axes: Axes, found: Sequence[Panel], norm: Normalize, shades: Colormap, *, length: float, upright: bool = False, label: bool = True
) -> None:
    """Fill axes with the colour bar of some panels; `length` in inches limits the ticks."""
    limit = float(norm.vmax or 0)
    extend = beyond([values for panel in found for values in panel.maps.values()], limit)
    way: Any = "vertical" if upright else "horizontal"
    bar = _figure_of(axes).colorbar(ScalarMappable(norm, shades), cax=axes, extend=extend, extendfrac=0.04, orientation=way)
    ticks = colour_ticks(limit, fine=length > 2)
    if not upright and length < 2:
        ticks = [ticks[0], 1.0, ticks[-1]]
    bar.set_ticks([math.log2(tick) for tick in ticks], labels=[f"{multiple(tick)} ×" for tick in ticks])
    style: Any = {"length": 2.5} if upright else {"length": 2, "pad": 1.5}
    bar.ax.tick_params(labelsize=7 if upright else 6 if label else 5, **style)
    if label:
        bar.set_label(UNIT, fontsize=7.5 if upright else 6.5, labelpad=None if upright else 1.5)
