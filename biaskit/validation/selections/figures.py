"""Figures of selections: importance against diversity (IDPruner, figure 3), and overlap of the methods' kept tokens."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from biaskit.errors import BiaskitError
from biaskit.figures.methods import Look, looks
from biaskit.figures.style import FAINT, INK, ShownFigure, check_out, house_style, write_figure
from biaskit.text import shortened
from biaskit.validation.selections.read import Point, Selections, read_selections

Out = str | os.PathLike[str] | None

_LONGEST = 26  # letters of a method that are shown
_NO_POINTS = "run `biaskit validate … --analyse`, which measures importance and Hopkins statistic"


def pareto(
    run: Selections | Path | str, out: Out = None, *, task: str | None = None, importance: str = "importance", force: bool = False
) -> Figure:
    """Draw importance retention ratio against Hopkins statistic, a point per method and retention with 95 % intervals over questions.

    The ideal is at the top left. For every retention a dashed line joins the Pareto-optimal methods.

    Args:
        run: a results directory, or a result of `read_selections`. out: file to write, .png, .pdf or .svg.
        task: only this one; by default a panel for each. importance: `importance`, or `importance_debiased` if all methods have it.
        force: overwrite `out`.

    Raises:
        BiaskitError: no such task, nothing was measured, or the file cannot be written.
    """
    if out is not None:
        check_out(Path(out), force)
    found = run if isinstance(run, Selections) else read_selections(run)
    panels = {name: _measured(found.points(name), importance) for name in ([task] if task is not None else found.tasks)}
    panels = {name: points for name, points in panels.items() if points}
    if not panels:
        raise BiaskitError(f"{found.directory} has no {importance} and Hopkins statistic", _NO_POINTS)
    with house_style():
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = ShownFigure(figsize=(3.3 * columns + 1.9, 3.1 * rows + 0.55))
        grid = figure.add_gridspec(
            rows, columns, left=0.6 / (3.3 * columns + 1.9), right=1 - 1.95 / (3.3 * columns + 1.9),
            top=1 - 0.55 / (3.1 * rows + 0.55), bottom=0.5 / (3.1 * rows + 0.55), wspace=0.25, hspace=0.35,
        )  # fmt: skip
        methods = list(dict.fromkeys(point.method for points in panels.values() for point in points))
        retentions = sorted({point.retention for points in panels.values() for point in points}, reverse=True)
        look = looks(methods)
        for index, (name, points) in enumerate(panels.items()):
            axes = figure.add_subplot(grid[index // columns, index % columns])
            _pareto(axes, points, look, retentions, importance)
            axes.set_title(f"{name} (n = {max(point.n for point in points):,})", fontsize=8, loc="left", parse_math=False)
        _legend(figure, look, retentions)
        what = "raw attention" if importance == "importance" else "debiased attention"
        note = f"importance: {what} at layer K − 1 · Hopkins reference: {found.reference} · intervals: 95 % over questions"
        figure.text(0.012, 0.985, "Importance kept against clustering: the ideal is top left", fontsize=9, weight="bold", va="top")
        figure.text(0.012, 0.985 - 0.2 / figure.get_figheight(), note, fontsize=6.5, color=FAINT, va="top")
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _measured(points: Sequence[Point], importance: str) -> list[Point]:
    return [point for point in points if importance in point.means and "hopkins" in point.means]


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the Pareto-optimal of (Hopkins, importance) points: no other one is as low in the first and as high in the second.

    Ascending by Hopkins statistic.

    >>> frontier([(0.5, 0.9), (0.6, 0.8), (0.4, 0.7)])
    [2, 0]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    best, found = -math.inf, []
    for i in order:
        if points[i][1] > best:
            best = points[i][1]
            found.append(i)
    return found


def _pareto(axes: Axes, points: Sequence[Point], look: dict[str, Look], retentions: Sequence[float], importance: str) -> None:
    for retention in retentions:
        some = [point for point in points if point.retention == retention]
        places = [(point.means["hopkins"], point.means[importance]) for point in some]
        best = frontier(places)
        axes.plot([places[i][0] for i in best], [places[i][1] for i in best], "--", color="0.75", linewidth=0.8, zorder=1)
    for method, style in look.items():
        mine = sorted((point for point in points if point.method == method), key=lambda point: -point.retention)
        x, y = ([point.means[name] for point in mine] for name in ("hopkins", importance))
        axes.plot(x, y, linestyle=style.line, color=style.colour, linewidth=0.8, alpha=0.6, zorder=2)
        for point, a, b in zip(mine, x, y, strict=True):
            size = _size(retentions.index(point.retention), len(retentions))
            axes.errorbar(
                a, b, xerr=point.half_widths["hopkins"], yerr=point.half_widths[importance],
                fmt=style.marker, markersize=size, color=style.colour, elinewidth=0.6, zorder=3,
                markerfacecolor=style.colour if style.filled else "white", markeredgewidth=0.7,
            )  # fmt: skip
    axes.set(xlabel="Hopkins statistic (low: diverse)", ylabel="importance retention ratio")
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, low), min(1.02, high))
    sns.despine(ax=axes)


def _size(index: int, count: int) -> float:
    return 7.5 - 4.0 * index / max(count - 1, 1)


def _legend(figure: Figure, look: dict[str, Look], retentions: Sequence[float]) -> None:
    marks = [
        Line2D(
            [], [], marker=style.marker, linestyle=style.line, color=style.colour, linewidth=0.8, label=shortened(method, _LONGEST),
            markerfacecolor=style.colour if style.filled else "white",
        )
        for method, style in look.items()
    ]  # fmt: skip
    sizes = [_size(index, len(retentions)) for index in range(len(retentions))]
    marks += [
        Line2D([], [], marker="o", linestyle="", color="0.5", markersize=size, label=f"{retention:.3g} kept")
        for size, retention in zip(sizes, retentions, strict=True)
    ]
    marks.append(Line2D([], [], linestyle="--", color="0.75", label="not beaten in both"))
    right = 1 - 1.88 / figure.get_figwidth()
    top = 1 - 0.5 / figure.get_figheight()
    figure.legend(handles=marks, loc="upper left", bbox_to_anchor=(right, top), frameon=False, fontsize=6.5, handletextpad=0.4)


def overlap_matrix(
    run: Selections | Path | str, out: Out = None, *, task: str | None = None, measure: str = "jaccard", force: bool = False
) -> Figure:
    """Draw the overlap of the tokens that every two methods keep for the same questions: one matrix per retention.

    Args:
        run: a results directory, or a result of `read_selections`. out: file to write, .png, .pdf or .svg.
        task: only this one; by default all together. measure: `jaccard` or `coefficient` (of the smaller set). force: overwrite `out`.

    Raises:
        BiaskitError: no such task or measure, no kept tokens were listed, or the file cannot be written.
    """
    if out is not None:
        check_out(Path(out), force)
    found = run if isinstance(run, Selections) else read_selections(run)
    matrices = {retention: found.overlaps(retention, task, measure) for retention in found.retentions}
    matrices = {retention: matrix for retention, matrix in matrices.items() if len(matrix[0]) > 1}
    if not matrices:
        raise BiaskitError(f"{found.directory} does not list the kept tokens of two methods", "run `biaskit validate … --analyse`")
    most = max(len(names) for names, _, _ in matrices.values())
    longest = min(_LONGEST, max(len(name) for names, _, _ in matrices.values() for name in names))
    side, label = 0.36 * most, 0.4 + 0.055 * longest
    with house_style():
        width, height = label + len(matrices) * (side + 0.35) + 0.75, side + label + 0.75
        figure = ShownFigure(figsize=(max(width, 4.2), height))
        width = figure.get_figwidth()
        image: Any = None
        for index, (retention, (names, values, chance)) in enumerate(matrices.items()):
            place = (label + index * (side + 0.35)) / width, label / height, side / width, side / height
            axes = figure.add_axes(place)
            image = _matrix(axes, names, values, show_names=index == 0)
            axes.set_title(f"{retention:.3g} kept (chance {chance:.2f})", fontsize=7.5)
        left = (label + len(matrices) * (side + 0.35) - 0.15) / width
        bar = figure.colorbar(image, cax=figure.add_axes((left, label / height, 0.1 / width, side / height)))
        bar.ax.tick_params(length=2, labelsize=6)
        title = "Kept tokens in common" + (f", {task}" if task else "")
        what = "|A ∩ B| / |A ∪ B|" if measure == "jaccard" else "|A ∩ B| / |smaller set|"
        figure.text(0.12 / width, 1 - 0.22 / height, title, fontsize=9, weight="bold", parse_math=False)
        figure.text(0.12 / width, 1 - 0.39 / height, f"{what}, mean over questions", fontsize=6.5, color=FAINT)
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _matrix(axes: Axes, names: Sequence[str], values: Any, *, show_names: bool) -> Any:
    image = axes.imshow(values, vmin=0, vmax=1, cmap=sns.color_palette("mako_r", as_cmap=True), interpolation="nearest")
    for i, j in np.ndindex(values.shape):
        if i != j and math.isfinite(values[i, j]):
            axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=5.5, color="white" if values[i, j] > 0.45 else INK)
    words = [shortened(name, _LONGEST) for name in names]
    axes.set_xticks(range(len(names)), words, rotation=60, ha="right", rotation_mode="anchor", fontsize=6.5, parse_math=False)
    axes.set_yticks(range(len(names)), words if show_names else [""] * len(names), fontsize=6.5, parse_math=False)
    axes.tick_params(length=0, pad=2)
    return image
