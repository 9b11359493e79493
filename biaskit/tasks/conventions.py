"""How a model is asked and how it writes boxes: plain values that families give and tasks read; neither needs to know the other."""

from __future__ import annotations

from dataclasses import dataclass, fields

PROMPT = "Please describe the provided image."
"""D2Pruner's neutral prompt."""

UNITS = ("part", "square", "thousand", "pixels", "words")
"""What the numbers of a box count, all linear, x to the right and y down, corners x1 y1 x2 y2:

- `part`: 0–1 fractions of what the model saw: where it saw a crop, of the crop; where the picture was padded to a square, of the square.
- `square`: 0–1 fractions of the image padded to a square, whatever the model saw.
- `thousand`: 0–1000 of the image.
- `pixels`: pixels of the image as resized for the vision tower.
- `words`: 48 location words a side.
"""


@dataclass(frozen=True)
class Wording:
    r"""The published wording of questions; what goes into the model is the checkpoint's chat template around these words, after the image.

    The defaults are LLaVA-1.5's. Each template holds one `{}`, where the phrase or question goes.

    Attributes:
        region: asks for the box of what a phrase describes (RefCOCO).
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
        """Ask for the box of what a phrase describes.

        Example:
            >>> Wording(region="where is the {} ?").ask_region("red circle")
            'where is the red circle ?'
        """
        return self.region.replace("{}", phrase, 1)

    def ask_short(self, question: str) -> str:
        """Ask for a single word or phrase."""
        return self.short.replace("{}", question, 1)

    def ask_yes_no(self, question: str) -> str:
        """Ask for yes or no."""
        return self.yes_no.replace("{}", question, 1)

    def templates(self) -> dict[str, str]:
        """Return the templates by name, without their sources: what identifies a run.

        Example:
            >>> list(Wording().templates())
            ['region', 'short', 'yes_no']
        """
        return {field.name: getattr(self, field.name) for field in fields(self) if not field.name.endswith("_source")}


@dataclass(frozen=True)
class BoxConvention:
    """How a model writes boxes.

    Attributes:
        units: what the numbers count, one of `UNITS`.
        written: the form of whole numbers in its answers: the four corners as {0} … {3}, what the box shows as {label}.

    Example:
        >>> BoxConvention("thousand", "<box>[[{0}, {1}, {2}, {3}]]</box>").written.format(1, 2, 3, 4)
        '<box>[[1, 2, 3, 4]]</box>'
    """

    units: str = "part"
    written: str = '```json\n[\n\t{{"bbox_2d": [{0}, {1}, {2}, {3}], "label": "{label}"}}\n]\n```'
