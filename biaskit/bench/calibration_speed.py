"""Calibration against the usual baseline: a whole forward pass under eager attention with `output_attentions`, last row of each map.

Both read the same images with the same processor and prompt and count the same layers; the maps are compared at the end. The baseline is
timed one image at a time, as published code does it, and in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biaskit.bench.clock import PeakMemory, Timing, host_clock
from biaskit.bench.pictures import Pictures
from biaskit.bench.table import markdown
from biaskit.bench.workload import on_device
from biaskit.calibration.moments import Moments
from biaskit.calibration.prompts import PROMPT
from biaskit.calibration.run import calibrate
from biaskit.engine.attention import last_rows
from biaskit.errors import CalibrationError
from biaskit.families.checkpoints.decoder import chosen_layers, decoder
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.load import Loaded
from biaskit.images.base import ImageSource
from biaskit.prior.layers import Layers
from biaskit.prior.value import PlaneStats

Say = Callable[[str], None]

ALONE = "eager output_attentions, one image at a time"


@dataclass(frozen=True)
class Comparison:
    """How to compare.

    Attributes:
        images: n, read by biaskit. baseline_images: read by the baseline, the first of the same ones; fewer, because it is slow.
        layers: whose attention is averaged: (1, 4), "0-7", "all"; None is the presets'.
        batch_size: of the batched baseline, and of biaskit (None: its default).
        repeats: rounds; each runs every way once. workers: preprocessing processes of biaskit.
        cpu_time: on a CPU, measure CPU time instead of wall-clock time; the images are then prepared in the same process.
    """

    images: int = 32
    baseline_images: int = 8
    layers: Layers | None = None
    batch_size: int | None = None
    repeats: int = 3
    workers: int | None = None
    cpu_time: bool = False


@contextmanager
def eager(loaded: Loaded) -> Iterator[None]:
    """Switch the model to eager attention inside the block."""
    config = decoder(loaded.model).config
    before = config._attn_implementation
    loaded.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        loaded.model.set_attn_implementation(before)


@torch.inference_mode()
def reference(loaded: Loaded, source: ImageSource, layers: Sequence[int], batch_size: int) -> dict[str, PlaneStats]:
    """Average the last prompt token's attention as the usual baseline does.

    Args:
        loaded: the model, under eager attention. source: n pictures. layers: 0-based. batch_size: images per forward pass.

    Returns:
        Statistics per plane, as a prior has them.
    """
    images = len(source)
    moments = Moments(images, len(layers), loaded.family.canonical(loaded.model.config))
    for start in range(0, images, batch_size):
        slots = range(start, min(start + batch_size, images))
        pictures = [[source.load(slot)] for slot in slots]
        prepared = loaded.family.prepare(loaded.processor, loaded.model.config, pictures, [PROMPT] * len(pictures))
        inputs = on_device(loaded, prepared)
        rows = last_rows(inputs)
        output = loaded.model(**inputs, output_attentions=True)
        length = inputs["input_ids"].shape[1]
        for sample, (slot, layout) in enumerate(zip(slots, prepared.layouts, strict=True)):
            last = length - 1 if rows is None else int(rows[sample])
            maps = [output.attentions[layer][sample, :, last].float().mean(0).cpu().numpy() for layer in layers]
            moments.add(slot, layout, np.stack(maps)[:, layout.positions])
    return moments.stats()[0]


def compare(loaded: Loaded, plan: Comparison, say: Say = lambda line: None) -> dict[str, Any]:
    """Time calibration and both baselines alternately, measure their peak memory, and compare the maps.

    Returns:
        `rows`, one per way: images, images/s (median, spread), milliseconds per image, peak bytes beyond the weights, speed-up over the
        unbatched baseline; `difference`, the largest between biaskit's map and the baseline's on the same images, relative to the mean;
        `layers`, `depth`.
    """
    depth = len(decoder(loaded.model).layers)
    layers = chosen_layers(plan.layers, loaded.family.default_layers(loaded.model.config), depth)
    device = input_device(loaded.model)
    batch = plan.batch_size or (8 if device.type == "cuda" else 2)

    few = min(plan.baseline_images, plan.images)
    sources = {images: Pictures(images) for images in (few, plan.images)}

    def ours(images: int) -> dict[str, PlaneStats]:
        prior = calibrate(
            loaded, sources[images], samples=images, layers=layers, batch_size=plan.batch_size, workers=plan.workers, progress=False
        )
        return dict(prior.planes)

    def baseline(images: int, size: int) -> dict[str, PlaneStats]:
        with eager(loaded):
            return reference(loaded, sources[images], layers, size)

    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "biaskit": (plan.images, lambda: ours(plan.images)),
        ALONE: (few, lambda: baseline(few, 1)),
        f"eager output_attentions, batches of {batch}": (few, lambda: baseline(few, batch)),
    }
    say(f"layers {list(layers)} of {depth}")
    rows = _race(ways, device, plan, say)
    difference = None if "error" in rows[0] or "error" in rows[1] else _difference(ours(few), baseline(few, 1))
    return {"rows": rows, "difference": difference, "layers": list(layers), "depth": depth}


def _race(ways: dict[str, tuple[int, Callable[[], Any]]], device: torch.device, plan: Comparison, say: Say) -> list[dict[str, Any]]:
    """Warm every way up, measure its memory, then time them alternately; one that runs out of memory is reported with its error."""
    peaks: dict[str, int] = {}
    errors: dict[str, str] = {}
    for name, (_, work) in ways.items():
        say(f"warm-up and memory: {name}")
        try:
            work()
            peaks[name] = PeakMemory(device).of(work)[1]
        except (torch.OutOfMemoryError, CalibrationError) as error:
            errors[name] = "out of memory" if isinstance(error, torch.OutOfMemoryError) else error.message
            torch.cuda.empty_cache()
    times: dict[str, list[float]] = {name: [] for name in peaks}
    now = host_clock(device, plan.cpu_time)
    for turn in range(plan.repeats):
        say(f"round {turn + 1} of {plan.repeats}")
        for name in peaks:
            images, work = ways[name]
            start = now()
            work()
            times[name].append(1e3 * (now() - start) / images)
    slow = times.get(ALONE)
    rows: list[dict[str, Any]] = []
    for name, (images, _) in ways.items():
        row: dict[str, Any] = {"way": name, "images": images}
        if name in errors:
            rows.append(row | {"error": errors[name]})
            continue
        timing = Timing.of(times[name])
        row |= {"ms_per_image": timing.to_json(), "images_per_s": 1e3 / timing.median, "peak_bytes": peaks[name]}
        if slow is not None:
            row["speedup"] = float(np.median([one / two for one, two in zip(slow, times[name], strict=True)]))
        rows.append(row)
    return rows


def _difference(mine: dict[str, PlaneStats], theirs: dict[str, PlaneStats]) -> float:
    """Return the largest difference of two maps, relative to the mean of the plane and layer."""

    def worst(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float((np.abs(a - b) / b.mean((-2, -1), keepdims=True)).max())

    return max(worst(mine[name].mean, theirs[name].mean) for name in theirs)


def table(found: dict[str, Any]) -> str:
    """Return the comparison as a table in Markdown."""
    head = ("Way", "Images", "Images/s", "ms/image", "Peak memory (MB)", "Speed-up")
    lines = []
    for row in found["rows"]:
        if "error" in row:
            lines.append([row["way"], str(row["images"]), row["error"], "–", "–", "–"])
            continue
        timing = row["ms_per_image"]
        spread = (timing["high"] - timing["low"]) / 2
        rest = (f"{timing['median']:.1f} ± {spread:.1f}", f"{row['peak_bytes'] / 1e6:.0f}", f"{row.get('speedup', float('nan')):.1f}×")
        lines.append([row["way"], str(row["images"]), f"{row['images_per_s']:.2f}", *rest])
    layers = ", ".join(map(str, found["layers"]))
    same = "not compared" if found["difference"] is None else f"{found['difference']:.1e} of their mean"
    return markdown(head, lines) + f"\n\nLayers {layers} of {found['depth']}; largest difference of the maps: {same}."
