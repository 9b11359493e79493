"""Benchmarks: prefill, calibration, selection, growth: time and memory, no answers. Methods are interleaved, in one process."""
