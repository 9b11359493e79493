"""Importance and diversity of a kept set (IDPruner, definitions 2 and 3), and the mean nearest-neighbour distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.select.checks import choice, matrix, vector
from biaskit.select.cosine import cosines, row_blocks, unit_rows
from biaskit.select.kept.indices import check_kept

Reference = Literal["box", "resample", "sphere"]
REFERENCES: tuple[str, ...] = get_args(Reference)
"""How `hopkins` draws its reference points."""

_BLOCK = 2048  # reference points whose distances are in memory together


def importance_retention(weights: Tensor, kept: Tensor) -> float:
    """I(Sel) = Σ_{i∈Sel} w_i / Σ_{i∈V} w_i (IDPruner, definition 2): 0 … 1; n / N on average for a random set.

    Args:
        weights: [N] ≥ 0, the same for all methods that are compared: attention A_ori, debiased A_rel, a selector's score.
        kept: [n] indices.

    Raises:
        BiaskitError: weights below 0 (raw selector scores: scale them with `select.min_max` first, and say so), all 0 or not finite.

    Example:
        >>> import torch
        >>> importance_retention(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([0, 1]))
        0.7
    """
    weights = vector("weights", weights)
    kept = check_kept(kept, len(weights)).to(weights.device)
    if bool((weights < 0).any()):
        raise BiaskitError(f"importance goes down to {float(weights.min()):.3g}", "scale raw scores to 0 … 1 with select.min_max first")
    weights = weights.cpu().double()
    total = float(weights.sum())
    if total == 0:
        raise BiaskitError("importance is 0 everywhere", "there is nothing to retain: check the scores")
    return min(float(weights[kept.cpu()].sum()) / total, 1.0)


@dataclass(frozen=True)
class Hopkins:
    """A Hopkins statistic, with what it depends on.

    Attributes:
        value: mean of H over the draws: 1 is clustered, 0.5 like the reference, 0 regular (diverse). NaN for one kept token.
        sd: standard deviation of H over the draws of the reference; 0 for one draw. NaN for one kept token.
        nearest: mean cosine distance of a kept token to the nearest other one (s / m), which determines H in many dimensions, where all
            reference points are nearly equally far. NaN for one kept token.
        reference: how the reference was drawn: `box`, `resample`, `sphere`, or `given`. Different references are not comparable.
        draws: number of references averaged over.
    """

    value: float
    sd: float
    nearest: float
    reference: str
    draws: int

    def __str__(self) -> str:
        """Return the value with its reference, without which it means little."""
        return f"{self.value:.3f} (reference {self.reference}, {self.draws} draws, sd {self.sd:.3f})"


def hopkins(
    features: Tensor,
    kept: Tensor,
    *,
    reference: Reference = "box",
    draws: int = 20,
    seed: int = 0,
    points: Tensor | None = None,
) -> Hopkins:
    """Hopkins statistic of a kept set in feature space (IDPruner, definition 3): H = u / (u + s), with cosine distance d = 1 − cos.

    With m = |Sel| and a reference R of m points, u = Σ_{r∈R} min_{v∈Sel} d(r, v) and s = Σ_{v∈Sel} min_{v'∈Sel∖v} d(v, v').
    The paper says only that R is "randomly sampled from the same feature space"; `reference` chooses how.

    Args:
        features: [N, d] of all visual tokens, such as the projector's output.
        kept: [n] indices.
        reference: `box`, uniform in the axis-aligned bounding box of all N tokens (the classical definition); `resample`, m of the N tokens
            without replacement (those in Sel are at distance 0, so a random set scores below 0.5); `sphere`, uniform directions.
        draws: references to average over. seed: of the references.
        points: [m', d] a reference of your own instead.

    Returns:
        The statistic; NaN if n = 1, 0.5 if u + s = 0.

    Raises:
        BiaskitError: an unknown reference, no draw, or features that are not [N, d].

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> alike, apart = torch.tensor([0, 1]), torch.tensor([0, 2])
        >>> hopkins(features, alike).value > 0.5 > hopkins(features, apart).value
        True
    """
    choice("reference", reference, REFERENCES)
    if draws < 1:
        raise BiaskitError(f"{draws} draws of the reference", "draw at least one; 20 are usual")
    features = matrix("features", features).float()
    kept = check_kept(kept, len(features)).to(features.device)
    chosen = unit_rows(features[kept])
    how, count = (reference, draws) if points is None else ("given", 1)
    if len(kept) == 1:
        return Hopkins(float("nan"), float("nan"), float("nan"), how, count)
    nearest = _nearest_other(chosen)
    s = float(nearest.double().sum())
    if points is not None:
        references = [matrix("points", points).to(features.device)]
    else:
        generator = torch.Generator().manual_seed(seed)
        references = [_draw(features, len(kept), reference, generator) for _ in range(draws)]
    values = torch.tensor([_statistic(_to_nearest(unit_rows(drawn), chosen), s) for drawn in references], dtype=torch.float64)
    sd = float(values.std(correction=1)) if len(values) > 1 else 0.0
    return Hopkins(float(values.mean()), sd, s / len(kept), how, count)


def nearest_cosine_distance(features: Tensor, kept: Tensor) -> float:
    """Mean over the kept tokens of the cosine distance to the nearest other one, 0 … 2; NaN for one token.

    Raises:
        BiaskitError: features that are not [N, d], or invalid kept indices.

    Example:
        >>> import torch
        >>> nearest_cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        1.0
    """
    features = matrix("features", features)
    kept = check_kept(kept, len(features)).to(features.device)
    return float(_nearest_other(unit_rows(features[kept])).double().mean()) if len(kept) > 1 else float("nan")


def _statistic(u: float, s: float) -> float:
    return u / (u + s) if u + s > 0 else 0.5


def _nearest_other(unit: Tensor) -> Tensor:
    """[n] cosine distance of each unit row to the nearest other row."""
    closest = torch.cat([block.amax(1) for block in row_blocks(unit, own=-torch.inf)])
    return (1 - closest).clamp_min(0)


def _to_nearest(points: Tensor, chosen: Tensor) -> float:
    """Sum over points [m, d] of the cosine distance to the nearest of the chosen rows; both of length 1."""
    parts = (cosines(points[start : start + _BLOCK], chosen).amax(1) for start in range(0, len(points), _BLOCK))
    return float(sum((1 - part).clamp_min(0).double().sum() for part in parts))


def _draw(features: Tensor, m: int, reference: Reference, generator: torch.Generator) -> Tensor:
    """[m, d] reference points, drawn on the CPU, so that they are the same for every device."""
    n, d = features.shape
    if reference == "resample":
        return features[torch.randperm(n, generator=generator)[:m].to(features.device)]
    if reference == "sphere":
        return torch.randn(m, d, generator=generator).to(features.device)
    low, high = features.amin(0), features.amax(0)
    return low + torch.rand(m, d, generator=generator).to(features.device) * (high - low)
