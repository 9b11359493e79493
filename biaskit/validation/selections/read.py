"""Read the selections of a results directory and average them: measures per cell with intervals, overlaps per pair of methods."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.kept.overlap import jaccard, jaccard_by_chance, overlap_coefficient
from biaskit.validation.results.directory import MANIFEST, RESULTS
from biaskit.validation.results.labels import method_of
from biaskit.validation.results.lines import answer_lines
from biaskit.validation.results.schema import is_number, read_manifest
from biaskit.validation.statistics.resampling import half_width

_HINT = "run `biaskit validate … --analyse --out DIR` for this model and task"


@dataclass(frozen=True)
class Point:
    """One method at one retention on one task.

    Attributes:
        task: "" if several are pooled. cell: the label. method: the label without its retention. retention: share kept.
        n: questions. means: measure → mean over questions. half_widths: measure → 95 % half-width (normal, over images), nan for one.
    """

    task: str
    cell: str
    method: str
    retention: float
    n: int
    means: Mapping[str, float]
    half_widths: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        half = {name: None if math.isnan(value) else value for name, value in self.half_widths.items()}
        return {**vars(self), "means": dict(self.means), "half_widths": half}


@dataclass(frozen=True, eq=False)
class Selections:
    """The analysed records of a run.

    Attributes:
        directory: of the run. settings: of the measures, from the manifest.
        records: of pruned cells, in file order.
    """

    directory: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks, in order of appearance."""
        return list(dict.fromkeys(str(record["task"]) for record in self.records))

    @property
    def reference(self) -> str:
        """How Hopkins' reference was drawn, to be shown in every figure."""
        return str(self.settings.get("hopkins_reference", "not recorded"))

    def of(self, task: str | None) -> list[Mapping[str, Any]]:
        """Return the records of one task, or of all.

        Raises:
            BiaskitError: there is no such task.
        """
        if task is not None and task not in self.tasks:
            raise BiaskitError(f"{self.directory} has no task {task!r}", f"choose {' or '.join(self.tasks)}")
        return [record for record in self.records if task is None or record["task"] == task]

    def points(self, task: str | None = None) -> list[Point]:
        """Return the measures of every cell, pooled over tasks if none is named; empty if the run was not analysed."""
        cells: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for record in self.of(task):
            if record.get("selection"):
                cells[record["cell"]].append(record)
        return [_point(task or "", cell, records) for cell, records in cells.items()]

    def overlaps(self, retention: float, task: str | None = None, measure: str = "jaccard") -> tuple[list[str], Any, float]:
        """Return the mean overlap of the methods' kept sets, question by question, at one retention.

        Args:
            retention: as the records have it. task: one, or all. measure: `jaccard` or `coefficient`.

        Returns:
            (methods, [m, m] mean overlap on the questions both answered (NaN if there are none), mean Jaccard overlap of random sets).

        Raises:
            BiaskitError: an unknown measure.
        """
        between = {"jaccard": jaccard, "coefficient": overlap_coefficient}.get(measure)
        if between is None:
            raise BiaskitError(f"overlap measure {measure!r}", "choose jaccard or coefficient")
        kept: dict[str, dict[tuple[str, str], Tensor]] = defaultdict(dict)
        chance: dict[tuple[str, str], float] = {}
        for record in self.of(task):
            if record["retention"] == retention and record.get("kept"):
                key = (str(record["task"]), str(record["id"]))
                kept[method_of(record["cell"])][key] = torch.tensor(record["kept"])
                n = len(record["kept"])
                chance[key] = jaccard_by_chance(int(record["n_visual"]), n, n) if measure == "jaccard" else n / int(record["n_visual"])
        names = list(kept)
        found = np.eye(len(names))
        for i, a in enumerate(names):
            for j, b in enumerate(names[:i]):
                both = [between(kept[a][key], kept[b][key]) for key in kept[a].keys() & kept[b].keys()]
                found[i, j] = found[j, i] = float(np.mean(both)) if both else math.nan
        return names, found, float(np.mean(list(chance.values()))) if chance else math.nan

    @property
    def retentions(self) -> list[float]:
        """The retentions at which kept tokens were listed, descending."""
        return sorted({float(record["retention"]) for record in self.records if record.get("kept")}, reverse=True)


def read_selections(directory: Path | str) -> Selections:
    """Read a results directory.

    Raises:
        BiaskitError: there are no results, or no analysed results of a pruned model.
    """
    directory = Path(directory)
    path = directory / RESULTS
    if not path.is_file():
        raise BiaskitError(f"there is no {path}", _HINT)
    records = []
    for number, (_, _, record) in enumerate(answer_lines(path), 1):
        if record.get("selection") or record.get("kept"):
            wrong = next((name for name in ("retention", "n_visual") if not is_number(record.get(name))), None)
            if wrong is not None:
                raise BiaskitError(f"{path}, line {number}: a measured answer without {wrong}", _HINT)
            if record.get("selection") or record["retention"] < 1:
                records.append(record)
    if not records:
        raise BiaskitError(f"{path} has no measures of selections", _HINT)
    return Selections(directory, _settings(directory / MANIFEST), records)


def _settings(path: Path) -> dict[str, Any]:
    """Return the analysis settings in the manifest; {} if there are none."""
    said = read_manifest(path, "restore it, or remove it to do without") or {}
    return said.get("analysed") or {}


def _point(task: str, cell: str, records: Sequence[Mapping[str, Any]]) -> Point:
    measures = dict.fromkeys(name for record in records for name in record["selection"])
    values = {name: np.array([record["selection"][name] for record in records if name in record["selection"]]) for name in measures}
    images = {name: [record.get("image", record["id"]) for record in records if name in record["selection"]] for name in measures}
    half = {name: half_width(v, images[name]) for name, v in values.items()}
    means = {name: float(v.mean()) for name, v in values.items()}
    return Point(task, cell, method_of(cell), float(records[0]["retention"]), len(records), means, half)
