"""Colours, marks and frames of all figures of a report. A method looks the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from biaskit.figures.methods import Look as Look
from biaskit.figures.methods import looks as looks_of
from biaskit.validation.results.cells import Cell
from biaskit.validation.results.labels import UNPRUNED


def set_gaps(figure: Figure) -> None:
    """Keep labels clear of the neighbouring panel."""
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.05, wspace=0.03, hspace=0.03)  # type: ignore[union-attr, call-arg]


def settled(figure: Figure) -> Figure:
    """Fix a figure's layout, so that it is the same in every saved format."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def looks(cells: Sequence[Cell]) -> dict[str, Look]:
    """Return one look per method. Whether it is debiased is read from the settings, not the label: at strength 0 it is not."""
    shown = [cell for cell in cells if cell.method != UNPRUNED]
    return looks_of(list(dict.fromkeys(cell.method for cell in shown)), {cell.method for cell in shown if cell.debiased})


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
