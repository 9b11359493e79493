"""Results on disk: one JSON value per run, and a Markdown table for readers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
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
    """Write NAME.json and NAME.md into a directory, created if missing; return both paths."""
    files = [directory / f"{name}.json", directory / f"{name}.md"]
    for file, content in zip(files, (dump(result), text), strict=True):
        write_file(file, content + "\n")
    (directory / f"{name}{PARTIAL}").unlink(missing_ok=True)
    return files


Row = Mapping[str, Any]

Keep = Callable[[Row], None]
"""Called with each row as it is measured."""

PARTIAL = ".partial.jsonl"


def nothing(row: Row) -> None:
    """Keep no row: what `keeper` returns without a directory."""


def keeper(directory: Path | None, name: str) -> Keep:
    """Return a function that appends each row to DIRECTORY/NAME.partial.jsonl, which `write` replaces with the whole result."""
    if directory is None:
        return nothing
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}{PARTIAL}"
    file.unlink(missing_ok=True)

    def keep(row: Row) -> None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    return keep


def kept_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of measurements that did not finish; an incomplete last line is left out."""
    files = [file.read_text(encoding="utf-8") for file in sorted(directory.glob(f"*{PARTIAL}"))]
    return [json.loads(line) for text in files for line in text.splitlines(keepends=True) if line.endswith("\n")]


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
