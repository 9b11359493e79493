"""The comparisons of a report: pairs of methods, chosen independently of the numbers and of the methods' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from biaskit.errors import BiaskitError
from biaskit.validation.report.analyse import TaskResults
from biaskit.validation.results.cells import Cell, Twins, find, twins

Kind = Literal["with", "rows", "rival", "other"]


@dataclass(frozen=True)
class Question:
    """The question whether method a is better than method b.

    Attributes:
        kind: with (debiasing or none), rows (rows that are read), rival (one debiasing or another), other (another method).
        words: "A against B". a, b: labels.
    """

    kind: Kind
    words: str
    a: str
    b: str


def questions(result: TaskResults, budget: str) -> list[Question]:
    """Return the questions at a budget, for every method.

    Each debiasing is compared with the method without it, on the same rows if these were run, and with every other debiasing of the method;
    other rows with the first ones. The last debiased method in the order of the run is also compared with random tokens, and with the best
    method that does not read attention.
    """
    cells = {cell.method: cell for cell in result.run.cells if cell.budget_name == budget}
    found = twins(result.run.cells, budget)
    names = {method: _named(one, cells[method]) for one in found for method in one.debiased}
    asked = [
        Question("with", f"{names[method]} against {one.plain_title} without it", method, one.plain)
        for one in found
        for method in one.debiased
        if one.plain is not None
    ]
    for family in dict.fromkeys(one.family for one in found):
        mine = [one for one in found if one.family == family]
        raw = [(one.title, one.plain) for one in mine if one.plain is not None and one.title == one.plain_title]
        asked += [Question("rows", f"{title} against {raw[0][0]}", plain, raw[0][1]) for title, plain in raw[1:]]
        rivals = [method for one in mine for method in one.debiased]
        asked += [Question("rival", f"{names[a]} against {names[b]}", a, b) for b, a in combinations(rivals, 2)]
    return asked + _beyond(result, budget, [one for one in found if one.debiased])


def _named(one: Twins, cell: Cell) -> str:
    """Return a debiased method's name; a prior that is its only debiasing is not named."""
    plain = len(one.debiased) == 1 and cell.debiasing.startswith("the ") and cell.debiasing.endswith(" prior")
    return f"{one.title} with {'the prior' if plain else cell.debiasing}"


def _beyond(result: TaskResults, budget: str, found: Sequence[Twins]) -> list[Question]:
    """Compare the last debiased method with random tokens, and with the best method that does not read attention."""
    if not found:
        return []
    cells = result.run.cells
    champion, paired = found[-1], {one.pruner for one in found}
    shown: Mapping[str, Cell] = {method: cells[index] for method in result.methods if (index := find(cells, method, budget)) is not None}
    others = [method for method, cell in shown.items() if not cell.unpruned and cell.pruner not in paired]
    random = next((method for method in others if shown[method].pruner == "random"), None)
    blind = [method for method in others if shown[method].pruner != "random" and reads_no_attention(shown[method].pruner)]
    best = max(blind, key=lambda method: result.scores[result.at(method, budget) or 0].value, default=None)
    asked = []
    for words, other in (("random tokens", random), ("the best method that reads no attention", best)):
        for method in champion.debiased if other is not None else ():
            name = shown[method].debiasing.removeprefix("the ")
            by = "" if len(champion.debiased) == 1 else f" ({name})"
            asked.append(Question("other", f"Debiased {champion.title}{by} against {words}", method, str(other)))
    return asked


def reads_no_attention(pruner: str) -> bool:
    """Return True if a registered method does not read attention; False for unknown ones."""
    from biaskit.pruners import pruners

    try:
        needs = pruners.get(pruner).needs
    except (BiaskitError, AttributeError):
        return False
    return not any(reading.rows and reading.at == "decoder" for reading in needs)
