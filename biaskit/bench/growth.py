"""How cost grows with visual tokens N and with batch size: measured points, and exponents of power laws fitted to their upper half."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biaskit.bench.prefill import Plan, measure
from biaskit.bench.report import Keep, nothing
from biaskit.bench.table import markdown
from biaskit.bench.workload import cells
from biaskit.families.checkpoints.load import Loaded
from biaskit.figures.methods import look_of
from biaskit.figures.style import INK, ShownFigure, house_style, plain_ticks, write_figure

QUANTITIES = {
    "prefill_ms": "prefill (ms)",
    "decision_ms": "decision (ms)",
    "cache_mb": "KV cache (MB)",
    "gflops": "multiply-adds (10⁹)",
}
"""The measured quantities: key → title. Cache and multiply-adds are of the whole batch."""


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Return p of the power law y ∝ xᵖ fitted to the upper half of the points (at least three) by least squares of the logarithms.

    Small sizes are dominated by fixed costs; they would hide the exponent. NaN for fewer than two positive points.

    >>> round(exponent([1, 2, 4, 8], [3, 12, 48, 192]), 6)
    2.0
    """
    points = sorted((a, b) for a, b in zip(x, y, strict=True) if a > 0 and b > 0)
    points = points[-max(3, math.ceil(len(points) / 2)) :]
    if len({a for a, _ in points}) < 2:
        return math.nan
    logs = np.log(np.array(points))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def measure_growth(
    loaded: Loaded,
    names: Sequence[str],
    retention: float,
    *,
    images: Sequence[int],
    batch_sizes: Sequence[int],
    repeats: int = 3,
    cpu_time: bool = False,
    say: Callable[[str], None] = lambda line: None,
    keep: Keep = nothing,
) -> dict[str, Any]:
    """Measure along N (images per prompt, batch 1) and along the batch size (one image per prompt).

    Args:
        loaded: the model. names: methods (see `workload.cells`). retention: share kept.
        images: numbers of images per prompt. batch_sizes: to measure. repeats: rounds at each point; the largest get fewer.
        cpu_time: see `Plan`.

    Returns:
        `points`: {along, method, N, batch, and `QUANTITIES`}; `exponents`: {along: {method: {quantity: p}}}; `skipped`:
        points that ran out of memory.
    """
    found = cells(loaded, names, [retention])
    points: list[dict[str, Any]] = []
    skipped: list[str] = []
    steps = [("N", count, 1) for count in images] + [("batch", 1, size) for size in batch_sizes]
    for along, count, batch in steps:
        say(f"{count} images per prompt, batch {batch}")
        large = count > 10 or batch > 8  # long enough to need neither many repeats nor a warm-up
        turns = Plan((batch,), None, count, None, 0, max(1, repeats // 2) if large else repeats, 0 if large else 1, cpu_time)
        try:
            rows = measure(loaded, found, turns)
        except (torch.OutOfMemoryError, MemoryError):
            skipped.append(f"{count} images per prompt, batch {batch}: out of memory")
            continue
        for row in rows:
            if "times" in row:
                points.append({"along": along, **_point(row)})
                keep(points[-1])
    exponents = {along: _exponents([point for point in points if point["along"] == along], along) for along in ("N", "batch")}
    return {"retention": retention, "cpu_time": cpu_time, "points": points, "exponents": exponents, "skipped": skipped}


def _point(row: dict[str, Any]) -> dict[str, Any]:
    batch = row["batch"]
    return {
        "method": row["method"], "N": round(row["N"]), "batch": batch, "prefill_ms": row["times"]["prefill_ms"]["median"],
        "decision_ms": row["times"]["decision_ms"]["median"] if row["method"] != "none" else 0.0,
        "cache_mb": row["cache_bytes"] * batch / 1e6, "gflops": row["flops"]["exact"] * batch / 1e9,
        "speedup": row.get("speedup", {}).get("prefill", math.nan),
    }  # fmt: skip


def _exponents(points: list[dict[str, Any]], along: str) -> dict[str, dict[str, float]]:
    methods = dict.fromkeys(point["method"] for point in points)
    return {
        method: {
            key: exponent([p[along] for p in points if p["method"] == method], [p[key] for p in points if p["method"] == method])
            for key in QUANTITIES
        }
        for method in methods
    }


def table(found: dict[str, Any]) -> str:
    """Return points and exponents as tables in Markdown."""
    parts = []
    for along in ("N", "batch"):
        points = [point for point in found["points"] if point["along"] == along]
        head = ["Method", "N", "Batch", *QUANTITIES.values(), "Speed-up"]
        body = [
            [p["method"], str(p["N"]), str(p["batch"]), *(f"{p[key]:.4g}" for key in QUANTITIES), f"{p['speedup']:.2f}×"] for p in points
        ]
        fitted = [
            [f"{method}: exponent in {along}", "", "", *(_number(values[key]) for key in QUANTITIES), ""]
            for method, values in found["exponents"][along].items()
        ]
        parts.append(markdown(head, body + fitted))
    return "\n\n".join(parts + found["skipped"])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


@house_style()
def draw(found: dict[str, Any], path: Path, machine: str) -> None:
    """Draw time against N and against batch size, log–log, with the fitted exponents in the legend."""
    figure = ShownFigure(figsize=(9, 4.4), layout="constrained")
    for axis, along in zip(figure.subplots(1, 2), ("N", "batch"), strict=True):
        for key, line in (("prefill_ms", "-"), ("decision_ms", "--")):
            for method, fitted in found["exponents"][along].items():
                points = [p for p in found["points"] if p["along"] == along and p["method"] == method and p[key] > 0]
                if points:
                    colour, marker = (INK, "o") if method == "none" else (look_of(method).colour, look_of(method).marker)
                    label = f"{method}, {key.removesuffix('_ms')}: exponent {_number(fitted[key])}"
                    axis.loglog([p[along] for p in points], [p[key] for p in points], line, color=colour, marker=marker, markersize=5,
                                markerfacecolor=colour if line == "-" else "white", label=label)  # fmt: skip
        axis.set_xlabel("visual tokens N" if along == "N" else "batch size")
        axis.set_ylabel("ms of CPU time" if found["cpu_time"] else "ms")
        plain_ticks(axis, [p[along] for p in found["points"] if p["along"] == along])
        axis.grid(visible=True, which="major", linewidth=0.3, color="0.85")
        axis.legend(frameon=False, fontsize=7, loc="upper left")
    figure.suptitle(machine, fontsize=8)
    write_figure(figure, path, dpi=130)
