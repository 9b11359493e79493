"""Measures of a cell as functions of means over samples, so that one bootstrap serves means, F1, differences and ratios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.validation.results.read import TaskRun
from biaskit.validation.statistics.resampling import Estimate, Kind, Resampled, Statistic

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measure:
    """A measure of m cells.

    Attributes:
        name: display name. columns: [n, m · width], to be averaged over samples, `width` columns per cell.
        formula: averages [..., width] → measure [...].
    """

    name: str
    columns: Floats
    width: int = 1
    formula: Callable[[Floats], Any] = lambda means: means[..., 0]

    def _of(self, cell: int) -> Statistic:
        start, formula = cell * self.width, self.formula
        return lambda means: formula(means[..., start : start + self.width])

    def estimate(self, resampled: Resampled, cell: int, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return a cell's measure with its interval."""
        if self.width == 1:
            return resampled.mean(cell, kind, level)
        return resampled.estimate(self._of(cell), kind, level)

    def difference(self, resampled: Resampled, a: int, b: int, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return the measure of cell a − that of cell b."""
        one, two = self._of(a), self._of(b)
        return resampled.estimate(lambda means: one(means) - two(means), kind, level)

    def ratio(self, resampled: Resampled, a: int, b: int, kind: Kind = "bca", level: float = 0.95) -> Estimate:
        """Return the measure of cell a / that of cell b."""
        return resampled.estimate(self.share(a, b), kind, level)

    def share(self, a: int, b: int) -> Statistic:
        """Return the function of means that gives the measure of cell a / that of cell b."""
        one, two = self._of(a), self._of(b)
        return lambda means: one(means) / two(means)


def primary_measure(task: TaskRun) -> Measure:
    """The mean of the task's own score."""
    return Measure(task.metric, task.primary)


def f1(task: TaskRun) -> Measure | None:
    """F1 of "yes", for tasks that record `said_yes` and `is_yes`; 0 if no answer and no truth is yes."""
    if not {"said_yes", "is_yes"} <= set(task.scores):
        return None
    said, true = task.scores["said_yes"], task.scores["is_yes"]
    columns = np.stack([said * true, said + true], axis=2).reshape(len(said), -1)
    return Measure("F1", columns, 2, lambda means: np.where(means[..., 1] > 0, 2 * means[..., 0] / means[..., 1], 0.0))


def secondary_measures(task: TaskRun) -> list[Measure]:
    """F1 if the task has it, then the means of all other scores."""
    extra = f1(task)
    others = [Measure(name, values) for name, values in sorted(task.scores.items()) if name != task.metric]
    return [*([] if extra is None else [extra]), *others]
