"""The base class of tasks: questions, prompts, images, right answers, scores of answers, and summaries of scores."""

from __future__ import annotations

import hashlib
import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex, overload

import numpy as np

from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from PIL.Image import Image

Part = tuple[float, float, float, float]
"""(top, left, bottom, right), fractions of the image's rows and cols."""

WHOLE: Part = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Seen:
    """How a model saw an image, which its answer's coordinates refer to.

    Attributes:
        size: (rows, cols) of the original image in pixels.
        input: (rows, cols) in pixels of the resized image that the vision tower received (Qwen: grid × patch; LLaVA-1.5: its square).
        part: the part of the image that the model saw; LLaVA-1.5's centre crop is inside the image, padding goes below 0 or above 1.
        boxes: how its answers write boxes.

    Example:
        >>> Seen((480, 640), (336, 336), (0.0, 0.125, 1.0, 0.875)).boxes.units
        'part'
    """

    size: tuple[int, int]
    input: tuple[int, int]
    part: Part = WHOLE
    boxes: BoxConvention = field(default_factory=BoxConvention)


@dataclass(frozen=True)
class Opening:
    """The arguments of opening a task.

    Attributes:
        key: the registered name ("refcoco+").
        flags: words after it ("testA" of `refcoco+:testA`). settings: its `name=value` words.
        data: file or directory of the questions; None if not given.
        images: directory of the images, if it is not beside the questions.
        n: number of questions of a generated task; None for its default.

    Example:
        >>> Opening("refcoco+", ("testA",)).flags
        ('testA',)
    """

    key: str
    flags: tuple[str, ...] = ()
    settings: Mapping[str, str] | None = None
    data: Path | None = None
    images: Path | None = None
    n: int | None = None


class Task(ABC):
    """A sized, indexable collection of questions about images. `task[10:20]` is a view, `task.sample(n, seed)` a seeded one.

    Indices given to the methods are 0 ≤ i < len.

    Attributes:
        name: registered name and arguments, such as "refcoco:val": the same words open it again.
        metric: the primary score, a key in the results of `score` and `summarise`; in [0, 1], higher is better.
        max_new_tokens: enough for a complete answer.
        title: display name. needs: the data that it reads. dataset: the name under which that data is published. arguments: what may
            follow the name, and the defaults.
    """

    name: str
    metric: str
    max_new_tokens: int
    title: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    dataset: ClassVar[str] = ""
    arguments: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def open(cls, opening: Opening) -> Task:
        """Open the task.

        Raises:
            TaskError: the data is missing or broken, or an argument is unknown.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of questions."""

    @abstractmethod
    def identify(self, i: int) -> str:
        """Return the stable, unique id of a question."""

    @abstractmethod
    def image(self, i: int) -> Image:
        """Return the image, RGB and upright.

        Raises:
            TaskError: it is missing or broken.
        """

    @abstractmethod
    def image_name(self, i: int) -> str:
        """Return the image's name: relative, the same on every machine, equal for questions about the same image."""

    @abstractmethod
    def prompt(self, i: int, wording: Wording) -> str:
        """Return the question in the given wording, as it is put to the model."""

    @abstractmethod
    def truth(self, i: int) -> Any:
        """Return the right answer, as JSON values."""

    @abstractmethod
    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Return the scores of an answer: `metric`, `parsed` (1 if it could be read, else 0), and more; never NaN. The keys are fixed."""

    def tags(self, i: int) -> dict[str, str]:
        """Return the question's tags for break-downs: kind → value. Default: {}."""
        return {}

    def region(self, i: int) -> Part | None:
        """Return the part of the image that the question is about; None (the default) if that is not one box."""
        return None

    @classmethod
    def summarise(cls, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the summary of many answers' scores, including `n`. It does not need the task's data.

        Args:
            records: lines of a results file, each with `scores`, the result of `score`. An empty sequence gives {"n": 0}.

        Returns:
            The mean of every score; tasks add measures that are not means (F1, yes share).
        """
        if not records:
            return {"n": 0.0}
        keys = records[0]["scores"]
        return {"n": float(len(records)), **{key: float(np.mean([record["scores"][key] for record in records])) for key in keys}}

    def sample(self, n: int | None, seed: int = 0) -> Task:
        """Return a view of n random questions: the first n of a seeded order of all, so that a larger sample contains a smaller one.

        None, or n ≥ the number of questions, gives all of them in their own order.
        """
        if n is None or n >= len(self):
            return self
        order = np.random.default_rng(seed).permutation(len(self))[: max(0, n)]
        return TaskView(self, [int(index) for index in order])

    def fingerprint(self) -> str:
        """Return the sha256 (hex) over ids, image names and truths, in order: equal for the same questions on another machine."""
        listing = [[self.identify(i), self.image_name(i), self.truth(i)] for i in range(len(self))]
        return hashlib.sha256(json.dumps(listing, sort_keys=True).encode("ascii")).hexdigest()

    @overload
    def __getitem__(self, index: slice) -> Task: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Task | str:
        """Return a view of the questions of a slice, or the id of the question at a whole number."""
        if isinstance(index, slice):
            return TaskView(self, range(len(self))[index])
        return self.identify(range(len(self))[operator.index(index)])


class TaskView(Task):
    """Some questions of another task, in a given order; nothing is copied.

    Example:
        >>> from biaskit.tasks import open_task
        >>> len(TaskView(open_task("scenes-where", n=5), [0, 3]))
        2
    """

    def __init__(self, task: Task, indices: Sequence[int]) -> None:
        self.task, self.indices = task, indices
        self.name, self.metric, self.max_new_tokens = task.name, task.metric, task.max_new_tokens
        self.summarise = task.summarise  # type: ignore[method-assign]  # a view's scores are summarised as its task's are

    @classmethod
    def open(cls, opening: Opening) -> Task:
        """Views are made by slicing, not opened."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of questions in view."""
        return len(self.indices)

    def identify(self, i: int) -> str:
        """Return the id the task gives to this question."""
        return self.task.identify(self.indices[i])

    def image(self, i: int) -> Image:
        """Return the task's image."""
        return self.task.image(self.indices[i])

    def image_name(self, i: int) -> str:
        """Return the task's name of the image."""
        return self.task.image_name(self.indices[i])

    def prompt(self, i: int, wording: Wording) -> str:
        """Return the task's prompt."""
        return self.task.prompt(self.indices[i], wording)

    def truth(self, i: int) -> Any:
        """Return the task's right answer."""
        return self.task.truth(self.indices[i])

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Score as the task does."""
        return self.task.score(self.indices[i], answer, seen)

    def tags(self, i: int) -> dict[str, str]:
        """Return the task's tags."""
        return self.task.tags(self.indices[i])

    def region(self, i: int) -> Part | None:
        """Return the task's region."""
        return self.task.region(self.indices[i])


def breakdown(task: type[Task] | Task, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return kind of tag → value → summary of the records that carry it, kinds and values sorted.

    Args:
        task: the task that was scored.
        records: lines of a results file, with `scores` and `tags`.

    Example:
        >>> from biaskit.tasks import task_class
        >>> record = {"scores": {"iou50": 1.0, "iou": 0.8}, "tags": {"size": "small"}, "answer": ""}
        >>> found = breakdown(task_class("scenes-where"), [record])
        >>> sorted(found), found["size"]["small"]["n"]
        (['size'], 1.0)
    """
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        for kind, value in record.get("tags", {}).items():
            groups.setdefault(kind, {}).setdefault(value, []).append(record)
    return {kind: {value: task.summarise(group) for value, group in sorted(values.items())} for kind, values in sorted(groups.items())}
