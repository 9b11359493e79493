"""Ablation as bars: attention alone, debiased importance (DI), structural diversity (SD), both (D2Pruner's Figure 4, left)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from biaskit.figures.style import INK
from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.report.figure_style import house_style, set_gaps, settled
from biaskit.validation.results.cells import find, role
from biaskit.validation.statistics.resampling import Estimate

STEPS = {
    "fastv": "FastV (neither)",
    "fastv, debiased": "DI: debiased importance",
    "d2pruner": "SD: structural diversity, raw attention",
    "d2pruner, debiased": "DI + SD: D2Pruner",
}


def ablation(result: TaskResults) -> dict[str, dict[str, Estimate]]:
    """Return step → budget → score in points, of the steps that the run has; empty if there are fewer than two."""
    found: dict[str, dict[str, Estimate]] = {}
    for step in STEPS:
        for budget in result.budgets:
            for method in result.methods:
                cell = find(result.run.cells, method, budget)
                if cell is not None and not result.run.cells[cell].unpruned and role(result.run.cells[cell]) == step:
                    found.setdefault(step, {})[budget] = result.scores[cell].times(100)
                    break
    return found if len(found) > 1 else {}


def draw_ablation(results: Sequence[TaskResults]) -> Figure | None:
    """Draw one panel a task; None if no task has two steps of the ablation."""
    panels = [(result, steps) for result in results if (steps := ablation(result))]
    if not panels:
        return None
    with house_style():
        columns = min(len(panels), 3)
        rows = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(2.9 * columns + 0.3, 2.4 * rows + 0.45), layout="constrained")
        set_gaps(figure)
        palette = sns.color_palette("colorblind", 10)
        colours = dict(zip(STEPS, ((0.78, 0.78, 0.78), palette[3], palette[9], palette[0]), strict=True))
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(panels):
                _panel(axes, *panels[index], colours)
            else:
                axes.set_visible(False)
        used = [step for step in STEPS if any(step in steps for _, steps in panels)]
        handles = [Patch(color=colours[step], label=STEPS[step]) for step in used]
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
