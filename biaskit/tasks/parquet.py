"""Rows of parquet shards as on the hub, which contain the pictures; these are read on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError
from biaskit.tasks.rows import MAX_BYTES, Row, Rows, single

_IMAGE = "image"
_BATCH = 256  # rows
_MOST_ROWS = 50_000_000


class ParquetRows(Rows):
    """The rows of parquet shards, in order. Pictures are read on demand, a row group at a time.

    Raises:
        TaskError: pyarrow is not installed, or a file is not a parquet file.
    """

    def __init__(self, paths: list[Path]) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            hint = "pip install pyarrow, or export the rows as JSON lines"
            raise TaskError(f"{str(paths[0])!r} is a parquet file, but pyarrow is not installed", hint) from error
        self.paths = paths
        self._groups: list[tuple[int, int, int]] = []  # first row, file, row group
        start = 0
        with self._errors():
            self._files = [parquet.ParquetFile(path) for path in paths]
            for index, file in enumerate(self._files):
                for group in range(file.num_row_groups):
                    self._groups.append((start, index, group))
                    count = file.metadata.row_group(group).num_rows
                    if not 0 <= count <= _MOST_ROWS - start:
                        raise ValueError(f"a group claims {count} rows")
                    start += count
        self._held: tuple[int, list[Any]] = (-1, [])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn arrow's errors, which can be of any type on broken files, into a TaskError."""
        try:
            yield
        except TaskError:
            raise
        except Exception as error:
            why = str(error).split("\n", 1)[0][:300] or type(error).__name__
            raise TaskError(
                f"cannot read the parquet file(s) {[str(path) for path in self.paths]}: {why}", "download them again"
            ) from error

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows, with the pictures' paths but not their bytes."""
        with self._errors():
            for file in self._files:
                columns = [name for name in file.schema_arrow.names if name != _IMAGE] + _paths(file.schema_arrow)
                for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                    if batch.nbytes > MAX_BYTES // 4:
                        raise ValueError(f"{len(batch)} rows have {batch.nbytes} bytes")
                    yield from batch.to_pylist()

    def picture(self, number: int) -> bytes | None:
        """Return the picture in the column `image`, stored as the hub's image feature {"bytes", "path"}; None if there is only a path."""
        slot = max(slot for slot, group in enumerate(self._groups) if group[0] <= number)
        start, file, group = self._groups[slot]
        with self._errors():
            if self._held[0] != slot:
                if _IMAGE not in self._files[file].schema_arrow.names:
                    return None
                known = self._files[file].metadata.row_group(group)
                size = sum(
                    known.column(k).total_uncompressed_size
                    for k in range(known.num_columns)
                    if known.column(k).path_in_schema.split(".")[0] == _IMAGE
                )
                if size > 2 * MAX_BYTES:
                    raise ValueError(f"the pictures of a row group have {size} bytes")
                self._held = slot, self._files[file].read_row_group(group, columns=[_IMAGE]).column(0).to_pylist()
            data = single(self._held[1][number - start], number, self.paths[file])
        return data if isinstance(data, bytes) else None


def _paths(schema: Any) -> list[str]:
    """Return the columns to read for the paths of pictures: `image` if it contains texts, `image.path` if it contains bytes too."""
    if _IMAGE not in schema.names:
        return []
    kind = str(schema.field(_IMAGE).type)
    if kind.startswith("struct"):
        return [f"{_IMAGE}.path"] if "path: string" in kind or "path: large_string" in kind else []
    return [] if "binary" in kind else [_IMAGE]
