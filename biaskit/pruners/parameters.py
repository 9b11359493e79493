"""The parameters of a pruner, from its dataclass fields."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Parameter:
    """A parameter as the registry shows it: its name, type, default and what it does."""

    name: str
    type: str
    default: Any
    text: str


def choices(cls: type[Any]) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of every parameter whose type is a Literal.

    Example:
        >>> from biaskit.pruners.uniform import Uniform
        >>> choices(Uniform)["spacing"]
        ('sequence', 'grid')
    """
    try:
        hints = get_type_hints(cls)
    except NameError:  # a plug-in whose types exist for the type checker only
        return {}
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def simple_types(cls: type[Any]) -> dict[str, tuple[type, ...]]:
    """Return the types of every parameter that is declared with numbers, text and None only."""
    try:
        hints = get_type_hints(cls)
    except NameError:
        return {}
    simple = {int, float, bool, str, type(None)}
    parts = {f.name: get_args(hints[f.name]) or (hints[f.name],) for f in fields(cls) if f.name in hints}
    return {name: kinds for name, kinds in parts.items() if simple.issuperset(kinds)}
