"""No network, one thread a process, the real images where they are, and kernels through Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch

if "triton" not in sys.modules and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # the same programs on the CPU; it must be asked for before Triton is imported


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The directory of the real COCO images, or a skip."""
    root = os.environ.get("BIASKIT_COCO_SAMPLE")
    if not root:
        pytest.skip("BIASKIT_COCO_SAMPLE is not set: no real COCO images here")
    return Path(root)


@pytest.fixture(scope="module")
def interpreter() -> None:
    """Kernels run on the CPU."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; it comes with torch for CUDA")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton was imported without its interpreter; with a GPU, tests/gpu runs the kernels")


@pytest.fixture
def as_on_a_device(interpreter: None) -> Iterator[None]:
    """Tensors on the CPU take the ways of a device."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("biaskit.device._pretend", True)
        yield
