"""The break-down as a heatmap: each method's difference from the unpruned model, by position in the image, or size, of the object."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from biaskit.figures.style import INK, ShownFigure, house_style
from biaskit.validation.report.analyse import Part, TaskResults
from biaskit.validation.report.figure_style import settled
from biaskit.validation.results.labels import UNPRUNED


def draw_parts(result: TaskResults, kind: str) -> Figure | None:
    """Draw methods × values of a tag, one panel per retention; None if there is nothing to draw.

    Numbers are scores in points; colour is the difference from the unpruned model, on one scale for all panels. A dot marks differences
    whose 95 % interval excludes zero.
    """
    parts = [part for part in result.parts if part.kind == kind]
    methods = [method for method in result.methods if method != UNPRUNED]
    if len(parts) < 2 or not methods or result.run.unpruned is None or not result.budgets:
        return None
    lost = [e.value for part in parts for e in part.lost if e is not None]
    limit = max(5.0, 5 * math.ceil(100 * max(abs(value) for value in lost) / 5))
    with house_style():
        columns = min(len(result.budgets), 4)
        rows = math.ceil(len(result.budgets) / columns)
        width = 1.5 + columns * (0.62 * len(parts) + 0.3) + 0.9
        figure = ShownFigure(figsize=(max(width, 4.2), rows * (0.24 * (len(methods) + 1) + 0.75) + 0.25), layout="constrained")
        # the colour bar has a column of its own: as high as the panels for any number of them
        spec = figure.add_gridspec(rows, columns + 1, width_ratios=[*([0.62 * len(parts)] * columns), 0.11])
        grid = np.array([[figure.add_subplot(spec[r, c]) for c in range(columns)] for r in range(rows)])
        norm = Normalize(-limit, limit)
        colours: Colormap = sns.color_palette("vlag_r", as_cmap=True)
        images = []
        for index, axes in enumerate(grid.flat):
            if index >= len(result.budgets):
                axes.set_visible(False)
                continue
            images.append(_panel(axes, result, parts, methods, result.budgets[index], norm, colours, index % columns == 0))
        bar = figure.colorbar(images[0], cax=figure.add_subplot(spec[:, -1]))
        bar.set_label("points from unpruned\n(• interval excludes 0)", fontsize=7)
        bar.ax.tick_params(labelsize=6.5, length=2)
        figure.suptitle(f"{result.run.task}: score by {kind}", fontsize=10, weight="bold", x=0.01, ha="left")
        return settled(figure)


def _panel(
    axes: Axes,
    result: TaskResults,
    parts: Sequence[Part],
    methods: Sequence[str],
    budget: str,
    norm: Normalize,
    colours: Colormap,
    first: bool,
) -> AxesImage:
    names = [*methods, UNPRUNED]
    values = np.full((len(names), len(parts)), np.nan)
    for r, method in enumerate(names):
        cell = result.at(method, budget)
        for c, part in enumerate(parts):
            loss = None if cell is None else part.lost[cell]
            if cell is None or loss is None:
                continue
            values[r, c] = 100 * loss.value
            dark = abs(values[r, c]) > 0.62 * float(norm.vmax or 1)
            mark = "•" if method != UNPRUNED and loss.excludes(0) else ""
            axes.text(
                c, r, f"{100 * part.scores[cell].value:.0f}{mark}", ha="center", va="center", fontsize=7, color="white" if dark else INK
            )
    image = axes.imshow(values, norm=norm, cmap=colours, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(parts)), [part.value for part in parts], fontsize=7)
    shown = ["unpruned" if method == UNPRUNED else method for method in names]
    axes.set_yticks(range(len(names)), shown if first else [], fontsize=7)
    axes.set_title(f"{budget} kept", fontsize=8, loc="left")
    axes.tick_params(length=0)
    axes.axhline(len(methods) - 0.5, color="white", linewidth=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
