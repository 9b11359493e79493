"""Benchmarks: prefill, calibration, selection, growth: time and memory, no answers. What is compared runs interleaved, in one process."""
