"""Priors: value, file format, store, exchange with other formats, and measures (`bias/`). NumPy only; no model, no image, no torch."""
