"""Colours, marks and frames that all figures of a report share. A method looks the same in every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from biaskit.validation.results.cells import Cell
from biaskit.validation.results.labels import UNPRUNED

_FIXED = {"d2pruner": 0, "fastv": 3, "random": 7, "uniform": 5, "divprune": 2, "dart": 1, "idpruner": 4}  # of the palette
_MARKERS = "osD^vPX*hp"


@dataclass(frozen=True)
class Look:
    """How a method is drawn: with the prior solid and filled, without it (or strength 0) dashed and open where both are there."""

    colour: Any
    marker: str
    line: Literal["-", "--"]
    filled: bool
    wide: bool


def set_gaps(figure: Figure) -> None:
    """Keep labels clear of the neighbouring panel."""
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.05, wspace=0.03, hspace=0.03)  # type: ignore[union-attr, call-arg]


def settled(figure: Figure) -> Figure:
    """Lay a figure out once and for all: saving it again, in whatever format, moves nothing any more."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def looks(cells: Sequence[Cell]) -> dict[str, Look]:
    """One look a method, in order of appearance."""
    palette = sns.color_palette("colorblind", 10)
    debiased = {cell.pruner for cell in cells if cell.debiased}
    free = [index for index in range(10) if index not in _FIXED.values()]
    taken: dict[str, int] = {}
    found: dict[str, Look] = {}
    for cell in cells:
        if cell.method in found or cell.method == UNPRUNED:
            continue
        if cell.pruner not in taken:
            taken[cell.pruner] = _FIXED[cell.pruner] if cell.pruner in _FIXED else (free.pop(0) if free else len(taken) % 10)
        number = taken[cell.pruner]
        raw = cell.pruner in debiased and not cell.debiased
        found[cell.method] = Look(palette[number], _MARKERS[number], "--" if raw else "-", not raw, cell.debiased)
    return found


def retention_axis(axes: Axes, shares: Sequence[float]) -> None:
    """A logarithmic axis with a tick at every retention and no others."""
    ticks = sorted(set(shares))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * tick:.3g} %" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    pad = 1.12
    axes.set_xlim(ticks[0] / pad, ticks[-1] * pad)
    axes.set_xlabel("visual tokens kept")
