"""Does debiasing help? The comparisons that answer it, chosen independently of the numbers, and a paragraph on their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from biaskit.validation.report.analyse import Comparison, TaskResults, compare
from biaskit.validation.report.average import draws_of_tasks, mean_over_tasks
from biaskit.validation.report.pairs import Kind, questions
from biaskit.validation.statistics.resampling import Estimate, Floats, bootstrap
from biaskit.validation.statistics.significance import holm


@dataclass(frozen=True)
class Contrast:
    """One comparison: a question, the task, and method a against method b at one budget; p is corrected over all contrasts of the run."""

    question: str
    task: str
    found: Comparison
    kind: Kind = "with"

    def verdict(self, alpha: float) -> str:
        """Return "helps", "hurts" or "cannot tell"."""
        return {1: "helps", -1: "hurts", 0: "cannot tell"}[self.found.wins(alpha)]


@dataclass(frozen=True)
class Conclusion:
    """The contrasts, one verdict per question, and the paragraph."""

    contrasts: Sequence[Contrast]
    verdicts: dict[str, str]
    text: str

    @property
    def sentence(self) -> str:
        """The answer in one sentence, the first of the paragraph."""
        return _opening(self.verdicts) if self.verdicts else self.text


def conclude(results: Sequence[TaskResults]) -> Conclusion:
    """Compare, correct p over all comparisons, and write the paragraph."""
    contrasts: list[Contrast] = []
    for result in results:
        asked = [(budget, question) for budget in result.budgets for question in questions(result, budget)]
        pairs = [(question.a, question.b, budget) for budget, question in asked]
        found = compare(result.run, result.measure, result.resampled, result.settings, pairs)
        contrasts += [Contrast(q.words, result.run.task, one, q.kind) for (_, q), one in zip(asked, found, strict=True)]
    corrected = holm([contrast.found.p for contrast in contrasts])
    contrasts = [replace(c, found=replace(c.found, corrected=float(p))) for c, p in zip(contrasts, corrected, strict=True)]
    alpha = results[0].settings.alpha if results else 0.05
    questions_asked = list(dict.fromkeys(contrast.question for contrast in contrasts))
    contrasts.sort(key=lambda contrast: questions_asked.index(contrast.question))
    verdicts = {question: _verdict([c for c in contrasts if c.question == question], alpha) for question in questions_asked}
    return Conclusion(contrasts, verdicts, _paragraph(results, contrasts, verdicts, alpha))


def _index(result: TaskResults, method: str, budget: str) -> int:
    index = result.at(method, budget)
    assert index is not None
    return index


def _verdict(contrasts: Sequence[Contrast], alpha: float) -> str:
    """Return the verdict over all tasks and budgets of a question."""
    if all(contrast.found.same for contrast in contrasts):
        return "makes no difference"
    signs = {contrast.found.wins(alpha) for contrast in contrasts} - {0}
    return {(): "cannot tell", (1,): "helps", (-1,): "hurts", (-1, 1): "helps in places and hurts in others"}[tuple(sorted(signs))]


def points(estimate: Estimate) -> str:
    """Return a difference in points, such as "+3.2 (1.1 … 5.4)", or a note that nothing differs."""
    if estimate.value == estimate.low == estimate.high == 0:
        return "none (not one score differs)"
    scaled = estimate.times(100)
    return f"{scaled.value:+.1f} ({scaled.low:.1f} … {scaled.high:.1f})".replace("-", "−")


def p_text(p: float) -> str:
    """Return a p as text: "p < 0.001", "p = 0.013"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _paragraph(results: Sequence[TaskResults], contrasts: Sequence[Contrast], verdicts: dict[str, str], alpha: float) -> str:
    if not contrasts:
        return (
            "Whether debiasing helps cannot be said from this run: it has no debiased method beside what it must be compared with. "
            "Run for instance --pruner none,random,divprune,fastv,fastv+prior,d2pruner+prior,d2pruner@strength=0."
        )
    draws = draws_of_tasks(results)
    kinds = {contrast.question: contrast.kind for contrast in contrasts}
    told = {question: verdict for question, verdict in verdicts.items() if kinds[question] != "rival"}
    sentences = [_question(results, [c for c in contrasts if c.question == question], told[question], alpha, draws) for question in told]
    sentences += _rivals({question: verdict for question, verdict in verdicts.items() if kinds[question] == "rival"})
    where = _where(results, contrasts)
    n = ", ".join(_extent(result) for result in results)
    tail = (
        f"All differences are in points of score on the same questions ({n}), with {100 * results[0].settings.level:g} % intervals; "
        f"p is corrected (Holm) over the {len(contrasts)} comparisons of the conclusion."
    )
    return " ".join([_opening(told), *sentences, *where, tail])


def _rivals(verdicts: Mapping[str, str]) -> list[str]:
    """Return a sentence on the decided comparisons between debiasings; the table has the numbers of all."""
    if not verdicts:
        return []
    if len(verdicts) > _FEW:
        return [f"Debiasings against each other, {len(verdicts)} pairs, all in the table: {'; '.join(_standings(verdicts))}."]
    settled = [
        _clause(question, verdict) for question, verdict in verdicts.items() if verdict not in ("cannot tell", "makes no difference")
    ]
    left = len(verdicts) - len(settled)
    open_ = f"{left} of {len(verdicts)} pairs cannot be told apart" if left else ""
    return [f"Debiasings against each other: {'; '.join(part for part in (*settled, open_) if part)}."]


_FEW = 10
"""Pairs of debiasings that the paragraph goes through one by one."""


def _standings(verdicts: Mapping[str, str]) -> list[str]:
    """Return a clause for each method that is debiased: the best of its debiasings by pairs lost, then won; ties are named together."""
    others: dict[str, set[str]] = {}
    won: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for question, verdict in verdicts.items():
        left, right = question.split(" against ")
        for one, other, better in ((left, right, "helps"), (right, left, "hurts")):
            others.setdefault(one, set()).add(other)
            won[one] += verdict == better
            lost[one] += verdict in ("helps", "hurts") and verdict != better
    clauses = []
    for base in dict.fromkeys(map(_base, others)):
        members = [one for one in others if _base(one) == base]
        best = min((lost[one], -won[one]) for one in members)
        first = [one for one in members if (lost[one], -won[one]) == best]
        if not best[1]:
            clauses.append(f"of {len(members)} of {base}, none is settled as better than another")
            continue
        rest = max(len(others[one]) for one in first) + best[1] - best[0]
        come = "comes" if len(first) == 1 else "come"
        clauses.append(
            f"of {len(members)} of {base}, {' and '.join(first)} {come} out best: better than {-best[1]}, worse than {best[0]}"
            + (f"; with {rest} it goes both ways or cannot be told" if rest else "")
        )
    return clauses


def _base(name: str) -> str:
    """The method that is debiased: "FastV" of "FastV (rows = question) with the null row"."""
    return name.partition(" with ")[0].partition(" (")[0]


def _extent(result: TaskResults) -> str:
    images = "" if result.run.groups is None else f" on {len(set(result.run.images))} images"
    return f"{result.n} questions of {result.run.task}{images}"


def _opening(verdicts: dict[str, str]) -> str:
    """The verdicts in one sentence."""
    text = "; ".join(_clause(question, verdict) for question, verdict in verdicts.items())
    return f"In this run {text}."


def _clause(question: str, verdict: str) -> str:
    left, right = question.split(" against ")
    if right.endswith("without it"):
        title, _, prior = left.partition(" with ")
        return {
            "helps": f"{prior} helps {title}",
            "hurts": f"{prior} hurts {title}",
            "cannot tell": f"whether {prior} helps {title} cannot be told",
            "makes no difference": f"{prior} changes not one score of {title}",
        }.get(verdict, f"{prior} helps {title} in places and hurts it in others")
    left = left[0].lower() + left[1:] if left.startswith("Debiased ") else left
    return {
        "helps": f"{left} is better than {right}",
        "hurts": f"{left} is worse than {right}",
        "cannot tell": f"{left} cannot be told from {right}",
        "makes no difference": f"{left} scores exactly as {right}",
    }.get(verdict, f"{left} is better than {right} in places and worse in others")


def _question(
    results: Sequence[TaskResults], contrasts: Sequence[Contrast], verdict: str, alpha: float, draws: Mapping[str, Floats]
) -> str:
    """Return a question, its verdict and its numbers: averaged over tasks, then on the tasks where it is decided."""
    words = []
    budgets = dict.fromkeys(contrast.found.budget for contrast in contrasts)
    for budget in budgets:
        here = [contrast for contrast in contrasts if contrast.found.budget == budget]
        if len(here) == 1:
            words.append(f"{points(here[0].found.difference)} at {budget} on {here[0].task} ({p_text(here[0].found.corrected)})")
            continue
        by_task = {result.run.task: result for result in results}
        parts = []
        for contrast in here:
            result = by_task[contrast.task]
            a, b = _index(result, contrast.found.a, budget), _index(result, contrast.found.b, budget)
            parts.append((result, lambda means, a=a, b=b: means[..., a] - means[..., b]))
        signs = [contrast.found.wins(alpha) for contrast in here]
        decided = _count(signs.count(1), signs.count(-1), len(here))
        words.append(f"{points(mean_over_tasks(parts, draws))} at {budget} averaged over tasks ({decided})")
    return f"{contrasts[0].question}: {verdict}. The difference is {', '.join(words)}."


def _count(better: int, worse: int, n: int) -> str:
    """Return on how many tasks the comparison is decided."""
    if n in (better, worse):
        return f"{'better' if better else 'worse'} on all {n} tasks"
    settled = [f"{word} on {count}" for word, count in (("better", better), ("worse", worse), ("not settled", n - better - worse)) if count]
    return f"{', '.join(settled)} of {n} tasks"


def _where(results: Sequence[TaskResults], contrasts: Sequence[Contrast]) -> list[str]:
    """Return a sentence on the parts of the image with the largest and smallest difference, for the first question."""
    first = [contrast for contrast in contrasts if contrast.question == contrasts[0].question]
    largest = max(first, key=lambda contrast: abs(contrast.found.difference.value))
    result = next(result for result in results if result.run.task == largest.task)
    a, b = (_index(result, method, largest.found.budget) for method in (largest.found.a, largest.found.b))
    kind = next((kind for kind in ("row", "ring", "position") if any(part.kind == kind for part in result.parts)), None)
    if kind is None:
        return []
    found = _differences(result, kind, a, b)
    if len(found) < 2:
        return []
    words = ", ".join(f"{points(difference)} for {value} ({n} questions)" for value, n, difference in found)
    place = f"By {kind} of what is asked about, on {largest.task} at {largest.found.budget}, where that difference is largest"
    return [f"{place}, {largest.found.a} − {largest.found.b} is {words} (intervals not corrected)."]


def _differences(result: TaskResults, kind: str, a: int, b: int) -> list[tuple[str, int, Estimate]]:
    """The difference of two cells in every part of a kind."""
    found = []
    for part in result.parts:
        if part.kind == kind:
            rows = np.array([tags.get(kind) == part.value for tags in result.run.tags])
            groups = None if result.run.groups is None else [image for image, inside in zip(result.run.images, rows, strict=True) if inside]
            chosen = result.settings
            resampled = bootstrap(result.run.primary[rows][:, [a, b]], groups, chosen.resamples, chosen.seed)
            found.append((part.value, part.n, resampled.difference(0, 1, chosen.kind, chosen.level)))
    return found
