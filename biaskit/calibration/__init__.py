"""Calibration: images × model → prior, resumable. No pruning and no figures."""
