"""Kernels through Triton's interpreter, which runs the same programs on the CPU. It must be asked for before Triton is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

if "triton" not in sys.modules and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


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
        patched.setattr("biaskit.transfer._pretend", True)
        yield
