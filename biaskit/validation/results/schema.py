"""The schema of the files of a results folder, field by field, which every reader checks.

Users edit and merge these files, so they may contain anything. Errors about values of another type, numbers that are not finite or too
large, too deep nesting, and text that cannot be printed or encoded name file, line and field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from biaskit.errors import BiaskitError
from biaskit.text import shortened

Check = Callable[[Any], bool]
"""Returns True if a field may have a value."""

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # control characters, and halves of surrogate pairs
_LARGEST = 1e15  # far above any count, size or score; larger whole numbers are not exact as floats
_DEPTH = 32


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def parse(data: bytes) -> Any:
    """Read standard JSON.

    Raises:
        ValueError: it is not JSON, has NaN or Infinity, or nests too deeply.

    Example:
        >>> parse(b'{"score": 1.0}')
        {'score': 1.0}
        >>> parse(b"[NaN]")
        Traceback (most recent call last):
        ...
        ValueError: NaN is not a JSON number
    """
    try:
        return json.loads(data, parse_constant=_constant)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def is_text(value: Any) -> bool:
    r"""True for text that can be printed: no control characters, no half of a surrogate pair.

    >>> is_text("a dog"), is_text("\x1b[31m")
    (True, False)
    """
    return isinstance(value, str) and _UNSAFE.search(value) is None


def is_number(value: Any) -> bool:
    """True for a finite number of ordinary size; not for true or false.

    >>> is_number(0.5), is_number(float("nan")), is_number(True)
    (True, False, False)
    """
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def is_whole(value: Any) -> bool:
    """True for a whole number from 0 up.

    >>> is_whole(3), is_whole(-1), is_whole(3.0)
    (True, False, False)
    """
    return type(value) is int and 0 <= value <= _LARGEST


def is_plain(value: Any, depth: int = _DEPTH) -> bool:
    """True for any JSON value whose texts can be printed and whose numbers are ordinary, not nested too deeply.

    >>> is_plain({"scores": [1, None, "text"]}), is_plain({"scores": float("inf")})
    (True, False)
    """
    if isinstance(value, dict):
        return depth > 0 and all(is_text(key) and is_plain(inner, depth - 1) for key, inner in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain(inner, depth - 1) for inner in value)
    return value is None or isinstance(value, bool) or is_number(value) or is_text(value)


def optional(check: Check) -> Check:
    """Return a check for null or values that pass `check`.

    >>> optional(is_whole)(None)
    True
    """
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    """Return a check for lists of values that pass `check`.

    >>> list_of(is_whole)([1, 2])
    True
    """
    return lambda value: isinstance(value, list) and all(map(check, value))


def map_of(check: Check, **fields: Check) -> Check:
    """Return a check for objects whose keys are text and whose values pass `check`; named fields have checks of their own.

    >>> map_of(is_number, name=is_text)({"name": "pope", "n": 3})
    True
    """
    return lambda value: isinstance(value, dict) and all(is_text(key) and fields.get(key, check)(inner) for key, inner in value.items())


def record_of(**fields: Check) -> Check:
    """Return a check for objects that have these fields; other fields may have any plain value.

    >>> record_of(name=is_text)({"n": 3})
    False
    """
    whole = map_of(is_plain, **fields)
    return lambda value: whole(value) and fields.keys() <= value.keys()


def _is_name(value: Any) -> bool:
    return is_text(value) and value != ""


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and abs(value) <= _LARGEST)


def _is_step(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_whole(value[0]) and is_number(value[1])


LINE: Mapping[str, Check] = {
    "task": _is_name,
    "cell": _is_name,
    "id": _is_id,
    "scores": map_of(is_number),
    "image": _is_id,
    "tags": optional(map_of(is_text)),
    "pruner": is_text,
    "method": is_text,
    "retention": optional(is_number),
    "budget": optional(is_whole),
    "prior": optional(is_text),
    "parameters": optional(map_of(is_plain, strength=is_number)),
    "layer_tokens": optional(list_of(_is_step)),
    "mean_tokens": optional(is_number),
    "cache_bytes": optional(is_number),
    "n_kept": optional(is_number),
    "n_visual": optional(is_number),
    "n_text": optional(is_number),
    "tower_flops": optional(is_number),
    "positive": optional(is_number),
    "kept": optional(list_of(is_whole)),
    "shown": optional(map_of(list_of(is_number))),
    "selection": optional(map_of(is_number)),
}
"""Fields of a line of results that are read by some module. Answers, prompts and truths are stored but not read."""
REQUIRED = ("task", "cell", "id", "scores")


def _is_task(value: Any) -> bool:
    return record_of(name=_is_name, metric=_is_name)(value) and is_whole(value.get("n", 0))


MANIFEST: Mapping[str, Check] = {
    "schema": is_whole,
    "commands": list_of(is_text),
    "model": map_of(is_plain, name=is_text, revision=is_text, model_type=is_text),
    "dims": map_of(is_whole),
    "analysed": optional(map_of(is_plain)),
    "tasks": list_of(_is_task),
    "priors": map_of(record_of(sha256=is_text)),
    "published_as": optional(is_text),
    "cells": list_of(record_of(cell=_is_name)),
}
"""Fields of run.json that are read by some module; other fields may have any plain value."""


def fault(record: Any, fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> str:
    """Return a description of the first wrong field of a record; "" if all are right.

    Example:
        >>> fault({"task": "pope", "cell": "none", "id": "1", "scores": {"correct": "yes"}}, LINE, REQUIRED)
        "field 'scores', 'correct' cannot be 'yes'"
    """
    if not isinstance(record, dict):
        return "it is not a JSON object"
    for name in required:
        if name not in record:
            return f"it has no field {name!r}"
    for name, check in fields.items():
        if name in record and not check(record[name]):
            value = record[name]
            if isinstance(value, dict):  # name the part that is wrong
                inner = next((key for key in value if not check({key: value[key]})), None)
                if inner is not None:
                    return f"field {name!r}, {_short(inner)} cannot be {_short(value[inner])}"
            return f"field {name!r} cannot be {_short(value)}"
    return ""


def _short(value: Any) -> str:
    """Return a value in few printable characters."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # too deep; a whole number of more digits than Python prints
        return f"such a {type(value).__name__}"
    return shortened(text)


def read_manifest(path: Path, hint: str, required: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return the contents of a run.json; None if the file does not exist.

    Args:
        path: of the file. hint: for errors. required: fields that it must have.

    Raises:
        BiaskitError: it cannot be read, or a field is wrong.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        found = parse(path.read_bytes())
        if not is_plain(found):
            wrong = [name for name, value in found.items() if not is_plain(value)] if isinstance(found, dict) else []
            raise ValueError(f"field {wrong[0]!a} holds what cannot be read or printed" if wrong else "it is not a JSON object")
    except OSError as error:
        raise BiaskitError(f"{path} cannot be read: {error.strerror or error}", hint) from error
    except ValueError as error:
        raise BiaskitError(f"{path} is broken: {error}", hint) from error
    says = fault(found, MANIFEST, required)
    if says:
        raise BiaskitError(f"{path} is broken: {says}", hint)
    manifest: dict[str, Any] = found
    return manifest
