"""Read a folder that `biaskit validate` wrote: `run.json`, and `results.jsonl` with one line an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.validation.results.cells import Cell
from biaskit.validation.results.lines import answer_lines, is_cut

Floats = NDArray[np.float64]

# where run.json names no primary score: the first of these that the records have
_METRICS = ("iou50", "correct", "accuracy", "vqa_accuracy", "anls", "relaxed", "exact")

# of a record; answers, prompts and kept tokens would fill the memory for nothing
_READ: tuple[str, ...] = (
    "task",
    "cell",
    "id",
    "image",
    "tags",
    "scores",
    "pruner",
    "method",
    "retention",
    "budget",
    "prior",
    "parameters",
    "layer_tokens",
)
_READ += ("mean_tokens", "cache_bytes", "n_kept", "n_visual", "n_text")


@dataclass(frozen=True, eq=False)
class TaskRun:
    """All answers to one task that can be compared: every cell answered every sample.

    Attributes:
        task: its name. metric: the primary score.
        ids: [n]. images: [n], names of the images. tags: [n].
        cells: [m]. scores: name → [n, m]. answered: cell label → answers in the file, of all cells, also those left aside.
        costs: cell label → numbers: mean_tokens, cache_bytes, n_kept, n_visual, n_text (means), as far as recorded.
        layers: cell label → {(layer_tokens, n_text): answers with them}.
        notes: what was left aside and why.
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
        """Images to resample by, where at least two questions share one; else None."""
        return self.images if len(set(self.images)) < len(self.images) else None

    @property
    def unpruned(self) -> int | None:
        """Column of the unpruned model."""
        return next((index for index, cell in enumerate(self.cells) if cell.unpruned), None)


@dataclass(frozen=True, eq=False)
class Run:
    """A run: its manifest (empty where there is none), its tasks, and what a reader must know."""

    folder: Path
    manifest: Mapping[str, Any]
    tasks: Sequence[TaskRun]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model's name."""
        model = self.manifest.get("model", "")
        return str(model.get("name", "")) if isinstance(model, Mapping) else str(model)


def read_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        BiaskitError: no results, a line that is broken (but the last, which a killed run may leave), or the same answer twice.
    """
    path = folder / "results.jsonl"
    if not path.is_file():
        raise BiaskitError(f"{folder} has no results.jsonl", "give the folder that `biaskit validate --out` wrote")
    manifest = _manifest(folder / "run.json")
    notes: list[str] = [] if manifest else ["There is no run.json: model, libraries and settings of this run are not known."]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for record in _records(path, notes):
        by_task.setdefault(str(record["task"]), []).append(record)
    if not by_task:
        raise BiaskitError(f"{path} has no answers yet", "let `biaskit validate` run for longer")
    tasks = [_task(name, records, _metric(manifest, name)) for name, records in by_task.items()]
    return Run(folder, manifest, tasks, notes)


def _manifest(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BiaskitError(f"cannot read {path}: {error}", "restore it, or remove it to do without") from error
    return found if isinstance(found, dict) else {}


def _metric(manifest: Mapping[str, Any], task: str) -> str | None:
    """Primary score of a task as the manifest has it: tasks as a list of {name, metric}, or name → {metric}."""
    tasks = manifest.get("tasks") or []
    entries = (
        [{"name": name, **entry} for name, entry in tasks.items() if isinstance(entry, Mapping)] if isinstance(tasks, Mapping) else tasks
    )
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("name") == task and entry.get("metric"):
            return str(entry["metric"])
    return None


def _records(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    seen: set[tuple[str, str, str]] = set()
    for number, (_, _, record) in enumerate(answer_lines(path), 1):
        key = (record["task"], record["cell"], record["id"])
        if key in seen:
            raise BiaskitError(f"{path}, line {number}: {key[1]} answers {key[2]} twice", "repeat the run in a new folder")
        seen.add(key)
        yield {name: record[name] for name in _READ if name in record}
    if is_cut(path):
        notes.append("The last line of results.jsonl is cut off, and left aside: the run was stopped while it wrote.")


def _common(answers: Mapping[str, Mapping[str, Any]], notes: list[str]) -> tuple[list[str], list[str]]:
    """Cells to compare and the ids all of them answered; a cell that has hardly begun is left aside rather than shrink the rest."""
    labels = list(answers)
    largest = max(len(found) for found in answers.values())
    while True:
        ids = [id_ for id_ in answers[labels[0]] if all(id_ in answers[label] for label in labels)]
        if len(ids) * 2 >= largest or len(labels) == 1:
            break
        fewest = min(labels, key=lambda label: len(answers[label]))
        labels.remove(fewest)
        notes.append(f"{fewest} has {len(answers[fewest])} of {largest} answers, and is left aside until the run goes on.")
    if len(ids) < largest:
        notes.append(f"Only the {len(ids)} of {largest} questions that every cell has answered are compared: the run is not complete.")
    return labels, ids


def _task(name: str, records: Sequence[dict[str, Any]], metric: str | None) -> TaskRun:
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        answers.setdefault(record["cell"], {})[str(record["id"])] = record
    notes: list[str] = []
    labels, ids = _common(answers, notes)
    table = [[answers[label][id_] for label in labels] for id_ in ids]
    first = [row[0] for row in table]
    keys = [key for key in first[0]["scores"] if all(key in record["scores"] for row in table for record in row)]
    metric = metric or next((key for key in (*_METRICS, *keys) if key in keys), None)
    if metric is None or metric not in keys:
        raise BiaskitError(f"{name}: answers have no score {metric!r}, only {', '.join(keys) or 'none'}", "repeat the run in a new folder")
    scores = {key: np.array([[float(record["scores"][key]) for record in row] for row in table]) for key in keys}
    return TaskRun(
        task=name,
        metric=metric,
        ids=ids,
        images=[str(record.get("image", record["id"])) for record in first],
        tags=[record.get("tags") or {} for record in first],
        cells=[Cell.of(answers[label][ids[0]]) for label in labels],
        scores=scores,
        answered={label: len(found) for label, found in answers.items()},
        costs={label: _means([answers[label][id_] for id_ in ids]) for label in labels},
        layers={label: _layers([answers[label][id_] for id_ in ids]) for label in labels},
        notes=notes,
    )


def _means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("mean_tokens", "cache_bytes", "n_kept", "n_visual", "n_text")
    return {name: float(np.mean([r[name] for r in records])) for name in names if all(r.get(name) is not None for r in records)}


def _layers(records: Sequence[Mapping[str, Any]]) -> dict[tuple[tuple[tuple[int, float], ...], int], int]:
    found: dict[tuple[tuple[tuple[int, float], ...], int], int] = {}
    for record in records:
        if record.get("layer_tokens") and record.get("n_text") is not None:
            key = (tuple((int(layer), float(count)) for layer, count in record["layer_tokens"]), int(record["n_text"]))
            found[key] = found.get(key, 0) + 1
    return found
