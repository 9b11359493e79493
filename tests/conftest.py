"""No network, one thread a process, and the real images where they are."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The directory of the real COCO images, or a skip."""
    root = os.environ.get("BIASKIT_COCO_SAMPLE")
    if not root:
        pytest.skip("BIASKIT_COCO_SAMPLE is not set: no real COCO images here")
    return Path(root)
