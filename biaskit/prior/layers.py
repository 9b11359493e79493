"""Read decoder layers from a number, several, a range, or "all"."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Literal, SupportsIndex

from biaskit.errors import BiaskitError

Layers = SupportsIndex | Iterable[SupportsIndex] | str
"""Layers as a user gives them: 1, (1, 4), "1,4", "0-7", "all"."""

_HINT = "write numbers and ranges, such as 1,4 or 0-7, or all"


def read_layers(wanted: Layers | None) -> tuple[int, ...] | Literal["all"] | None:
    """Return 0-based decoder layers in the order given; "all" and None are returned unchanged.

    Raises:
        BiaskitError: something that is not a layer.

    >>> read_layers(1), read_layers("1,4"), read_layers("0-3"), read_layers([2, 5]), read_layers("all")
    ((1,), (1, 4), (0, 1, 2, 3), (2, 5), 'all')
    """
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return "all" if wanted.strip() == "all" else _from_text(wanted)
    try:
        return tuple(_number(layer) for layer in (wanted if isinstance(wanted, Iterable) else [wanted]))
    except TypeError:
        raise BiaskitError(f"layers {wanted!r} are not whole numbers", _HINT) from None


def _number(layer: SupportsIndex) -> int:
    if isinstance(layer, bool):
        raise TypeError
    return operator.index(layer)


def _from_text(text: str) -> tuple[int, ...]:
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        digits = [first, last] if dash else [first]
        if not all(word.isascii() and word.isdigit() and len(word) < 6 for word in digits) or int(first) > int(last or first):
            raise BiaskitError(f"layers {text!r} cannot be read", _HINT)
        chosen.extend(range(int(first), int(last or first) + 1))
    return tuple(chosen)
