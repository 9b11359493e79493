"""The numbers of a report: scores, ratios to the unpruned model, differences with their significance, break-downs. No text or figures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from biaskit.validation.report.costs import Cost, costs
from biaskit.validation.report.scores import Measure, primary_measure, secondary_measures
from biaskit.validation.results.cells import budgets, find, methods, plain_of, swept_methods
from biaskit.validation.results.doubtful import Scored
from biaskit.validation.results.read import Run, TaskRun
from biaskit.validation.statistics.resampling import Estimate, Kind, Resampled, bootstrap
from biaskit.validation.statistics.significance import holm, mcnemar, sign_flip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Settings of intervals and tests. `alpha` is the error of "A beats B" over a whole family of tests."""

    resamples: int = 10_000
    flips: int = 10_000
    seed: int = 0
    kind: Kind = "bca"
    level: float = 0.95

    @property
    def alpha(self) -> float:
        """1 − level."""
        return 1 - self.level


@dataclass(frozen=True)
class Comparison:
    """Method a against method b at one budget: the difference of their scores (a − b, in [−1, 1]), p, and p within the family."""

    a: str
    b: str
    budget: str
    difference: Estimate
    test: str
    p: float
    corrected: float = 1.0

    def turned(self) -> Comparison:
        """Return b against a."""
        d = self.difference
        return Comparison(self.b, self.a, self.budget, Estimate(-d.value, -d.high, -d.low), self.test, self.p, self.corrected)

    @property
    def same(self) -> bool:
        """True if no sample's score differs."""
        d = self.difference
        return d.value == d.low == d.high == 0

    def wins(self, alpha: float = 0.05) -> int:
        """1: a beats b; −1: b beats a; 0: not decided."""
        return 0 if self.corrected >= alpha else (1 if self.difference.value > 0 else -1)


@dataclass(frozen=True, eq=False)
class Part:
    """A break-down: the samples whose tag `kind` is `value`; per cell its score, and its difference from the unpruned model."""

    kind: str
    value: str
    n: int
    scores: Sequence[Estimate]
    lost: Sequence[Estimate | None]


@dataclass(frozen=True, eq=False)
class TaskResults:
    """All numbers of one task.

    Attributes:
        run: the answers. measure: of the scores. methods, budgets: rows and columns, without swept settings.
        scores, ratios: [m], of run.cells. parsed: [m], shares of answers that could be read, or None.
        comparisons: all pairs at every budget, corrected as one family. swept: swept settings against their plain method, another family.
        parts: break-downs. costs: by cell label. resampled: the bootstrap behind the scores. secondary: other scores → [m].
    """

    run: TaskRun
    measure: Measure
    settings: Settings
    methods: Sequence[str]
    budgets: Sequence[str]
    scores: Sequence[Estimate]
    ratios: Sequence[Estimate | None]
    comparisons: Sequence[Comparison]
    swept: Sequence[Comparison]
    parts: Sequence[Part]
    costs: dict[str, Cost]
    resampled: Resampled
    parsed: Sequence[float] | None = None
    secondary: Mapping[str, Sequence[Estimate]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Samples that are compared."""
        return len(self.run.ids)

    @property
    def scored(self) -> list[Scored]:
        """Every cell with its score, for `doubts`."""
        parsed: Sequence[float | None] = self.parsed or [None] * len(self.scores)
        return [
            Scored(cell.label, cell.pruner, cell.budget_name, score.value, self.n, read, cell.parameters.get("positions") == "compact")
            for cell, score, read in zip(self.run.cells, self.scores, parsed, strict=True)
        ]

    def at(self, method: str, budget: str) -> int | None:
        """Index of a cell; the unpruned model is in every budget column."""
        return find(self.run.cells, method, budget)

    def compared(self, a: str, b: str, budget: str) -> Comparison | None:
        """The comparison of a with b, also if it was made as b with a."""
        for found in self.comparisons:
            if found.budget == budget and {found.a, found.b} == {a, b}:
                return found if found.a == a else found.turned()
        return None


def analyse(run: Run, task: TaskRun, settings: Settings | None = None) -> TaskResults:
    """Compute all numbers of one task."""
    chosen = settings or Settings()
    measure = primary_measure(task)
    resampled = bootstrap(measure.columns, task.groups, chosen.resamples, chosen.seed)
    rows, columns = methods(task.cells), budgets(task.cells)
    base = task.unpruned
    scores = [measure.estimate(resampled, cell, chosen.kind, chosen.level) for cell in range(len(task.cells))]
    ratios = [
        None
        if base is None
        else measure.ratio(resampled, cell, base, chosen.kind, chosen.level)
        if cell != base
        else Estimate(1.0, 1.0, 1.0)
        for cell in range(len(task.cells))
    ]
    pairs = [(a, b, budget) for budget in columns for a, b in combinations(rows, 2)]
    return TaskResults(
        run=task,
        measure=measure,
        settings=chosen,
        methods=rows,
        budgets=columns,
        scores=scores,
        ratios=ratios,
        comparisons=compare(task, measure, resampled, chosen, pairs),
        swept=compare(task, measure, resampled, chosen, _sweep_pairs(task)),
        parts=break_down(task, measure, chosen),
        costs=costs(run, task),
        resampled=resampled,
        parsed=None if "parsed" not in task.scores else [float(v) for v in task.scores["parsed"].mean(axis=0)],
        secondary=_secondary(task, chosen),
    )


def _secondary(task: TaskRun, settings: Settings) -> dict[str, list[Estimate]]:
    """All other scores of every cell, resampled by the same draws."""
    found = {}
    for measure in secondary_measures(task):
        resampled = bootstrap(measure.columns, task.groups, settings.resamples, settings.seed)
        found[measure.name] = [measure.estimate(resampled, cell, settings.kind, settings.level) for cell in range(len(task.cells))]
    return found


def _sweep_pairs(task: TaskRun) -> list[tuple[str, str, str]]:
    """Every swept method against the plain one of its pruner."""
    swept = swept_methods(task.cells)
    pairs = []
    for cell in task.cells:
        if cell.method in swept:
            plain = plain_of(task.cells, cell)
            assert plain is not None  # swept methods have a plain one
            pairs.append((cell.method, plain.method, cell.budget_name))
    return pairs


def compare(
    task: TaskRun, measure: Measure, resampled: Resampled, settings: Settings, pairs: Sequence[tuple[str, str, str]]
) -> list[Comparison]:
    """Compare pairs (a, b, budget) as one family of tests; pairs of which a cell is missing are left out."""
    found = []
    for a, b, budget in pairs:
        left, right = find(task.cells, a, budget), find(task.cells, b, budget)
        if left is not None and right is not None:
            found.append((a, b, budget, left, right))
    if not found:
        return []
    name, p = _tests(task, settings, [(left, right) for *_, left, right in found])
    corrected = holm(p)
    return [
        Comparison(
            a, b, budget, measure.difference(resampled, left, right, settings.kind, settings.level), name, float(p[k]), float(corrected[k])
        )
        for k, (a, b, budget, left, right) in enumerate(found)
    ]


def _tests(task: TaskRun, settings: Settings, pairs: Sequence[tuple[int, int]]) -> tuple[str, Floats]:
    """The paired test that fits the scores: its name, and p of every pair of columns."""
    scores = task.primary
    differences = np.stack([scores[:, a] - scores[:, b] for a, b in pairs], axis=1)
    if task.groups is None and np.isin(scores, (0.0, 1.0)).all():
        return "McNemar, exact", np.array([mcnemar(int((d > 0).sum()), int((d < 0).sum())) for d in differences.T])
    name = "sign-flip permutation" if task.groups is None else "sign-flip permutation by image"
    # the smallest p of random flips must be small enough to survive the correction over all pairs
    return name, sign_flip(differences, task.groups, max(settings.flips, 100 * len(pairs)), settings.seed)


def break_down(task: TaskRun, measure: Measure, settings: Settings) -> list[Part]:
    """Scores by every value of every tag, and differences from the unpruned model."""
    parts = []
    base, cells = task.unpruned, range(len(task.cells))
    for kind in dict.fromkeys(key for tags in task.tags for key in tags):
        values = {tags[kind] for tags in task.tags if kind in tags}
        for value in ordered(values) if len(values) <= MOST_PARTS else []:
            rows = np.array([tags.get(kind) == value for tags in task.tags])
            groups = None if task.groups is None else [image for image, inside in zip(task.images, rows, strict=True) if inside]
            resampled = bootstrap(measure.columns[rows], groups, settings.resamples, settings.seed)
            parts.append(
                Part(
                    kind,
                    value,
                    int(rows.sum()),
                    [measure.estimate(resampled, cell, settings.kind, settings.level) for cell in cells],
                    [None if base is None else measure.difference(resampled, cell, base, settings.kind, settings.level) for cell in cells],
                )
            )
    return parts


_NUMBER = re.compile(r"\d+(\.\d+)?")
MOST_PARTS = 12  # a tag with more values (the name of the object) is not used for break-downs
_ORDERS = (
    ("top", "middle", "bottom"),
    ("left", "middle", "centre", "right"),
    ("small", "medium", "large"),
    ("centre", "middle", "edge"),
    ("yes", "no"),
)


def ordered(values: set[str]) -> list[str]:
    """Sort a tag's values naturally: top before bottom, small before large, 4-6 before 10-12, otherwise alphabetically."""
    for order in _ORDERS:
        if values <= set(order):
            return [value for value in order if value in values]
    return sorted(values, key=lambda value: (float(found.group()) if (found := _NUMBER.match(value)) else math.inf, value))
