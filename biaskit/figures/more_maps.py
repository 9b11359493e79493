"""Further views of a prior: every head of a layer, all layers' row profiles in one figure; and of a sample: raw, prior, debiased.

Values are multiples of uniform on a log2 scale centred on 1, with the colours of `biaskit.figures.colours`.
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
from PIL.Image import Image

from biaskit.errors import BiaskitError, PriorError
from biaskit.figures.colours import Scale, beyond, check_scale, colour_limit, colour_ticks, colours, multiple
from biaskit.figures.patches import draw_picture, frame_of
from biaskit.figures.style import ShownFigure, check_out, house_style, write_figure
from biaskit.grid import Layout
from biaskit.prior.value import Prior

Maps = NDArray[np.float64]
Out = str | os.PathLike[str] | None
_SIDE, _TITLE, _BAR = 1.3, 0.45, 0.95  # inches


@house_style()
def layer_profiles(
    prior: Prior,
    *,
    plane: str | None = None,
    layers: Sequence[int] | None = None,
    cmap: str | Colormap | None = None,
    ax: Axes | None = None,
    out: Out = None,
    title: str | None = None,
    force: bool = False,
) -> Figure:
    """Draw the attention to each row of a plane at each layer: one column per layer, the mean of the map's row over the mean of the map.

    Args:
        prior: what to draw. plane: by default the primary one. layers: 0-based, by default all. cmap: of matplotlib's.
        ax: axes to draw on; their figure is returned.
        out: file to write, .png, .pdf or .svg. title: a heading. force: overwrite `out`.

    Raises:
        BiaskitError: an unknown colour map, or `out` cannot be written. PriorError: the prior lacks the plane, or a layer.

    Example:
        >>> from biaskit.prior.value import PlaneStats
        >>> mean = np.linspace(0.5, 1.5, 32, dtype=np.float32).reshape(2, 4, 4)
        >>> figure = layer_profiles(Prior({"image": PlaneStats(mean)}, (1, 4), np.ones(2, dtype=np.float32), {}))
        >>> figure.axes[0].images[0].get_array().shape
        (4, 2)
    """
    path = _checked(out, force)
    name = prior.primary if plane is None else plane
    chosen = list(prior.layers if layers is None else layers)
    maps = [prior.map(name, layer) for layer in chosen]
    rows = _logs(np.stack([values.mean(axis=1) / values.mean() for values in maps], axis=1))
    figure = ShownFigure(figsize=(max(3.2, 0.22 * len(maps) + 1.8), 3.2), layout="constrained") if ax is None else _figure_of(ax)
    axes = figure.subplots() if ax is None else ax
    norm, shades = _norm([rows]), colours(cmap)
    axes.imshow(rows, norm=norm, cmap=shades, aspect="auto", interpolation="nearest")
    step = max(1, math.ceil(len(maps) / 16))
    axes.set_xticks(range(0, len(maps), step), [str(layer) for layer in chosen[::step]])
    axes.set(xlabel="decoder layer (K − 1)", ylabel=f"row of {name}")
    axes.set_title(title or f"{prior.model.rstrip('/').split('/')[-1] or 'prior'}: where each layer looks", fontsize=9, loc="left")
    _bar(figure, [axes], [rows], norm, shades, "row over the layer's mean")
    return _written(figure, path)


@house_style()
def head_maps(
    prior: Prior,
    layer: int,
    *,
    plane: str | None = None,
    scale: Scale = "shared",
    cmap: str | Colormap | None = None,
    out: Out = None,
    title: str | None = None,
    force: bool = False,
) -> Figure:
    """Draw the map of every head of a layer, each over its own mean.

    Args:
        prior: one that was calibrated with `heads`. layer: 0-based. plane: by default the primary one.
        scale: `shared` gives all heads the same colours; `panel` each its own, whose end is written above it.
        cmap: of matplotlib's. out: file to write, .png, .pdf or .svg. title: a heading. force: overwrite `out`.

    Raises:
        BiaskitError: an unknown scale or colour map, or `out` cannot be written.
        PriorError: the prior lacks the layer or plane, or has no maps of heads.
    """
    path, kind = _checked(out, force), check_scale(scale)
    name = prior.primary if plane is None else plane
    prior.map(name, layer)  # raises for a missing plane or layer
    heads = prior.planes[name].head_mean
    if heads is None:
        raise PriorError("this prior has no maps of heads", "calibrate it again with --heads")
    found = [_logs(values / max(float(values.mean()), 1e-12)) for values in heads[prior.layer(layer)].astype(np.float64)]
    cols = min(8, math.ceil(math.sqrt(len(found) * 1.6)))
    rows = -(-len(found) // cols)
    tall = _SIDE * found[0].shape[0] / found[0].shape[1]
    figure = ShownFigure(figsize=(cols * (_SIDE + 0.1) + _BAR, rows * (tall + 0.28) + _TITLE), layout="constrained")
    grid = figure.subplots(rows, cols, squeeze=False)
    shades = colours(cmap)
    for index, axes in enumerate(grid.flat):
        if index >= len(found):
            axes.set_visible(False)
            continue
        norm = _norm(found if kind == "shared" else [found[index]])
        axes.imshow(found[index], norm=norm, cmap=shades, interpolation="nearest")
        ends = "" if kind == "shared" else f", to {multiple(2.0 ** float(norm.vmax or 0))} ×"
        axes.set_title(f"head {index}{ends}", fontsize=6.5, loc="left", pad=2)
        axes.set(xticks=[], yticks=[])
    model = prior.model.rstrip("/").split("/")[-1] or "prior"
    figure.suptitle(title or f"{model}, layer {layer} (K = {layer + 1}): every head, over its own mean", fontsize=9, x=0.01, ha="left")
    if kind == "shared":
        _bar(figure, list(grid.flat), found, _norm(found), shades, "attention over the head's mean")
    return _written(figure, path)


@house_style()
def triple(
    image: Image,
    layout: Layout,
    attention: NDArray[Any],
    a_bias: NDArray[Any],
    *,
    strength: float = 1.0,
    number: int = 0,
    scale: Scale = "panel",
    cmap: str | Colormap | None = None,
    out: Out = None,
    title: str | None = None,
    force: bool = False,
) -> Figure:
    """Draw one sample's raw attention, the prior, and the attention divided by it (D2Pruner, eq. 3), over the picture.

    Args:
        image: the picture. layout: its N visual tokens, from `family.prepare`. attention: [N] of the last prompt token at layer K − 1.
        a_bias: [N], the prior at these tokens, as `Prior.for_layout` gives it. strength: τ of the division, 0 … 1.
        number: which image of the prompt. scale: a colour scale for each of the three, or one `shared`. cmap: of matplotlib's.
        out: file to write, .png, .pdf or .svg. title: a heading. force: overwrite `out`.

    Raises:
        BiaskitError: values that are not one per token, an image whose tokens have no known place, or `out` cannot be written.
    """
    path, kind = _checked(out, force), check_scale(scale)
    if len(attention) != len(layout) or len(a_bias) != len(layout):
        raise BiaskitError(
            f"{len(attention)} values of attention and {len(a_bias)} of the prior for {len(layout)} visual tokens", "give one per token"
        )
    views = layout.views(number)
    if not views:
        raise BiaskitError(f"image {number} has no plane with a known place in the image", "lay it out with the image's size")
    main = views[0]
    plane, pixels = layout.planes[main], np.asarray(image.convert("RGB"))
    raw, bias = np.asarray(attention, dtype=np.float64), np.asarray(a_bias, dtype=np.float64)
    shown = {"raw attention": raw, "prior": bias, f"attention / prior, τ = {strength:g}": raw / (np.maximum(bias, 0) ** strength + 1e-7)}
    maps = [_logs(layout.fold(values / values.mean())[main]) for values in shown.values()]
    frame, shades = frame_of(plane, image.size), colours(cmap)
    wide = 2.5
    figure = ShownFigure(figsize=(4 * wide + 0.4, wide * frame.height / frame.width + 1.0), layout="constrained")
    plain, *others = figure.subplots(1, 4, subplot_kw={"anchor": "N"})
    draw_picture(plain, pixels, frame)
    plain.set_title("picture", fontsize=8, loc="left")
    for axes, name, values in zip(others, shown, maps, strict=True):
        norm = _norm(maps if kind == "shared" else [values])
        draw_picture(axes, pixels, frame)
        ys, xs = plane.edges()
        alpha = 0.72
        axes.pcolormesh(xs * image.width, ys * image.height, values, norm=norm, cmap=shades, alpha=alpha, edgecolors="none", linewidth=0)
        axes.set_title(name, fontsize=8, loc="left")
        _bar(figure, [axes], [values], norm, shades, "over uniform", below=True)
    figure.suptitle(title or "What debiasing does to one picture", fontsize=9, x=0.01, ha="left", weight="bold")
    return _written(figure, path)


def _logs(values: NDArray[Any]) -> Maps:
    return np.asarray(np.log2(np.maximum(values, 1e-6)), dtype=np.float64)


def _norm(maps: Sequence[Maps]) -> Normalize:
    limit = colour_limit(maps)
    return Normalize(-limit, limit)


def _checked(out: Out, force: bool) -> Path | None:
    if out is None:
        return None
    check_out(Path(out), force)
    return Path(out)


def _written(figure: Figure, path: Path | None) -> Figure:
    if path is not None:
        write_figure(figure, path)
    return figure


def _figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _bar(
    figure: Figure, axes: list[Axes], maps: Sequence[Maps], norm: Normalize, shades: Colormap, label: str, *, below: bool = False
) -> None:
    limit = float(norm.vmax or 0)
    more: dict[str, Any] = {"location": "bottom", "pad": 0.02} if below else {}
    bar = figure.colorbar(ScalarMappable(norm, shades), ax=axes, extend=beyond(maps, limit), extendfrac=0.04, **more)
    ticks = colour_ticks(limit, fine=False)
    ticks = [ticks[0], 1.0, ticks[-1]] if below else ticks
    bar.set_ticks([math.log2(tick) for tick in ticks], labels=[f"{multiple(tick)} ×" for tick in ticks])
    bar.ax.tick_params(length=2, labelsize=6.5)
    bar.set_label(label, fontsize=7)
