"""The style of a method in all figures: one colour and one marker, and a dash pattern for what its attention is divided by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from biaskit.registry import MethodLabel

PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#7d5fb2", "#949494", "#b8a900", "#56b4e9")
"""Ten colours; those of one marker can be distinguished with any kind of colour blindness. The first are seaborn's `colorblind`."""
MARKERS = "o^sDvPX*hp"
_KNOWN = {
    "d2pruner": (0, "o"), "fastv": (3, "^"), "divprune": (2, "s"), "random": (7, "X"), "uniform": (7, "P"), "dart": (1, "D"),
    "idpruner": (4, "v"), "cdpruner": (6, "p"), "scope": (9, "h"), "sparsevlm": (5, "*"), "pyramiddrop": (8, "v"), "visionzip": (0, "s"),
    "vispruner": (2, "^"), "fastervlm": (4, "o"), "hired": (1, "^"), "hiprune": (3, "s"), "prumerge": (5, "p"), "prumerge+": (5, "^"),
    "tome": (8, "P"), "pool": (7, "h"), "globalcom2": (6, "P"), "visionselector": (9, "D"), "coordinates": (4, "X"), "fitprune": (0, "*"),
}  # fmt: skip
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
"""Lines of a method with its first prior, the second, …; without a prior, next to a debiased version, `RAW`."""
RAW: Any = (0, (1.5, 2.5))


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        colour, marker: the method's. line: its prior's, a dash pattern of matplotlib's. filled: False (an open
            marker) without a prior if the figure also has the method with one. wide: a thicker line, for debiased methods.
    """

    colour: str
    marker: str
    line: Any = "-"
    filled: bool = True
    wide: bool = False


def look_of(name: str) -> Look:
    """Return the colour and marker of a method by its registered name; for methods of other packages it is computed from the name.

    Example:
        >>> look_of("fastv").marker, look_of("somebody's").colour in PALETTE
        ('^', True)
    """
    number = sum(ord(letter) * (place + 1) for place, letter in enumerate(name))
    colour, marker = _KNOWN.get(name, (number % len(PALETTE), MARKERS[number // len(PALETTE) % len(MARKERS)]))
    return Look(PALETTE[colour], marker)


def _divided_by(one: MethodLabel) -> str | None:
    """What attention is divided by: a prior's name, or a source that needs none, as written in the label."""
    source = one.settings.get("debias", "prior")
    return one.prior if source == "prior" else f"debias={source}+{one.prior or ''}"


def looks(labels: Sequence[str], debiased: Collection[str] | None = None) -> dict[str, Look]:
    """Return label → look, for labels such as `fastv@k=3+tasks` of one figure: priors are distinguished by their dashes.

    Without a prior, if the figure also has the method with one, the marker is open and the line dotted. Several settings of one method
    with one prior differ only in the marker, which is the next free one.

    Args:
        labels: of one figure. debiased: those whose prior counts (at strength 0 it does not); by default all that name one.

    Example:
        >>> found = looks(["fastv", "fastv+tasks", "fastv+neutral", "divprune"])
        >>> found["fastv"].filled, found["fastv+tasks"].line == found["fastv+neutral"].line
        (False, False)
        >>> looks(["fastv", "fastv@debias=null"])["fastv@debias=null"].filled
        True
        >>> found["divprune"].line
        '-'
    """
    read = {label: MethodLabel.read(label) for label in labels}
    prior = {label: _divided_by(one) if debiased is None or label in debiased else None for label, one in read.items()}
    priors = list(dict.fromkeys(filter(None, prior.values())))
    paired = {one.name for label, one in read.items() if prior[label]}
    taken: set[tuple[str, str, str | None]] = set()
    found = {}
    for label, one in read.items():
        base, mine = look_of(one.name), prior[label]
        marker = next((m for m in (base.marker, *MARKERS) if (base.colour, m, mine) not in taken), base.marker)
        taken.add((base.colour, marker, mine))
        line = DASHES[priors.index(mine) % len(DASHES)] if mine else RAW if one.name in paired else "-"
        found[label] = Look(base.colour, marker, line, mine is not None or one.name not in paired, mine is not None)
    return found
