"""`side_by_side` draws two priors beneath each other, layer by layer, with their ratio and their correlation.

Each map is scaled to mean 1 on its plane, as `prior.bias.report.compare` does, so that colours are multiples of uniform; if the grids
differ, both are resampled to the smaller one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from biaskit.errors import BiaskitError, PriorError
from biaskit.figures.colours import RATIO, Scale, beyond, check_scale, colour_limit, colour_ticks, colours, multiple
from biaskit.figures.style import FAINT, ShownFigure, check_out, house_style, write_figure
from biaskit.prior.bias.report import compare
from biaskit.prior.resample import resample
from biaskit.prior.value import Prior
from biaskit.text import shortened

Maps = NDArray[np.float64]

COLUMNS = 6  # maximum number of layers side by side; more wrap
_SIDE, _HEAD, _GAP, _LEFT, _BAR = 1.35, 0.5, 0.1, 0.5, 1.25  # inches
_NAME = 22  # letters of a prior's name at the side


def side_by_side(
    a: Prior,
    b: Prior,
    *,
    names: tuple[str, str] = ("A", "B"),
    plane: str | None = None,
    layers: Sequence[int] | None = None,
    scale: Scale = "shared",
    cmap: str | Colormap | None = None,
    ratio_cmap: str | Colormap | None = None,
    ax: Axes | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Figure:
    """Draw the maps of two priors, and A over B, for every layer that both have.

    Args:
        a, b: the priors. names: what to call them.
        plane: by default a's primary plane, or the first that both have. layers: 0-based; by default all that both have.
        scale: `shared` gives all layers the same colours; `panel` each its own, the same for both priors, whose ends are written above it.
        cmap: of the maps, ratio_cmap: of their ratio, of matplotlib's. ax: axes to draw one layer's ratio on, with a colour bar beside it;
            their figure is returned.
        out: file to write, .png, .pdf or .svg; the same input gives the same bytes. force: overwrite it.

    Raises:
        BiaskitError: they share no plane or no layer, several layers for `ax`, an unknown scale, colour map or suffix, a file that exists
            or cannot be written.
        PriorError: a plane or layer that a prior lacks.
    """
    kind, shades = check_scale(scale), (colours(cmap), colours(ratio_cmap, default=RATIO))
    if out is not None:
        check_out(Path(out), force)
    rows = compare(a, b)
    chosen = rows[0]["plane"] if plane is None else plane
    for prior in (a, b):
        for layer in layers or prior.layers[:1]:
            prior.map(chosen, layer)  # raises for a missing plane or layer
    rows = [row for row in rows if row["plane"] == chosen and (layers is None or row["layer"] in layers)]
    if not rows:
        raise PriorError(f"the priors share no plane {chosen!r}", "omit the plane to use one that both have")
    with house_style():
        maps = [_maps(a, b, row) for row in rows]
        figure = _draw(maps, rows, names, kind, shades) if ax is None else _on_axes(ax, maps, rows, names, shades[1])
        if out is not None:
            write_figure(figure, Path(out))
    return figure


def _maps(a: Prior, b: Prior, row: dict[str, Any]) -> tuple[Maps, Maps, Maps]:
    """log2 of both maps over their means, and of A over B, all on the common grid."""
    size = row["rows"], row["cols"]
    first, second = (np.maximum(resample(prior.map(row["plane"], row["layer"]), *size), 1e-9) for prior in (a, b))
    relative = [np.log2(values / values.mean()) for values in (first, second)]
    return relative[0], relative[1], relative[0] - relative[1]


def _on_axes(axes: Axes, found: Sequence[tuple[Maps, Maps, Maps]], rows: Sequence[dict[str, Any]], names: Any, shades: Colormap) -> Figure:
    """Draw A over B of the one layer on given axes."""
    if len(found) != 1:
        raise BiaskitError(f"{len(found)} layers on one ax", "give one layer")
    ratio = found[0][2]
    norm = _norm([ratio])
    axes.imshow(ratio, norm=norm, cmap=shades, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"{names[0]} / {names[1]}, layer {rows[0]['layer']}", fontsize=8, parse_math=False)
    _bar(axes.inset_axes((1.04, 0.0, 0.05, 1.0)), norm, shades, "first / second", [ratio])
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _draw(
    found: Sequence[tuple[Maps, Maps, Maps]], rows: Sequence[dict[str, Any]], names: tuple[str, str], kind: Scale,
    shades: tuple[Colormap, Colormap],
) -> Figure:  # fmt: skip
    blocks = -(-len(found) // COLUMNS)
    columns = -(-len(found) // blocks)
    shape = found[0][0].shape
    wide, high = (_SIDE * side / max(shape) for side in (shape[1], shape[0]))
    wide = max(wide, 0.3)
    step = max(wide, 1.25) + _GAP  # width needed by the text above a map
    block = _HEAD + 3 * (high + _GAP) + 0.1
    width, height = _LEFT + columns * step + (_BAR if kind == "shared" else 0.1), max(blocks * block, 3.2) + 0.35
    figure = ShownFigure(figsize=(width, height))
    groups = ([m for maps in found for m in maps[:2]], [maps[2] for maps in found])
    shared = [_norm(maps) for maps in groups]
    for index, (maps, row) in enumerate(zip(found, rows, strict=True)):
        line, column = divmod(index, columns)
        left, top = _LEFT + column * step, 0.3 + line * block
        norms = shared if kind == "shared" else [_norm(maps[:2]), _norm(maps[2:])]
        ends = [] if kind == "shared" else [multiple(2.0 ** float(norm.vmax or 0)) for norm in norms]
        _words(figure, row, left / width, 1 - (top + 0.17) / height, 0.15 / height, ends)
        for number, values in enumerate(maps):
            low = top + _HEAD + number * (high + _GAP) + high
            axes = figure.add_axes((left / width, 1 - low / height, wide / width, high / height))
            axes.imshow(values, norm=norms[number // 2], cmap=shades[number // 2], aspect="auto", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel((*(shortened(name, _NAME) for name in names), "first / second")[number], fontsize=7)
    where = f"plane {rows[0]['plane']}, {shape[0]}×{shape[1]}{' (resampled)' if rows[0]['resampled'] else ''}"
    room = int((width - _LEFT) * 9.5)  # letters of the heading that fit
    title = " and ".join(shortened(name, max(8, (room - len(where) - 7) // 2)) for name in names)
    figure.text(_LEFT / width, 1 - 0.2 / height, shortened(f"{title}: {where}", room), fontsize=9, weight="bold", parse_math=False)
    for number, norm in enumerate(shared if kind == "shared" else []):
        place = ((width - _BAR + 0.2) / width, 1 - (0.75 + 1.3 * (number + 1)) / height, 0.12 / width, 1.05 / height)
        _bar(figure.add_axes(place), norm, shades[number], ("attention / uniform", "first / second")[number], groups[number])
    return figure


def _words(figure: Figure, row: dict[str, Any], x: float, y: float, line: float, ends: Sequence[str]) -> None:
    figure.text(x, y, f"layer {row['layer']} (K = {row['layer'] + 1})", fontsize=7, weight="bold")
    figure.text(x, y - line, f"r = {row['pearson']:.2f}, ρ = {row['spearman']:.2f}", fontsize=7)
    small = f"to {ends[0]} ×, ratio to {ends[1]} ×" if ends else f"top 25 %: {row['top_k']:.2f} (chance {row['top_k_chance']:.2f})"
    figure.text(x, y - 1.9 * line, small, fontsize=5.5, color=FAINT)


def _norm(maps: Sequence[Maps]) -> Normalize:
    limit = colour_limit(maps)
    return Normalize(-limit, limit)


def _bar(axes: Axes, norm: Normalize, shades: Colormap, text: str, maps: Sequence[Maps]) -> None:
    limit = float(norm.vmax or 0)
    ticks = colour_ticks(limit, fine=False)
    figure: Any = axes.get_figure(root=True)
    bar = figure.colorbar(ScalarMappable(norm, shades), cax=axes, extend=beyond(maps, limit), extendfrac=0.06)
    bar.set_ticks([math.log2(tick) for tick in ticks], labels=[f"{multiple(tick)} ×" for tick in ticks])
    axes.tick_params(length=2, labelsize=6)
    bar.set_label(text, fontsize=7)
