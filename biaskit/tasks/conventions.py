"""Question templates and box conventions of models: plain values that families define and tasks read."""

from __future__ import annotations

from dataclasses import dataclass, fields

PROMPT = "Please describe the provided image."
"""D2Pruner's neutral prompt."""

UNITS = ("part", "square", "thousand", "pixels", "words")
"""Units of a box's numbers, all linear, x to the right and y down, corners x1 y1 x2 y2:

- `part`: 0–1 fractions of the part that the model saw: of the crop, or of the square that the picture was padded to.
- `square`: 0–1 fractions of the image padded to a square, regardless of the model's own padding.
- `thousand`: 0–1000 of the image.
- `pixels`: pixels of the image as resized for the vision tower.
- `words`: 48 location words per side.
"""


@dataclass(frozen=True)
class Wording:
    r"""The published wording of questions, which the checkpoint's chat template wraps, after the image.

    The defaults are LLaVA-1.5's. Each template has one `{}` for the phrase or question.

    Attributes:
        region: asks for the box of the object that a phrase describes (RefCOCO).
        short: asks for a single word or phrase (GQA, VQAv2, TextVQA).
        yes_no: asks for yes or no (POPE).
        region_source, short_source, yes_no_source: where each was published.

    Example:
        >>> Wording().ask_short("What is it?")
        'What is it?\nAnswer the question using a single word or phrase.'
    """

    region: str = "Please provide the bounding box coordinate of the region this sentence describes: {}"
    short: str = "{}\nAnswer the question using a single word or phrase."
    yes_no: str = "{}\nAnswer the question using a single word or phrase."
    region_source: str = "training data of arXiv 2310.03744; its evaluation by others: om-ai-lab/VLM-R1, lmms-eval's bbox_rec"
    short_source: str = "format prompt for short answers of arXiv 2310.03744"
    yes_no_source: str = "questions of POPE as arXiv 2310.03744 put them, its pope_test.jsonl"

    def ask_region(self, phrase: str) -> str:
        """Return the question for the box of the object that a phrase describes.

        Example:
            >>> Wording(region="where is the {} ?").ask_region("red circle")
            'where is the red circle ?'
        """
        return self.region.replace("{}", phrase, 1)

    def ask_short(self, question: str) -> str:
        """Return the question with the request for a single word or phrase."""
        return self.short.replace("{}", question, 1)

    def ask_yes_no(self, question: str) -> str:
        """Return the question with the request for yes or no."""
        return self.yes_no.replace("{}", question, 1)

    def templates(self) -> dict[str, str]:
        """Return the templates by name, without their sources, to identify a run.

        Example:
            >>> list(Wording().templates())
            ['region', 'short', 'yes_no']
        """
        return {field.name: getattr(self, field.name) for field in fields(self) if not field.name.endswith("_source")}


@dataclass(frozen=True)
class BoxConvention:
    """How a model writes boxes.

    Attributes:
        units: one of `UNITS`.
        written: format of an answer with whole numbers: the corners are {0} … {3}, the object's name is {label}.

    Example:
        >>> BoxConvention("thousand", "<box>[[{0}, {1}, {2}, {3}]]</box>").written.format(1, 2, 3, 4)
        '<box>[[1, 2, 3, 4]]</box>'
    """

    units: str = "part"
    written: str = '```json\n[\n\t{{"bbox_2d": [{0}, {1}, {2}, {3}], "label": "{label}"}}\n]\n```'
