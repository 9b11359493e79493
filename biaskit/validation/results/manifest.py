"""The manifest of a validation, `run.json`: what all answers in the directory have in common, and what an added run must share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.text import differences

SCHEMA = 1
_MAY_GROW = ("commands", "tasks", "cells", "priors", "published_as")


def merge(old: Mapping[str, Any] | None, new: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the manifest of a directory that a run adds to: tasks, cells and priors of both, the older ones first.

    Args:
        old: the directory's manifest, if any. where: the directory's name, for messages.

    Raises:
        BiaskitError: the two do not belong together; the message names what differs.
    """
    if old is None:
        return new
    new = json.loads(json.dumps(new, default=str))
    if old.get("schema") != SCHEMA:
        raise BiaskitError(f"{where} has results of schema {old.get('schema')}, not {SCHEMA}", "choose another --out")
    fixed = [key for key in new if key not in _MAY_GROW]
    differing = differences({key: old.get(key) for key in fixed}, {key: new[key] for key in fixed})
    tasks, more = ({task["name"]: task for task in manifest["tasks"]} for manifest in (old, new))
    held, fresh = ({cell["cell"]: cell for cell in manifest["cells"]} for manifest in (old, new))
    differing += _clashes("task", tasks, more, ("fingerprint", "metric", "max_new_tokens"))
    differing += _clashes("prior", old["priors"], new["priors"], ("sha256",))
    differing += _clashes("", held, fresh, ("parameters", "prior"))
    if differing:
        raise BiaskitError(
            f"{where} has results of another run: {'; '.join(differing)}",
            "choose another --out, or run the old command; --force deletes the old results",
        )
    merged = {**old, "commands": [*old["commands"], *(line for line in new["commands"] if line not in old["commands"])]}
    for name, task in more.items():
        tasks[name] = {**task, "n": max(task["n"], tasks.get(name, task).get("n", 0))}
    if "published_as" in new:  # it does not change answers, only what the report compares them with
        merged["published_as"] = new["published_as"]
    merged["tasks"] = list(tasks.values())
    merged["priors"] = {**new["priors"], **old["priors"]}
    merged["cells"] = [*held.values(), *(fresh[label] for label in fresh if label not in held)]
    return merged


def _clashes(what: str, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the differences between entries of the same name."""
    shared = [(name, key) for name in new if name in old for key in keys]
    was, now = ({f"{what} {name} {key}".strip(): some[name].get(key) for name, key in shared} for some in (old, new))
    return differences(was, now)
