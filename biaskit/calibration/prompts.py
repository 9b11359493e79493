"""The prompts of a calibration: a text, a file of texts, or the questions of a task.

A prior holds for the prompts it was calibrated with: the last prompt token looks elsewhere when it is asked something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from biaskit.conventions import Wording
from biaskit.errors import BiaskitError
from biaskit.registry import did_you_mean
from biaskit.tasks.wording import ask_presence

PROMPT = "Please describe the provided image."
"""D2Pruner's neutral prompt."""

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
    return [wording.ask_short(ask_presence(thing)) for thing in _THINGS]


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
"""Task → its questions as a wording asks them: the very words of validation. Those of `refcoco` and `pope` name COCO's categories, not
what is in the image."""


def read_prompts(words: Sequence[str], wording: Wording | None = None) -> tuple[str, ...]:
    """Read what a user gave as prompts; none means the neutral prompt.

    Args:
        words: each a text, `task:NAME`, or an existing file with one prompt a line (empty lines are left out).
        wording: how the model is asked (`biaskit.families.checkpoints.catalog.wording_of`); by default as most families are.

    Raises:
        BiaskitError: an unknown task, an empty text, or a file that has no prompt or cannot be read.
    """
    found: list[str] = []
    for word in words:
        if word.startswith("task:"):
            task = word.removeprefix("task:")
            if task not in TASKS:
                raise BiaskitError(f"unknown task {task!r}", did_you_mean(task, TASKS))
            found.extend(TASKS[task](wording or Wording()))
        elif "\n" not in word and len(word) < 1000 and Path(word).is_file():
            found.extend(_lines(Path(word)))
        elif word.strip():
            found.append(word)
        else:
            raise BiaskitError("a prompt is empty", "write a text, a file name, or task:NAME")
    return tuple(found) or (PROMPT,)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BiaskitError(f"cannot read the prompts in {path}: {error}", "give a text file with one prompt a line") from error
    if not lines:
        raise BiaskitError(f"{path} has no prompt", "write one prompt a line")
    return lines
