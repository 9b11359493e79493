"""Learning curves and the model card of the embedded model, from the record of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw_curves(record: dict[str, Any], path: Path) -> None:
    """Draw the learning curves of both stages."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    vision, language = record["curves"]["vision"], record["curves"]["language"]
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4), constrained_layout=True)
    for name in ("covered", "size", "colour", "shape"):
        left.plot([point["images"] for point in vision], [point[name] for point in vision], label=name)
    left.set(title="vision tower: patches that are right", xlabel="images", ylim=(0, 1.02))
    questions = [point["questions"] for point in language]
    for name, label in (("x1", "x1 within one bin"), ("presence", "presence"), ("attribute", "attribute")):
        middle.plot(questions, [point[name] for point in language], label=label)
    middle.set(title="language model: first answer word (training)", xlabel="questions", ylim=(0, 1.02))
    tested = [point for point in language if "dev_where" in point]
    for name, label in (("dev_where", "boxes, IoU ≥ 0.5"), ("dev_presence", "presence"), ("dev_attribute", "attribute")):
        right.plot([point["questions"] for point in tested], [point.get(name, float("nan")) for point in tested], marker=".", label=label)
    for layer in (2, 4):
        mass = [point.get(f"mass_{layer}", float("nan")) for point in language]
        right.plot(questions, mass, ":", label=f"attention on the wanted things, layer {layer}")
    right.set(title="language model: held-out answers; scaffolded heads", xlabel="questions", ylim=(0, 1.02))
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_card(record: dict[str, Any], directory: Path) -> None:
    """placeholder."""
    (directory / "README.md").write_text("")
