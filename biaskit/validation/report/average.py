"""Averages over tasks, as in the papers: the mean over tasks of score / unpruned score ("Avg"), not the ratio of means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.statistics.resampling import Estimate, Floats, Statistic, bootstrap, interval


@dataclass(frozen=True)
class Average:
    """A method at one budget, relative to the unpruned model, averaged over `tasks` tasks."""

    method: str
    budget: str
    relative: Estimate
    tasks: int


def averages(results: Sequence[TaskResults]) -> list[Average]:
    """Average every method and budget that all tasks have; [] if a task has no unpruned scores.

    The interval is the percentile one, from `draws_of_tasks`.
    """
    if not results or any(result.run.unpruned is None for result in results):
        return []
    found, draws = [], draws_of_tasks(results)
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
                found.append(Average(method, budget, mean_over_tasks(shares, draws), len(results)))
    return found


def draws_of_tasks(results: Sequence[TaskResults]) -> dict[str, Floats]:
    """Return task → the means of its columns in every resample, [B, m], so that resamples of all tasks go together.

    Tasks without common images are independent, and their own resamples are combined in random order. The scores of tasks about the same
    images (the three parts of POPE, the scenes) are correlated: there images are drawn for all tasks at once.
    """
    images = [result.run.images for result in results]
    if len(set().union(*images)) == sum(len(set(some)) for some in images):
        # every task was drawn with the same seed: a different order for each makes the draws independent
        return {
            result.run.task: result.resampled.draws[np.random.default_rng(number).permutation(len(result.resampled.draws))]
            for number, result in enumerate(results)
        }
    widths = [result.measure.columns.shape[1] for result in results]
    table = np.zeros((sum(map(len, images)), sum(widths) + len(results)))
    row = column = 0
    for number, (result, width) in enumerate(zip(results, widths, strict=True)):
        table[row : row + result.n, column : column + width] = result.measure.columns
        table[row : row + result.n, sum(widths) + number] = 1  # its mean is the task's share of the questions
        row, column = row + result.n, column + width
    settings = results[0].settings
    drawn = bootstrap(table, [image for some in images for image in some], settings.resamples, settings.seed).draws
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have none of a task's images
        means = [
            drawn[:, end - width : end] / drawn[:, [sum(widths) + k]]
            for k, (end, width) in enumerate(zip(np.cumsum(widths), widths, strict=True))
        ]
    return {result.run.task: mean for result, mean in zip(results, means, strict=True)}


def mean_over_tasks(parts: Sequence[tuple[TaskResults, Statistic]], draws: Mapping[str, Floats]) -> Estimate:
    """Return the mean of one statistic per task, with a percentile interval; `draws`: from `draws_of_tasks`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.mean([statistic(result.resampled.observed) for result, statistic in parts]))
        drawn = [np.asarray(statistic(draws[result.run.task]), dtype=np.float64) for result, statistic in parts]
    level = parts[0][0].settings.level
    return Estimate(value, *interval(value, np.mean(drawn, axis=0), np.empty(0), "percentile", level))
