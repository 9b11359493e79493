"""The questions that are not answered yet, and the final order of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from biaskit.errors import BiaskitError
from biaskit.tasks import Task, open_task
from biaskit.validation.ask.methods import Configuration
from biaskit.validation.results.directory import Key, Line


def opened(name: str, limit: int | None, data: str | None = None, images: str | None = None) -> Task:
    """Open a task; generated ones get at least `limit` questions."""
    task = open_task(name, data, images=images)
    return open_task(name, data, images=images, n=limit) if limit is not None and 0 < len(task) < limit else task


def open_tasks(wanted: Sequence[Task | str], limit: int | None) -> dict[str, Task]:
    """Return tasks by name; names are opened.

    Raises:
        BiaskitError: no task, or a task without questions.
    """
    tasks: dict[str, Task] = {}
    for one in wanted:
        task = opened(one, limit) if isinstance(one, str) else one
        if not isinstance(task, Task):
            raise BiaskitError(f"{one!r} is not a task", "give a task, or the name of one (biaskit tasks list)")
        if not len(task):
            raise BiaskitError(f"task {task.name} has no questions", "check its data")
        tasks[task.name] = task
    if not tasks:
        raise BiaskitError("no tasks", "name some (biaskit tasks list)")
    return tasks


def order(task: Task, limit: int | None, seed: int) -> list[int]:
    """Return the questions to ask: the first of a seeded order of all, so that a larger limit includes those of a smaller one."""
    found: list[int] = np.random.default_rng(seed).permutation(len(task))[:limit].tolist()
    return found


@dataclass(frozen=True, eq=False)
class Batch:
    """Questions that are prepared together, and the cells in which they have no answers yet."""

    items: tuple[int, ...]
    cells: list[Configuration]


@dataclass(eq=False)
class Plan:
    """The open batches.

    Attributes:
        batches: task → its open batches. dropped: answers of incomplete batches, which are asked again in the same batches.
        scores: (task, cell) → primary scores so far.
    """

    batches: dict[str, list[Batch]] = field(default_factory=dict)
    dropped: set[Key] = field(default_factory=set)
    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)


def make_plan(tasks: Mapping[str, Task], cells: Sequence[Configuration], lines: Mapping[Key, Line], batch_size: int) -> Plan:
    """Compare the wanted answers with those on disk. Batches are fixed slices of a task's questions.

    Raises:
        BiaskitError: two questions of a task have the same id.
    """
    plan = Plan()
    for name, task in tasks.items():
        names = [task.identify(i) for i in range(len(task))]
        if len(set(names)) != len(names):
            twice = next(one for place, one in enumerate(names) if one in names[:place])
            raise BiaskitError(f"task {name} has two questions with the id {twice}", "ids must be unique: fix the data")
        plan.batches[name] = []
        for start in range(0, len(task), batch_size):
            items = tuple(range(start, min(start + batch_size, len(task))))
            missing = []
            for cell in cells:
                keys = [(name, cell.label, names[i]) for i in items]
                there = [key for key in keys if key in lines]
                if len(there) < len(keys):
                    plan.dropped.update(there)
                    missing.append(cell)
                else:
                    plan.scores.setdefault((name, cell.label), []).extend(lines[key].score for key in keys)
            if missing:
                plan.batches[name].append(Batch(items, missing))
    return plan


def arranged(lines: Mapping[Key, Line], manifest: Mapping[str, Any], tasks: Mapping[str, Task], seed: int) -> list[Key]:
    """Return all answers in order of task, cell and question; for tasks that are not open, in their order in the file.

    Args:
        tasks: name → the whole task.
    """
    task_place = {task["name"]: place for place, task in enumerate(manifest["tasks"])}
    cell_place = {cell["cell"]: place for place, cell in enumerate(manifest["cells"])}
    rank = {(name, task.identify(i)): place for name, task in tasks.items() for place, i in enumerate(order(task, None, seed))}
    last = len(task_place) + len(cell_place)

    def place(key: Key) -> tuple[int, int, int]:
        return task_place.get(key[0], last), cell_place.get(key[1], last), rank.get((key[0], key[2]), 0)

    return sorted(lines, key=place)
