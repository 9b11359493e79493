"""CDPruner: greedy most probable subset of a determinantal point process whose kernel is conditioned on relevance to the prompt."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import Order, answer, choice, count, matrix, vector
from biaskit.select.cosine import unit_rows

Kernel = Literal["product", "blend", "exponential"]

EXHAUSTED = 1e-12
"""Conditional variance up to which a token counts as linearly dependent on the chosen set: the rank of the kernel is reached."""


def text_relevance(features: Tensor, text: Tensor, *, negative: bool = False) -> Tensor:
    """Mean cosine of each token with the rows of the prompt: [N] float32.

    CDPruner uses patches after CLIP's visual projection, the question's sentences after CLIP's text tower, and the *negative* mean, because
    a CLIP patch on the object in question is the least similar. OpenVINO uses projected tokens, the mean input embedding of the prompt's
    tokens outside the images as a single row, and the mean unchanged.

    Args:
        features: [N, d]. text: [m, d], m ≥ 1. negative: change the sign.

    Raises:
        BiaskitError: shapes, no row of text, or values that are not finite.

    Example:
        >>> import torch
        >>> text_relevance(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])).tolist()
        [1.0, 0.0]
    """
    features, text = matrix("features", features), matrix("text", text)
    if not len(text) or text.shape[1] != features.shape[1]:
        raise BiaskitError(
            f"text has shape {list(text.shape)}, features {list(features.shape)}", "pass at least one row, of the features' size"
        )
    mean = (unit_rows(features, torch.float64) @ unit_rows(text, torch.float64).to(features.device).mT).mean(1)
    return (-mean if negative else mean).to(torch.float32)


def dpp_select(
    relevance: Tensor,
    features: Tensor,
    n: int,
    *,
    kernel: Kernel = "product",
    weight: float = 0.5,
    halves: bool = False,
    order: Order = "sequence",
) -> Tensor:
    """Pick n times the token of largest conditional variance in the kernel L, a greedy maximum of det L (CDPruner, arXiv 2506.10967).

    With S the cosines and r the relevance scaled to 0 … 1, L = r S r (`product`, CDPruner: r = (ρ − min + 1e-6) / (max − min)), or as in
    OpenVINO GenAI, with r = (ρ − min) / (max − min + 1e-6): `blend`, L = (1 − w) S + w r S r, its default; `exponential`, r' S r' with
    r' = exp(w / (2 (1 − w)) · r), its fallback. If n exceeds the rank of L, the most relevant of the rest follow.

    Args:
        relevance: [N] ρ, any unit and sign, such as `text_relevance`. features: [N, d] projector output. n: how many to keep.
        weight: w of the last two kernels, in 0 … 1, below 1 for `exponential`.
        halves: take n // 2 from the first N // 2 tokens and n − n // 2 from the rest, scaled separately, as OpenVINO does by default.
        order: `choice` gives the order of picks; with `halves` the first half's come first.

    Returns:
        [min(n, N)] int64. A tie goes to the lower index. Cosines and the kernel are in float64. Equal relevances scale to 1.

    Raises:
        BiaskitError: shapes, values that are not finite, n below 1, or a weight outside its range.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> dpp_select(torch.tensor([0.9, 1.0, 0.5]), rows, 2).tolist()  # 0 is a copy of 1
        [1, 2]
    """
    relevance = vector("relevance", relevance)
    features = matrix("features", features, len(relevance)).to(relevance.device)
    choice("kernel", kernel, ("product", "blend", "exponential"))
    if not 0 <= weight <= 1 or (weight == 1 and kernel == "exponential"):
        raise BiaskitError(f"weight is {weight}", "choose 0.5, as OpenVINO does, or another number from 0 to below 1")
    n = count(n, len(relevance))
    unit = unit_rows(features, torch.float64)
    if not halves:
        return answer(_greedy(unit, relevance, n, kernel, weight), order)
    middle = len(relevance) // 2
    few = min(n // 2, middle)
    first = _greedy(unit[:middle], relevance[:middle], few, kernel, weight)
    second = _greedy(unit[middle:], relevance[middle:], n - few, kernel, weight) + middle
    return answer(torch.cat([first, second]), order)


def _scaled(relevance: Tensor, kernel: Kernel, weight: float) -> Tensor:
    """Scale [N] relevance for a kernel: float64; all 1 if all are equal."""
    r = relevance.double()
    low, spread = (r.min(), r.max() - r.min()) if len(r) else (0.0, r.new_zeros(()))
    if not spread:
        return torch.ones_like(r)
    if kernel == "product":
        return (r - low + 1e-6) / spread
    r = (r - low) / (spread + 1e-6)
    return torch.exp(weight / (2 * (1 - weight)) * r) if kernel == "exponential" else r


def _greedy(unit: Tensor, relevance: Tensor, n: int, kernel: Kernel, weight: float) -> Tensor:
    """Greedy maximum of the determinant by an incremental Cholesky factor, a row of the kernel a pick: [n] in the order of choice."""
    r = _scaled(relevance, kernel, weight)
    plain, conditioned = (1 - weight, weight) if kernel == "blend" else (0.0, 1.0)
    own = (unit * unit).sum(1)
    variance = own * (plain + conditioned * r * r)
    factor = unit.new_zeros(n, len(unit))
    left = torch.ones_like(variance, dtype=torch.bool)
    picked: list[int] = []
    for step in range(n):
        best = int(torch.where(left, variance, -torch.inf).argmax())
        if variance[best] <= EXHAUSTED:
            break
        row = (unit @ unit[best]) * (plain + conditioned * r * r[best]) - factor[:step, best] @ factor[:step]
        factor[step] = row / variance[best].sqrt()
        variance = variance - factor[step] ** 2
        left[best] = False
        picked.append(best)
    rest = [i for i in relevance.sort(descending=True, stable=True).indices.tolist() if left[i]]
    return torch.tensor([*picked, *rest[: n - len(picked)]], dtype=torch.int64, device=unit.device)
