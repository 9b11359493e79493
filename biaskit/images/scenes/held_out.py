"""The held-out questions: the question about scene i, and the score of an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from biaskit.grid import overlap
from biaskit.images.scenes.draw import Thing
from biaskit.images.scenes.questions import Question, attribute, describe, presence, where
from biaskit.images.scenes.vocabulary import read_box

SEED = 9000
"""Scenes of this seed are never trained on (training takes seeds below 1,000)."""
TASKS = ("where", "presence", "attribute")
NEW_TOKENS = {"where": 5, "presence": 2, "attribute": 2, "describe": 8}
"""Tokens of the longest answer, including its </s>."""


def question_about(things: Sequence[Thing], task: str, seed: int, index: int) -> Question:
    """Return the question of a task about scene `index` of `seed`; the answer to every other presence question is "no".

    The "no" questions recombine attributes that all occur in the scene.
    """
    rng = np.random.default_rng([seed, index, 7])
    if task == "presence":
        return presence(rng, things, yes=index % 2 == 0, adversarial=1.0)
    return {"where": where, "attribute": attribute, "describe": describe}[task](rng, things)


def iou_of(answer: str, question: Question) -> float:
    """Return the IoU of an answer's box with the true one; 0 for an answer that is not a box."""
    found = read_box(answer)
    return 0.0 if found is None or question.box is None else overlap(found, question.box)


def interval(share: float, n: int) -> float:
    """Return the half-width of the 95 % interval of a share among n (normal approximation of the Wilson interval's width)."""
    z = 1.96
    return z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)


def summarise(task: str, questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Return the scores of a task: `accuracy` with its half-width, and mean IoU, or F1 and the share of "yes"."""
    n = len(questions)
    if task == "where":
        ious = [iou_of(answer, question) for answer, question in zip(answers, questions, strict=True)]
        right = [value >= 0.5 for value in ious]
        more = {"miou": sum(ious) / n}
    else:
        right = [answer.split()[:1] == question.answer.split()[:1] for answer, question in zip(answers, questions, strict=True)]
        more = {}
    if task == "presence":
        said = [answer.split()[:1] == ["yes"] for answer in answers]
        true = [question.answer == "yes" for question in questions]
        both = sum(a and b for a, b in zip(said, true, strict=True))
        more = {"f1": 2 * both / max(1, sum(said) + sum(true)), "said_yes": sum(said) / n}
    accuracy = sum(right) / n
    return {"n": n, "accuracy": accuracy, "half_width": interval(accuracy, n), **more}
