"""Scores of visual tokens: debiased attention, feature norm, and the trained selector's."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.device import expect, on_device
from biaskit.errors import BiaskitError
from biaskit.select.checks import choice, fraction, matrix, vector

Mode = Literal["ratio", "difference", "uniform"]


def relative_attention(attention: Tensor, prior: Tensor, *, strength: float = 1.0, mode: Mode = "ratio", eps: float = 1e-7) -> Tensor:
    """Attention relative to the positional prior: A_rel = A_ori / (A_bias + ε) (D2Pruner, eq. 3), and two variants for comparison.

    Args:
        attention: [N] A_ori, the last prompt token's attention to each visual token.
        prior: [N] A_bias at the same tokens. Its scale does not change the ranking, but ε is negligible only for a mean near 1.
        strength: τ from 0, the raw attention, to 1, the paper's ratio: A_ori / (A_bias^τ + ε).
        mode: `ratio`; `difference`, A_ori / ΣA_ori − τ · A_bias / ΣA_bias, as the paper's figure 3 describes it; `uniform`, a control: a
            flat prior in place of the given one, which gives the raw attention.
        eps: ε.

    Returns:
        [N] float32.

    Raises:
        BiaskitError: shapes differ, values are negative or not finite, the prior is all zero, or has zeros and ε is 0.

    Example:
        >>> import torch
        >>> relative_attention(torch.tensor([0.25, 0.5]), torch.tensor([0.5, 2.0]), eps=0.0).tolist()
        [0.5, 0.25]
    """
    attention = vector("attention", attention)
    prior = vector("prior", prior, len(attention)).to(attention.device)
    fraction("strength", strength)
    choice("mode", mode, ("ratio", "difference", "uniform"))
    if not 0 <= eps < math.inf:
        raise BiaskitError(f"eps is {eps}", "choose 1e-7, or another number from 0")
    for name, values in (("attention", attention), ("prior", prior)):
        if bool((values < 0).any()):
            raise BiaskitError(f"{name} has negative values", "pass probabilities or densities, not logits")
    if len(prior) and (not bool(prior.any()) or (eps == 0 and not bool(prior.all()))):
        raise BiaskitError("the prior is zero where it divides", "calibrate it again, or pass eps=1e-7")
    return debiased(attention, prior, strength, mode, eps)


def debiased(attention: Tensor, prior: Tensor, strength: float, mode: Mode, eps: float) -> Tensor:
    """The formula of `relative_attention` over the last dimension, without checks."""
    if mode == "uniform" or strength == 0:
        return attention
    if mode == "difference":
        mass = attention.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return attention / mass - strength * (prior / prior.sum(-1, keepdim=True))
    return attention / (prior**strength + eps)


def min_max(values: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Scale [N] to 0 … 1: (w − min w) / (max w − min w + ε) (IDPruner). Equal values give zeros.

    Raises:
        BiaskitError: not [N], or not finite.

    Example:
        >>> import torch
        >>> min_max(torch.tensor([1.0, 2.0, 3.0]), eps=0.0).tolist()
        [0.0, 0.5, 1.0]
    """
    return scaled(vector("values", values), eps)


def scaled(values: Tensor, eps: float) -> Tensor:
    """The formula of `min_max` in the values' own dtype, without checks."""
    if not len(values):
        return values
    if not math.isfinite(float(values.max() - values.min())):
        values, eps = values / 2, eps / 2  # the difference may overflow float32
    low = values.min()
    spread = values.max() - low + eps
    return (values - low) / torch.where(spread > 0, spread, 1.0)


def feature_norm(features: Tensor) -> Tensor:
    """Euclidean length of each token's features [N, d]: [N]. A training-free importance without attention.

    Raises:
        BiaskitError: not [N, d], or not finite.

    Example:
        >>> import torch
        >>> feature_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [5.0, 1.0]
    """
    norm: Tensor = torch.linalg.vector_norm(matrix("features", features).float(), dim=-1)
    return norm


def selector_score(features: Tensor, query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """The published VisionSelector scorer: sᵢ = meanⱼ qᵢ·kⱼ / √h, as qᵢ·mean(k) / √h in O(N·d).

    Args:
        features: [N, d] projector output.
        query, key: weight [h, d] and bias [h] of the two trained linear maps.

    Returns:
        [N] float32, raw scores of any sign.

    Raises:
        BiaskitError: the weights are for features of another size.

    Example:
        >>> import torch
        >>> linear = (torch.eye(2), torch.zeros(2))
        >>> selector_score(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), linear, linear).round(decimals=2).tolist()
        [1.409999966621399, 0.0]
    """
    features = matrix("features", features).float()
    (query_weight, query_bias), (key_weight, key_bias) = ([part.detach().to(features) for part in pair] for pair in (query, key))
    hidden, width = query_weight.shape
    if width != features.shape[1] or key_weight.shape != query_weight.shape:
        raise BiaskitError(
            f"the selector is for features of size {width}, these have {features.shape[1]}",
            "use the selector trained for this model",
        )
    with torch.autocast(features.device.type, enabled=False):
        mean_key = features.mean(0) @ key_weight.mT + key_bias
        score: Tensor = (features @ query_weight.mT + query_bias) @ mean_key / math.sqrt(hidden)
        return score


def soft_top_k(scores: Tensor, share: float = 0.2, *, steps: int = 64) -> Tensor:
    """Differentiable top-k as VisionSelector trains it: σ(sᵢ + t) with the t for which the sum over tokens is share × N.

    Args:
        scores: [N]. share: fraction that counts as chosen; the published selectors were trained at 0.2. steps: of bisection.

    Returns:
        [N] float32 in 0 … 1.

    Raises:
        BiaskitError: share is not in (0, 1), or the scores are not a finite vector.

    Example:
        >>> import torch
        >>> soft_top_k(torch.tensor([9.0, 0.0, 0.0, -9.0]), share=0.5).round(decimals=1).tolist()
        [1.0, 0.5, 0.5, 0.0]
    """
    scores = vector("scores", scores)
    if not 0 < share < 1:
        raise BiaskitError(f"share is {share}, not between 0 and 1", "the published selectors were trained at 0.2")
    if not len(scores):
        return scores
    margin = 20 + abs(math.log(share / (1 - share)))
    low, high = -scores.max() - margin, -scores.min() + margin
    for _ in range(steps):
        middle = (low + high) / 2
        few = torch.sigmoid(scores + middle).sum() < share * len(scores)
        low, high = torch.where(few, middle, low), torch.where(few, high, middle)
    return torch.sigmoid(scores + (low + high) / 2)


def relative_attention_many(attention: Tensor, prior: Tensor, *, strength: float = 1.0, mode: Mode = "ratio", eps: float = 1e-7) -> Tensor:
    """Return `relative_attention` of every sample: [B, N] float32.

    Args:
        attention: [B, N]. prior: [B, N]. The others as of `relative_attention`.

    Raises:
        BiaskitError: as `relative_attention`; for values on a device inside `biaskit.device.deferred`, raised once results are read.

    Example:
        >>> import torch
        >>> relative_attention_many(torch.tensor([[0.25, 0.5]]), torch.tensor([[0.5, 2.0]]), eps=0.0).tolist()
        [[0.5, 0.25]]
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
