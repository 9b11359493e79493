"""Read a folder that `biaskit validate` wrote: `run.json`, and `results.jsonl` with one line per answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from biaskit.errors import BiaskitError
from biaskit.validation.results.cells import Cell
from biaskit.validation.results.columns import Floats, Ints, Table
from biaskit.validation.results.directory import MANIFEST, RESULTS
from biaskit.validation.results.lines import answer_lines, is_cut
from biaskit.validation.results.schema import read_manifest

# if run.json does not name the primary score: the first of these that the records have
_METRICS = ("iou50", "correct", "accuracy", "vqa_accuracy", "anls", "relaxed", "exact")


@dataclass(frozen=True, eq=False)
class TaskRun:
    """All answers to one task that can be compared: every cell answered every sample.

    Attributes:
        task: its name. metric: the primary score.
        ids: [n]. images: [n], names of the images. tags: [n].
        cells: [m]. scores: name → [n, m]. answered: cell label → answers in the file, also of cells that were left out.
        costs: cell label → numbers: mean_tokens, cache_bytes, n_kept, n_visual, n_text, tower_flops, positive (means), as far as recorded.
        layers: cell label → {(layer_tokens, n_text): answers with them}.
        notes: what was left out and why.
    """

    task: str
    metric: str
    ids: Sequence[str]
    images: Sequence[str]
    tags: Sequence[Mapping[str, str]]
    cells: Sequence[Cell]
    scores: Mapping[str, Floats]
    answered: Mapping[str, int]
    costs: Mapping[str, Mapping[str, float]]
    layers: Mapping[str, Mapping[tuple[tuple[tuple[int, float], ...], int], int]]
    notes: Sequence[str] = ()

    @property
    def primary(self) -> Floats:
        """Scores of the metric, [n, m]."""
        return self.scores[self.metric]

    @property
    def groups(self) -> Sequence[str] | None:
        """Images to resample by, if at least two questions share one; else None."""
        return self.images if len(set(self.images)) < len(self.images) else None

    @property
    def unpruned(self) -> int | None:
        """Column of the unpruned model."""
        return next((index for index, cell in enumerate(self.cells) if cell.unpruned), None)


@dataclass(frozen=True, eq=False)
class Run:
    """A run: its manifest ({} if there is none), its tasks, and notes for the reader."""

    folder: Path
    manifest: Mapping[str, Any]
    tasks: Sequence[TaskRun]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.manifest.get("model", {}).get("name", ""))


def read_run(folder: Path | str) -> Run:
    """Read a run line by line; of each answer only its scores and costs are kept, as columns of numbers.

    Raises:
        BiaskitError: no results, a broken manifest or line (except an incomplete last one, which a killed run leaves), or a repeated
            answer.
    """
    folder = Path(folder)
    path = folder / RESULTS
    if not path.is_file():
        raise BiaskitError(f"{folder} has no {RESULTS}", "give the folder that `biaskit validate --out` wrote")
    manifest = read_manifest(folder / MANIFEST, "restore it, or remove it to do without") or {}
    notes: list[str] = [] if manifest else [f"There is no {MANIFEST}: model, libraries and settings of this run are not known."]
    tables: dict[str, Table] = {}
    for number, (_, _, record) in enumerate(answer_lines(path), 1):
        if not tables.setdefault(record["task"], Table()).add(record):
            raise BiaskitError(f"{path}, line {number}: {record['cell']} answers {record['id']!a} twice", "repeat the run in a new folder")
    if is_cut(path):
        notes.append(f"The last line of {RESULTS} is cut off, and left out: the run was stopped while it wrote.")
    if not tables:
        raise BiaskitError(f"{path} has no answers yet", "let `biaskit validate` run for longer")
    metrics = {task["name"]: str(task["metric"]) for task in manifest.get("tasks", [])}
    return Run(folder, manifest, [_task(name, table, metrics.get(name)) for name, table in tables.items()], notes)


def _common(table: Table, notes: list[str]) -> tuple[list[str], Ints]:
    """Return the cells to compare and the questions that all of them answered; a cell with few answers is left out."""
    answered = {label: np.asarray(columns.questions) for label, columns in table.cells.items()}
    labels = list(answered)
    largest = max(len(found) for found in answered.values())
    while True:
        count = np.zeros(len(table.ids), dtype=np.int64)
        for label in labels:
            count[answered[label]] += 1
        first = answered[labels[0]]
        common = first[count[first] == len(labels)]
        if len(common) * 2 >= largest or len(labels) == 1:
            break
        fewest = min(labels, key=lambda label: len(answered[label]))
        labels.remove(fewest)
        notes.append(f"{fewest} has {len(answered[fewest])} of {largest} answers, and is left out until the run is resumed.")
    if len(common) < largest:
        notes.append(f"Only the {len(common)} of {largest} questions that every cell has answered are compared: the run is not complete.")
    return labels, common


def _task(name: str, table: Table, metric: str | None) -> TaskRun:
    notes: list[str] = []
    labels, common = _common(table, notes)
    rows = {label: table.cells[label].rows_of(common, len(table.ids)) for label in labels}
    scores = {}
    for key in table.cells[labels[0]].scores:
        columns = [table.cells[label].values("scores", key, rows[label]) for label in labels]
        if all(column is not None for column in columns):
            scores[key] = np.stack([column for column in columns if column is not None], axis=1)
    metric = metric or next((key for key in (*_METRICS, *scores) if key in scores), None)
    if metric is None or metric not in scores:
        raise BiaskitError(
            f"{name}: answers have no score {metric!r}, only {', '.join(scores) or 'none'}", "repeat the run in a new folder"
        )
    ids = list(table.ids)
    return TaskRun(
        task=name,
        metric=metric,
        ids=[ids[k] for k in common],
        images=[table.images[k] for k in common],
        tags=[table.tags[k] for k in common],
        cells=[table.cells[label].cell for label in labels],
        scores=scores,
        answered={label: len(columns.questions) for label, columns in table.cells.items()},
        costs={label: table.cells[label].means(rows[label]) for label in labels},
        layers={label: table.cells[label].steps_of(rows[label], table.steps) for label in labels},
        notes=notes,
    )
