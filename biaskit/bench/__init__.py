"""Benchmarks: prefill, calibration, selection, and how their cost grows. What is compared runs interleaved, in one process."""
