"""Tables of a report as plain entries, which `text_formats` and `html` format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from biaskit.families.checkpoints.flops import TOWER
from biaskit.files import file_part
from biaskit.validation.report.analyse import Comparison, TaskResults
from biaskit.validation.report.average import Average
from biaskit.validation.report.contrasts import Conclusion, p_text
from biaskit.validation.report.costs import FORMULA, Cost
from biaskit.validation.report.gate import Against
from biaskit.validation.results.labels import UNPRUNED
from biaskit.validation.statistics.resampling import Estimate


@dataclass(frozen=True)
class Entry:
    """One entry: text, a detail in smaller print (the interval), a value to sort by, and whether it is bold."""

    text: str
    detail: str = ""
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a file name (`key`), a title, column heads, rows of the same length, and notes."""

    key: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    notes: Sequence[str] = ()


def number(value: float, digits: int = 1) -> str:
    """Return a number as text with a typographic minus sign; a dash if it is not finite.

    >>> number(-0.25, 2), number(float("nan"))
    ('−0.25', '—')
    """
    return "—" if not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def entry(estimate: Estimate | None, factor: float = 100, sign: bool = False, strong: bool = False, unit: str = "") -> Entry:
    """An estimate: its value, and its interval as the detail."""
    if estimate is None or not math.isfinite(estimate.value):
        return Entry("—")
    e = estimate.times(factor)
    plus = "+" if sign and e.value > 0 else ""
    detail = "" if e.low == e.high == e.value else f"{number(e.low)} … {number(e.high)}"
    return Entry(f"{plus}{number(e.value)}{unit}", detail, e.value, strong)


def name(method: str) -> str:
    """Return the name of a method in tables."""
    return "unpruned" if method == UNPRUNED else method


def _best(result: TaskResults, budget: str) -> int | None:
    cells = [index for method in result.methods if method != UNPRUNED and (index := result.at(method, budget)) is not None]
    return max(cells, key=lambda cell: result.scores[cell].value) if cells else None


def score_table(result: TaskResults) -> Table:
    """Methods × retentions: score in points, and percent of the unpruned score, with intervals."""
    relative = result.run.unpruned is not None
    head = ["method"]
    for budget in result.budgets:
        head += [budget, f"{budget}: of unpruned"] if relative else [budget]
    rows = []
    for method in result.methods:
        row = [Entry(name(method))]
        for budget in result.budgets:
            cell = result.at(method, budget)
            strong = cell is not None and cell == _best(result, budget)
            row.append(entry(None if cell is None else result.scores[cell], strong=strong))
            if relative:
                row.append(entry(None if cell is None else result.ratios[cell], unit=" %"))
        rows.append(row)
    what = "images resampled" if result.run.groups is not None else "samples resampled"
    kind = "BCa" if result.settings.kind == "bca" else "percentile"
    how = f"{100 * result.settings.level:g} % intervals: {kind} bootstrap, {result.settings.resamples} resamples, {what}"
    notes = [f"{result.n} questions; {result.measure.name} in points. {how}, all methods by the same draws. Bold: highest of the pruned."]
    if result.parsed is not None:
        unread = [(1 - share, cell.label) for share, cell in zip(result.parsed, result.run.cells, strict=True) if share < 1]
        if unread:
            worst, label = max(unread)
            notes.append(f"Answers that could not be read count as wrong: up to {100 * worst:.1f} % ({label}).")
    return Table(f"{_file(result)}-scores", f"{result.run.task}: score by retention", head, rows, [*notes, *result.run.notes])


def _file(result: TaskResults) -> str:
    return file_part(result.run.task)


def cost_table(result: TaskResults) -> Table | None:
    """Visual tokens over all layers, multiply-adds of prefill, bytes of the real cache; None if nothing of it was recorded."""
    columns: list[tuple[str, Callable[[Cost], float | None], float, int]] = [
        ("tokens, layer mean", lambda cost: cost.tokens, 1, 1),
        ("GFLOPs, prefill", lambda cost: cost.flops, 1e-9, 3),
        ("GFLOPs, tower", lambda cost: cost.tower, 1e-9, 3),
        ("cache MB", lambda cost: cost.cache_bytes, 1e-6, 3),
        ("scores above 0 / kept", lambda cost: cost.positive, 1, 2),
    ]
    columns = [column for column in columns if any(column[1](cost) is not None for cost in result.costs.values())]
    if not columns:
        return None
    head = ["method", *(f"{budget}: {title}" for budget in result.budgets for title, *_ in columns)]
    rows = []
    for method in result.methods:
        row = [Entry(name(method))]
        for budget in result.budgets:
            index = result.at(method, budget)
            cost = Cost() if index is None else result.costs[result.run.cells[index].label]
            for _, read, factor, digits in columns:
                value = read(cost)
                row.append(Entry("—") if value is None else Entry(number(value * factor, digits), value=value * factor))
        rows.append(row)
    notes = ["Means over samples. Cache: bytes of the real key-value cache after prefill, text included."]
    if any("FLOPs" in title for title, *_ in columns):
        notes.append(
            f"FLOPs are multiply-adds: of the language model's prefill by formula {FORMULA!r}, pruning left out; of the vision tower and "
            f"of what reads its attention by {TOWER}."
        )
    if any("above 0" in title for title, *_ in columns):
        notes.append(
            "Where scores have a sign (p_log), fewer of them above 0 than tokens kept means that the least attended tokens fill up."
        )
    return Table(f"{_file(result)}-costs", f"{result.run.task}: what it costs", head, rows, notes)


def matrix(result: TaskResults, budget: str) -> Table:
    """All differences at one retention: row − column in points, with interval and corrected p."""
    names = [method for method in result.methods if result.at(method, budget) is not None]
    rows = []
    for a in names:
        row = [Entry(name(a))]
        for b in names:
            found = None if a == b else result.compared(a, b, budget)
            row.append(Entry("·") if found is None else _difference(found, result.settings.alpha))
        rows.append(row)
    test = result.comparisons[0].test if result.comparisons else ""
    note = (
        f"Row − column in points, {100 * result.settings.level:g} % interval, p of the paired test ({test}), corrected by Holm over all "
        f"{len(result.comparisons)} pairs of this task. Bold: p < {result.settings.alpha:.2g}. "
        "Intervals are of single differences, not corrected."
    )
    return Table(
        f"{_file(result)}-{file_part(budget)}-pairs", f"{result.run.task}, {budget}: who beats whom", ["", *map(name, names)], rows, [note]
    )


def _difference(found: Comparison, alpha: float) -> Entry:
    shown = entry(found.difference, sign=True)
    return Entry(shown.text, f"{shown.detail}, {p_text(found.corrected)}", shown.value, found.wins(alpha) != 0)


def part_tables(result: TaskResults) -> list[Table]:
    """One break-down per kind of tag: scores by its values, at every retention."""
    tables = []
    for kind in dict.fromkeys(part.kind for part in result.parts):
        parts = [part for part in result.parts if part.kind == kind]
        if len(parts) < 2:
            continue
        head = ["method", "retention", *(f"{part.value} (n = {part.n})" for part in parts)]
        rows = []
        for method in result.methods:
            for budget in result.budgets if method != UNPRUNED else result.budgets[:1]:
                cell = result.at(method, budget)
                if cell is not None:
                    share = Entry("100 %", value=100) if method == UNPRUNED else Entry(budget, value=100 * result.run.cells[cell].share)
                    rows.append([Entry(name(method)), share, *(entry(part.scores[cell]) for part in parts)])
        tables.append(Table(f"{_file(result)}-by-{file_part(kind)}", f"{result.run.task}: score by {kind}", head, rows))
    return tables


def secondary_table(result: TaskResults) -> Table | None:
    """All other scores; None if there are none that vary."""
    names = [key for key, values in result.secondary.items() if len({estimate.value for estimate in values}) > 1]
    if not names:
        return None
    rows = []
    for cell, estimates in enumerate(zip(*(result.secondary[key] for key in names), strict=True)):
        about = result.run.cells[cell]
        if about.method in result.methods:
            rows.append(
                [
                    Entry(name(about.method)),
                    Entry("100 %" if about.unpruned else about.budget_name, value=about.share),
                    *map(entry, estimates),
                ]
            )
    return Table(f"{_file(result)}-other-scores", f"{result.run.task}: other scores", ["method", "retention", *names], rows)


def sweep_table(result: TaskResults) -> Table | None:
    """Swept settings against the plain method; None without any."""
    if not result.swept:
        return None
    rows = []
    for found in result.swept:
        cell = result.at(found.a, found.budget)
        score = None if cell is None else result.scores[cell]
        rows.append([Entry(found.a), Entry(found.budget), entry(score), Entry(found.b), _difference(found, result.settings.alpha)])
    note = f"Differences in points, p corrected by Holm over the {len(rows)} rows; plain methods have their default settings."
    head = ["setting", "retention", result.measure.name, "against", "difference"]
    return Table(f"{_file(result)}-settings", f"{result.run.task}: settings", head, rows, [note])


def average_table(found: Sequence[Average]) -> Table | None:
    """Percent of unpruned, averaged over tasks; None for a single task or without unpruned scores."""
    if not found or found[0].tasks < 2:
        return None
    budgets = list(dict.fromkeys(one.budget for one in found))
    values = {(one.method, one.budget): one.relative for one in found}
    best = {b: max((v.value for (m, c), v in values.items() if c == b and m != UNPRUNED), default=math.nan) for b in budgets}
    rows = []
    for method in dict.fromkeys(one.method for one in found):
        cells = [values.get((method, budget)) for budget in budgets]
        strong = [cell is not None and cell.value == best[b] and method != UNPRUNED for cell, b in zip(cells, budgets, strict=True)]
        rows.append([Entry(name(method)), *(entry(c, unit=" %", strong=s) for c, s in zip(cells, strong, strict=True))])
    what = f"Mean over {found[0].tasks} tasks of score / unpruned score, as the papers' Avg"
    note = f"{what}; percentile intervals; tasks are resampled independently, but by image and together where they share images."
    return Table("average", "Average over tasks, relative to the unpruned model", ["method", *budgets], rows, [note])


def contrast_table(conclusion: Conclusion, alpha: float) -> Table | None:
    """The comparisons behind the conclusion."""
    if not conclusion.contrasts:
        return None
    rows = [
        [
            Entry(c.question), Entry(c.task), Entry(c.found.budget), Entry(f"{c.found.a} − {c.found.b}"), _difference(c.found, alpha),
            Entry(c.verdict(alpha)),
        ]
        for c in conclusion.contrasts
    ]  # fmt: skip
    note = (
        f"In points; p corrected by Holm over these {len(rows)} comparisons. A best method is chosen by the same scores, which favours it."
    )
    return Table("does-it-help", "Does debiasing help?", ["question", "task", "retention", "a − b", "difference", "verdict"], rows, [note])


def paper_table(found: Sequence[Against]) -> Table | None:
    """Paper against measured."""
    if not found:
        return None
    rows = [
        [
            Entry(one.task), Entry(name(one.method)), Entry(f"{100 * one.retention:.4g} %", value=one.retention), Entry(one.source),
            Entry(f"{one.paper:g}", value=one.paper), entry(one.measured, factor=1),
            Entry(f"{one.off:+.1f}".replace("-", "−"), value=one.off, strong=one.passed is False), Entry(one.note),
        ]
        for one in found
    ]  # fmt: skip
    head = ["task", "method", "retention", "source", "paper", "measured", "off by", "note"]
    return Table("paper-against-measured", "Paper against measured", head, rows, ["Bold: unpruned, and off by more than a point."])
