"""Randomly drawn questions that methods answer differently, with every method's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.results.lines import answer_lines
from biaskit.validation.results.read import Run

SHOWN = 6
"""Questions shown per task."""
_RIGHT = 0.5  # a score from here on counts as right


@dataclass(frozen=True)
class Answer:
    """The answer of one method. score: the primary score, in [0, 1]. shown: data to draw it, from `validation.ask.shown`."""

    method: str
    text: str
    score: float
    shown: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """True for a score of at least a half."""
        return self.score >= _RIGHT


@dataclass(frozen=True)
class Photo:
    """A small copy of a question's picture.

    Attributes:
        jpeg: its bytes. width, height: in pixels. region: what the question is about, (left, top, right, bottom) in fractions; None where
            that is not one box.
    """

    jpeg: bytes
    width: int
    height: int
    region: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Example:
    """One question. answers: in the order of the tables, the unpruned model's first if there is one. photo: its picture, if known."""

    id: str
    image: str
    prompt: str
    truth: str
    answers: Sequence[Answer]
    photo: Photo | None = None


@dataclass(frozen=True)
class Gallery:
    """Questions of one task at one budget.

    Attributes:
        task, budget: of the questions. n: questions in all. differ: number on which two pruned methods differ. examples: drawn from these.
        without: why there are no pictures; "" where there are.
    """

    task: str
    budget: str
    n: int
    differ: int
    examples: Sequence[Example]
    without: str = ""

    @property
    def rule(self) -> str:
        """A sentence on how the examples were chosen."""
        return (
            f"At {self.budget} kept, one method is right and another wrong on {self.differ} of {self.n} questions of {self.task}. "
            f"{len(self.examples)} of them are shown, drawn by lot, not by hand: their share of wrong answers is not a score."
        )


@dataclass
class _Wanted:
    """The answers to read from the file."""

    task: str
    labels: Mapping[str, str]  # cell → method
    questions: Mapping[str, int]  # id → place
    found: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


def galleries(run: Run, results: Sequence[TaskResults], shown: int = SHOWN) -> list[Gallery]:
    """Draw the examples of every task, at the budget where methods differ most; only the answers to these questions are read.

    Args:
        run: the folder. results: its analysed tasks. shown: most questions per task.

    Raises:
        BiaskitError: a line of the results is broken.
    """
    chosen = [(result, *_choose(result, shown)) for result in results]
    wanted = [_wanted(result, budget, places) for result, budget, _, places in chosen]
    by_task = {one.task: one for one in wanted}
    for _, _, record in answer_lines(run.folder / "results.jsonl"):
        one = by_task.get(record["task"])
        if one is not None and record["cell"] in one.labels and str(record["id"]) in one.questions:
            one.found[record["cell"], str(record["id"])] = record
    made = [
        Gallery(result.run.task, budget, result.n, differ, [_example(result, one, question) for question in one.questions])
        for (result, budget, differ, _), one in zip(chosen, wanted, strict=True)
    ]
    return [one for one in made if one.examples]


def _columns(result: TaskResults, budget: str) -> list[int]:
    """The cells of the tables' methods at a budget, the unpruned model's first."""
    found = [index for method in result.methods if (index := result.at(method, budget)) is not None]
    return sorted(dict.fromkeys(found), key=lambda index: not result.run.cells[index].unpruned)


def _choose(result: TaskResults, shown: int) -> tuple[str, int, list[int]]:
    """Return the budget at which pruned methods differ on most questions, the number of these, and the drawn ones."""
    best: tuple[str, list[int]] = ("", [])
    for budget in result.budgets:
        columns = [index for index in _columns(result, budget) if not result.run.cells[index].unpruned]
        right = result.run.primary[:, columns] >= _RIGHT
        differ = np.flatnonzero(right.any(axis=1) & ~right.all(axis=1)) if columns else np.zeros(0, dtype=np.int64)
        if len(differ) > len(best[1]):
            best = budget, [int(place) for place in differ]
    drawn = np.random.default_rng(result.settings.seed).permutation(len(best[1]))[:shown]
    return best[0], len(best[1]), sorted(best[1][int(number)] for number in drawn)


def _wanted(result: TaskResults, budget: str, places: Sequence[int]) -> _Wanted:
    labels = {result.run.cells[index].label: result.run.cells[index].method for index in (_columns(result, budget) if places else ())}
    return _Wanted(result.run.task, labels, {str(result.run.ids[place]): place for place in places})


def _example(result: TaskResults, wanted: _Wanted, question: str) -> Example:
    place = wanted.questions[question]
    records = [wanted.found.get((label, question), {}) for label in wanted.labels]
    column = {cell.label: number for number, cell in enumerate(result.run.cells)}
    answers = [
        Answer(method, _text(record.get("answer")), float(result.run.primary[place, column[label]]), record.get("shown", {}))
        for (label, method), record in zip(wanted.labels.items(), records, strict=True)
    ]
    first = next(filter(None, records), {})
    return Example(question, result.run.images[place], _text(first.get("prompt")), _text(first.get("truth")), answers)


def _text(value: Any) -> str:
    """Return a prompt, answer or right answer as text, for any JSON value; numbers with four digits."""
    if isinstance(value, list):
        return ", ".join(_text(inner) for inner in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
