"""Cells of a run, each one method at one retention: their labels, and which cells are one method at other budgets or settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from biaskit.registry import MethodLabel
from biaskit.validation.results.labels import UNPRUNED, method_of


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        label: as in the results, unique: "d2pruner@alpha=0.5+prior/r0.25".
        method: the label without its budget: "d2pruner@alpha=0.5+prior"; the same at every budget.
        pruner: registry key; "none" for the unpruned model.
        retention: share kept; None if a number of tokens was given. budget: that number.
        prior_id: sha256 of the prior that was used, None for none. parameters: the pruner's full settings.
        name: display name of the method, as recorded.
    """

    label: str
    method: str
    pruner: str
    retention: float | None
    budget: int | None
    prior_id: str | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @staticmethod
    def of(record: Mapping[str, Any]) -> Cell:
        """Read the cell of a line of results."""
        label = str(record["cell"])
        retention = record.get("retention")
        return Cell(
            label=label,
            method=method_of(label),
            pruner=str(record.get("pruner", method_of(label))),
            retention=None if retention is None else float(retention),
            budget=record.get("budget"),
            prior_id=record.get("prior"),
            parameters=record.get("parameters") or {},
            name=str(record.get("method", "")),
        )

    @property
    def unpruned(self) -> bool:
        """Whether nothing was dropped."""
        return self.pruner == UNPRUNED

    @property
    def prior(self) -> bool:
        """Whether a prior was used."""
        return self.prior_id is not None

    @property
    def debiased(self) -> bool:
        """Whether attention was debiased, by a prior or without one (the null row, a recency law of given slope)."""
        known = self.parameters
        source = known.get("debias", "prior")
        inside = source == "null" or (source == "recency" and known.get("slope") is not None)
        return (self.prior or inside) and float(known.get("strength", 1.0)) > 0 and known.get("mode") != "uniform"

    @property
    def debiasing(self) -> str:
        """Description of the prior that it was debiased by."""
        known, name = self.parameters, self.method.rpartition("+")[2]
        source, slope = known.get("debias", "prior"), known.get("slope")
        law = f"the recency law fitted to {name}" if slope is None else f"the recency law of slope {slope}"
        named = "the prior" if name == "prior" else f"the {name} prior"
        by = {"prior": named, "null": "the null row", "recency": law}.get(str(source), str(source))
        form = {"p_log": ", p·log(p/q)", "difference": ", difference"}
        return by + form.get(str(known.get("mode")), "")

    @property
    def uniform(self) -> bool:
        """Whether it is the control whose prior is flat."""
        return self.prior and self.parameters.get("mode") == "uniform"

    @property
    def half_debiased(self) -> bool:
        """Whether it was debiased with another strength than 1."""
        return self.debiased and float(self.parameters.get("strength", 1.0)) != 1

    @property
    def title(self) -> str:
        """The method's display name as recorded, without "debiased"."""
        return (self.name or self.pruner).removesuffix(", debiased")

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings in the label: {"alpha": "0.5"} for the one above."""
        return MethodLabel.read(self.method).settings

    @property
    def budget_name(self) -> str:
        """The name of its budget column: "25 %", or "64 tokens"."""
        if self.retention is None:
            return f"{self.budget} tokens"
        return f"{100 * self.retention:.4g} %"

    @property
    def share(self) -> float:
        """A number to order budgets by: retention, or minus one over the number of tokens (whole numbers come after shares)."""
        if self.retention is None:
            return -1.0 / max(1, self.budget or 1)
        return self.retention


def budgets(cells: Sequence[Cell]) -> list[str]:
    """Budget columns of the pruned cells, the largest first."""
    shares = {cell.budget_name: cell.share for cell in cells if not cell.unpruned}
    return sorted(shares, key=lambda name: -shares[name])


def methods(cells: Sequence[Cell], swept: bool = False) -> list[str]:
    """Methods in order of appearance, the unpruned model first; those that differ by a swept parameter only if `swept`."""
    sweeps = set() if swept else swept_methods(cells)
    found = dict.fromkeys(cell.method for cell in cells if cell.method not in sweeps)
    return sorted(found, key=lambda method: method != UNPRUNED)


_CONTROLS = {"strength", "mode"}  # settings of the ablation, which remove the effect of a prior
_DEBIASING = {*_CONTROLS, "debias", "slope"}  # settings of the debiasing
_READING = "rows"  # the rows of attention that it reads, which debiasings are compared on


def plain_of(cells: Sequence[Cell], cell: Cell) -> Cell | None:
    """Return the cell that a sweep of this cell's method starts from: the one without settings, else the control, else None."""
    family = [other for other in cells if (other.pruner, other.prior_id) == (cell.pruner, cell.prior_id)]
    plain = [other for other in family if not other.settings]
    control = [other for other in family if other.settings and set(other.settings) <= _CONTROLS and not other.debiased]
    return next(iter([*plain, *control]), None)


def swept_methods(cells: Sequence[Cell]) -> set[str]:
    """Return the methods that only vary a parameter of another method of the run, which are shown in sweeps, not in the main tables.

    Strength 0 and the uniform control, which the ablation compares, are not among them, nor are other debiasings and other rows.
    """
    found = set()
    for cell in cells:
        control = set(cell.settings) <= _CONTROLS and not cell.debiased
        rival = set(cell.settings) <= {*_DEBIASING, _READING} and not cell.half_debiased
        if cell.settings and not control and not rival and plain_of(cells, cell) is not None:
            found.add(cell.method)
    return found


def find(cells: Sequence[Cell], method: str, budget: str) -> int | None:
    """Return the index of the cell of a method in a budget column; the unpruned model is in all of them."""
    for index, cell in enumerate(cells):
        if cell.method == method and (cell.unpruned or cell.budget_name == budget):
            return index
    return None


def role(cell: Cell) -> str | None:
    """Return a cell's role in the comparison with and without debiasing: pruner and kind of debiasing; None for swept settings."""
    return None if set(cell.settings) - _CONTROLS or cell.half_debiased else cell.pruner + _PART[cell.debiased, cell.uniform]


_PART = {(False, False): "", (True, False): ", debiased", (False, True): ", uniform"}


@dataclass(frozen=True)
class Twins:
    """One method with and without its debiasings: labels of `methods`.

    Attributes:
        pruner: registry key. family: equal for methods that differ only in rows and debiasing.
        title: display name, with the common settings. debiased: at full strength, one per debiasing; may be empty.
        plain: without debiasing; None if the run has none. plain_title: as `title`; another one if plain reads other rows.
    """

    pruner: str
    family: tuple[Any, ...]
    title: str
    debiased: Sequence[str]
    plain: str | None
    plain_title: str


def twins(cells: Sequence[Cell], budget: str) -> list[Twins]:
    """Return every method of a budget with its debiased forms and without, in order of appearance, by rows that are read.

    Cells belong together if they have the same pruner and settings, apart from those of debiasing. If nothing was run without debiasing on
    the same rows, the method on other rows is used. Swept settings are left out, as in the main tables.
    """
    found: dict[tuple[Any, ...], tuple[Cell, list[str], list[str]]] = {}
    for method in methods(cells):
        index = find(cells, method, budget)
        cell = None if index is None else cells[index]
        if cell is None or cell.unpruned or cell.uniform or cell.half_debiased:
            continue
        own = tuple(sorted((key, value) for key, value in cell.settings.items() if key not in _DEBIASING))
        _, debiased, plain = found.setdefault((cell.pruner, own), (cell, [], []))
        (debiased if cell.debiased else plain).append(method)
    titles = {key: _titled(cell, key[1]) for key, (cell, _, _) in found.items()}
    families = {key: (key[0], tuple(pair for pair in key[1] if pair[0] != _READING)) for key in found}
    made = []
    for key, (cell, debiased, plain) in found.items():
        others = [other for other in found if families[other] == families[key] and found[other][2]]
        home = key if plain else next(iter(others), None)
        first = None if home is None else found[home][2][0]
        made.append(Twins(cell.pruner, families[key], titles[key], debiased, first, titles[home or key]))
    return made


def _titled(cell: Cell, own: tuple[Any, ...]) -> str:
    settings = ", ".join(f"{key} = {value}" for key, value in own)
    return cell.title + (f" ({settings})" if settings else "")
