"""Figures of the embedded model: learning curves, scenes with predicted boxes, bias maps and recall by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from biaskit.figures.colours import beyond, colour_limit, colour_ticks, colours, multiple
from biaskit.figures.methods import DASHES, PALETTE, RAW, look_of
from biaskit.figures.style import INK, ShownFigure, house_style, write_figure
from biaskit.grid import overlap
from biaskit.images.scenes.draw import PATCHES, Scene
from biaskit.images.scenes.questions import Question
from biaskit.images.scenes.vocabulary import read_box


@house_style()
def draw_curves(record: Mapping[str, Any], path: Path) -> None:
    """Draw the learning curves of both stages."""
    vision, language = record["curves"]["vision"], record["curves"]["language"]
    figure = ShownFigure(figsize=(14, 4), layout="constrained")
    (left, middle, right) = figure.subplots(1, 3)
    for name in ("covered", "size", "colour", "shape"):
        left.plot([point["images"] for point in vision], [point[name] for point in vision], label=name)
    left.set(title="vision tower: patches that are right", xlabel="images", ylim=(0, 1.02))
    questions = [point["questions"] / 1000 for point in language]
    for name, label in (("x1", "x1 within one bin"), ("presence", "presence"), ("attribute", "attribute")):
        middle.plot(questions, [point[name] for point in language], label=label)
    for name in sorted({name for point in language for name in point if name.startswith("mass_")}):
        layer = name.removeprefix("mass_")
        middle.plot(questions, [point.get(name, np.nan) for point in language], ":", label=f"attention on what is meant, layer {layer}")
    middle.set(title="language model: first answer word, training", xlabel="thousand questions", ylim=(0, 1.02))
    tested = [point for point in language if "dev_where" in point]
    for name, label in (("dev_where", "boxes, IoU ≥ 0.5"), ("dev_presence", "presence"), ("dev_attribute", "attribute")):
        right.plot([point["questions"] / 1000 for point in tested], [point.get(name, np.nan) for point in tested], marker=".", label=label)
    right.set(title="language model: answers, held-out scenes", xlabel="thousand questions", ylim=(0, 1.02))
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    write_figure(figure, path, dpi=110)


@house_style()
def draw_answers(scenes: Sequence[Scene], questions: Sequence[Question], answers: Sequence[str], path: Path) -> None:
    """Draw scenes with the true box (white, dashed) and the predicted one (green where IoU ≥ 0.5, else red)."""
    cols = 6
    rows = -(-len(scenes) // cols)
    figure = ShownFigure(figsize=(2.2 * cols, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, cols, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, scene, question, answer in zip(grid.flat, scenes, questions, answers, strict=False):
        axes.imshow(scene.pixels)
        axes.set_title(question.phrase, fontsize=8)
        found = read_box(answer)
        good = found is not None and question.box is not None and overlap(found, question.box) >= 0.5
        for box, style in ((question.box, {"color": "white", "linestyle": "--"}), (found, {"color": "lime" if good else "red"})):
            if box is not None:
                x1, y1, x2, y2 = box
                axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], linewidth=1.6, **style)
    write_figure(figure, path, dpi=60)


@house_style()
def draw_maps(maps: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Draw mean attention maps, one row per name, one column per layer: multiples of uniform attention over visual tokens."""
    depth = max(len(one) for one in maps.values())
    shares = {name: [values / values.mean() for values in layers] for name, layers in maps.items()}
    logs = {name: [np.log2(np.maximum(share, 1e-6)).reshape(PATCHES, PATCHES) for share in found] for name, found in shares.items()}
    every = [values for found in logs.values() for values in found]
    limit, shades = colour_limit(every), colours()
    norm = Normalize(-limit, limit)
    figure = ShownFigure(figsize=(1.3 * depth + 1.5, 1.45 * len(maps)), layout="constrained")
    grid = figure.subplots(len(maps), depth, squeeze=False)
    for row, name in zip(grid, maps, strict=True):
        for layer, (axes, values) in enumerate(zip(row, logs[name], strict=True)):
            axes.imshow(values, norm=norm, cmap=shades, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"max {shares[name][layer].max():.1f}", fontsize=6, labelpad=2)
            if row[0] is grid[0, 0]:
                axes.set_title(f"layer {layer}", fontsize=8)
        row[0].set_ylabel(name.replace(", ", "\n"), fontsize=7)
    bar = figure.colorbar(ScalarMappable(norm, shades), ax=grid, shrink=0.4, extend=beyond(every, limit))
    ticks = colour_ticks(limit, fine=False)
    bar.set_ticks([np.log2(tick) for tick in ticks], labels=[f"{multiple(tick)} ×" for tick in ticks])
    bar.set_label("attention relative to uniform")
    write_figure(figure, path, dpi=110)


@house_style()
def draw_recall(report: Mapping[str, Any], path: Path) -> None:
    """Draw recall of the target's tokens by layer for both placements, and accuracy without visual tokens from layer K on."""
    figure = ShownFigure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    fastv = look_of("fastv")
    like = {"color": fastv.colour, "marker": fastv.marker, "markersize": 4}
    styles: dict[str, tuple[str, dict[str, Any]]] = {
        "raw": ("raw attention", {**like, "linestyle": RAW, "markerfacecolor": "white"}),
        "debiased_task": ("debiased, prior of where prompts", {**like, "linestyle": DASHES[0], "linewidth": 1.8}),
        "debiased_generic": ("debiased, prior of the neutral prompt", {**like, "linestyle": DASHES[1], "linewidth": 1.8}),
        "prior_task_alone": ("prior of where prompts alone", {"color": PALETTE[0], "linestyle": "-."}),
    }
    for left, (placement, found) in zip(axes, report["recall"].items(), strict=False):
        for name, (label, style) in styles.items():
            left.plot(found[name], label=label, **style)
        left.axhline(report["kept"] / PATCHES**2, color="0.5", linewidth=1, label="chance")
        left.axhline(found["any_thing"], color="0.5", linewidth=1, linestyle="--", label="any thing, question ignored")
        left.plot(report["preference"][placement]["raw"], color=INK, linestyle=":", linewidth=1, label="target outranks other things (raw)")
        left.set(title=f"target tokens in the top quarter, {placement} scenes", xlabel="layer whose attention is read (K − 1)")
    none = report["pruning"]["none"]
    axes[2].plot(range(len(none)), none, color=PALETTE[0], marker="o", markersize=4, label="no visual tokens from layer K on")
    axes[2].axhline(report["pruning"]["all"], color="0.5", linewidth=1, label="all of them")
    axes[2].set(title="right boxes (IoU ≥ 0.5), uniform scenes", xlabel="K")
    for axis in axes:
        axis.set_ylim(0, 1.02)
        axis.title.set_fontsize(8.5)
        axis.grid(visible=True, linewidth=0.3, color="0.85")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2 if axis is not axes[2] else 1, frameon=False)
    write_figure(figure, path, dpi=130)
