"""The selections on a GPU, a batch at a time, on plain tensors. Triton is imported at the first use."""

from __future__ import annotations

from biaskit.select.gpu.batch import Batch, complain, d2_on_device, in_order, max_min_on_device, mmr_on_device
from biaskit.select.gpu.when import few_launches, plain

__all__ = ["Batch", "complain", "d2_on_device", "few_launches", "in_order", "max_min_on_device", "mmr_on_device", "plain"]
