"""The figure of `biaskit.validation.studies.transfer`: correlation of the priors by layer, and the scores with each prior."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biaskit.figures.style import FAINT, INK, ShownFigure, check_out, house_style, write_figure
from biaskit.validation.studies.transfer import Study

_LEFT, _CELL, _ROW, _HEAD, _SCORES = 2.1, 0.36, 0.24, 0.85, 2.3  # inches
_MOST = 32  # most layers shown; with more layers, every k-th one


def draw_transfer(study: Study, out: str | os.PathLike[str] | None = None, *, title: str = "", force: bool = False) -> Figure:
    """Draw correlations, one row per pair of priors and one column per layer, and below them the scores with each prior.

    Args:
        study: of `transfer`. out: file to write, .png, .pdf or .svg. title: a heading. force: overwrite `out`.

    Raises:
        BiaskitError: the file cannot be written.
    """
    if out is not None:
        check_out(Path(out), force)
    pairs, layers, values = _strip(study)
    panels = list(dict.fromkeys((row["task"], row["model_of"]) for row in study.scores))
    width = max(_LEFT + len(layers) * _CELL + 0.9, _LEFT + len(panels) * _SCORES + 0.3, 5.5)
    names = max((len({row["prior"] for row in study.scores if row["task"] == task}) for task, _ in panels), default=0)
    strip = len(pairs) * _ROW
    low = 0.2 * names + 0.75 if panels else 0.0
    height = _HEAD + strip + 0.15 + low
    with house_style():
        figure = ShownFigure(figsize=(width, height))
        top = figure.add_axes((_LEFT / width, 1 - (_HEAD + strip) / height, len(layers) * _CELL / width, strip / height))
        _draw_strip(top, pairs, layers, values)
        for index, (task, home) in enumerate(panels):
            place = ((_LEFT + index * _SCORES) / width, 0.42 / height, (_SCORES - 0.35) / width, 0.2 * names / height)
            rows = [row for row in study.scores if (row["task"], row["model_of"]) == (task, home)]
            _draw_scores(figure.add_axes(place), rows, task if home is None else f"{task}, {home}", show_names=index == 0)
        heading = title or f"How far a prior carries over: {study.axis}"
        figure.text(0.1 / width, 1 - 0.22 / height, heading, fontsize=9, weight="bold", parse_math=False)
        note = f"Pearson correlation of the maps, {study.samples:,} images each"
        if study.scores:
            how = study.asking
            note += f" · scores: {how.pruner} at K = {how.layer}, {how.retention:.0%} kept, bars: 95 %"
        figure.text(0.1 / width, 1 - 0.39 / height, note, fontsize=6.5, color=FAINT)
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _strip(study: Study) -> tuple[list[str], list[int], Any]:
    """Names of the pairs, layers, and the correlation of each [pairs, layers], nan where a pair lacks a layer; on the first plane."""
    rows = [row for row in study.maps if row["plane"] == study.maps[0]["plane"]]
    layers = sorted({row["layer"] for row in rows})
    layers = layers[:: -(-len(layers) // _MOST)]
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in rows))
    found = np.full((len(pairs), len(layers)), np.nan)
    for row in rows:
        if row["layer"] in layers:
            found[pairs.index((row["a"], row["b"])), layers.index(row["layer"])] = row["pearson"]
    return [f"{a[:18]} · {b[:18]}" for a, b in pairs], layers, found


def _draw_strip(axes: Axes, pairs: Sequence[str], layers: Sequence[int], values: Any) -> None:
    axes.imshow(values, vmin=-1, vmax=1, cmap=sns.color_palette("vlag", as_cmap=True), aspect="auto", interpolation="nearest")
    for i, j in np.ndindex(values.shape):
        if np.isfinite(values[i, j]):
            strong = abs(values[i, j]) > 0.75
            axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=6, color="white" if strong else INK)
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers], fontsize=6.5)
    axes.set_yticks(range(len(pairs)), pairs, fontsize=6.5, parse_math=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("decoder layer", fontsize=6.5, labelpad=2)
    axes.tick_params(length=0, pad=2)


def _draw_scores(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str, *, show_names: bool) -> None:
    for place, row in enumerate(rows):
        plain = row["prior"] in ("unpruned", "no prior")
        axes.errorbar(
            row["score"], place, xerr=row["half_width"], fmt="s" if plain else "o", color="0.5" if plain else "#3f6ea3", markersize=4,
            elinewidth=0.8,
        )  # fmt: skip
    bare = next(row["score"] for row in rows if row["prior"] == "no prior")
    axes.axvline(bare, color="0.8", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), [row["prior"] for row in rows] if show_names else [""] * len(rows), fontsize=6.5, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(max(0.0, low), min(1.03, high))  # a mark at 1 is shown whole
    axes.set_title(title, fontsize=7.5, loc="left", parse_math=False)
    axes.set_xlabel("score", fontsize=7)
    axes.tick_params(length=2, labelsize=6.5)
    sns.despine(ax=axes)
