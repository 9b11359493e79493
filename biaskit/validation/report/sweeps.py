"""Sweeps: score against one parameter of a method (α, θ, pivot ratio, spatial term, K, τ), as D2Pruner's Figure 4, right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biaskit.figures.style import FAINT, INK, ShownFigure, house_style
from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.report.figure_style import set_gaps, settled
from biaskit.validation.results.cells import Cell, plain_of
from biaskit.validation.statistics.resampling import Estimate

SYMBOLS = {"alpha": "α", "theta": "θ", "strength": "τ, debias strength", "layer": "K, layer", "pivot_ratio": "pivot ratio", "lam": "λ"}
_NOT_SWEPT = {"retention", "budget"}


@dataclass(frozen=True)
class Sweep:
    """One parameter of one method on one task.

    Attributes:
        task, method, parameter: that are swept. values: in order. numeric: True if they are numbers.
        default: the value of the plain method, None if that is not part of the sweep.
        lines: budget → one estimate per value, in points, None if a cell is missing. unpruned: in points.
    """

    task: str
    method: str
    parameter: str
    values: Sequence[Any]
    numeric: bool
    default: Any
    lines: Mapping[str, Sequence[Estimate | None]]
    unpruned: Estimate | None
    label: str


def find_sweeps(result: TaskResults) -> list[Sweep]:
    """Find every parameter for which a method has two values or more, with the others equal to the plain method's.

    A method without the prior counts as the same method with strength 0; these two alone are the ablation, not a sweep.
    """
    found = []
    families: dict[tuple[str, str | None], list[int]] = {}
    for index, cell in enumerate(result.run.cells):
        if not cell.unpruned:
            families.setdefault((cell.pruner, cell.prior_id), []).append(index)
    for (pruner, prior), members in families.items():
        cells = [result.run.cells[index] for index in members]
        reference = plain_of(cells, cells[0])
        plain = _most_frequent(cells) if reference is None else effective(reference)
        name = pruner if reference is None else reference.method
        members = members + (families.get((pruner, None), []) if prior else [])
        for parameter in sorted({key for cell in cells for key in cell.parameters} - _NOT_SWEPT):
            inside = [index for index in members if _equal_but(effective(result.run.cells[index]), plain, parameter)]
            values = _ordered({_hashable(effective(result.run.cells[index]).get(parameter)) for index in inside})
            if len(values) > 1 and not (parameter == "strength" and set(values) <= {0.0, 1.0}):
                found.append(_sweep(result, name, parameter, values, inside, plain.get(parameter)))
    return found


def effective(cell: Cell) -> Mapping[str, Any]:
    """Return a cell's settings, with strength 0 if there is no prior, which is equivalent."""
    return cell.parameters if cell.prior or "strength" not in cell.parameters else {**cell.parameters, "strength": 0.0}


def _most_frequent(cells: Sequence[Cell]) -> Mapping[str, Any]:
    """Return the most frequent value of each setting, from which a sweep without a plain method starts."""
    keys = {key for cell in cells for key in cell.parameters}
    return {key: Counter(_hashable(effective(cell).get(key)) for cell in cells).most_common(1)[0][0] for key in keys}


def _equal_but(parameters: Mapping[str, Any], plain: Mapping[str, Any], parameter: str) -> bool:
    keys = (set(parameters) | set(plain)) - _NOT_SWEPT - {parameter}
    return all(_hashable(parameters.get(key)) == _hashable(plain.get(key)) for key in keys)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value if isinstance(value, str | int | float | bool | None) else str(value)


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _ordered(values: set[Any]) -> list[Any]:
    return sorted(values) if _numeric(list(values)) else sorted(values, key=str)


def _sweep(result: TaskResults, method: str, parameter: str, values: Sequence[Any], cells: Sequence[int], default: Any) -> Sweep:
    lines: dict[str, list[Estimate | None]] = {}
    for budget in result.budgets:
        inside = {
            _hashable(effective(result.run.cells[i]).get(parameter)): result.scores[i].times(100)
            for i in cells
            if result.run.cells[i].budget_name == budget
        }
        if len(inside) > 1:
            lines[budget] = [inside.get(value) for value in values]
    base = result.run.unpruned
    unpruned = None if base is None else result.scores[base].times(100)
    label = f"{result.measure.name}, points"
    known = _hashable(default) if _hashable(default) in values else None
    return Sweep(result.run.task, method, parameter, values, _numeric(values), known, lines, unpruned, label)


def draw_sweep(sweeps: Sequence[Sweep]) -> Figure:
    """Draw one parameter of one method, one panel per task."""
    with house_style():
        columns = min(len(sweeps), 3)
        rows = math.ceil(len(sweeps) / columns)
        figure = ShownFigure(figsize=(2.75 * columns + 1.1, 2.4 * rows + 0.3), layout="constrained")
        set_gaps(figure)
        budgets = list(dict.fromkeys(budget for sweep in sweeps for budget in sweep.lines))
        shades = sns.color_palette("flare", len(budgets)) if len(budgets) > 1 else sns.color_palette("colorblind", 1)
        colours = dict(zip(budgets, shades, strict=True))
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(sweeps):
                _panel(axes, sweeps[index], colours)
            else:
                axes.set_visible(False)
        handles = {line.get_label(): line for axes in grid.flat for line in axes.lines if not str(line.get_label()).startswith("_")}
        figure.legend(
            handles=list(handles.values()),
            loc="outside right upper",
            frameon=False,
            fontsize=7.5,
            title="visual tokens kept",
            title_fontsize=7.5,
        )
        figure.suptitle(
            f"{sweeps[0].method}: {SYMBOLS.get(sweeps[0].parameter, sweeps[0].parameter)}", fontsize=10, weight="bold", x=0.01, ha="left"
        )
        return settled(figure)


def _panel(axes: Axes, sweep: Sweep, colours: Mapping[str, Any]) -> None:
    x = [float(value) for value in sweep.values] if sweep.numeric else [float(i) for i in range(len(sweep.values))]
    for place, (budget, line) in enumerate(sweep.lines.items()):
        shift = 0.0 if sweep.numeric else (place - (len(sweep.lines) - 1) / 2) * 0.12
        there = [(at + shift, e) for at, e in zip(x, line, strict=True) if e is not None]
        at, values = [a for a, _ in there], [e.value for _, e in there]
        if sweep.numeric:
            axes.fill_between(at, [e.low for _, e in there], [e.high for _, e in there], color=colours[budget], alpha=0.15, linewidth=0)
            axes.plot(at, values, color=colours[budget], marker="o", markersize=4, linewidth=1.2, label=budget)
        else:
            reach = [[e.value - e.low for _, e in there], [e.high - e.value for _, e in there]]
            axes.errorbar(at, values, reach, color=colours[budget], linestyle="", elinewidth=1, capsize=2)
            axes.plot(at, values, color=colours[budget], marker="o", markersize=5, linestyle="", label=budget)
    if sweep.unpruned is not None:
        axes.axhline(sweep.unpruned.value, color=INK, linewidth=0.9, linestyle=":", label="unpruned")
    if sweep.default is not None:
        default = float(sweep.default) if sweep.numeric else float(list(sweep.values).index(sweep.default))
        axes.axvline(default, color="0.75", linewidth=0.8, linestyle="--", zorder=0, label="default")
    if sweep.numeric and len(x) <= 8:
        axes.set_xticks(x, [f"{value:g}" for value in x])
    elif not sweep.numeric:
        axes.set_xticks(x, [str(value) for value in sweep.values])
        axes.set_xlim(-0.5, len(x) - 0.5)
    axes.set_title(sweep.task, fontsize=9, loc="left", weight="bold")
    axes.set(xlabel=SYMBOLS.get(sweep.parameter, sweep.parameter), ylabel=sweep.label)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
