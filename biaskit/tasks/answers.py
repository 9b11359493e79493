"""Scores of short answers: exact match, VQA accuracy, ANLS, relaxed accuracy. Each takes an answer and the annotators' answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from biaskit.tasks.contractions import CONTRACTIONS

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COUNT = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(k) for k, word in enumerate(_COUNT)}}
_ARTICLES = frozenset({"a", "an", "the"})
_DIGITS_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def normalise(text: str) -> str:
    """Return an answer as the official VQA evaluation compares it.

    Line breaks become spaces. A punctuation mark is removed if it is next to a space anywhere in the answer, or if the answer has a comma
    between digits; otherwise it becomes a space. Periods are removed unless a digit follows. Then, word by word in lower case: number words
    up to ten become digits ("none" becomes 0), articles are removed, and missing apostrophes of contractions are restored.

    >>> normalise("The  two dogs, isnt it?")
    "2 dogs isn't it"
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    kept = text
    grouped = _DIGITS_COMMA.search(text) is not None
    for mark in _PUNCTUATION:
        at_blank = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if at_blank or grouped else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", kept).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def exact(answer: str, truths: Sequence[str]) -> float:
    """Return 1 if the normalised answer is one of the normalised truths.

    >>> exact("A dog.", ["dog", "puppy"])
    1.0
    """
    return float(normalise(answer) in {normalise(truth) for truth in truths})


def vqa_accuracy(answer: str, truths: Sequence[str]) -> float:
    """Return the official VQA accuracy (Antol et al. 2015): min(1, agreeing annotators / 3), averaged over leaving out each annotator.

    Both sides are always normalised, as in TextVQA's evaluation; the official one does not normalise unanimous annotators' answers. With
    fewer than four annotators no answer could reach 1, so that agreement with any of them counts as 1.

    >>> round(vqa_accuracy("dog", ["dog"] * 2 + ["puppy"] * 8), 3)
    0.6
    """
    said, true = normalise(answer), [normalise(truth) for truth in truths]
    agreeing = sum(one == said for one in true)
    if len(true) < 4:
        return float(agreeing > 0)
    return sum(min(1.0, (agreeing - (one == said)) / 3) for one in true) / len(true)


def edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance: the fewest insertions, deletions and substitutions of a character.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def anls(answer: str, truths: Sequence[str], threshold: float = 0.5) -> float:
    """Return the normalised Levenshtein similarity to the nearest truth, 0 if the distance is `threshold` of the length or more.

    Biten et al. 2019 (ST-VQA), as for DocVQA and InfoVQA: case, repeated spaces, and spaces at the ends are ignored.

    >>> anls("Coca Cola Co", ["coca cola"]), anls("water", ["coca cola"])
    (0.75, 0.0)
    """
    said = " ".join(answer.lower().split())
    best = 0.0
    for truth in truths:
        true = " ".join(truth.lower().split())
        longest = max(len(said), len(true))
        if abs(len(said) - len(true)) >= threshold * longest > 0:
            continue  # the lengths alone differ too much: do not spend time on very long answers
        distance = edit_distance(said, true) / longest if longest else 0.0
        best = max(best, 1 - distance if distance < threshold else 0.0)
    return best


def relaxed(answer: str, truths: Sequence[str], tolerance: float = 0.05) -> float:
    """Return ChartQA's relaxed accuracy (Masry et al. 2022): numbers within 5 % of the truth, other answers equal except for case.

    Percentages are divided by 100 on both sides; a truth of 0 must be matched exactly, as text.

    >>> relaxed("41", ["40"]), relaxed("43", ["40"]), relaxed("50%", ["0.5"])
    (1.0, 0.0, 1.0)
    """
    return float(any(_relaxed(answer.strip(), truth.strip(), tolerance) for truth in truths))


def _relaxed(said: str, true: str, tolerance: float) -> bool:
    a, b = _number(said), _number(true)
    if a is not None and b:
        return abs(a - b) <= tolerance * abs(b) * (1 + 1e-12)  # exactly 5 % counts
    return said.lower().rstrip(".") == true.lower().rstrip(".")


_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,2})?")


def _number(text: str) -> float | None:
    """Return a text as a number, None if it is not one; commas may separate thousands, a final period is ignored."""
    text = text.rstrip(".").rstrip()
    percent = text.endswith("%")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.rstrip("%").strip().lstrip("$"))
    if not _NUMBER.fullmatch(text):
        return None
    return float(text) / (100 if percent else 1)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"exact": exact, "vqa": vqa_accuracy, "anls": anls, "relaxed": relaxed}
"""Name → score in [0, 1] of an answer given the annotators' answers."""
