"""Yes or no: read an answer, and summarise answers as POPE does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[a-z]+(?:['’]t)?")
_NOT = frozenset({"no", "not", "none", "nope", "cannot", "never"})
_AFFIRMS = frozenset({"yes", "yeah", "yep", "true", "there"})  # "There is a dog."


def read_yes(text: str) -> bool | None:
    """Return whether an answer says yes, None if it says neither.

    The first word decides if it is yes or no. Otherwise the first sentence does, by POPE's rule: it says no if it has a "no" or "not"
    (or "isn't", "none", …) anywhere. POPE takes everything else for yes; here an answer must have a "yes" or a "there", otherwise it
    counts as not readable.

    >>> read_yes("Yes, a dog."), read_yes("There isn't one."), read_yes("A dog")
    (True, False, None)
    """
    sentence = re.split(r"[.!?\n]", text.strip().lower() + "\n", maxsplit=1)[0]
    words = _WORD.findall(sentence or text.lower())
    if not words:
        return None
    if words[0] in ("yes", "no", "yeah", "yep", "nope"):
        return words[0] not in _NOT
    if any(word in _NOT or word.endswith(("n't", "n’t")) for word in words):
        return False
    return True if _AFFIRMS.intersection(words) else None


def score_yes(answer: str, truth: bool) -> dict[str, float]:
    """Return `correct`, `said_yes`, `is_yes`, `parsed`, each 0 or 1. An answer that says neither is wrong, and does not count as yes.

    >>> score_yes("No.", False)
    {'correct': 1.0, 'said_yes': 0.0, 'is_yes': 0.0, 'parsed': 1.0}
    """
    said = read_yes(answer)
    return {"correct": float(said is truth), "said_yes": float(said is True), "is_yes": float(truth), "parsed": float(said is not None)}


def summarise_yes(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return POPE's measures of some records: `correct` (accuracy), `f1`, `precision`, `recall` of yes, `yes_share`, `parsed`, `n`.

    Precision, recall and F1 are 0 if they are not defined.

    >>> records = [{"scores": score_yes(said, true)} for said, true in (("yes", True), ("yes", False), ("no", False))]
    >>> found = summarise_yes(records)
    >>> found["correct"] == 2 / 3, found["recall"], found["precision"]
    (True, 1.0, 0.5)
    """
    scores = [record["scores"] for record in records]
    n = len(scores)
    if not n:
        return {"n": 0.0}
    said, true = sum(one["said_yes"] for one in scores), sum(one["is_yes"] for one in scores)
    both = sum(one["said_yes"] * one["is_yes"] for one in scores)
    return {
        "n": float(n),
        "correct": sum(one["correct"] for one in scores) / n,
        "f1": 2 * both / (said + true) if said + true else 0.0,
        "precision": both / said if said else 0.0,
        "recall": both / true if true else 0.0,
        "yes_share": said / n,
        "parsed": sum(one["parsed"] for one in scores) / n,
    }
