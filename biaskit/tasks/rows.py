"""Rows of published question files: JSON lines, JSON lists, parquet. They are only read here; what the columns mean is the task's."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError

Row = Mapping[str, Any]

SUFFIXES = (".jsonl", ".json", ".parquet")
_IMAGE = "image"


class Rows(ABC):
    """The rows of one or more files, and the encoded pictures that lie in them."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows; a picture inside a row is left out (`picture` gets it)."""

    def picture(self, number: int) -> bytes | None:
        """Return the picture inside row `number`, None where rows only name theirs."""
        return None


class TextRows(Rows):
    """The rows of a JSON or JSON-lines file (POPE's `.json` files hold JSON lines, too).

    Args:
        path: the file. key: where the list lies in a JSON object, such as "annotations".

    Raises:
        TaskError: it cannot be read, or holds something other than objects.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self.path = path
        found = read_json(path)
        if isinstance(found, dict):
            found = found.get(key) if key else [found]
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise TaskError(f"{str(path)!r} does not hold a list of objects", "give JSON lines with one question each")
        self.rows: list[dict[str, Any]] = found

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows of the file."""
        return iter(self.rows)


class ParquetRows(Rows):
    """The rows of parquet shards, in order. Pictures are read when asked for, a row group at a time.

    Raises:
        TaskError: pyarrow is not installed, or a file is no parquet file.
    """

    def __init__(self, paths: list[Path]) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            hint = "pip install pyarrow, or export the rows as JSON lines"
            raise TaskError(f"{str(paths[0])!r} is a parquet file, but pyarrow is not installed", hint) from error
        try:
            self._files = [parquet.ParquetFile(path) for path in paths]
        except (OSError, ValueError) as error:
            raise TaskError(f"cannot read the parquet file(s) {[str(path) for path in paths]}: {error}", "download them again") from error
        self._groups: list[tuple[int, int, int]] = []  # first row, file, row group
        start = 0
        for index, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                self._groups.append((start, index, group))
                start += file.metadata.row_group(group).num_rows
        self._held: tuple[int, list[Any]] = (-1, [])

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows, pictures left out."""
        for file in self._files:
            columns = [name for name in file.schema_arrow.names if name != _IMAGE]
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()

    def picture(self, number: int) -> bytes | None:
        """Return the picture in the column `image`, as the hub's image feature stores it: {"bytes", "path"}."""
        slot = max(slot for slot, group in enumerate(self._groups) if group[0] <= number)
        start, file, group = self._groups[slot]
        if self._held[0] != slot:
            if _IMAGE not in self._files[file].schema_arrow.names:
                return None
            self._held = slot, self._files[file].read_row_group(group, columns=[_IMAGE]).column(0).to_pylist()
        cell = self._held[1][number - start]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        return data if isinstance(data, bytes) else None


def open_rows(path: Path, key: str = "") -> Rows:
    """Open a question file by its suffix; a path with a `*` names parquet shards.

    Raises:
        TaskError: as TextRows and ParquetRows, or no such file.
    """
    shards = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not shards or not all(shard.is_file() for shard in shards):
        raise TaskError(f"{str(path)!r} does not exist", "give the file of the questions, or the directory it is in")
    return ParquetRows(shards) if path.suffix == ".parquet" else TextRows(path, key)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; a file of JSON lines is a list.

    Raises:
        TaskError: it cannot be read; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read {str(path)!r}: {error}", "give a JSON or JSON-lines file") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise TaskError(f"{str(path)!r} is nested too deeply", "give a JSON or JSON-lines file") from error
    except ValueError:
        pass
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{str(path)!r} line {number} is not JSON: {error}", "give a JSON or JSON-lines file") from error
    if not found:
        raise TaskError(f"{str(path)!r} is empty", "give a file with at least one question")
    return found


def pick(row: Row, *names: str) -> Any:
    """Return the first of these columns that a row has, None if it has none."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def word(row: Row, number: int, path: Path, *names: str) -> str:
    """Return the text of the first of these columns.

    Raises:
        TaskError: the row has none of them.
    """
    found = pick(row, *names)
    if not isinstance(found, (str, int, float)) or not str(found).strip():
        raise TaskError(f"row {number} of {str(path)!r} has no {' or '.join(names)}", f"it has {', '.join(map(str, row)) or 'nothing'}")
    return str(found)
