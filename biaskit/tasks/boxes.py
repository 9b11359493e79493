"""Boxes in answers: finding the four numbers in free text, and taking them from a model's units (`biaskit.tasks.conventions`) to pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from biaskit.errors import TaskError
from biaskit.images.scenes.vocabulary import BINS, LOCATIONS
from biaskit.registry import did_you_mean
from biaskit.tasks.base import Seen
from biaskit.tasks.conventions import UNITS

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of the original image, x1 ≤ x2, y1 ≤ y2."""


def check_units(name: str) -> str:
    """Return the name of a box's units unchanged.

    Raises:
        TaskError: an unknown name.

    >>> check_units("thousand")
    'thousand'
    """
    if name not in UNITS:
        raise TaskError(f"unknown coordinates {name!r}", did_you_mean(name, UNITS))
    return name


def read_box(text: str, seen: Seen, units: str | None = None) -> Box | None:
    """Return the first box of an answer that the units allow, None if there is none.

    Surrounding prose, missing or mixed brackets, named corners, exchanged corners and percentages are understood. In any units, four
    decimals of at most 1 are fractions of the part that the model saw, because they cannot be pixels. Fractions above 1 are refused: they
    could be percent, thousandths or pixels. Boxes are not clipped to the image, as in the published scorers.

    Args:
        text: the model's answer. seen: how it saw the image. units: one of `UNITS`; by default the model's.

    >>> read_box("It is at [0.25, 0.50, 0.75, 1.00].", Seen((400, 600), (336, 336)))
    (150.0, 200.0, 450.0, 400.0)
    """
    units = units or seen.boxes.units
    for words in _candidates(text):
        if words[0].startswith("<loc"):
            values = [(int(word[4:-1]) + 0.5) / BINS for word in words]
            scale = _scale("part", seen) if max(values) < 1 else None
        else:
            values, scale = _read_numbers(words, units, seen)
        if scale is not None:
            return _corners(values, scale)
    return None


def write_box(box: Box, seen: Seen, units: str | None = None, label: str = "object") -> str:
    """Return the text of a box in the model's convention; `read_box` is its inverse up to rounding.

    Args:
        box: in pixels of the original image. seen: how the model saw it. units: by default the model's. label: for JSON answers.

    >>> write_box((150, 200, 450, 400), Seen((400, 600), (336, 336)))
    '[0.250, 0.500, 0.750, 1.000]'
    """
    units = units or seen.boxes.units
    left, top, wide, high = _scale(units, seen)
    values = [(box[0] - left) / wide, (box[1] - top) / high, (box[2] - left) / wide, (box[3] - top) / high]
    if units == "words":
        return " ".join(LOCATIONS[min(BINS - 1, max(0, math.floor(value)))] for value in values)
    if units in ("part", "square"):
        return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
    whole = [round(value) for value in values]
    return seen.boxes.written.format(*whole, label=label)


def _scale(units: str, seen: Seen) -> tuple[float, float, float, float]:
    """Return (left, top, width, height): an answer's x is the pixel left + x · width, its y is top + y · height."""
    rows, cols = seen.size
    if units == "square":
        side = float(max(rows, cols))
        return (cols - side) / 2, (rows - side) / 2, side, side
    top, left, bottom, right = seen.part
    wide, high = (right - left) * cols, (bottom - top) * rows
    steps = {"thousand": (1000.0, 1000.0), "words": (float(BINS), float(BINS)), "pixels": (float(seen.input[1]), float(seen.input[0]))}
    across, down = steps.get(units, (1.0, 1.0))
    return left * cols, top * rows, wide / across, high / down


def _corners(values: list[float], scale: tuple[float, float, float, float]) -> Box:
    left, top, wide, high = scale
    xs, ys = sorted((left + values[0] * wide, left + values[2] * wide)), sorted((top + values[1] * high, top + values[3] * high))
    return xs[0], ys[0], xs[1], ys[1]


_SLACK = 1.05  # a box may end slightly outside the part that the model saw


def _read_numbers(words: list[str], units: str, seen: Seen) -> tuple[list[float], tuple[float, float, float, float] | None]:
    """Return the values of four numbers and how to scale them; the scale is None if the units do not allow such values."""
    values = [float(word.rstrip("%")) for word in words]
    if all(word.endswith("%") for word in words):
        values = [value / 100 for value in values]
        return values, _scale("square" if units == "square" else "part", seen) if max(values) <= _SLACK else None
    fractions = max(map(abs, values)) <= 1 and any("." in word for word in words)
    if units in ("part", "square"):
        return values, _scale(units, seen) if max(map(abs, values)) <= _SLACK else None
    if units == "words":  # the embedded model never writes numbers
        return values, None
    return values, _scale("part" if fractions else units, seen)


_NUMBER = r"[-+]?(?:\d{1,7}(?:\.\d{0,20})?|\.\d{1,20})\s?%?"
_NAMES = (r"x(?:_?(?:min|max|[012]))?|left|right", r"y(?:_?(?:min|max|[012]))?|top|bottom")
_BREAK = r"(?:\s*[,;|]\s*|\s+(?:and|to|,)?\s*|\s*[\])}>]+\s*(?:[,;|]|and|to|-)?\s*[\[({<]+\s*)"
# corners may be named, in the order x, y, x, y
_FOUR = _BREAK.join(rf"""(?:["']?(?:{_NAMES[i % 2]})["']?\s*[:=]\s*)?({_NUMBER})""" for i in range(4))
# a box in brackets is preferred; otherwise any four consecutive numbers without a digit before or after
_BRACKETED = re.compile(rf"[\[({{<]\s*{_FOUR}\s*[\])}}>]", re.IGNORECASE)
_BARE = re.compile(rf"(?<![\w.%-]){_FOUR}(?![\w]|\.\d)", re.IGNORECASE)
_WORDS = re.compile(r"\s*".join([r"(<loc\d\d>)"] * 4))


def _candidates(text: str) -> Iterator[list[str]]:
    """Yield groups of four that may be a box: location words, numbers in brackets, other numbers; each kind from left to right."""
    for pattern in (_WORDS, _BRACKETED, _BARE):
        for found in pattern.finditer(text):
            yield [word.replace(" ", "") for word in found.groups()]
