"""Where results go: one JSON value a run, and a Markdown table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.files import write_file


def command() -> str:
    """Return the command line as the user wrote it."""
    return " ".join(["biaskit", *sys.argv[1:]])


def check_free(directory: Path | None, name: str, force: bool) -> None:
    """Refuse, before anything is measured, to overwrite results.

    Raises:
        BiaskitError: DIRECTORY/NAME.json is there already.
    """
    if directory is not None and (directory / f"{name}.json").exists() and not force:
        raise BiaskitError(f"{directory / name}.json exists", "choose another --out, or overwrite it with --force")


def write(directory: Path, name: str, result: Mapping[str, Any], text: str) -> list[Path]:
    """Write NAME.json and NAME.md into a directory, which is made if need be; return both paths."""
    files = [directory / f"{name}.json", directory / f"{name}.md"]
    for file, content in zip(files, (dump(result), text), strict=True):
        write_file(file, content + "\n")
    return files


def dump(result: Mapping[str, Any]) -> str:
    """Return a result as JSON."""
    return json.dumps(result, indent=1, ensure_ascii=False, default=str)


def describe(machine: Mapping[str, Any]) -> str:
    """Return a machine as one line."""
    load = f", load {machine['load'][0]}" if machine.get("load") else ""
    return (
        f"{machine['device']} ({machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}{load}), "
        f"torch {machine['torch']}, transformers {machine['transformers']}, biaskit {machine['biaskit']}"
    )
