"""`biaskit demo`: the whole chain on the embedded model, from calibration to the comparison with and without debiasing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biaskit.calibration.progress import Progress
from biaskit.calibration.prompts import PROMPT, read_prompts
from biaskit.calibration.run import calibrate
from biaskit.demo.evaluate import answers_of
from biaskit.demo.page import Method, draw_example, write_page
from biaskit.engine.prune import prune
from biaskit.families.checkpoints.load import Loaded
from biaskit.figures.heatmap import heatmap
from biaskit.files import check_target
from biaskit.images import open_source
from biaskit.images.scenes.draw import draw_scene
from biaskit.images.scenes.held_out import NEW_TOKENS, SEED, interval, iou_of, question_about
from biaskit.prior.bias.report import compare
from biaskit.prior.value import Prior
from biaskit.pruners import Pruner, get_pruner

LAYERS = (2, 5)
"""K of the comparisons: the papers' 2, and right after the layer in which the embedded model finds the object of the question."""
RETENTION = 0.25

FILES = ("neutral.safetensors", "task.safetensors", "heatmap.png", "kept.png", "index.html")
"""The files that are written."""
SHOWN = ("FastV", "FastV, debiased (task)", "D2Pruner (task)", "DivPrune, positions kept")
"""Methods of the example figure."""

Step = Callable[[str, int, int], None]
"""Called with the progress: what is being done, how much is done, and the total."""


@dataclass(frozen=True)
class Row:
    """A method's score at depth K: accuracy at IoU ≥ 0.5 and its 95 % half-width, and which of the questions it got right."""

    method: str
    layer: int
    accuracy: float
    half_width: float
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Result:
    """What the demo found.

    Attributes:
        rows: one per method and K, on the same questions. agreement: K → correlation of the two priors at layer K − 1.
        files: what was written.
    """

    rows: tuple[Row, ...]
    agreement: dict[int, float]
    files: tuple[Path, ...]

    def difference(self, layer: int, first: str, second: str) -> tuple[float, float]:
        """Return how much better the second method is than the first, paired over questions: (mean, 95 % half-width), in points."""
        right = {row.method: np.array(row.right, dtype=float) for row in self.rows if row.layer == layer}
        gap = (right[second] - right[first]) * 100
        return float(gap.mean()), 1.96 * float(gap.std(ddof=1)) / math.sqrt(len(gap))


def check_free(out: Path, force: bool = False) -> None:
    """Refuse, before any work, a folder that has files of the names in `FILES`.

    Raises:
        FileError: a file exists and `force` is not set, or cannot be written.
    """
    for name in FILES:
        check_target(out / name, force)


def run(loaded: Loaded, out: Path, *, samples: int, questions: int, step: Step, force: bool = False) -> Result:
    """Calibrate with the neutral and the task's prompts, draw both, and ask where things are with and without pruning.

    Raises:
        FileError: `out` has files of those names and `force` is not set.
    """
    check_free(out, force)
    out.mkdir(parents=True, exist_ok=True)
    priors = {}
    for name, prompts in (("neutral", (PROMPT,)), ("task", read_prompts(["task:scenes-where"]))):
        source = open_source("scenes-photo", n=samples, seed=1)

        def told(progress: Progress, name: str = name) -> None:
            step(f"calibrating, {name} prompt", progress.done, progress.total)

        priors[name] = calibrate(loaded, source, prompts=prompts, layers="all", batch_size=25, workers=1, report=told)
        priors[name].save(out / f"{name}.safetensors", force=force)
    figure = out / "heatmap.png"
    labels = [f"embedded model, {name} prompt" for name in priors]
    heatmap(list(priors.values()), layers=[layer - 1 for layer in LAYERS], labels=labels, out=figure, force=force)
    neutral, task = priors.values()
    agreement = {row["layer"] + 1: float(row["pearson"]) for row in compare(neutral, task)}
    rows = _score(loaded, neutral, task, questions, step)
    result = Result(rows, agreement, tuple(out / name for name in FILES))
    _show(loaded, result, methods(neutral, task, LAYERS[0]), out, force)
    return result


def _show(loaded: Loaded, result: Result, made: Sequence[Method], out: Path, force: bool) -> None:
    """Draw the first question that FastV gets wrong at the papers' K and another method right, and write the page."""
    right = {row.method: row.right for row in result.rows if row.layer == LAYERS[0]}
    count = len(right["FastV"])
    number = next((i for i in range(count) if not right["FastV"][i] and any(right[name][i] for name in SHOWN)), 0)
    scene = draw_scene(SEED + 1, number, "photo")
    question = question_about(scene.things, "where", SEED + 1, number)
    chosen = [method for method in made if method[0] in SHOWN]
    draw_example(loaded, scene, question, chosen, LAYERS[0], out / "kept.png", force)
    title = f"where is …? boxes at IoU ≥ 0.5, % of {count}, with {RETENTION:.0%} of the visual tokens"
    figures = [
        (
            out / "kept.png",
            f"The first question that FastV gets wrong at K = {LAYERS[0]} and one of the others right: chosen, not typical.",
        ),
        (out / "heatmap.png", "The two priors, by which attention is divided."),
    ]
    write_page(
        out / "index.html", ["method", *(f"K = {layer}" for layer in LAYERS)], table(result.rows), title, verdict(result), figures, force
    )


def methods(neutral: Prior, task: Prior, layer: int) -> list[Method]:
    """The rows of the table that depend on K: (name, pruner, prior)."""

    def make(name: str, **more: Any) -> Pruner:
        return get_pruner(name, retention=RETENTION, layer=layer, **more)

    return [
        ("random", make("random"), None),
        ("FastV", make("fastv"), None),
        ("FastV, debiased (neutral)", make("fastv"), neutral),
        ("FastV, debiased (task)", make("fastv"), task),
        ("D2Pruner (task)", make("d2pruner", alpha=0.5), task),
        ("DivPrune, as published", make("divprune"), None),
        ("DivPrune, positions kept", make("divprune", positions="original"), None),
    ]


def _score(loaded: Loaded, neutral: Prior, task: Prior, n: int, step: Step) -> tuple[Row, ...]:
    scenes = [draw_scene(SEED + 1, i, "photo") for i in range(n)]
    asked = [question_about(scene.things, "where", SEED + 1, i) for i, scene in enumerate(scenes)]
    runs: list[tuple[str, int, Pruner | None, Prior | None]] = [("no pruning", layer, None, None) for layer in LAYERS[:1]]
    runs += [(name, layer, pruner, prior) for layer in LAYERS for name, pruner, prior in methods(neutral, task, layer)]
    rows = []
    for number, (name, layer, pruner, prior) in enumerate(runs):
        step(f"asking, K = {layer}, {name}", number, len(runs))
        with torch.inference_mode(), prune(loaded.model, pruner, prior=prior) if pruner else nullcontext():
            answers = answers_of(loaded.model, loaded.processor, scenes, asked, NEW_TOKENS["where"])
        right = tuple(iou_of(answer, question) >= 0.5 for answer, question in zip(answers, asked, strict=True))
        accuracy = sum(right) / n
        rows.append(Row(name, layer, accuracy, interval(accuracy, n), right))
    rows += [replace(rows[0], layer=layer) for layer in LAYERS[1:]]  # without pruning there is no K
    step("asking", len(runs), len(runs))
    return tuple(rows)


def verdict(result: Result) -> str:
    """Return in words what the numbers show, and what they do not."""
    lines = [f"With {RETENTION:.0%} of the visual tokens kept, on this tiny model and its drawn scenes:"]
    for layer in LAYERS:
        lines += [
            f"K = {layer} (the two priors correlate with r = {result.agreement[layer]:.2f})",
            _gap(result, layer, "random", "FastV", "raw attention (FastV) against a random choice"),
            _gap(result, layer, "FastV", "FastV, debiased (neutral)", "debiasing it with the prior of the neutral prompt"),
            _gap(result, layer, "FastV", "FastV, debiased (task)", "debiasing it with the prior of the task's own prompts"),
            _gap(result, layer, "FastV, debiased (task)", "D2Pruner (task)", "D2Pruner against debiased FastV, both with the task's prior"),
            _gap(result, layer, "D2Pruner (task)", "DivPrune, positions kept", "DivPrune, which reads no attention, against D2Pruner"),
            _gap(result, layer, "DivPrune, positions kept", "DivPrune, as published", "renumbering its positions, as published"),
        ]
    lines.append("This shows how the chain works, not how large models behave: calibrate and validate on yours.")
    return "\n".join(lines)


def _gap(result: Result, layer: int, first: str, second: str, what: str) -> str:
    mean, half = result.difference(layer, first, second)
    sign = "helps" if mean - half > 0 else "hurts" if mean + half < 0 else "makes no difference that 95 % intervals can tell"
    return f"  {what}: {sign} ({mean:+.1f} points, 95 % interval {mean - half:+.1f} to {mean + half:+.1f})."


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return (method, score at each K) as text."""
    names = dict.fromkeys(row.method for row in rows)
    score = {(row.method, row.layer): f"{100 * row.accuracy:.1f} ± {100 * row.half_width:.1f}" for row in rows}
    return [(name, *(score[name, layer] for layer in LAYERS)) for name in names]
