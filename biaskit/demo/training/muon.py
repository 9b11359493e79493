"""Muon: momentum whose direction is made orthogonal, for weight matrices. Needs far fewer steps here than AdamW.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). Matrices of one shape are updated together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return [n, rows, cols] matrices with all singular values near 1, by the quintic Newton–Schulz iteration in bfloat16."""
    x = matrices.bfloat16()
    turned = x.shape[1] > x.shape[2]
    x = x.mT if turned else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    found: Tensor = (x.mT if turned else x).float()
    return found


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay. Only for parameters with two dimensions."""

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(tuple(weight.shape), []).append(weight)
            for (rows, cols), weights in shapes.items():
                directions = []
                for weight in weights:
                    assert weight.grad is not None
                    momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                    momentum.lerp_(weight.grad, 1 - group["momentum"])
                    directions.append(weight.grad.lerp(momentum, group["momentum"]))
                scale = group["lr"] * max(1.0, rows / cols) ** 0.5
                for weight, update in zip(weights, orthogonal(torch.stack(directions)), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)
