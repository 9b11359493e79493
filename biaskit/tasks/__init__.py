"""Tasks: questions with known answers, looked up by name. A task asks and scores; running a model is `validation`'s job."""

from __future__ import annotations

import os
from pathlib import Path

from biaskit.errors import TaskError
from biaskit.registry import Registry
from biaskit.tasks.base import WHOLE, Opening, Part, Seen, Task, TaskView, breakdown


def _keep_class(cls: type[Task]) -> type[Task]:
    return cls


tasks: Registry[type[Task]] = Registry("task", __name__, _keep_class, Task)

__all__ = ["WHOLE", "Opening", "Part", "Seen", "Task", "TaskView", "breakdown", "open_task", "task_class", "tasks"]


def open_task(
    spec: str,
    data: str | os.PathLike[str] | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    n: int | None = None,
) -> Task:
    """Open a task by name, such as `open_task("refcoco+:testA", "data/refer")`.

    Args:
        spec: a name as `biaskit tasks list` prints it, then words after colons: `pope:adversarial`, `refcocog:val:split_by=umd`.
        data: file or directory of the questions; the scenes of the embedded model need none.
        images: directory of the images, if it is not beside the questions.
        n: number of questions of a generated task (for other tasks use `task.sample`).

    Raises:
        BiaskitError: an unknown name (the hint offers similar ones).
        TaskError: an unknown argument, or data that is missing or broken.

    Example:
        >>> task = open_task("scenes-where", n=2)
        >>> len(task), task.metric
        (2, 'iou50')
    """
    key, *words = spec.split(":")
    cls = tasks.get(key)
    flags = tuple(word for word in words if "=" not in word)
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    if any(not word.strip() for word in words):
        raise TaskError(f"task {spec!r} has an empty argument", f"write {key}, or {key} with {cls.arguments or 'nothing'} after a colon")
    places = [Path(place).expanduser() if place is not None else None for place in (data, images)]
    return cls.open(Opening(key, flags, settings, places[0], places[1], n))


def task_class(name: str) -> type[Task]:
    """Return the class of a task by its `name` or spec, which is enough to summarise the scores of a results file.

    Raises:
        BiaskitError: an unknown name.

    Example:
        >>> task_class("pope:adversarial").__name__
        'POPE'
    """
    return tasks.get(name.split(":")[0])
