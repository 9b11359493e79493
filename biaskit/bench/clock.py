"""Time and memory: events of the device's stream on a GPU, `perf_counter` on a CPU; reported as a median with its spread."""

from __future__ import annotations

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from biaskit.errors import BiaskitError


@dataclass(frozen=True)
class Timing:
    """Milliseconds: median, quartiles and smallest of `n` repeats."""

    median: float
    low: float
    high: float
    best: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        """Summarise at least one repeat of a measurement, in milliseconds."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(median, low, high, min(values), len(values))

    def to_json(self) -> dict[str, float]:
        """Return the numbers by name, rounded to a nanosecond."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def host_clock(device: torch.device, cpu_time: bool) -> Callable[[], float]:
    """Return a function that gives wall-clock time, or this process's CPU time, in seconds: the same on an idle machine with one thread.

    Raises:
        BiaskitError: CPU time on a GPU, or with several threads, whose times would be added up.
    """
    if cpu_time and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise BiaskitError(
            f"CPU time of {device.type} with {torch.get_num_threads()} threads", "it is for --device cpu with OMP_NUM_THREADS=1"
        )
    return time.process_time if cpu_time else time.perf_counter


class Clock:
    """Time marks in a device's stream. Setting one does not synchronise; reading does."""

    def __init__(self, device: torch.device, *, cpu_time: bool = False) -> None:
        self.cuda = device.type == "cuda"
        self.device = device
        self.now = host_clock(device, cpu_time)
        self.marks: dict[str, list[Any]] = {}

    def start(self) -> None:
        """Synchronise the device, and clear all marks."""
        self.wait()
        self.marks.clear()

    def mark(self, name: str) -> None:
        """Set a mark; a name may be marked several times."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self.marks.setdefault(name, []).append(event)
        else:
            self.marks.setdefault(name, []).append(self.now())

    def wait(self) -> None:
        """Synchronise the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def between(self, first: str, last: str) -> float:
        """Return the milliseconds between two marks, summed if they were set several times; 0 if never. Synchronises."""
        self.wait()
        pairs = zip(self.marks.get(first, ()), self.marks.get(last, ()), strict=False)
        return sum(float(a.elapsed_time(b)) if self.cuda else 1e3 * (b - a) for a, b in pairs)


class PeakMemory:
    """The peak memory of a piece of work beyond what was in use before: allocator statistics on a GPU, resident pages on a CPU.

    On a CPU it is sampled every 2 ms, so shorter peaks can be missed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"

    def of(self, work: Callable[[], Any]) -> tuple[Any, int]:
        """Run `work` and return (what it returned, bytes)."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            result = work()
            torch.cuda.synchronize(self.device)
            return result, int(torch.cuda.max_memory_allocated(self.device) - before)
        import gc

        import psutil

        gc.collect()
        _release()
        process = psutil.Process()
        before = peak = int(process.memory_info().rss)
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.002):
                peak = max(peak, int(process.memory_info().rss))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            result = work()
        finally:
            done.set()
            watcher.join()
        return result, max(peak, int(process.memory_info().rss)) - before


def _release() -> None:
    """Give freed memory back to the operating system where the C library can, so that it is not counted in the next measurement."""
    import contextlib
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a measurement depends on: device, threads, versions."""
    import transformers

    from biaskit.files import VERSION

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "biaskit": VERSION,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
