"""The embedded models' questions about drawn scenes: where an object is, whether it is there, its colour or shape. No data is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from biaskit.errors import TaskError
from biaskit.images.scenes.draw import COLOUR_NAMES, EDGE, PLACEMENTS, SHAPES, SIZES, draw_scene, things_of
from biaskit.images.scenes.held_out import NEW_TOKENS, SEED, question_about
from biaskit.images.scenes.questions import Question
from biaskit.registry import did_you_mean
from biaskit.tasks import tasks
from biaskit.tasks.base import Opening, Part, Seen, Task
from biaskit.tasks.box_scores import place_tags, score_box
from biaskit.tasks.boxes import Box
from biaskit.tasks.conventions import Wording
from biaskit.tasks.yes_no import score_yes, summarise_yes

if TYPE_CHECKING:
    from PIL.Image import Image

_PLACES = tuple(place for place in PLACEMENTS if place != "empty")


class Scenes(Task):
    """One question about each held-out scene (`images.scenes.held_out.question_about`), in the embedded model's words, for every model.

    Args:
        placement: "uniform" or "photo". n: how many scenes. seed: of the scenes; seeds below 1,000 are trained on.
    """

    kind: ClassVar[str]
    needs = "nothing: the scenes are drawn"
    dataset = "in the package"
    arguments = "uniform (default) or photo; seed=9000"

    def __init__(self, placement: str = "uniform", n: int = 1000, seed: int = SEED) -> None:
        self.placement, self.n, self.seed = placement, n, seed
        given = [*([placement] if placement != _PLACES[0] else []), *([f"seed={seed}"] if seed != SEED else [])]
        self.name = ":".join([f"scenes-{self.kind}", *given])
        self.max_new_tokens = NEW_TOKENS[self.kind]
        self._questions: dict[int, Question] = {}

    @classmethod
    def open(cls, opening: Opening) -> Task:
        """Make the task.

        Raises:
            TaskError: data was given, or an argument is unknown.
        """
        settings = dict(opening.settings or {})
        placement = opening.flags[0] if opening.flags else _PLACES[0]
        if placement not in _PLACES or len(opening.flags) > 1:
            raise TaskError(f"{opening.key} has no placement {':'.join(opening.flags)!r}", did_you_mean(placement, _PLACES))
        seed = settings.pop("seed", str(SEED))
        if settings or not seed.isdecimal() or int(seed) < 1000:
            given = ", ".join(f"{name}={value}" for name, value in {**settings, "seed": seed}.items())
            raise TaskError(f"{opening.key} cannot take {given}", f"its arguments are {cls.arguments}; seeds below 1000 were trained on")
        if opening.data is not None or opening.images is not None:
            raise TaskError(
                f"{opening.key} takes no data",
                "its scenes are drawn: leave --data and --images out, or say which task they are for (--data refcoco=DIR)",
            )
        if opening.n is not None and opening.n < 1:
            raise TaskError(f"{opening.key} cannot have {opening.n} questions", "ask for at least 1")
        return cls(placement, 1000 if opening.n is None else opening.n, int(seed))

    def __len__(self) -> int:
        """Return the number of questions."""
        return self.n

    def question(self, i: int) -> Question:
        """Return the question about scene i."""
        if i not in self._questions:
            things = things_of(self.seed, range(self.n)[i], self.placement)
            self._questions[i] = question_about(things, self.kind, self.seed, i)
        return self._questions[i]

    def identify(self, i: int) -> str:
        """Return the task's name and the number of the scene."""
        return f"{self.name}/{range(self.n)[i]}"

    def image(self, i: int) -> Image:
        """Draw the scene."""
        from PIL import Image

        return Image.fromarray(draw_scene(self.seed, range(self.n)[i], self.placement).pixels)

    def image_name(self, i: int) -> str:
        """Return the scene's name, that of `images.open_source("scenes")`."""
        return f"scene-{self.placement}-{self.seed}-{range(self.n)[i]:06d}"

    def prompt(self, i: int, wording: Wording) -> str:
        """Return the question as worded in the embedded model's training."""
        return self.question(i).text

    def truth(self, i: int) -> Any:
        """Return the true answer."""
        return self.question(i).answer

    def tags(self, i: int) -> dict[str, str]:
        """Return `size`, `row` and `ring` of the object in question, if it is a single one, and the number of objects."""
        things = things_of(self.seed, range(self.n)[i], self.placement)
        target = self.question(i).target
        crowd = {"things": "4-6" if len(things) <= 6 else "7-10"}
        if target < 0:
            return crowd
        return {"size": SIZES[things[target].size], **place_tags(things[target].box, (EDGE, EDGE)), **crowd}

    def region(self, i: int) -> Part | None:
        """Return the box of the object in question, None if it is not a single one."""
        target = self.question(i).target
        if target < 0:
            return None
        x1, y1, x2, y2 = things_of(self.seed, range(self.n)[i], self.placement)[target].box
        return y1 / EDGE, x1 / EDGE, y2 / EDGE, x2 / EDGE


@tasks.register("scenes-where")
class ScenesWhere(Scenes):
    """Where is the small red circle? Answered by four location words."""

    title, kind, metric = "Scenes: grounding", "where", "iou50"

    def truth(self, i: int) -> list[float]:
        """Return the true box: x1 y1 x2 y2 in pixels."""
        return [float(value) for value in self._box(i)]

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Score one box: see `score_box`."""
        return score_box(answer, self._box(i), seen)

    def _box(self, i: int) -> Box:
        box = self.question(i).box
        if box is None:
            raise ValueError(f"{self.identify(i)} asks for no box")
        return box


@tasks.register("scenes-presence")
class ScenesPresence(Scenes):
    """Is there a small red circle? Questions with the answer "no" recombine attributes in the scene."""

    title, kind, metric = "Scenes: presence", "presence", "correct"

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Score one answer: see `score_yes`."""
        return score_yes(answer, self.question(i).answer == "yes")

    def tags(self, i: int) -> dict[str, str]:
        """Return the thing's tags, and whether the truth is yes."""
        return {**super().tags(i), "truth": self.question(i).answer}

    @classmethod
    def summarise(cls, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return accuracy (`correct`), F1, precision, recall and yes share."""
        return summarise_yes(records)


@tasks.register("scenes-attribute")
class ScenesAttribute(Scenes):
    """What colour is the small circle, or what shape is the red one? The phrase fits a single object."""

    title, kind, metric = "Scenes: attributes", "attribute", "correct"

    def score(self, i: int, answer: str, seen: Seen) -> dict[str, float]:
        """Return `correct` (the first word is the true one) and `parsed` (it is a colour or a shape)."""
        said = answer.split()[:1]
        known = bool(said) and said[0] in (*COLOUR_NAMES, *SHAPES)
        return {"correct": float(said == self.question(i).answer.split()[:1]), "parsed": float(known)}

    def tags(self, i: int) -> dict[str, str]:
        """Return the object's tags, and whether the colour or the shape was asked for."""
        return {**super().tags(i), "asked": "colour" if " colour " in self.question(i).text else "shape"}
