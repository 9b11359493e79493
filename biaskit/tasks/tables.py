"""Open a question file of any kind."""

from __future__ import annotations

from pathlib import Path

from biaskit.errors import TaskError
from biaskit.files import existing
from biaskit.tasks.parquet import ParquetRows
from biaskit.tasks.rows import Rows, TextRows


def open_rows(path: Path, key: str = "") -> Rows:
    """Open a question file by its suffix; a path with a `*` names parquet shards.

    Raises:
        TaskError: as TextRows and ParquetRows, or no such file.
    """
    shards = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not shards or not all((there := existing(shard)) and there.is_file() for shard in shards):
        raise TaskError(f"{str(path)[:300]!r} does not exist", "give the file of the questions, or the directory it is in")
    if path.suffix != ".parquet":
        return TextRows(path, key)
    return ParquetRows(shards)
