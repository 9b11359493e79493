"""When a selection is made in a few launches on a device; otherwise it takes the general way, with some launches a pick or a round."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from torch import Tensor

from biaskit.device import on_device

MOST = 8192
"""Tokens that one program can hold; the table of a sample is 256 MiB there."""


def few_launches(features: Tensor | Sequence[Tensor]) -> bool:
    """Tell whether it is so for features of B samples, each [N, d]: on a device, with Triton installed, and not too many tokens."""
    if not len(features) or not on_device(features[0]):
        return False
    return features[0].ndim == 2 and 0 < len(features[0]) <= MOST and find_spec("triton") is not None


def plain(pivot_mode: str, fill: str) -> bool:
    """Tell whether it is so for these switches of `d2_select`."""
    return pivot_mode == "topk" and fill in ("score", "none")
