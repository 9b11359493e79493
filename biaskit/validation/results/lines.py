"""Lines of a validation's results: one answer each. All readers of such a file read it through here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biaskit.errors import BiaskitError


def answer_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Iterate over the answers of a results file: (start and end of the line in bytes, its record).

    A last line without an end is what a killed run leaves: the iteration stops before it.

    Raises:
        BiaskitError: another line is no answer: no JSON, without task, cell or id, or with scores that are no numbers.
    """
    start = 0
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            if not data.endswith(b"\n"):
                return
            try:
                record = json.loads(data)
                fault = _fault(record)
            except ValueError:
                fault = "no JSON"
            if fault:
                raise BiaskitError(
                    f"{path}, line {number} is no answer of a validation: {fault}",
                    "delete that line and give the same `biaskit validate` command: it asks that question again",
                )
            yield start, start + len(data), record
            start += len(data)


def is_cut(path: Path) -> bool:
    """Tell whether the last line has no end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")


def _fault(record: Any) -> str:
    """Say what keeps a record from being an answer; nothing where all is well."""
    if not isinstance(record, dict):
        return "no JSON object"
    missing = [name for name in ("task", "cell", "id") if not isinstance(record.get(name), str | int)]
    if missing:
        return f"no {' and no '.join(missing)}"
    scores = record.get("scores")
    if not isinstance(scores, dict):
        return "no scores"
    wrong = [name for name, value in scores.items() if not isinstance(value, int | float) or not math.isfinite(value)]
    return f"score {wrong[0]} is not a number" if wrong else ""
