"""The figure of `biaskit.validation.studies.enough`: correlation against the number of images, a line per layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biaskit.figures.style import FAINT, ShownFigure, check_out, house_style, write_figure
from biaskit.validation.studies.enough import Convergence

_MOST = 12  # most layers with their own colour and name


def draw_enough(rows: Sequence[Convergence], out: str | os.PathLike[str] | None = None, *, title: str = "", force: bool = False) -> Figure:
    """Draw two panels over a logarithmic axis of images: disjoint halves with Spearman and Brown's curve, and the prior of all images.

    Args:
        rows: of `settle`. out: file to write, .png, .pdf or .svg. title: a heading. force: overwrite `out`.

    Raises:
        BiaskitError: the file cannot be written.
    """
    if out is not None:
        check_out(Path(out), force)
    with house_style():
        figure = ShownFigure(figsize=(7.6, 3.5))
        left, right = (figure.add_axes((x, 0.15, 0.35, 0.66)) for x in (0.075, 0.5))
        layers = list(dict.fromkeys(row.layer for row in rows))
        colours = sns.color_palette("viridis", len(layers))
        for layer, colour in zip(layers, colours, strict=True):
            _lines(left, right, [row for row in rows if row.layer == layer], colour, f"layer {layer}" if len(layers) <= _MOST else None)
        left.set(ylabel="Pearson correlation", title="two priors of n images each, none in common")
        right.set(title="a prior of n images and that of all")
        ticks = sorted({row.n for row in rows})
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xticks(ticks, [str(n) for n in ticks], fontsize=6.5)
            axes.minorticks_off()
            axes.set(xlabel="n, images", ylim=(min(0.0, *(row.halves or 0.0 for row in rows)), 1.02))
            axes.title.set_fontsize(7.5)
            for level in (0.95, 0.99):
                axes.axhline(level, color="0.85", linewidth=0.6, zorder=0)
            sns.despine(ax=axes)
        if len(layers) <= _MOST:
            right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=6.5)
        figure.text(0.02, 0.95, title or "How many calibration images are enough?", fontsize=9, weight="bold", parse_math=False)
        note = "dots: mean over random splits · line: Spearman-Brown from the largest disjoint halves · grey: 0.95 and 0.99"
        figure.text(0.02, 0.9, note, fontsize=6.5, color=FAINT)
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _lines(left: Axes, right: Axes, rows: Sequence[Convergence], colour: Any, label: str | None) -> None:
    """One layer in both panels."""
    halves = [row for row in rows if row.halves is not None]
    n = [row.n for row in rows]
    left.plot(n, [row.reliability for row in rows], "-", color=colour, linewidth=0.8)
    dots: dict[str, Any] = {"color": colour, "markersize": 3, "elinewidth": 0.6}
    spread = [row.halves_sd or 0.0 for row in halves]
    left.errorbar([row.n for row in halves], [row.halves or 0.0 for row in halves], yerr=spread, fmt="o", **dots)
    right.errorbar(n, [row.full for row in rows], yerr=[row.full_sd for row in rows], fmt="o-", linewidth=0.8, label=label, **dots)
