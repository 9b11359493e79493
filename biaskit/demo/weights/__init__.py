"""The weights of the embedded models, one directory per checkpoint, as `make demo-model` wrote them."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "demo"
"""The checkpoint called `demo`. It loads with the stock classes; its README.md is the model card."""
SIBLING = Path(__file__).parent / "demo-qwen"
"""The checkpoint called `demo-qwen`: the same recipe on the stock Qwen2.5-VL class."""
