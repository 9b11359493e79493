"""Answers of one task as columns of numbers: a million of them fit into memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.validation.results.cells import Cell

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Steps = tuple[tuple[tuple[int, float], ...], int]
"""(visual tokens per first layer, text tokens) of an answer."""

COSTS = ("mean_tokens", "cache_bytes", "n_kept", "n_visual", "n_text", "tower_flops", "positive")


class Columns:
    """Answers in one cell, in order of the file.

    Attributes:
        cell: from its first line. questions: number of each answered question. scores, costs: name → one number per answer, NaN if
            missing. steps: number of the answer's `Steps`, −1 if they were not recorded.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.questions = array("q")
        self.scores: dict[str, array[float]] = {}
        self.costs: dict[str, array[float]] = {}
        self.steps = array("q")

    def add(self, question: int, record: Mapping[str, Any], steps: int) -> None:
        """Add one answer."""
        for columns, values in ((self.scores, record["scores"]), (self.costs, record)):
            for name in values if columns is self.scores else COSTS:
                value = values.get(name)
                if value is not None:
                    column = columns.setdefault(name, array("d"))
                    if len(column) < len(self.questions):  # earlier answers had none
                        column.extend([math.nan] * (len(self.questions) - len(column)))
                    column.append(value)
        self.questions.append(question)
        self.steps.append(steps)

    def rows_of(self, questions: Ints, count: int) -> Ints:
        """Return the rows of the answers to some of `count` questions."""
        places = np.full(count, -1, dtype=np.int64)
        places[np.asarray(self.questions)] = np.arange(len(self.questions))
        return places[questions]

    def values(self, kind: str, name: str, rows: Ints) -> Floats | None:
        """Return a column of `scores` or `costs` at some rows; None if one of them has no such number."""
        column = getattr(self, kind).get(name, array("d"))
        whole = np.full(len(self.questions), np.nan)
        whole[: len(column)] = np.asarray(column)
        found: Floats = whole[rows]
        return None if np.isnan(found).any() else found

    def means(self, rows: Ints) -> dict[str, float]:
        """Return the mean costs, of those that all rows have."""
        found = {name: self.values("costs", name, rows) for name in COSTS}
        return {name: float(values.mean()) for name, values in found.items() if values is not None}

    def steps_of(self, rows: Ints, known: Mapping[Steps, int]) -> dict[Steps, int]:
        """Return the number of rows with each `Steps`, in order of appearance."""
        names = list(known)
        numbers, first, counts = np.unique(np.asarray(self.steps)[rows], return_index=True, return_counts=True)
        order = np.argsort(first)
        return {names[numbers[k]]: int(counts[k]) for k in order if numbers[k] >= 0}


class Table:
    """All answers to one task.

    Attributes:
        ids: id → number of the question. images, tags: of each question, from its first line. cells: label → its answers.
        steps: `Steps` → their number.
    """

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.images: list[str] = []
        self.tags: list[Mapping[str, str]] = []
        self.cells: dict[str, Columns] = {}
        self.steps: dict[Steps, int] = {}
        self._answered: dict[str, bytearray] = {}
        self._alike: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}

    def add(self, record: Mapping[str, Any]) -> bool:
        """Add one answer; False if its cell has answered the question already."""
        name, label = str(record["id"]), record["cell"]
        question = self.ids.setdefault(name, len(self.ids))
        if question == len(self.images):
            tags = record.get("tags") or {}
            self.images.append(str(record.get("image", name)))
            self.tags.append(self._alike.setdefault(tuple(tags.items()), tags))
        columns = self.cells.get(label)
        if columns is None:
            columns = self.cells[label] = Columns(Cell.of(record))
            self._answered[label] = bytearray()
        answered = self._answered[label]
        if question >= len(answered):
            answered.extend(bytes(max(1024, question)))
        if answered[question]:
            return False
        answered[question] = 1
        columns.add(question, record, self._steps(record))
        return True

    def _steps(self, record: Mapping[str, Any]) -> int:
        if not record.get("layer_tokens") or record.get("n_text") is None:
            return -1
        key = (tuple((layer, float(count)) for layer, count in record["layer_tokens"]), int(record["n_text"]))
        return self.steps.setdefault(key, len(self.steps))
