"""Measures of a cell: functions of means over samples, so that one bootstrap serves means, F1, differences and ratios alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.report.run_files import TaskRun
from biaskit.resampling import Estimate, Kind, Resampled, Statistic

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measure:
    """A measure of m cells.

    Attributes:
        name: for people. columns: [n, m · width], what is averaged over samples, `width` columns a cell.
        formula: takes averages [..., width] to the measure [...].
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
    """F1 of "yes", for tasks that record `yes` (the answer was yes) and `correct`, and whose truths are yes or no."""
    if not {"yes", "correct"} <= set(task.scores):
        return None
    truth = np.array([_is_yes(value) for value in task.truths])[:, None]
    said = task.scores["yes"] > 0.5
    counts = np.stack([truth & said, ~truth & said, truth & ~said], axis=2).astype(np.float64)
    return Measure(
        "F1", counts.reshape(len(truth), -1), 3, lambda means: 2 * means[..., 0] / (2 * means[..., 0] + means[..., 1] + means[..., 2])
    )


def _is_yes(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("answer", value.get("label"))
    return value is True or str(value).strip().lower() in ("yes", "true", "1")


def secondary_measures(task: TaskRun) -> list[Measure]:
    """F1 where there is one, then the means of all other scores."""
    extra = f1(task)
    others = [Measure(name, values) for name, values in sorted(task.scores.items()) if name != task.metric]
    return [*([] if extra is None else [extra]), *others]
