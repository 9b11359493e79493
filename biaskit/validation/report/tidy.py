"""All numbers of a report as rows with one number per column, for CSV, JSON and further computation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from biaskit.validation.report.analyse import Comparison, TaskResults
from biaskit.validation.report.average import Average
from biaskit.validation.report.contrasts import Conclusion
from biaskit.validation.report.gate import Against
from biaskit.validation.statistics.resampling import Estimate

Rows = list[dict[str, Any]]


def _three(prefix: str, estimate: Estimate | None) -> dict[str, float | None]:
    parts = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    finite = [None if part is None or not math.isfinite(part) else part for part in parts]
    return dict(zip((prefix, f"{prefix}_low", f"{prefix}_high"), finite, strict=True))


def scores(results: Sequence[TaskResults]) -> Rows:
    """One row per cell: score, ratio to unpruned, costs."""
    found = []
    for result in results:
        for index, cell in enumerate(result.run.cells):
            cost = result.costs[cell.label]
            found.append(
                {
                    "task": result.run.task, "cell": cell.label, "method": cell.method, "retention": cell.retention, "budget": cell.budget,
                    "n": result.n, "metric": result.measure.name, **_three("score", result.scores[index]),
                    **_three("of_unpruned", result.ratios[index]), "parsed": None if result.parsed is None else result.parsed[index],
                    "tokens_layer_mean": cost.tokens, "tokens_kept": cost.kept, "flops_prefill": cost.flops,
                    "flops_tower": cost.tower,
                    "cache_bytes": cost.cache_bytes,
                    "scores_above_0_of_kept": cost.positive,
                }
            )  # fmt: skip
    return found


def _comparison(task: str, family: str, found: Comparison) -> dict[str, Any]:
    return {
        "task": task, "family": family, "budget": found.budget, "a": found.a, "b": found.b, **_three("difference", found.difference),
        "test": found.test, "p": found.p, "p_corrected": found.corrected,
    }  # fmt: skip


def comparisons(results: Sequence[TaskResults]) -> Rows:
    """One row per pair of methods (family "pairs"), and per swept setting against its plain method (family "settings")."""
    return [
        _comparison(result.run.task, family, found)
        for result in results
        for family, group in (("pairs", result.comparisons), ("settings", result.swept))
        for found in group
    ]


def parts(results: Sequence[TaskResults]) -> Rows:
    """One row per cell and value of a tag: score, and difference from the unpruned model."""
    return [
        {
            "task": result.run.task, "kind": part.kind, "value": part.value, "n": part.n, "cell": cell.label, "method": cell.method,
            "retention": cell.retention, **_three("score", part.scores[index]), **_three("from_unpruned", part.lost[index]),
        }
        for result in results
        for part in result.parts
        for index, cell in enumerate(result.run.cells)
    ]  # fmt: skip


def averages(found: Sequence[Average]) -> Rows:
    """One row per method and budget: percent of unpruned over all tasks."""
    return [{"method": one.method, "budget": one.budget, "tasks": one.tasks, **_three("relative", one.relative)} for one in found]


def contrasts(conclusion: Conclusion, alpha: float) -> Rows:
    """One row per comparison of the conclusion."""
    return [
        {"question": c.question, "verdict": c.verdict(alpha), **_comparison(c.task, "conclusion", c.found)} for c in conclusion.contrasts
    ]


def papers(found: Sequence[Against]) -> Rows:
    """One row per published score that the run can be compared with; all in points."""
    return [
        {
            "task": one.task, "method": one.method, "retention": one.retention, "source": one.source, "benchmark": one.benchmark,
            "paper": one.paper, **_three("measured", one.measured), "off_by": one.off, "n": one.n, "passed": one.passed, "note": one.note,
        }
        for one in found
    ]  # fmt: skip
