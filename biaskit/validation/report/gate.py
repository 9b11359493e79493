"""Published against measured scores: first the unpruned model, on which all other comparisons depend, then every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.report.published import Row, benchmark, published, same_method, sources, table_title
from biaskit.validation.report.recognise import Recognised
from biaskit.validation.statistics.resampling import Estimate

LIMIT = 1.0  # points that the unpruned score may differ from the published one
_POPE = ("pope:random", "pope:popular", "pope:adversarial")


@dataclass(frozen=True)
class Against:
    """A measured score beside a published one, both in points (0–100); `passed` for the unpruned model, None for methods."""

    task: str
    benchmark: str
    source: str
    method: str
    retention: float
    paper: float
    measured: Estimate
    n: int
    note: str
    passed: bool | None = None

    @property
    def off(self) -> float:
        """Measured − published."""
        return self.measured.value - self.paper


def against_papers(model: Recognised, results: Sequence[TaskResults]) -> list[Against]:
    """Return every published score that a cell of the run corresponds to, the unpruned model's first. Empty for other models."""
    key = model.key
    if key is None:
        return []
    remark = "; ".join(part for part in (str(sources()["models"][key]["note"]), model.remark) if part)
    found: list[Against] = []
    pope = [result for result in results if result.run.task in _POPE]
    for group in [[result] for result in results if result not in pope] + ([pope] if pope else []):
        name = benchmark(group[0].run.task)
        if name is None or (group is pope and len(pope) < len(_POPE)):
            continue
        for row in published(key, name):
            if sources()["tables"][row.table]["kind"] == "scores":
                found += _held_against(group, name, row, remark)
    return sorted(found, key=lambda one: one.passed is None)


def incomparable(model: Recognised, results: Sequence[TaskResults]) -> list[str]:
    """Return notes on published figures that exist but cannot be compared with this run."""
    some = [result.run.task for result in results if result.run.task in _POPE]
    if model.key is None or not 0 < len(some) < len(_POPE):
        return []
    return [
        f"The papers print POPE's F1 averaged over {', '.join(_POPE)}; this run has {', '.join(some)} alone, so there is no gate for it."
    ]


def gate_state(model: Recognised, found: Sequence[Against], results: Sequence[TaskResults]) -> str:
    """Return a sentence on whether unpruned scores were compared with published ones, and if not, why."""
    gated = list(dict.fromkeys(one.task for one in found if one.passed is not None))
    if model.key is None:
        return f"The gate against published scores is off: {model.why}."
    if gated:
        return f"The gate against published scores is on for {', '.join(gated)}: {model.why}."
    if found or any(published(model.key, name) for result in results if (name := benchmark(result.run.task))):
        why = "the run has no unpruned score that corresponds to a published one"
    else:
        why = f"the tables print nothing about {', '.join(result.run.task for result in results)} for {model.key}"
    return f"The gate against published scores is off: {why}."


def _held_against(group: Sequence[TaskResults], name: str, row: Row, remark: str) -> list[Against]:
    found = []
    for method in group[0].methods:
        for budget in group[0].budgets or [""]:
            cells = [result.at(method, budget) for result in group]
            if any(cell is None for cell in cells) or not same_method(method, row.method):
                continue
            cell = group[0].run.cells[cells[0] or 0]
            if not _same_budget(cell.retention, cell.budget, row):
                continue
            scores = [_measured(result, index or 0) for result, index in zip(group, cells, strict=True)]
            measured = scores[0] if len(scores) == 1 else Estimate(*np.mean([[s.value, s.low, s.high] for s in scores], axis=0).tolist())
            measured = measured.times(100)
            passed = abs(measured.value - row.values[name]) <= LIMIT if method == "none" else None
            task = group[0].run.task if len(group) == 1 else "pope, three subsets"
            note = "; ".join(part for part in (row.note, remark) if part)
            n = sum(result.n for result in group)
            found.append(Against(task, name, table_title(row.table), method, row.retention, row.values[name], measured, n, note, passed))
            if method == "none":
                break  # it is the same in every budget column
    return found


def _same_budget(retention: float | None, budget: int | None, row: Row) -> bool:
    if row.method == "none":
        return True
    if retention is None:
        return budget is not None and budget == row.tokens
    return abs(retention - row.retention) <= 0.002


def _measured(result: TaskResults, cell: int) -> Estimate:
    """Return the score that papers print: F1 for POPE, else the task's own."""
    if result.run.task in ("pope", *_POPE) and "F1" in result.secondary:
        return result.secondary["F1"][cell]
    return result.scores[cell]


def warnings(found: Sequence[Against]) -> list[str]:
    """Return warnings about unpruned scores that differ from the published ones by more than a point."""
    lines = []
    for one in found:
        if one.passed is False:
            inside = not one.measured.excludes(one.paper)
            luck = (
                f"the published figure lies inside the interval of {one.n} questions, so this may be luck: run more of them"
                if inside
                else "that is more than luck: find the reason (prompt, resolution, parsing, checkpoint) before you compare methods"
            )
            m = one.measured
            lines.append(
                f"Unpruned, this model scores {m.value:.1f} ({m.low:.1f} … {m.high:.1f}) on {one.task}; {one.source} prints {one.paper:g} "
                f"({one.off:+.1f} points): {luck}.{' Note: ' + one.note + '.' if one.note else ''}"
            )
    return lines
