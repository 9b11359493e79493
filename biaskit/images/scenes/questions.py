"""Questions about a scene and their true answers: where, presence, attribute, describe."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biaskit.images.scenes.draw import COLOUR_NAMES, COLOURS, SHAPES, SIZES, Box, Thing
from biaskit.images.scenes.vocabulary import box_text

KINDS = ("where", "presence", "attribute", "describe")
DESCRIBE = ("describe the image .", "please describe the provided image .")

Key = tuple[int, int, int]
Use = tuple[bool, bool, bool]
"""Which of size, colour, shape a phrase names."""

_FULL: Use = (True, True, True)
USES: tuple[Use, ...] = (
    _FULL, (False, True, True), (True, False, True), (False, False, True), (True, True, False), (False, True, False)
)  # fmt: skip
_USE_ODDS = (0.40, 0.65, 0.77, 0.85, 0.93)  # cumulative
_KIND_ODDS = (0.45, 0.79, 0.95)
_TRIES = 20


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        kind: one of KINDS.
        text: the prompt, words with blanks between them.
        answer: the true answer, likewise.
        phrase: for the object in question ("small red circle"), "" for describe.
        target: index of that thing, −1 if there is none.
        box: the true box of a `where` question's thing, in pixels.
        related: things that share a named colour or shape with the phrase (a named size, if it names neither).
    """

    kind: str
    text: str
    answer: str
    phrase: str = ""
    target: int = -1
    related: tuple[int, ...] = ()
    box: Box | None = None


def phrase_of(key: Key, use: Use = _FULL) -> str:
    """Return the words of the named attributes, "object" standing for an unnamed shape."""
    size, colour, shape = key
    words = ([SIZES[size]] if use[0] else []) + ([COLOUR_NAMES[colour]] if use[1] else []) + [SHAPES[shape] if use[2] else "object"]
    return " ".join(words)


def matching(things: Sequence[Thing], key: Key, use: Use) -> list[int]:
    """Return the things that have all named attributes."""
    return [i for i, thing in enumerate(things) if all(thing.key[k] == key[k] for k in range(3) if use[k])]


def _related(things: Sequence[Thing], key: Key, use: Use) -> tuple[int, ...]:
    named = [k for k in (1, 2) if use[k]] or [0]
    return tuple(i for i, thing in enumerate(things) if any(thing.key[k] == key[k] for k in named))


def where(rng: np.random.Generator, things: Sequence[Thing]) -> Question:
    """Ask for the box of a thing, by a phrase that fits no other; its answer is four location words."""
    for _ in range(_TRIES):
        target = int(rng.integers(len(things)))
        use = USES[bisect_right(_USE_ODDS, rng.random())]
        if len(matching(things, things[target].key, use)) == 1:
            break
    else:
        use = _FULL
    return where_is(things, target, use)


def where_is(things: Sequence[Thing], target: int, use: Use = _FULL) -> Question:
    """Ask for the box of one thing by a given phrase."""
    thing = things[target]
    phrase = phrase_of(thing.key, use)
    return Question("where", f"where is the {phrase} ?", box_text(thing.box), phrase, target, _related(things, thing.key, use), thing.box)


def presence(rng: np.random.Generator, things: Sequence[Thing], *, yes: bool | None = None, adversarial: float = 0.95) -> Question:
    """Ask whether there is a thing with some attributes; yes and no are equally frequent.

    Args:
        rng: random generator. things: of the scene.
        yes: the answer, drawn at random by default.
        adversarial: share of the "no" questions whose attributes all occur in the scene, on different things.
    """
    yes = bool(rng.random() < 0.5) if yes is None else yes
    hard = bool(rng.random() < adversarial)
    for attempt in range(_TRIES * 4):
        use = ((True, True, True), (False, True, True), (False, True, True), (False, False, True))[int(rng.integers(4))]
        if yes:
            key = things[int(rng.integers(len(things)))].key
        elif hard and attempt < _TRIES:
            size, colour, shape = (things[int(i)].key[k] for k, i in enumerate(rng.integers(0, len(things), 3)))
            key = (size, colour, shape)
        else:
            key = (int(rng.integers(len(SIZES))), int(rng.integers(len(COLOURS))), int(rng.integers(len(SHAPES))))
        found = matching(things, key, use)
        if bool(found) == yes:
            break
    phrase = phrase_of(key, use)
    target = found[0] if len(found) == 1 else -1
    return Question("presence", f"is there a {phrase} ?", "yes" if found else "no", phrase, target, _related(things, key, use))


def attribute(rng: np.random.Generator, things: Sequence[Thing]) -> Question:
    """Ask for the colour or the shape of a thing, by a phrase of its other attributes that fits no other thing."""
    for _ in range(_TRIES * 10):
        target = int(rng.integers(len(things)))
        colour = bool(rng.random() < 0.6)
        sized = bool(rng.random() < 0.5)
        use = (sized, not colour, colour)
        thing = things[target]
        if len(matching(things, thing.key, use)) == 1:
            phrase = phrase_of(thing.key, use)
            answer = COLOUR_NAMES[thing.colour] if colour else SHAPES[thing.shape]
            text = f"what {'colour' if colour else 'shape'} is the {phrase} ?"
            return Question("attribute", text, answer, phrase, target, _related(things, thing.key, use))
    return where(rng, things)  # no phrase is unique, which is very rare


def describe(rng: np.random.Generator, things: Sequence[Thing]) -> Question:
    """Ask for a description: colour and shape of the two largest things, the largest first."""
    order = sorted(range(len(things)), key=lambda i: -things[i].radius)[:2]
    text = DESCRIBE[int(rng.integers(len(DESCRIBE)))]
    return Question("describe", text, " , ".join(phrase_of(things[i].key, (False, True, True)) for i in order))


def ask(rng: np.random.Generator, things: Sequence[Thing], kind: str | None = None) -> Question:
    """Ask one question; without a kind, as the training does: where 45 %, presence 34 %, attribute 16 %, describe 5 %."""
    if kind is None:
        kind = KINDS[bisect_right(_KIND_ODDS, rng.random())]
    return {"where": where, "presence": presence, "attribute": attribute, "describe": describe}[kind](rng, things)
