"""The directory of a validation: answers are appended as they come, so that a killed run loses at most the current batch.

`results.jsonl` has one line per answer. During a run, lines are in the order of answering; at the end they are sorted by task, cell and
question, so that the bytes do not depend on interruptions. The lines are the only record of what is done. `run.json` describes the run,
`timing.jsonl` has the time of each batch.

Of several processes (torchrun) the first locks the directory, and process R writes files of its own, `results.jsonl.R` and
`timing.jsonl.R`, whose lines are merged at the end, or when a killed run is resumed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from biaskit.errors import BiaskitError, FileError
from biaskit.files import check_target, replacing, sweep, uninterrupted, write_file
from biaskit.validation.results.lines import answer_lines
from biaskit.validation.results.schema import read_manifest

RESULTS, MANIFEST, TIMING = "results.jsonl", "run.json", "timing.jsonl"

Key = tuple[str, str, str]
"""(task, cell, id) of an answer."""


@dataclass
class Line:
    """The position of an answer in the file, and its primary score."""

    start: int
    end: int
    score: float


def to_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line: keys sorted, ASCII (some readers take other characters for line ends), no NaN.

    Raises:
        BiaskitError: a score is NaN or infinite.
    """
    try:
        return json.dumps(record, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"
    except ValueError as error:
        raise BiaskitError(
            f"question {record.get('id')} has a score that is not a number: {record.get('scores')}", "fix the task"
        ) from error


class Directory:
    """A results directory, locked by one run at a time.

    Args:
        path: the folder. rank: of this process among those that write to it.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        suffix = f".{rank}" if rank else ""
        self.path = path
        self.results, self.manifest, self.timing = path / f"{RESULTS}{suffix}", path / MANIFEST, path / f"{TIMING}{suffix}"
        self.lines: dict[Key, Line] = {}
        self.size = 0
        self.file: IO[bytes] | None = None

    @contextmanager
    def held(self, *, force: bool) -> Iterator[None]:
        """Make the directory, lock it, and remove temporary files of killed runs. `force`: delete the results of an older run.

        Raises:
            BiaskitError: it cannot be written, or another run is in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise BiaskitError(f"{self.path} cannot be used: {error.strerror}", "choose a folder you may write to") from error
        try:
            _lock(handle, self.path)
            sweep(self.path)
            for mine in (self.results, self.timing, self.manifest, *self._parts(RESULTS), *self._parts(TIMING)):
                check_target(mine, force=True)
                if force:
                    mine.unlink(missing_ok=True)
            self._mend_timing()
            yield
        finally:
            self.close()
            os.close(handle)

    def _mend_timing(self) -> None:
        """Cut off an incomplete last line, which a killed run leaves."""
        data = self.timing.read_bytes() if self.timing.exists() else b"\n"
        if not data.endswith(b"\n"):
            os.truncate(self.timing, data.rfind(b"\n") + 1)

    def read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest of an older run, None if there is none.

        Raises:
            BiaskitError: it is broken, or there are results without a manifest.
        """
        found = read_manifest(self.manifest, "choose another --out, or begin again with --force", ("commands", "tasks", "priors", "cells"))
        if found is None and self.results.exists():
            raise BiaskitError(f"{self.results} has no {MANIFEST} beside it", "choose another --out, or delete the results with --force")
        return found

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest atomically, if it changed."""
        data = json.dumps(manifest, indent=1, sort_keys=True, default=str).encode("ascii") + b"\n"
        if not self.manifest.exists() or self.manifest.read_bytes() != data:
            write_file(self.manifest, data)

    def load(self, metrics: Mapping[str, str]) -> None:
        """Read the answers on disk. An incomplete last line, which a killed run leaves, is cut off later.

        Args:
            metrics: task → its primary score.

        Raises:
            BiaskitError: another line is not an answer.
        """
        self.lines, self.size = {}, 0
        if not self.results.exists():
            return
        for start, end, record in answer_lines(self.results):
            score = record["scores"].get(metrics.get(record["task"]), 0.0)
            self.lines[record["task"], record["cell"], record["id"]] = Line(start, end, score)
            self.size = end

    def _parts(self, name: str) -> list[Path]:
        """Return the files of processes other than the first."""
        return sorted(path for path in self.path.glob(f"{name}.*") if path.suffix[1:].isdecimal())

    def take_in(self, metrics: Mapping[str, str]) -> None:
        """Append the answers of other processes to those that are loaded, and delete their files; incomplete last lines are left out.

        Args:
            metrics: as `load` takes them.

        Raises:
            BiaskitError: another line is not an answer, or the disk is full.
        """
        self.close()
        for part in self._parts(RESULTS):
            with self._writing(), part.open("rb") as source, self.results.open("ab") as target:
                target.truncate(self.size)
                for start, end, record in answer_lines(part):
                    key = (record["task"], record["cell"], record["id"])
                    if key not in self.lines:  # else it was merged before the run was killed
                        source.seek(start)
                        target.write(source.read(end - start))
                        self.lines[key] = Line(self.size, self.size + end - start, record["scores"].get(metrics.get(key[0]), 0.0))
                        self.size += end - start
                target.flush()
                os.fsync(target.fileno())
            part.unlink()
        for part in self._parts(TIMING):
            with self._writing(), self.timing.open("ab") as target:
                data = part.read_bytes()
                target.write(data[: data.rfind(b"\n") + 1])
            part.unlink()

    def rewrite(self, keys: Sequence[Key]) -> None:
        """Rewrite the file atomically with these answers in this order, unless it has them already."""
        spans = [(self.lines[key].start, self.lines[key].end) for key in keys]
        sizes = [end - start for start, end in spans]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + size)
        whole = self.results.stat().st_size if self.results.exists() else 0
        if starts[-1] != whole or any(start != span[0] for start, span in zip(starts, spans, strict=False)):
            self.close()
            with self._writing(), self.results.open("rb") as source, replacing(self.results) as target:
                for start, end in spans:
                    source.seek(start)
                    target.write(source.read(end - start))
        self.lines = {key: Line(start, start + size, self.lines[key].score) for key, start, size in zip(keys, starts, sizes, strict=False)}
        self.size = starts[-1]

    def append(self, records: Sequence[Mapping[str, Any]], metric: str, timing: Mapping[str, Any]) -> None:
        """Append the answers of a batch and its time. A killed process may write only some of them."""
        data = [to_line(record) for record in records]
        with uninterrupted(), self._writing():
            if self.file is None:
                self.file = self.results.open("ab")
            self.file.write(b"".join(data))
            self.file.flush()
            for record, line in zip(records, data, strict=True):
                key = (record["task"], record["cell"], record["id"])
                self.lines[key] = Line(self.size, self.size + len(line), record["scores"][metric])
                self.size += len(line)
            with self.timing.open("ab") as file:
                file.write(to_line(timing))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # such as a full disk
            raise FileError(
                f"{self.path} cannot be written: {error.strerror or error}", "make room; the same command then resumes the run"
            ) from error

    def close(self) -> None:
        """Close the results."""
        if self.file is not None:
            self.file.close()
            self.file = None


def _lock(handle: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BiaskitError(f"another run is writing to {path}", "wait for it, or choose another --out") from error
    except OSError:  # a file system without locks
        return


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the answers of a results directory, or of its results file; an incomplete last line is left out."""
    file = path / RESULTS if path.is_dir() else path
    for _, _, record in answer_lines(file):
        yield record


def summaries(path: Path, summarise: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], dict[str, float]]]) -> dict[tuple[str, str], Any]:
    """Return (task, cell) → scores, from a directory whose run is complete.

    Args:
        summarise: task → function that summarises its records. Other tasks are left out.
    """
    found = {}
    for (task, cell), records in groupby(read_results(path), key=lambda record: (record["task"], record["cell"])):
        if task in summarise:
            slim = [{"scores": record["scores"], "tags": record["tags"], "answer": record["answer"]} for record in records]
            found[task, cell] = summarise[task](slim)
    return found
