"""Read the lines of a results file, one answer each. All readers of such files use this module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.validation.results.schema import LINE, REQUIRED, fault, parse


def answer_lines(path: Path, required: tuple[str, ...] = REQUIRED) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Iterate over the answers of a results file: (start and end of the line in bytes, its record).

    The iteration stops before an incomplete last line, which a killed run leaves.

    Args:
        path: of the file. required: fields that every answer must have.

    Raises:
        BiaskitError: the file cannot be read, or another line is not an answer: not JSON, or with a missing or invalid field.
    """
    start = 0
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if not data.endswith(b"\n"):
                    return
                try:
                    record = parse(data)
                    says = fault(record, LINE, required)
                except ValueError as error:
                    says = f"no JSON: {error}"
                if says:
                    raise BiaskitError(
                        f"{path}, line {number} is not an answer of a validation: {says}",
                        "delete that line and give the same `biaskit validate` command: it asks that question again",
                    )
                yield start, start + len(data), record
                start += len(data)
    except OSError as error:
        raise BiaskitError(f"{path} cannot be read: {error.strerror or error}", "give the folder that `biaskit validate` wrote") from error


def is_cut(path: Path) -> bool:
    """Return True if the last line is incomplete."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")
