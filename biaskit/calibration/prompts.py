"""The prompts of a calibration: a text, a file of texts, or the questions of a task.

A prior is valid for the prompts it was calibrated with: the last prompt token's attention depends on the question.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from biaskit.errors import BiaskitError
from biaskit.files import existing
from biaskit.registry import did_you_mean
from biaskit.tasks.conventions import PROMPT as PROMPT
from biaskit.tasks.conventions import Wording
from biaskit.tasks.wording import ask_presence


class Prompts(tuple[str, ...]):
    """Prompts that were read already, so that `read_prompts` does not take them for names of files or tasks again."""

    __slots__ = ()


_THINGS = (
    "person", "bicycle", "car", "motorcycle", "bus", "train", "truck", "boat", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "suitcase", "skis", "kite", "surfboard", "tennis racket",
    "bottle", "wine glass", "cup", "fork", "knife", "bowl", "banana", "apple", "sandwich", "orange", "pizza", "donut", "cake", "chair",
    "couch", "potted plant", "bed", "dining table", "tv", "laptop", "keyboard", "cell phone", "microwave", "oven", "sink", "book", "clock",
    "vase", "teddy bear",
)  # fmt: skip
"""Categories of COCO."""
_WHERE = ("on the left", "on the right", "in the middle", "in front", "in the back")


def _refcoco(wording: Wording) -> list[str]:
    return [wording.ask_region(f"the {thing} {_WHERE[i % len(_WHERE)]}") for i, thing in enumerate(_THINGS)]


def _pope(wording: Wording) -> list[str]:
    return [wording.ask_yes_no(ask_presence(thing)) for thing in _THINGS]


def _scenes(task: str) -> Callable[[Wording], list[str]]:
    def questions(wording: Wording) -> list[str]:
        from biaskit.images.scenes.draw import draw_scene
        from biaskit.images.scenes.held_out import question_about

        return [question_about(draw_scene(0, i, "photo").things, task, 0, i).text for i in range(100)]

    return questions


TASKS: dict[str, Callable[[Wording], list[str]]] = {
    "refcoco": _refcoco,
    "pope": _pope,
    "scenes-where": _scenes("where"),
    "scenes-presence": _scenes("presence"),
    "scenes-attribute": _scenes("attribute"),
}
"""Task → its questions in a wording, the same as in validation. Those of `refcoco` and `pope` name COCO's categories, whether or not these
are in the image."""


def read_prompts(words: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], wording: Wording | None = None) -> tuple[str, ...]:
    """Read prompts from texts, task names and files; an empty list gives the neutral prompt.

    Args:
        words: one or several; each a text, `task:NAME`, or an existing file with one prompt a line (empty lines are left out).
        wording: the question templates of the model (`biaskit.families.checkpoints.catalog.wording_of`); by default those of most families.

    Raises:
        BiaskitError: an unknown task, an empty text, something that is not a text, or a file that has no prompt or cannot be read.

    >>> read_prompts("What is it?"), read_prompts(["What?", "Where?"]), len(read_prompts("task:pope"))
    (('What is it?',), ('What?', 'Where?'), 56)
    """
    if isinstance(words, Prompts):
        return words
    if not isinstance(words, str | os.PathLike | Iterable):
        raise BiaskitError(f"prompts are {words!r}, not texts", "write a text or several, file names, or task:NAME")
    found: list[str] = []
    for word in [words] if isinstance(words, str | os.PathLike) else words:
        if isinstance(word, os.PathLike):
            found.extend(_lines(Path(word)))
        elif not isinstance(word, str):
            raise BiaskitError(f"a prompt is {word!r}, not a text", "write a text, a file name, or task:NAME")
        elif word.startswith("task:"):
            task = word.removeprefix("task:")
            if task not in TASKS:
                raise BiaskitError(f"unknown task {task!r}", did_you_mean(task, TASKS))
            found.extend(TASKS[task](wording or Wording()))
        elif (path := existing(word)) and path.is_file():
            found.extend(_lines(path))
        elif word.strip():
            found.append(word)
        else:
            raise BiaskitError("a prompt is empty", "write a text, a file name, or task:NAME")
    return Prompts(found or (PROMPT,))


def wording_warning(meta: Mapping[str, str], wording: Wording) -> str:
    """Return a warning about a prior that was calibrated with a task's questions in other words than are asked now; "" if there is none.

    A prior of other prompts, such as the neutral one, has no wording to differ from.

    Args:
        meta: the prior's. wording: how questions are asked now.

    Example:
        >>> import json
        >>> meta = {"prompt": json.dumps(read_prompts("task:pope")), "wording": json.dumps(Wording().templates())}
        >>> wording_warning(meta, Wording()), wording_warning(meta, Wording(yes_no="{} Yes or no?"))[:57]
        ('', 'this prior was calibrated with the questions of task:pope')
    """
    try:
        prompts, templates = json.loads(meta.get("prompt", "[]")), json.loads(meta.get("wording", "{}"))
        own = Wording(**templates)
    except (ValueError, TypeError, RecursionError, BiaskitError):
        return ""
    for task, questions in (("refcoco", _refcoco), ("pope", _pope)):
        then, now = questions(own), questions(wording)
        if then != now and isinstance(prompts, list) and set(then) <= set(map(str, prompts)):
            return f"this prior was calibrated with the questions of task:{task}, asked as {then[0]!r}, and is used with {now[0]!r}"
    return ""


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BiaskitError(f"cannot read the prompts in {path}: {error}", "give a text file with one prompt a line") from error
    if not lines:
        raise BiaskitError(f"{path} has no prompt", "write one prompt a line")
    return lines
