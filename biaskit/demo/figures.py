"""Figures of the embedded model: learning curves, scenes with predicted boxes, bias maps and recall by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.figures.style import ShownFigure, house_style, write_figure
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
    figure = ShownFigure(figsize=(1.3 * depth + 1.5, 1.45 * len(maps)), layout="constrained")
    grid = figure.subplots(len(maps), depth, squeeze=False)
    image: Any = None
    for row, (name, layers) in zip(grid, maps.items(), strict=True):
        for layer, (axes, values) in enumerate(zip(row, layers, strict=True)):
            share = (values / values.sum()).reshape(PATCHES, PATCHES) * values.size
            image = axes.imshow(share, vmin=0, vmax=3, cmap="magma")
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"max {share.max():.1f}", fontsize=6)
            if row[0] is grid[0, 0]:
                axes.set_title(f"layer {layer}", fontsize=8)
        row[0].set_ylabel(name.replace(", ", "\n"), fontsize=7)
    figure.colorbar(image, ax=grid, shrink=0.4, label="attention × uniform")
    write_figure(figure, path, dpi=110)


@house_style()
def draw_recall(report: Mapping[str, Any], path: Path) -> None:
    """Draw recall of the target's tokens by layer for both placements, and accuracy without visual tokens from layer K on."""
    figure = ShownFigure(figsize=(15, 5), layout="constrained")
    axes = figure.subplots(1, 3)
    styles = {
        "raw": ("raw attention", "o-"), "debiased_task": ("debiased, prior of where prompts", "s-"),
        "debiased_generic": ("debiased, prior of the generic prompt", "^-"), "prior_task_alone": ("prior of where prompts alone", ":"),
    }  # fmt: skip
    for left, (placement, found) in zip(axes, report["recall"].items(), strict=False):
        for name, (label, style) in styles.items():
            left.plot(found[name], style, label=label, markersize=4)
        left.axhline(report["kept"] / PATCHES**2, color="grey", linewidth=1, label="chance")
        left.axhline(found["any_thing"], color="grey", linewidth=1, linestyle="--", label="any thing, whatever the question")
        left.plot(report["preference"][placement]["raw"], "k:", linewidth=1, label="target outranks other things (raw)")
        left.set(title=f"target tokens in the top quarter, {placement} scenes", xlabel="layer whose attention is read", ylim=(0, 1.02))
        left.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    none = report["pruning"]["none"]
    axes[2].plot(range(len(none)), none, "o-", label="no visual tokens from layer K on")
    axes[2].axhline(report["pruning"]["all"], color="grey", linewidth=1, label="all of them")
    axes[2].set(title="right boxes (IoU ≥ 0.5), uniform scenes", xlabel="K", ylim=(0, 1.02))
    axes[2].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    write_figure(figure, path, dpi=110)
