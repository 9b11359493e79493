"""Conditions for the Triton kernels, which need a constant number of launches; otherwise each pick or round takes several launches."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from torch import Tensor

from biaskit.device import on_device

MOST = 8192
"""Most tokens per program; a sample's table then has 256 MiB."""


def few_launches(features: Tensor | Sequence[Tensor]) -> bool:
    """True if the Triton kernels support these features of B samples, each [N, d]: on a device, Triton installed, N up to `MOST`."""
    if not len(features) or not on_device(features[0]):
        return False
    return features[0].ndim == 2 and 0 < len(features[0]) <= MOST and find_spec("triton") is not None


def plain(pivot_mode: str, fill: str) -> bool:
    """True if the Triton kernels support these switches of `d2_select`."""
    return pivot_mode == "topk" and fill in ("score", "none")
