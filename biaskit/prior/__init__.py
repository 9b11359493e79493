"""A prior: its value, file, store, exchange with other formats, and what it says (`bias/`). NumPy only; no model, no image, no torch."""
