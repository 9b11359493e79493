"""Questions that tasks compose themselves, and wordings from a user's file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from biaskit.errors import TaskError
from biaskit.registry import did_you_mean
from biaskit.tasks.conventions import Wording

PRESENCE = "Is there {} {} in the image?"
"""POPE's question (arXiv 2305.10355): article and object."""

_FORM = 'write a JSON object such as {"region": "Where is {}?"}; what it leaves out is asked as published'


def ask_presence(thing: str) -> str:
    """Return POPE's question about an object.

    Example:
        >>> ask_presence("apple")
        'Is there an apple in the image?'
    """
    return PRESENCE.format("an" if thing[:1].lower() in tuple("aeiou") else "a", thing)


def read_wording(path: str | os.PathLike[str], published: Wording) -> Wording:
    """Return a wording with the templates of a file in place of some of the published ones.

    Args:
        path: a JSON object: `region`, `short` and `yes_no`, each a text with one `{}`, where the phrase or question goes.
        published: the wording for what the file leaves out.

    Raises:
        TaskError: the file cannot be read, or has another form.

    Example:
        >>> from tempfile import mkdtemp
        >>> file = Path(mkdtemp()) / "wording.json"
        >>> _ = file.write_text('{"region": "Where is {}?"}')
        >>> read_wording(file, Wording()).ask_region("the dog")
        'Where is the dog?'
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TaskError(
            f"the wording {os.fspath(path)} cannot be read: {error.strerror or error}", "give the path of a JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TaskError(f"the wording {os.fspath(path)} is not JSON: {error}", _FORM) from error
    names = tuple(published.templates())
    if not isinstance(found, dict) or not found:
        raise TaskError(f"the wording {os.fspath(path)} names no question", _FORM)
    for name, text in found.items():
        if name not in names:
            raise TaskError(f"the wording {os.fspath(path)} has {name!r}", did_you_mean(name, names))
        if not isinstance(text, str) or text.count("{}") != 1:
            raise TaskError(f"{name} in {os.fspath(path)} is {text!r:.80}", "write a text with one {}, where the phrase or question goes")
    return replace(published, **found, **{f"{name}_source": f"given by the user: {Path(path).name}" for name in found})
