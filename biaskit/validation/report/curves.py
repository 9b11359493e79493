"""Score against retention with interval bands, one panel per task, and the average over tasks (D2Pruner's Figure 2, right)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from biaskit.figures.style import FAINT, INK, ShownFigure, house_style
from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.report.average import Average
from biaskit.validation.report.figure_style import Look, retention_axis, set_gaps, settled
from biaskit.validation.results.labels import UNPRUNED
from biaskit.validation.statistics.resampling import Estimate


@dataclass(frozen=True)
class Curves:
    """One panel: method → (share kept, estimate) from many tokens to few; the unpruned estimate; axis label."""

    title: str
    lines: dict[str, list[tuple[float, Estimate]]]
    unpruned: Estimate | None
    label: str


def kept_share(result: TaskResults, cell: int) -> float:
    """Share of visual tokens that a cell keeps, also if its budget is a number of tokens."""
    about = result.run.cells[cell]
    if about.retention is not None:
        return about.retention
    numbers = result.run.costs[about.label]
    return numbers.get("n_kept", math.nan) / numbers.get("n_visual", math.nan)


def task_curves(result: TaskResults) -> Curves:
    """The panel of one task, in points."""
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    for method in result.methods:
        for budget in result.budgets:
            cell = result.at(method, budget)
            if method != UNPRUNED and cell is not None:
                lines.setdefault(method, []).append((kept_share(result, cell), result.scores[cell].times(100)))
    base = result.run.unpruned
    return Curves(result.run.task, lines, None if base is None else result.scores[base].times(100), f"{result.measure.name}, points")


def average_curves(found: Sequence[Average], results: Sequence[TaskResults]) -> Curves:
    """The panel of the average over tasks, in percent of the unpruned model."""
    shares = {
        budget: kept_share(result, cell)
        for result in results
        for budget in result.budgets
        for method in result.methods
        if method != UNPRUNED and (cell := result.at(method, budget)) is not None
    }
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    for one in found:
        if one.method != UNPRUNED:
            lines.setdefault(one.method, []).append((shares[one.budget], one.relative.times(100)))
    return Curves("average over tasks", lines, Estimate(100, 100, 100), "% of the unpruned model")


def draw_curves(panels: Sequence[Curves], look: dict[str, Look], level: float = 0.95) -> Figure:
    """Draw the panels, at most three side by side, with one legend."""
    with house_style():
        columns = min(len(panels), 2 if len(panels) == 4 else 3)
        rows = math.ceil(len(panels) / columns)
        width = 3.6 * columns if all(map(_single, panels)) else 2.75 * columns + _legend_width(panels)
        figure = ShownFigure(figsize=(width, _height(panels, rows)), layout="constrained")
        set_gaps(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(panels):
                (_dots if _single(panels[index]) else _panel)(axes, panels[index], look)
            else:
                axes.set_visible(False)
        if all(map(_single, panels)):
            return settled(figure)  # without a legend: the axis names the methods
        names = dict.fromkeys(method for panel in panels for method in panel.lines)
        handles = [_handle(look[method], method) for method in sorted(names, key=lambda m: -_lowest(panels, m))]
        handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=":", label="unpruned"))
        figure.legend(
            handles=handles,
            loc="outside right upper",
            frameon=False,
            fontsize=7.5,
            handlelength=2.6,
            title=f"bands: {100 * level:g} % intervals",
            title_fontsize=7,
            alignment="left",
        )
        return settled(figure)


def _legend_width(panels: Sequence[Curves]) -> float:
    """Inches that the legend takes beside the panels, by its longest method."""
    return max(1.7, 0.7 + 0.065 * max((len(method) for panel in panels for method in panel.lines), default=0))


def _height(panels: Sequence[Curves], rows: int) -> float:
    """Inches of the figure: every method has its line of text, in the legend or, without one, on the axis of its panel."""
    if all(map(_single, panels)):
        return rows * max(2.5, 0.65 + 0.13 * max((len(panel.lines) for panel in panels), default=0)) + 0.25
    entries = 2 + len({method for panel in panels for method in panel.lines})  # with the title and the unpruned model
    return max(2.5 * rows + 0.25, 0.25 + 0.16 * entries)


def _lowest(panels: Sequence[Curves], method: str) -> float:
    """Mean score at the fewest tokens, by which the legend is sorted."""
    values = [panel.lines[method][-1][1].value for panel in panels if method in panel.lines]
    return sum(values) / len(values)


def _handle(look: Look, label: str) -> Line2D:
    return Line2D(
        [], [], color=look.colour, linestyle=look.line, marker=look.marker, markersize=4.5, linewidth=1.6 if look.wide else 1.1,
        markerfacecolor=look.colour if look.filled else "white", label=label,
    )  # fmt: skip


def _single(panel: Curves) -> bool:
    """True if there is a single retention, so that no lines can be drawn."""
    return len({share for line in panel.lines.values() for share, _ in line}) < 2


def _dots(axes: Axes, panel: Curves, look: dict[str, Look]) -> None:
    """Methods as rows, the best on top, with their intervals."""
    order = sorted(panel.lines, key=lambda method: panel.lines[method][0][1].value)
    for row, method in enumerate(order):
        style, (_, e) = look[method], panel.lines[method][0]
        axes.errorbar(
            [e.value], [row], xerr=[[e.value - e.low], [e.high - e.value]], color=style.colour, marker=style.marker, markersize=5,
            markerfacecolor=style.colour if style.filled else "white", elinewidth=1.1, capsize=2,
        )  # fmt: skip
    if panel.unpruned is not None:
        axes.axvline(panel.unpruned.value, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate("unpruned", (panel.unpruned.value, 0), xycoords=("data", "axes fraction"), xytext=(-3, 3), textcoords="offset points",
                      ha="right", fontsize=6.5)  # fmt: skip
    axes.set_yticks(range(len(order)), order, fontsize=7)
    axes.set_ylim(-0.6, len(order) - 0.4)
    kept = next((share for line in panel.lines.values() for share, _ in line), 1.0)
    axes.set_title(f"{panel.title}, {100 * kept:.3g} % kept", fontsize=9, loc="left", weight="bold")
    axes.set_xlabel(panel.label)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _panel(axes: Axes, panel: Curves, look: dict[str, Look]) -> None:
    shares = [share for line in panel.lines.values() for share, _ in line]
    for method, line in panel.lines.items():
        style = look[method]
        x = [share for share, _ in line]
        axes.fill_between(
            x, [e.low for _, e in line], [e.high for _, e in line], color=style.colour, alpha=0.16 if style.wide else 0.07, linewidth=0
        )
        axes.plot(
            x, [e.value for _, e in line], color=style.colour, linestyle=style.line, marker=style.marker, markersize=4.5,
            linewidth=1.6 if style.wide else 1.1, markerfacecolor=style.colour if style.filled else "white", zorder=3 if style.wide else 2,
        )  # fmt: skip
    if panel.unpruned is not None:
        axes.axhline(panel.unpruned.value, color=INK, linewidth=0.9, linestyle=":")
        if panel.unpruned.low < panel.unpruned.high:
            axes.axhspan(panel.unpruned.low, panel.unpruned.high, color=INK, alpha=0.06, linewidth=0)
    if shares:
        retention_axis(axes, shares)
    axes.set_title(panel.title, fontsize=9, loc="left", weight="bold")
    axes.set_ylabel(panel.label)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
