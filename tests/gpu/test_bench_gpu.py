"""Benchmarks on a CUDA device: built there, timed by its events, and pruning pays."""

from __future__ import annotations

import pytest
import torch

from biaskit.bench.calibration_speed import Comparison, compare
from biaskit.bench.clock import Clock, PeakMemory
from biaskit.bench.prefill import Plan, measure
from biaskit.bench.workload import cells
from biaskit.families.checkpoints.random_weights import random_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_random_weights_are_built_on_the_device_in_half_precision():
    loaded = random_model("qwen2.5-vl-3b", shrink=(1024, 8))
    places = {(str(weight.device.type), weight.dtype) for weight in loaded.model.parameters()}
    assert places == {("cuda", torch.bfloat16)}
    assert all(bool(weight.isfinite().all()) for weight in loaded.model.parameters())
    assert all(buffer.device.type == "cuda" for buffer in loaded.model.buffers())


def test_events_and_allocator():
    device = torch.device("cuda")
    clock = Clock(device)
    a = torch.randn(4096, 4096, device=device)
    clock.start()
    clock.mark("a")
    for _ in range(20):
        a @ a
    clock.mark("b")
    assert clock.between("a", "b") > 0.1
    held, peak = PeakMemory(device).of(lambda: torch.empty(1 << 28, dtype=torch.uint8, device=device).sum())
    assert held is not None and peak >= 1 << 28


def test_pruned_prefill_is_faster_where_the_model_is_compute_bound():
    loaded = random_model("llava-next", shrink=(2048, 16))
    rows = measure(loaded, cells(loaded, ["fastv", "d2pruner"], [0.112]), Plan((4,), (672, 672), 1, 35, 0, 5, 2))
    by_name = {row["method"]: row for row in rows}
    assert by_name["fastv"]["speedup"]["prefill"] > 2
    assert by_name["fastv"]["decision_share"] < 0.1
    assert all(row["cache_bytes"] == row["cache_formula_bytes"] for row in rows)
    assert by_name["fastv"]["peak_bytes"] < by_name["none"]["peak_bytes"]


def test_calibration_beats_the_eager_reference():
    loaded = random_model("llava-1.5", shrink=(1024, 24))
    found = compare(loaded, Comparison(64, 8, (1, 4), 8, 2))
    assert found["rows"][0]["speedup"] > 3 and found["difference"] < 0.1


def test_too_large_a_batch_is_reported_and_stops_nothing():
    loaded = random_model("llava-1.5", shrink=(1024, 4))
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        rows = measure(loaded, cells(loaded, ["fastv"], [0.1]), Plan((256,), None, 1, 35, 0, 1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert {row.get("error") for row in rows} <= {"out of memory", None} and len(rows) == 2
