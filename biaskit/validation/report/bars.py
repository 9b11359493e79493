"""The ablation as bars: attention only, debiased importance (DI), structural diversity (SD), both (D2Pruner's Figure 4, left)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from biaskit.figures.style import INK, ShownFigure, house_style
from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.report.figure_style import set_gaps, settled
from biaskit.validation.results.cells import find, role, twins
from biaskit.validation.statistics.resampling import Estimate

PAPER = {
    "fastv": "FastV (neither)",
    "fastv, debiased": "DI: debiased importance",
    "d2pruner": "SD: structural diversity, raw attention",
    "d2pruner, debiased": "DI + SD: D2Pruner",
}
"""Names of the four steps in D2Pruner's figure; other methods have their own names."""


def ablation(result: TaskResults) -> dict[str, dict[str, Estimate]]:
    """Return step → budget → score in points, of all methods with and without their prior; empty if there are fewer than two steps."""
    found: dict[str, dict[str, Estimate]] = {}
    for budget in result.budgets:
        debiased = {one.pruner for one in twins(result.run.cells, budget) if one.debiased}
        for method in result.methods:
            index = find(result.run.cells, method, budget)
            cell = None if index is None else result.run.cells[index]
            step = None if cell is None or cell.unpruned or cell.uniform else role(cell)
            known = step in PAPER or (cell is not None and cell.pruner in debiased)
            if index is not None and step is not None and known:
                found.setdefault(step, {}).setdefault(budget, result.scores[index].times(100))
    ordered = [step for step in PAPER if step in found] + [step for step in found if step not in PAPER]
    return {step: found[step] for step in ordered} if len(found) > 1 else {}


def step_titles(results: Sequence[TaskResults]) -> dict[str, str]:
    """Return step → its text in the legend."""
    names = {cell.pruner: cell.title for result in results for cell in result.run.cells}
    steps = dict.fromkeys(step for result in results for step in ablation(result))
    found = {step: step.replace(pruner, title, 1) for step in steps for pruner, title in names.items() if step.split(", ")[0] == pruner}
    return {step: PAPER.get(step, found[step]) for step in steps}


def draw_ablation(results: Sequence[TaskResults]) -> Figure | None:
    """Draw one panel per task; None if no task has two steps of the ablation."""
    panels = [(result, steps) for result in results if (steps := ablation(result))]
    if not panels:
        return None
    with house_style():
        columns = min(len(panels), 3)
        rows = math.ceil(len(panels) / columns)
        figure = ShownFigure(figsize=(2.9 * columns + 0.3, 2.4 * rows + 0.45), layout="constrained")
        set_gaps(figure)
        palette = sns.color_palette("colorblind", 10)
        titles = step_titles(results)
        fixed = dict(zip(PAPER, ((0.78, 0.78, 0.78), palette[3], palette[9], palette[0]), strict=True))
        others = cycle([palette[k] for k in (1, 2, 4, 5, 6, 8)])
        colours = {step: fixed[step] if step in fixed else next(others) for step in titles}
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(panels):
                _panel(axes, *panels[index], colours)
            else:
                axes.set_visible(False)
        handles = [Patch(color=colours[step], label=title) for step, title in titles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if columns < 3 else 4, frameon=False, fontsize=7.5)
        return settled(figure)


def _panel(axes: Axes, result: TaskResults, steps: dict[str, dict[str, Estimate]], colours: dict[str, tuple[float, float, float]]) -> None:
    width = 0.82 / len(steps)
    for place, (step, values) in enumerate(steps.items()):
        x = [result.budgets.index(budget) + (place - (len(steps) - 1) / 2) * width for budget in values]
        heights = [e.value for e in values.values()]
        reach = [[e.value - e.low for e in values.values()], [e.high - e.value for e in values.values()]]
        axes.bar(x, heights, width * 0.92, color=colours[step], yerr=reach, error_kw={"elinewidth": 0.9, "ecolor": INK, "capsize": 1.5})
    base = result.run.unpruned
    if base is not None:
        axes.axhline(100 * result.scores[base].value, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate("unpruned", (1, 100 * result.scores[base].value), xycoords=("axes fraction", "data"), xytext=(0, 2),
                      textcoords="offset points", ha="right", fontsize=6.5)  # fmt: skip
    axes.set_xticks(range(len(result.budgets)), list(result.budgets))
    axes.set(xlabel="visual tokens kept", ylabel=f"{result.measure.name}, points")
    axes.set_title(result.run.task, fontsize=9, loc="left", weight="bold")
    axes.margins(y=0.08)
    axes.spines[["top", "right"]].set_visible(False)
