"""Debiased attention of a batch on a device, without a look at it on the way."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.select.arguments import expect
from biaskit.select.scores import Mode, debiased, relative_attention
from biaskit.transfer import on_device


def relative_attention_many(attention: Tensor, prior: Tensor, *, strength: float = 1.0, mode: Mode = "ratio", eps: float = 1e-7) -> Tensor:
    """Return `relative_attention` of every sample: [B, N] float32.

    Args:
        attention: [B, N]. prior: [B, N]. The others as there.

    Raises:
        BiaskitError: as there; for numbers on a device inside `arguments.deferred`, once results are read.
    """
    settings: dict[str, Any] = {"strength": strength, "mode": mode, "eps": eps}
    usual = 0 <= strength <= 1 and mode in ("ratio", "difference", "uniform") and 0 <= eps < math.inf
    if not on_device(attention) or not usual or attention.shape != prior.shape or attention.shape[1] == 0:
        return torch.stack([relative_attention(*pair, **settings) for pair in zip(attention, prior, strict=True)])
    attention, prior = (values.detach().to(attention.device, torch.float32) for values in (attention, prior))

    def look(ends: NDArray[Any]) -> None:
        (least, most), (least_prior, most_prior) = ends
        fine = (least >= 0) & (most < math.inf) & (least_prior >= 0) & (most_prior < math.inf) & (most_prior > 0)
        if not (fine & ((least_prior > 0) | (eps > 0))).all():
            for pair in zip(attention.cpu(), prior.cpu(), strict=True):
                relative_attention(*pair, **settings)

    expect(torch.stack([torch.stack(torch.aminmax(values, dim=1)) for values in (attention, prior)]), look)
    return debiased(attention, prior, strength, mode, eps)
