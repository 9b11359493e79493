"""The weights of the embedded model, one directory per checkpoint: what `make demo-model` gave."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "demo"
"""The checkpoint called `demo`. It loads with the stock classes; its README.md is the model card."""
