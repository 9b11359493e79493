"""Time every selector alone over the number of visual tokens, next to its authors' algorithm: both must keep the same tokens."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from biaskit.bench import authors
from biaskit.bench.clock import host_clock, machine
from biaskit.bench.features import MadeUp, made_up
from biaskit.bench.report import Keep, nothing
from biaskit.errors import BiaskitError
from biaskit.registry import did_you_mean
from biaskit.select import (
    budget,
    d2_select,
    d2_select_many,
    dart_select,
    max_min_select,
    max_min_select_many,
    mmr_select,
    mmr_select_many,
    top_k,
    top_k_many,
    uniform_select,
)

Ours = Callable[[MadeUp, int], Tensor]

METHODS: dict[str, tuple[Ours, authors.Released, bool]] = {
    "fastv": (lambda s, n: top_k(s.scores, n), authors.top, False),
    "uniform": (lambda s, n: uniform_select(len(s.scores), n), authors.evenly, False),
    "d2pruner": (lambda s, n: d2_select(s.scores, s.features, s.where, n).indices, functools.partial(authors.d2, alpha=1.0), True),
    "d2pruner@alpha=0.5": (
        lambda s, n: d2_select(s.scores, s.features, s.where, n, alpha=0.5).indices,
        functools.partial(authors.d2, alpha=0.5),
        True,
    ),
    "idpruner": (lambda s, n: mmr_select(s.scores, s.features, n), authors.marginal_relevance, True),
    "divprune": (lambda s, n: max_min_select(s.features, n), authors.farthest, True),
    "dart": (lambda s, n: dart_select(s.scores, s.features, s.text_scores, s.text_features, n), authors.least_duplicated, True),
}
"""Name → our selector, its authors' algorithm, and whether that loops over picks."""

Together = Callable[[Tensor, list[Tensor], Tensor, int], list[Tensor]]

TOGETHER: dict[str, Together] = {
    "fastv": lambda scores, features, where, n: list(top_k_many(scores, n)),
    "d2pruner": lambda scores, features, where, n: [keep.indices for keep in d2_select_many(scores, features, where, n)],
    "d2pruner@alpha=0.5": lambda scores, features, where, n: [k.indices for k in d2_select_many(scores, features, where, n, alpha=0.5)],
    "idpruner": lambda scores, features, where, n: list(mmr_select_many(scores, features, n)),
    "divprune": lambda scores, features, where, n: list(max_min_select_many(features, n)),
}
"""Name → the selector of a whole batch, for those that have one; the others take one sample after another."""


@dataclass(frozen=True)
class Line:
    """One selector at one size. Milliseconds per sample, [median, lower and upper quartile]; None where the authors' were skipped.

    Attributes:
        same: whether ours keeps the tokens that the authors' algorithm keeps in float64. On a CPU this is asserted; on a GPU cosines are
            float32, and decisions closer than their rounding may differ.
        same_in_float32: how many of them the authors' algorithm also keeps when it is timed, in float32 throughout.
    """

    method: str
    tokens: int
    kept: int
    ours_ms: tuple[float, float, float]
    authors_ms: tuple[float, float, float] | None
    speedup: float | None
    same: bool | None
    same_in_float32: int | None


def bench_selectors(
    sizes: Sequence[int],
    *,
    dim: int = 4096,
    methods: Sequence[str] = tuple(METHODS),
    retention: float = 0.112,
    repeats: int = 5,
    authors_up_to: int = 5760,
    device: str = "cpu",
    batch: int = 1,
    seed: int = 0,
    cpu_time: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    keep: Keep = nothing,
) -> dict[str, Any]:
    """Time selectors and their authors' algorithms in one process: a warm-up each, then alternately, in alternating order.

    Args:
        sizes: N. dim: d of the features. methods: keys of `METHODS`. retention: share kept. repeats: of every measurement.
        batch: samples per call; times are divided by it, and the authors' algorithm gets the first sample.
        authors_up_to: above this N the authors' algorithms, which need several N × N matrices, are skipped, and nothing is compared.
        cpu_time: on a CPU with one thread, measure CPU time instead of wall-clock time.
        progress: called with a line after each measurement. keep: called with its `Line` as a mapping.

    Returns:
        Machine and settings, `lines` (see `Line`), and `exponents`: slopes of log time over log N, by least squares.

    Raises:
        BiaskitError: an unknown method, sizes or repeats below 1, a missing device, or, on a CPU, a selector that keeps other
            tokens than its authors' algorithm.
    """
    for method in methods:
        if method not in METHODS:
            raise BiaskitError(f"unknown selector {method!r}", did_you_mean(method, METHODS))
    if not sizes or min(sizes) < 2 or dim < 1 or repeats < 1 or batch < 1:
        raise BiaskitError(f"sizes {list(sizes)}, dim {dim}, repeats {repeats}, batch {batch}", "give sizes from 2, and the rest from 1")
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise BiaskitError(f"there is no device {device}", "use --device cpu")
    time = _Stopwatch(where, cpu_time)
    lines = []
    for size in sizes:
        samples = [_moved(made_up(size, dim, seed + number), where) for number in range(batch)]
        for method in methods:
            n = budget(size, retention)
            line = _line(method, samples[0], n, _ours(method, samples, n), batch, repeats, size <= authors_up_to, time)
            lines.append(line)
            keep(asdict(line))
            progress(_text(line))
    settings = {"cpu_time": cpu_time, "dim": dim, "retention": retention, "batch": batch, "repeats": repeats, "seed": seed}
    return {
        "benchmark": "selection",
        "machine": machine(where),
        **settings,
        "features": " ".join((made_up.__globals__["__doc__"] or "").split()),
        "lines": [asdict(line) for line in lines],
        "exponents": exponents(lines),
    }


def _moved(sample: MadeUp, device: torch.device) -> MadeUp:
    """A sample on a device; its cells stay on the CPU, as in the engine."""
    return replace(sample, **{name: value.to(device) for name, value in vars(sample).items() if name != "where"})


def _ours(method: str, samples: Sequence[MadeUp], n: int) -> Callable[[], Tensor]:
    """The function that is timed; it returns the kept indices of the first sample."""
    one, many = METHODS[method][0], TOGETHER.get(method)
    if len(samples) == 1:
        return lambda: one(samples[0], n)
    if many is None:
        return lambda: torch.stack([one(sample, n) for sample in samples])[0]
    scores, features, where = torch.stack([s.scores for s in samples]), [s.features for s in samples], samples[0].where
    return lambda: many(scores, features, where, n)[0]


def _line(
    method: str, sample: MadeUp, n: int, ours: Callable[[], Tensor], batch: int, repeats: int, compare: bool, time: _Stopwatch
) -> Line:
    """Measure one selector at one size."""
    loop = METHODS[method][1]
    sample = replace(sample, where=sample.where.to(time.device))
    calls = {"ours": ours}
    if compare:
        calls["authors"] = lambda: loop(sample, n, authors.float32_cosines)
    kept = {name: call().tolist() for name, call in calls.items()}  # the warm-up
    often = {name: max(1, min(1000, int(2 / time(call, 1)))) for name, call in calls.items()}  # at least 2 ms, for the clock's resolution
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats):
        for name in sorted(calls, reverse=repeat % 2 == 1):
            times[name].append(time(calls[name], often[name]))
    same = None
    if compare:
        same = kept["ours"] == loop(sample, n, authors.float64_cosines).tolist()
        if not same and time.device.type == "cpu":
            raise BiaskitError(
                f"{method} kept other tokens of {len(sample.scores)} than its authors' algorithm does", "this is a bug: please report it"
            )
    times["ours"] = [each / batch for each in times["ours"]]
    mine, theirs = _summary(times["ours"]), _summary(times["authors"]) if compare else None
    return Line(
        method,
        len(sample.scores),
        n,
        mine,
        theirs,
        theirs[0] / mine[0] if theirs else None,
        same,
        len(set(kept["ours"]) & set(kept["authors"])) if compare else None,
    )


class _Stopwatch:
    """Milliseconds per call, averaged over several calls, until the device is done."""

    def __init__(self, device: torch.device, cpu_time: bool) -> None:
        self.device, self.now = device, host_clock(device, cpu_time)

    def __call__(self, call: Callable[[], Tensor], often: int) -> float:
        self._wait()
        start = self.now()
        for _ in range(often):
            call()
        self._wait()
        return (self.now() - start) * 1000 / often

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _summary(times: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3
    return statistics.median(times), quartiles[0], quartiles[2]


def exponents(lines: Sequence[Line]) -> dict[str, dict[str, float]]:
    """Fit time ∝ N^p, method by method: {method: {"ours": p, "authors": p}}; methods with fewer than two sizes are left out."""
    fitted: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(line.method for line in lines):
        mine = [line for line in lines if line.method == method]
        curves = {
            "ours": [(line.tokens, line.ours_ms[0]) for line in mine],
            "authors": [(line.tokens, line.authors_ms[0]) for line in mine if line.authors_ms],
        }
        fitted[method] = {name: _slope(points) for name, points in curves.items() if len({size for size, _ in points}) > 1}
    return fitted


def _slope(points: Sequence[tuple[int, float]]) -> float:
    return statistics.linear_regression([math.log(size) for size, _ in points], [math.log(time) for _, time in points]).slope


def _text(line: Line) -> str:
    theirs_text = "" if line.authors_ms is None else f", authors' {line.authors_ms[0]:.1f} ms: {line.speedup:.1f} ×"
    return f"{line.method}, {line.tokens} tokens: {line.ours_ms[0]:.1f} ms{theirs_text}"
