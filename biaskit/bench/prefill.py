"""Time prefill, first token and generation of methods × retentions × batch sizes, interleaved, next to what the formulas predict."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from biaskit.bench.clock import Clock, PeakMemory, Timing
from biaskit.bench.probes import Probes
from biaskit.bench.report import Keep, nothing
from biaskit.bench.workload import Workload, dims, n_text, on_device, prompts
from biaskit.engine.decisions import Pruning
from biaskit.engine.greedy import greedy_settings
from biaskit.engine.prune import prune
from biaskit.engine.tower import patches_of_tiles, tower_flops, tower_sizes
from biaskit.families.checkpoints.flops import FORMULAS, cache_bytes, ceiling, mean_tokens, prefill_cost
from biaskit.families.checkpoints.load import Loaded

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        batch_sizes: samples per forward pass. image_size: (rows, cols) in pixels; None: that of the generated images. images: per prompt.
        text_tokens: t; None: those of the neutral prompt. new_tokens: generated for the total time; 0 skips it.
        repeats: rounds over all cells. warmup: untimed rounds before those.
        cpu_time: on a CPU, measure CPU time instead of wall-clock time, for a busy machine.
    """

    batch_sizes: tuple[int, ...] = (1,)
    image_size: tuple[int, int] | None = None
    images: int = 1
    text_tokens: int | None = None
    new_tokens: int = 32
    repeats: int = 5
    warmup: int = 1
    cpu_time: bool = False


@dataclass(eq=False)
class _Run:
    """A cell while it is measured."""

    cell: Workload
    times: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def measure(
    loaded: Loaded, found: Sequence[Workload], plan: Plan, say: Say = lambda line: None, keep: Keep = nothing
) -> list[dict[str, Any]]:
    """Measure every cell at every batch size.

    Cells take turns within a round, so that a machine that slows down slows all of them. Speed-ups are medians over rounds of the
    unpruned model's time divided by the cell's. A cell that runs out of GPU memory is reported with its error.

    Returns:
        One row per cell and batch size; see `_row` for its columns. Times in milliseconds per batch, memory in bytes.
    """
    rows: list[dict[str, Any]] = []
    for batch in plan.batch_sizes:
        prepared = prompts(loaded, batch, image_size=plan.image_size, images=plan.images, text_tokens=plan.text_tokens)
        inputs = on_device(loaded, prepared)
        counts = [len(layout) for layout in prepared.layouts]
        say(f"batch {batch}: N = {max(counts)} visual and {n_text(prepared)} text tokens, {len(found)} cells × {plan.repeats} rounds")
        runs = [_Run(cell) for cell in found]
        for turn in range(plan.warmup + plan.repeats):
            for run in runs:
                _turn(loaded, run, inputs, plan, first=turn == 0, count=turn >= plan.warmup)
        base = next((run for run in runs if run.cell.pruner is None and not run.error), None)
        shared = {"batch": batch, "N": statistics.mean(counts), "n_text": n_text(prepared)}
        tiles = patches_of_tiles(loaded, prepared)
        for run in runs:
            rows.append(shared | _row(loaded, run, base, shared, plan.new_tokens) | _tower(loaded, run.cell, tiles))
            keep(rows[-1])
    return rows


def _tower(loaded: Loaded, cell: Workload, tiles: Sequence[tuple[int, ...]] | None) -> dict[str, float]:
    """Return multiply-adds per sample of encoding, and of what the method reads in the tower: tower_flops, tower_reading_flops."""
    size = tower_sizes(loaded)
    if tiles is None or size is None:
        return {}
    needs = () if cell.pruner is None else cell.pruner.readings()
    whole, reading = zip(*(tower_flops(size, mine, needs) for mine in tiles), strict=True)
    return {"tower_flops": statistics.mean(whole), "tower_reading_flops": statistics.mean(reading)}


def _turn(loaded: Loaded, run: _Run, inputs: Mapping[str, Tensor], plan: Plan, *, first: bool, count: bool) -> None:
    """Measure a cell once."""
    if run.error:
        return
    try:
        if first:
            run.facts["peak_bytes"] = PeakMemory(_device(inputs)).of(lambda: _forward(loaded, run, inputs, plan.cpu_time))[1]
        times = _forward(loaded, run, inputs, plan.cpu_time)
        if plan.new_tokens:
            times["total_ms"] = _generate(loaded, run.cell, inputs, plan)
    except torch.OutOfMemoryError:
        run.error = "out of memory"
        torch.cuda.empty_cache()
        return
    if count:
        run.times.append(times)


def _device(inputs: Mapping[str, Tensor]) -> torch.device:
    return inputs["input_ids"].device


@contextmanager
def _pruned(loaded: Loaded, cell: Workload) -> Iterator[Pruning | None]:
    if cell.pruner is None:
        yield None
        return
    with prune(loaded.model, cell.pruner, prior=cell.prior, say=lambda line: None) as pruning:
        yield pruning


@torch.inference_mode()
def _forward(loaded: Loaded, run: _Run, inputs: Mapping[str, Tensor], cpu_time: bool) -> dict[str, float]:
    """Time one forward pass over the prompt, up to the logits of the first token."""
    clock = Clock(_device(inputs), cpu_time=cpu_time)
    probes = Probes(loaded.model, clock, run.cell.layers)
    with probes.outer(), _pruned(loaded, run.cell) as pruning, probes.inner():
        probes.prefill = True
        clock.start()
        clock.mark("start")
        output = loaded.model(**inputs, use_cache=True, logits_to_keep=1)
        clock.mark("end")
        times = probes.times()
    cached = [part for layer in output.past_key_values.layers for part in (layer.keys, layer.values)]
    run.facts["cache_bytes"] = sum(part.nbytes for part in cached) // len(inputs["input_ids"])
    if pruning is not None:
        run.facts["n"] = statistics.mean(len(sample) for sample in pruning.samples)
        run.facts["info"] = dict(pruning.samples[0].info)
    return times


@torch.inference_mode()
def _generate(loaded: Loaded, cell: Workload, inputs: Mapping[str, Tensor], plan: Plan) -> float:
    clock = Clock(_device(inputs), cpu_time=plan.cpu_time)
    with _pruned(loaded, cell):
        clock.start()
        clock.mark("start")
        length = {"min_new_tokens": plan.new_tokens, "max_new_tokens": plan.new_tokens}
        loaded.model.generate(**inputs, **greedy_settings(loaded.model, length))
        clock.mark("end")
    return clock.between("start", "end")


def _row(loaded: Loaded, run: _Run, base: _Run | None, shared: Mapping[str, Any], new_tokens: int) -> dict[str, Any]:
    """Return a cell's measurements next to what the formulas predict.

    Columns: method, retention, layers (K of each stage), n; times (Timing by name); speedup by time; flops (multiply-adds per sample) and
    ceiling by formula; of_ceiling (prefill speed-up ÷ ceiling of the papers' formula); decision_share (of the unpruned prefill) and
    decision_share_own (of the pruned one); cache_bytes (measured, per sample) and cache_formula_bytes; peak_bytes beyond the weights, of
    the batch; samples_per_s and tokens_per_s over the total time, prompt_tokens_per_s over prefill; info (what the method reports).
    """
    cell, size, n_visual, text = run.cell, dims(loaded), shared["N"], shared["n_text"]
    row: dict[str, Any] = {"method": cell.name, "retention": cell.retention, "layers": list(cell.layers)}
    if run.error or not run.times:
        return row | {"error": run.error or "not measured"}
    visual = cell.visual(round(n_visual))
    names = list(run.times[0])
    times = {name: Timing.of([each[name] for each in run.times]) for name in names}
    row |= {"n": run.facts.get("n", n_visual), "mean_tokens": mean_tokens(size, visual), "info": run.facts.get("info", {})}
    row["times"] = {name: timing.to_json() for name, timing in times.items()}
    row["flops"] = {name: prefill_cost(size, text, visual, name) for name in FORMULAS}
    row["ceiling"] = {name: ceiling(size, text, n_visual, visual, name) for name in FORMULAS}
    itemsize = loaded.model.dtype.itemsize
    row |= {"cache_bytes": run.facts["cache_bytes"], "cache_formula_bytes": cache_bytes(size, text, visual, itemsize=itemsize)}
    row["peak_bytes"] = run.facts.get("peak_bytes")
    if base is not None:
        row["speedup"] = {
            name.removesuffix("_ms"): _ratio(base, run, name) for name in ("prefill_ms", "first_token_ms", "total_ms") if name in names
        }
        row["of_ceiling"] = row["speedup"]["prefill"] / row["ceiling"]["fastv"]
        whole = Timing.of([each["prefill_ms"] for each in base.times]).median
        row["decision_share"] = times["decision_ms"].median / whole if cell.pruner else 0.0
        row["decision_share_own"] = times["decision_ms"].median / times["prefill_ms"].median if cell.pruner else 0.0
    batch = shared["batch"]
    row["prompt_tokens_per_s"] = 1e3 * batch * (n_visual + text) / times["prefill_ms"].median
    if "total_ms" in times:
        row["samples_per_s"] = 1e3 * batch / times["total_ms"].median
        row["tokens_per_s"] = row["samples_per_s"] * new_tokens
    return row


def _ratio(base: _Run, run: _Run, name: str) -> float:
    return statistics.median(one[name] / two[name] for one, two in zip(base.times, run.times, strict=True))
