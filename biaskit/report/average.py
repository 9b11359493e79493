"""Averages over tasks, as in the papers: the mean over tasks of score / unpruned score ("Avg"), not the ratio of means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biaskit.report.results import TaskResults
from biaskit.resampling import Estimate, Statistic, interval


@dataclass(frozen=True)
class Average:
    """A method at one budget, relative to the unpruned model, averaged over tasks. `tasks` says over how many."""

    method: str
    budget: str
    relative: Estimate
    tasks: int


def averages(results: Sequence[TaskResults]) -> list[Average]:
    """Average every method over the tasks that all have it at a budget; none if a task has no unpruned scores.

    Tasks are resampled independently of each other, draw by draw; the interval is the percentile one.
    """
    if not results or any(result.run.unpruned is None for result in results):
        return []
    found = []
    names = dict.fromkeys(method for result in results for method in result.methods)
    for budget in dict.fromkeys(name for result in results for name in result.budgets):
        for method in names:
            cells = [result.at(method, budget) for result in results]
            if all(cell is not None for cell in cells):
                shares = []
                for result, cell in zip(results, cells, strict=True):
                    base = result.run.unpruned
                    assert cell is not None and base is not None
                    shares.append((result, result.measure.share(cell, base)))
                found.append(Average(method, budget, mean_over_tasks(shares), len(results)))
    return found


def mean_over_tasks(parts: Sequence[tuple[TaskResults, Statistic]]) -> Estimate:
    """Return the mean of one statistic per task, with a percentile interval from independent resamples of the tasks."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.mean([statistic(result.resampled.observed) for result, statistic in parts]))
        draws = []
        for number, (result, statistic) in enumerate(parts):
            values = np.asarray(statistic(result.resampled.draws), dtype=np.float64)
            # every task was drawn with the same seed: another order for each makes the draws independent
            draws.append(np.random.default_rng(number).permutation(values))
    level = parts[0][0].settings.level
    return Estimate(value, *interval(value, np.mean(draws, axis=0), np.empty(0), "percentile", level))
