"""Two embedded models side by side: whether absolute and relative position embeddings give different positional bias.

`python -m biaskit.demo.training.siblings --models DIR DIR --out DIR` writes siblings.json and siblings.png. The models learnt the same
scenes and questions by one recipe; LLaVA's tower has absolute position embeddings and its decoder numbers the visual tokens 0 … 143,
Qwen's has relative positions alone. A picture of one colour is the purest case: nothing but position differs from token to token.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.demo.evaluate import open_model
from biaskit.demo.training.layers import CALIBRATION_SEED, GENERIC, asked, correlations, rows_of, shuffled
from biaskit.files import check_writable, write_file
from biaskit.images.scenes.draw import PATCHES, draw_scene
from biaskit.prior.bias.jackknife import Replicates
from biaskit.prior.bias.measures import estimates
from biaskit.prior.bias.verdict import classify

Floats = NDArray[np.float32]
GROUPS = 10
PLAIN = "plain pictures, neutral prompt"
SHOWN = ("bottom_third", "top_third", "outer_ring", "centre_box", "effective_share", "recency")


def maps_of(directory: Path, n: int) -> dict[str, Floats]:
    """Return condition → the last prompt token's attention rows, [layers, n, 144]."""
    model, processor = open_model(directory)
    questions = asked("uniform", n, CALIBRATION_SEED)
    scenes = {place: [draw_scene(CALIBRATION_SEED, i, place) for i in range(n)] for place in ("empty", "uniform", "photo")}
    where = [question.text for question in questions.questions]
    colours = np.random.default_rng(CALIBRATION_SEED).integers(80, 186, (n, 3), np.uint8)  # as light as the scenes' backgrounds
    plain = [
        replace(scene, pixels=np.broadcast_to(colour, scene.pixels.shape).copy())
        for scene, colour in zip(scenes["empty"], colours, strict=True)
    ]
    found = {
        PLAIN: rows_of(model, processor, plain, [GENERIC] * n),
        "empty scenes, neutral prompt": rows_of(model, processor, scenes["empty"], [GENERIC] * n),
        "uniform scenes, neutral prompt": rows_of(model, processor, scenes["uniform"], [GENERIC] * n),
        "uniform scenes, where prompts": rows_of(model, processor, questions.scenes, where),
        "photo-like scenes, neutral prompt": rows_of(model, processor, scenes["photo"], [GENERIC] * n),
    }
    with shuffled(model):
        found["plain pictures, patches shuffled"] = rows_of(model, processor, plain, [GENERIC] * n)
    return found


def judged(rows: Floats) -> list[dict[str, Any]]:
    """Return per layer the measures of the mean map with 95 % intervals over images, the verdict, and how far rows and columns explain it.

    Args:
        rows: [layers, n, 144].
    """
    report = []
    for layer in rows.astype(np.float64):
        parts = np.array_split(layer, GROUPS)
        groups = np.stack([part.mean(0).reshape(PATCHES, PATCHES) for part in parts])
        mean = layer.mean(0).reshape(PATCHES, PATCHES)
        replicates = Replicates.of(mean, groups, np.array([len(part) for part in parts], np.int32))
        metrics = estimates(replicates)
        verdict, why = classify(replicates, metrics)
        entry: dict[str, Any] = {"verdict": verdict, "why": why, "visual_mass": float(layer.sum(-1).mean())}
        entry |= {name: {k: _short(v) for k, v in metrics[name].to_json().items()} for name in SHOWN}
        entry["peak"] = _short(metrics["peak"].value)
        total = float(mean.var()) or 1.0
        entry["variance_of_rows"] = _short(float(mean.mean(1).var()) / total)
        entry["variance_of_columns"] = _short(float(mean.mean(0).var()) / total)
        report.append(entry)
    return report


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def compare(models: Sequence[Path], n: int) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Return the report, and "condition, model" → mean maps [layers, 144]."""
    every = {directory.name: maps_of(directory, n) for directory in models}
    report: dict[str, Any] = {"n": n, "models": {}}
    for name, found in every.items():
        report["models"][name] = {condition: judged(rows) for condition, rows in found.items()}
        report["models"][name][f"correlation with {PLAIN}"] = {
            condition: [_short(r) for r in correlations(found[PLAIN], rows)] for condition, rows in found.items() if condition != PLAIN
        }
    conditions = next(iter(every.values()))
    first, second = every.values()
    report["correlation between the models"] = {
        condition: [_short(r) for r in correlations(first[condition], second[condition])] for condition in conditions
    }
    maps = {f"{name}\n{condition}": found[condition].mean(1) for condition in conditions for name, found in every.items()}
    return report, maps


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report and the figure."""
    parser = argparse.ArgumentParser(prog="python -m biaskit.demo.training.siblings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, nargs=2, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=200, help="scenes per condition")
    given = parser.parse_args(arguments)
    check_writable(given.out / "siblings.json")
    report, maps = compare(given.models, given.n)
    write_file(given.out / "siblings.json", json.dumps(report, indent=1) + "\n")
    from biaskit.demo.figures import draw_maps

    draw_maps({name.replace(", ", "\n"): found for name, found in maps.items()}, given.out / "siblings.png")
    for name, conditions in report["models"].items():
        for condition, layers in conditions.items():
            if isinstance(layers, list):
                print(f"{name}, {condition}: " + ", ".join(f"{i} {entry['verdict']}" for i, entry in enumerate(layers)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
