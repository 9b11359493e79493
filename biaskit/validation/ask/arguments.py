"""Read methods, shares and priors in the notation of the command line, also from Python."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.files import existing
from biaskit.prior.store import load_prior
from biaskit.prior.value import Prior
from biaskit.validation.ask.methods import read_retention

AnyPrior = Prior | str | os.PathLike[str]
"""A prior, or a name or path for `load_prior`."""


def words(given: str | Sequence[str]) -> list[str]:
    """Return names: the parts of a comma-separated text, or a sequence unchanged.

    Raises:
        BiaskitError: one is not a text.

    >>> words("none,fastv+prior"), words(["none", "fastv"])
    (['none', 'fastv+prior'], ['none', 'fastv'])
    """
    found = [word.strip() for word in given.split(",")] if isinstance(given, str) else _several(given)
    for word in found:
        if not isinstance(word, str):
            raise BiaskitError(f"{word!r} is not a name", 'write texts, such as "none,fastv+prior"')
    return [word for word in found if word]


def read_shares(given: float | str | Sequence[float | str]) -> list[float]:
    """Return the shares of the visual tokens that are kept.

    Raises:
        BiaskitError: one is not a number in (0, 1].

    >>> read_shares(0.25), read_shares("0.5,1/4"), read_shares([0.5, "1/8"])
    ([0.25], [0.5, 0.25], [0.5, 0.125])
    """
    parts = [part.split(",") if isinstance(part, str) else [str(part)] for part in _several(given)]
    return [read_retention(text) for part in parts for text in part]


def named(text: str, default: str) -> tuple[str, str]:
    """Read NAME=PATH, or PATH, which gets the default name.

    >>> named("task=priors/task.safetensors", "prior"), named("llava-1.5", "prior")
    (('task', 'priors/task.safetensors'), ('prior', 'llava-1.5'))
    """
    found = re.fullmatch(r"([\w+.:-]+)=(.+)", text)
    return (found.group(1), found.group(2)) if found and existing(text) is None else (default, text)


def read_priors(given: AnyPrior | Sequence[AnyPrior] | Mapping[str, AnyPrior] | None) -> dict[str, Prior]:
    """Return priors by the names that labels use; a prior without a name is called `prior`.

    Raises:
        BiaskitError: two have one name. PriorError: one cannot be found or read.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {name: load_prior(one) for name, one in given.items()}
    found: dict[str, Prior] = {}
    for one in _several(given):
        name, place = named(one, "prior") if isinstance(one, str) else ("prior", one)
        if name in found:
            raise BiaskitError(f"two priors called {name}", "write NAME=FILE, in Python {NAME: FILE}")
        found[name] = load_prior(place)
    return found


def _several(given: Any) -> list[Any]:
    """Return a single value, or several, as a list."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
